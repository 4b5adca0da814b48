package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// grouped are two nodes of a group, in step.
func grouped(t *testing.T, change func(*Config)) *pair {
	t.Helper()
	p := newPairOf(t, func(c *Config) {
		c.Group = true
		if change != nil {
			change(c)
		}
	})
	p.run(t, 10*time.Second, nil)
	return p
}

// numbered is tcp with room for more than 65536.
func numbered(i int) flow.Flow {
	f := tcp(uint16(i), 3)
	f.Src[1], f.ID = byte(i>>16), uint32(i)+1
	return f
}

func lossTo(n *Node) func(from *Node, _ []byte) bool {
	return func(from *Node, _ []byte) bool { return from != n }
}

func lossOfAll(*Node, []byte) bool { return true }

// churn ends the flows below end and makes those from start on.
func (p *pair) churn(n *Node, end, start, beyond int) {
	for i := range end {
		n.Kernel(p.now, event1(flow.Destroy, numbered(i)))
	}
	for i := start; i < beyond; i++ {
		n.Kernel(p.now, event1(flow.New, numbered(i)))
	}
}

// same reports whether what the other node has is what n has.
func same(n, other *Node) bool {
	a, b := snapshot(n.internal), snapshot(other.external)
	if len(a) != len(b) {
		return false
	}
	for k, f := range a {
		if b[k] != f {
			return false
		}
	}
	return true
}

func TestSilentPeerIsAway(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 100)
	p.run(t, 2*time.Second, nil)
	noticeKinds(p.a)
	p.churn(p.a, 50, 100, 200)
	p.run(t, 9*time.Second, lossOfAll)
	if h := p.a.Health(p.now); h.Away || h.Unacked == 0 {
		t.Fatalf("after nine seconds: %+v", h)
	}
	p.run(t, 2*time.Second, lossOfAll)
	st := p.a.Stats()
	if h := p.a.Health(p.now); !h.Away || h.InStep || h.Contact || h.HearsUs || h.Unacked != 0 {
		t.Errorf("after eleven seconds: %+v", h)
	}
	if st.Internal.Total != 150 || st.TxQueue+st.Resend > 1 {
		t.Errorf("%d internal entries of 150, %d to send, %d to send again", st.Internal.Total, st.TxQueue, st.Resend)
	}
	if got := noticeKinds(p.a); !slices.Equal(got, []NoticeKind{PeerAway}) {
		t.Errorf("notices %v", got)
	}
	p.a.SendBulk()
	p.a.RequestResync()
	p.churn(p.a, 0, 200, 300)
	said := 0
	p.run(t, 30*time.Second, func(from *Node, b []byte) bool {
		if from != p.a {
			return true
		}
		m, rest, err := wire.Next(b)
		if err != nil || len(rest) > 0 || m.Class() != wire.ALIVE || m.Flags&wire.FlagHELLO == 0 {
			t.Errorf("it is told %x", b)
		}
		said++
		return true
	})
	if said < 29 || said > 31 {
		t.Errorf("%d datagrams in 30 seconds", said)
	}
	if st := p.a.Stats(); st.TxQueue+st.Resend > 1 || st.Internal.Active != 250 {
		t.Errorf("%d to send, %d to send again, %d flows", st.TxQueue, st.Resend, st.Internal.Active)
	}
}

// TestAwayInTime: whoever sleeps until Deadline wakes in time.
func TestAwayInTime(t *testing.T) {
	p := grouped(t, nil)
	p.a.Kernel(p.now, event1(flow.New, numbered(0)))
	if got := sentTypes(p.a, p.now); got[wire.CTNew] != 1 {
		t.Fatalf("sent %v", got)
	}
	since, _ := p.a.leaver.UnansweredSince()
	p.now = since + awayAfter - 150*time.Millisecond
	p.a.Kernel(p.now, event1(flow.New, numbered(1)))
	p.a.Tick(p.now)
	sentTypes(p.a, p.now)
	if d := p.a.Deadline(); p.a.away || d != since+awayAfter {
		t.Errorf("deadline %v, want %v; away %v", d, since+awayAfter, p.a.away)
	}
	p.now = p.a.Deadline()
	p.a.Tick(p.now)
	if d := p.a.Deadline(); !p.a.away || d != p.now {
		t.Errorf("at %v: away %v, deadline %v", p.now, p.a.away, d)
	}
	sentTypes(p.a, p.now) // an idle second
	p.a.Tick(p.now)
	sentTypes(p.a, p.now)
	if d := p.a.Deadline(); d != p.now+time.Second {
		t.Errorf("deadline %v, want a second after %v", d, p.now)
	}
}

// TestBackInTouch: whatever was cut, for however long, and whoever was started
// again meanwhile: afterwards both have what the other has, what ended is gone,
// and nobody was sent everything twice.
func TestBackInTouch(t *testing.T) {
	const many = 5000
	cuts := []struct {
		name string
		lose func(p *pair) func(*Node, []byte) bool
	}{
		{"both", func(*pair) func(*Node, []byte) bool { return lossOfAll }},
		{"a is not heard", func(p *pair) func(*Node, []byte) bool { return deafTo(p.a) }},
		{"a does not hear", func(p *pair) func(*Node, []byte) bool { return lossTo(p.a) }},
	}
	busy := []struct {
		name string
		a, b bool
	}{{"both change", true, true}, {"a changes", true, false}, {"b changes", false, true}}
	for _, c := range cuts {
		for _, b := range busy {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, restart %v", c.name, b.name, restart), func(t *testing.T) {
					p := grouped(t, nil)
					p.churn(p.a, 0, 0, many)
					p.churn(p.b, 0, 0, many)
					p.run(t, 20*time.Second, nil)
					if b.a {
						p.churn(p.a, many/2, many, many+100)
					}
					if b.b {
						p.churn(p.b, many/2, many, many+100)
					}
					p.run(t, 40*time.Second, c.lose(p))
					if restart {
						p.b = newNamed(p.cfg, 2, 2)
						p.churn(p.b, 0, 10, many)
						p.run(t, 20*time.Second, c.lose(p))
					}
					if !p.a.away {
						t.Error("b was not given up")
					}
					p.backInTouch(t, many)
				})
			}
		}
	}
}

// backInTouch lets the link work again.
func (p *pair) backInTouch(t *testing.T, flows uint64) {
	t.Helper()
	var before [2]uint64
	nodes := [2]*Node{p.a, p.b}
	sum := func(n *Node) (all uint64) {
		for _, c := range n.stats.Sent {
			all += c
		}
		return all
	}
	for i, n := range nodes {
		before[i] = sum(n)
	}
	p.run(t, 3*time.Second, nil)
	for i, n := range nodes {
		if h := n.Health(p.now); h.Away || !h.InStep {
			t.Errorf("node %d three seconds later: %+v", i, h)
		}
	}
	p.run(t, 22*time.Second, nil)
	for i, n := range nodes {
		other := nodes[1-i]
		if !same(n, other) {
			t.Errorf("node %d has %d flows, the other has %d of it", i, n.internal.live(), other.external.live())
		}
		if h := n.Health(p.now); !h.InStep || !h.Equal {
			t.Errorf("node %d: %+v", i, h)
		}
		if st := n.Stats(); st.Internal.Total != st.Internal.Active || st.TxQueue+st.Resend > 2 {
			t.Errorf("node %d: %d of %d flows, %d to send, %d to send again", i, st.Internal.Active, st.Internal.Total, st.TxQueue, st.Resend)
		}
		if sent := sum(n) - before[i]; sent > flows+flows/2 {
			t.Errorf("node %d: %d messages about %d flows", i, sent, n.internal.live())
		}
	}
}

// TestNeverThere: a peer that comes an hour late gets what there is.
func TestNeverThere(t *testing.T) {
	p := grouped(t, nil)
	p.a, p.now = newNamed(p.cfg, 1, 2), 0
	p.b = nil
	p.churn(p.a, 0, 0, 1000)
	p.run(t, 15*time.Second, nil)
	if h := p.a.Health(p.now); !h.Away || p.a.stats.Sent != [6]uint64{} {
		t.Errorf("nobody is there: %+v, and told %v", h, p.a.stats.Sent)
	}
	p.churn(p.a, 500, 1000, 1100)
	if st := p.a.Stats(); st.Internal.Total != 600 || st.TxQueue+st.Resend > 1 {
		t.Errorf("%d flows, %d to send, %d to send again", st.Internal.Total, st.TxQueue, st.Resend)
	}
	p.run(t, 20*time.Minute, nil)
	p.b = newNamed(p.cfg, 2, 2)
	p.backInTouch(t, 600)
}

// TestAwayTakesNoMemory: 100,000 flows that come, change and go while a peer is
// away leave nothing behind.
func TestAwayTakesNoMemory(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 10)
	p.run(t, time.Second, nil)
	p.churn(p.a, 10, 0, 10)
	p.run(t, 12*time.Second, lossOfAll)
	if !p.a.away {
		t.Fatal("not away")
	}
	peak := 0
	for i := 1000; i < 101_000; i += 100 {
		for k := i; k < i+100; k++ {
			f := numbered(k)
			p.a.Kernel(p.now, event1(flow.New, f))
			f.Has |= flow.HasLabels // in a record of its own
			f.Labels[0] = 1
			p.a.Kernel(p.now, event1(flow.Update, f))
		}
		p.run(t, 100*time.Millisecond, lossOfAll)
		for k := i; k < i+100; k++ {
			p.a.Kernel(p.now, event1(flow.Destroy, numbered(k)))
		}
		st := p.a.Stats()
		if st.Internal.Total != 10 || st.TxQueue+st.Resend > 2 {
			t.Fatalf("%d flows on: %d entries, %d to send, %d to send again", i, st.Internal.Total, st.TxQueue, st.Resend)
		}
		bytes, _ := p.a.Bytes()
		if i == 11_000 {
			peak = bytes
		}
		if i > 11_000 && bytes > peak {
			t.Fatalf("%d bytes after %d flows, %d before", bytes, i, peak)
		}
	}
	p.backInTouch(t, 100)
	if live := p.b.external.live(); live != 10 {
		t.Errorf("%d flows", live)
	}
}

// TestAwayCostsNothing: an event of a flow that nobody is told of allocates
// nothing.
func TestAwayCostsNothing(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 10)
	p.run(t, 12*time.Second, lossOfAll)
	events := churnEvents(100, flow.IPv4)
	if got := testing.AllocsPerRun(20, func() { p.a.Kernel(p.now, events) }); got != 0 || !p.a.away {
		t.Errorf("%v allocations, away %v", got, p.a.away)
	}
}

// TestSuccessorOfAForsakenFlow: a peer that is back may hold an earlier flow of
// a tuple, the end of which it was not told. A C peer would merge an update into
// it.
func TestSuccessorOfAForsakenFlow(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 2)
	p.run(t, time.Second, nil)
	p.a.Kernel(p.now, event1(flow.Destroy, numbered(0)))
	p.run(t, 12*time.Second, lossOfAll)
	before := p.a.Stats().Sent
	f := numbered(0)
	f.ID = 77
	p.a.Kernel(p.now, event1(flow.New, f))
	p.a.Kernel(p.now, event1(flow.Update, f))
	p.run(t, 5*time.Second, func(from *Node, _ []byte) bool { return false })
	if sent := p.a.Stats().Sent; sent[wire.CTNew] == before[wire.CTNew] || !same(p.a, p.b) {
		t.Errorf("sent %v, before %v; the same %v", sent, before, same(p.a, p.b))
	}
	if p.a.leftovers {
		t.Error("the peer has seen a whole bulk, and what it holds is still doubted")
	}
}

// TestSuccessorOfAFlowOfAFormerLife: what a C peer has of our life before ends
// when a flow of the same tuple has come and gone before it answers.
func TestSuccessorOfAFlowOfAFormerLife(t *testing.T) {
	p := grouped(t, nil)
	p.b = New(p.cfg, 9000, [2]uint64{5, 6}) // nameless, as C is
	p.churn(p.a, 0, 0, 2)
	p.run(t, 5*time.Second, nil)
	p.a = newNamed(p.cfg, 1, 2)
	p.a.Kernel(p.now, event1(flow.New, numbered(0)))
	p.a.Kernel(p.now, event1(flow.Destroy, numbered(0)))
	p.run(t, 100*time.Millisecond, nil)
	if sent := p.a.Stats().Sent; sent != [6]uint64{wire.CTDel: 1} {
		t.Errorf("sent %v", sent)
	}
}

// TestForsakenQueue: what waited for a peer that is given up is still news to
// it.
func TestForsakenQueue(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 1)
	p.run(t, time.Second, nil)
	f := numbered(0)
	f.ID = 77
	p.a.Kernel(p.now, event1(flow.New, f)) // its predecessor's end was not seen
	p.run(t, 12*time.Second, lossOfAll)
	p.a.Kernel(p.now, event1(flow.Update, f))
	before := p.a.Stats().Sent
	p.run(t, 5*time.Second, nil)
	sent := p.a.Stats().Sent
	if sent[wire.CTNew] == before[wire.CTNew] || sent[wire.CTUpd] != before[wire.CTUpd] {
		t.Errorf("sent %v, before %v", sent, before)
	}
}

// TestCutInABulk: what was under way in both directions has ended, and comes
// when the peer is back.
func TestCutInABulk(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 5000)
	p.churn(p.b, 0, 0, 5000)
	p.run(t, 20*time.Second, nil)
	p.a.SendBulk()
	p.b.SendBulk()
	said := map[*Node]int{}
	p.run(t, 12*time.Second, func(from *Node, _ []byte) bool {
		said[from]++
		return said[from] > 5
	})
	if h := p.a.Health(p.now); p.a.bulk.active || p.a.mark.end || h.Resyncing || !h.Away || h.Queued > 1 {
		t.Errorf("bulk %+v, mark %+v, %+v", p.a.bulk, p.a.mark, h)
	}
	p.backInTouch(t, 5000)
}

// TestExpectationsOfAnAwayPeer come and go like flows.
func TestExpectationsOfAnAwayPeer(t *testing.T) {
	p := expecting(t, func(c *Config) { c.Group = true })
	for port := range uint16(3) {
		p.a.Expects(p.now, expect1(flow.New, expectation(1, 2000+port)))
	}
	p.run(t, 2*time.Second, nil)
	p.inStep(t, 3)
	p.a.Expects(p.now, expect1(flow.Destroy, expectation(1, 2000)))
	p.run(t, 12*time.Second, lossOfAll)
	p.a.Expects(p.now, expect1(flow.Destroy, expectation(1, 2001)))
	for port := range uint16(500) {
		p.a.Expects(p.now, expect1(flow.New, expectation(1, 3000+port)))
		if port > 0 {
			p.a.Expects(p.now, expect1(flow.Destroy, expectation(1, 3000+port)))
		}
	}
	if st := p.a.Stats(); !p.a.away || st.ExpectInternal.Total != 2 || st.TxQueue+st.Resend > 1 {
		t.Errorf("away %v, %+v, %d to send, %d to send again", p.a.away, st.ExpectInternal, st.TxQueue, st.Resend)
	}
	p.run(t, 20*time.Second, nil)
	p.inStep(t, 2)
}

// TestAwayOnlyInAGroup: a pair keeps what a peer was not told, as ever.
func TestAwayOnlyInAGroup(t *testing.T) {
	p := newPair(t)
	p.churn(p.a, 0, 0, 10)
	p.run(t, time.Second, nil)
	p.churn(p.a, 5, 0, 0)
	p.run(t, time.Minute, lossOfAll)
	if st := p.a.Stats(); p.a.Health(p.now).Away || st.Internal.Total-st.Internal.Active != 5 {
		t.Errorf("away %v, %+v", p.a.away, st.Internal)
	}
}

// TestUnfilledNodeGivesNoAnswer: a node that is made while others are at work is
// asked at once, and answers when its cache is what the kernel has.
func TestUnfilledNodeGivesNoAnswer(t *testing.T) {
	for _, expects := range []bool{false, true} {
		t.Run(fmt.Sprintf("expectations %v", expects), func(t *testing.T) {
			p := grouped(t, func(c *Config) { c.ExpectationSync = expects })
			p.churn(p.a, 0, 0, 100)
			p.run(t, time.Second, nil)
			p.a = newNamed(p.cfg, 1, 2)
			p.a.Unfilled()
			p.a.EndSweep(100)
			p.a.EndExpectSweep() // of the others
			waits := func(when string) {
				t.Helper()
				p.run(t, 3*time.Second, nil)
				if live := p.b.external.live(); live != 100 || p.a.stats.Sent != [6]uint64{} || !p.a.peer.contact {
					t.Fatalf("%s: the peer has %d of 100 flows, sent %v, contact %v", when, live, p.a.stats.Sent, p.a.peer.contact)
				}
			}
			waits("at the start")
			p.a.BeginSweep(Repair)
			waits("as the table is read")
			p.a.AbortSweep()
			waits("when that failed")
			p.a.BeginSweep(Reconcile)
			dumped := numbered(7)
			p.a.Kernel(p.now, event1(flow.Dumped, dumped))
			if got := p.a.Held(&dumped); got != HeldUnknown {
				t.Errorf("held %v", got)
			}
			// Differences are news, of a kernel that many know.
			p.run(t, 3*time.Second, nil)
			for !p.a.EndSweep(100) {
			}
			if expects {
				p.run(t, 3*time.Second, nil)
				if live := p.b.external.live(); live != 100 {
					t.Fatalf("%d of 100 flows before the expectations are read", live)
				}
				p.a.BeginExpectSweep(Start)
				p.a.EndExpectSweep()
			}
			p.run(t, 15*time.Second, nil)
			if !same(p.a, p.b) || p.b.external.live() != 1 {
				t.Errorf("the peer has %d flows", p.b.external.live())
			}
			if h := p.b.Health(p.now); !h.InStep {
				t.Errorf("%+v", h)
			}
		})
	}
}

// TestBulkBegunAnew: who asks again as a bulk has just begun gets one, who asks
// later two.
func TestBulkBegunAnew(t *testing.T) {
	const many = 20000
	for _, c := range []struct{ fed, most int }{{0, many}, {bulkEarly / 2, many + bulkEarly}, {many / 2, 2 * many}} {
		p := newPair(t)
		p.churn(p.a, 0, 0, many)
		p.run(t, 5*time.Second, nil)
		before := p.a.stats.Sent
		p.a.SendBulk()
		for p.a.bulk.queued < c.fed {
			p.b.Datagram(p.now, p.a.Next(p.now, nil, 1472))
			for b := p.b.Next(p.now, nil, 1472); len(b) > 0; b = p.b.Next(p.now, nil, 1472) {
				p.a.Datagram(p.now, b)
			}
		}
		p.a.SendBulk()
		p.run(t, 10*time.Second, nil)
		sent := 0
		for i, n := range p.a.stats.Sent {
			sent += int(n - before[i])
		}
		if sent > c.most || sent < c.most-bulkEarly {
			t.Errorf("asked again after %d of %d: %d messages, want up to %d", c.fed, many, sent, c.most)
		}
		if !same(p.a, p.b) {
			t.Error("and they differ")
		}
	}
}
