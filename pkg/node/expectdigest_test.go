package node

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// expectingSpeakers are two nodes of which a has n flows and an expectation of
// each, b knows them, and both have said so.
func expectingSpeakers(t *testing.T, mode Mode, n int, change func(*Config)) *pair {
	t.Helper()
	p := newPairOf(t, func(c *Config) {
		if c.Mode = mode; change != nil {
			change(c)
		}
	})
	flowsOf(p, p.a, 0, n)
	for i := range uint16(n) {
		p.a.Expects(p.now, expect1(flow.New, expectation(i, 2000)))
	}
	p.run(t, 2*sayEvery, nil)
	noticeKinds(p.b)
	return p
}

// toldOf makes a node believe that a told it of an expectation, or of its end: a
// fault that no gap shows.
func toldOf(t *testing.T, n *Node, typ uint8, x flow.Expect) {
	t.Helper()
	m, _, err := wire.Next(n.wire.AppendExpect(nil, wire.Header{Type: typ}, &x))
	if err != nil {
		t.Fatal(err)
	}
	n.deliver(n.peer.lastAt, &m, n.read(&m))
}

var expectDrifts = []struct {
	name  string
	spoil func(t *testing.T, p *pair)
}{
	{"one is missing", func(t *testing.T, p *pair) { toldOf(t, p.b, wire.ExpDel, expectation(3, 2000)) }},
	{"one too many", func(t *testing.T, p *pair) { toldOf(t, p.b, wire.ExpNew, expectation(999, 2000)) }},
	{"one is different", func(t *testing.T, p *pair) {
		x := expectation(5, 2000)
		x.Class++
		toldOf(t, p.b, wire.ExpUpd, x)
	}},
	{"one is another", func(t *testing.T, p *pair) {
		toldOf(t, p.b, wire.ExpDel, expectation(3, 2000))
		toldOf(t, p.b, wire.ExpNew, expectation(3, 2001))
	}},
	{"all are gone", func(_ *testing.T, p *pair) { p.b.FlushExpects() }},
}

// TestExpectDriftIsRepaired is TestDriftIsRepaired of expectations: no flow
// differs, so nothing else tells.
func TestExpectDriftIsRepaired(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		for _, tt := range expectDrifts {
			t.Run(tt.name, func(t *testing.T) {
				p := expectingSpeakers(t, mode, 20, nil)
				if got := p.b.stats.Extensions; got.Compared == 0 || got.Different != 0 {
					t.Fatalf("before: %+v", got)
				}
				tt.spoil(t, p)
				if a, b := p.a.internal.digest, p.b.external.digest; a != b {
					t.Fatalf("flows differ: %v and %v", a, b)
				}
				p.run(t, 2*sayEvery+2*time.Second, nil)
				p.inStep(t, 20)
				repairedOnce(t, p)
			})
		}
	})
}

// The control: a peer of a version that says nothing of expectations, or whose
// kernel's are yet to be read after -f. Their drift stays, and is no fault.
func TestExpectDriftIsNotSeenWithoutDigest(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		for _, tt := range expectDrifts {
			t.Run(tt.name, func(t *testing.T) {
				p := expectingSpeakers(t, mode, 20, nil)
				p.a.expects.unread = true
				tt.spoil(t, p)
				spoilt := expectLines(p.b, p.now, External)
				compared := p.b.stats.Extensions.Compared
				for _, x := range p.run(t, time.Minute, nil)[p.a] {
					if x.Has&wire.ExtExpects != 0 {
						t.Fatalf("said %+v", x)
					}
				}
				if x := p.b.stats.Extensions; x.Compared < compared+5 || x.Different != 0 || !p.b.peer.compare.equal {
					t.Errorf("counted %+v", x)
				}
				if got := expectLines(p.b, p.now-time.Minute, External); !slices.Equal(got, spoilt) {
					t.Errorf("%d expectations, before %d", len(got), len(spoilt))
				}
			})
		}
	})
}

// Whoever does not replicate expectations says nothing of them. Whoever does is
// compared with what its peer has, which keeps them in any case.
func TestExpectDigestNeedsTheSender(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b bool
	}{{"both", true, true}, {"only the sender", true, false}, {"only the receiver", false, true}, {"none", false, false}} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPairOf(t, nil)
			p.a.cfg.ExpectationSync, p.b.cfg.ExpectationSync = tt.a, tt.b
			flowsOf(p, p.a, 0, 3)
			p.a.Expects(p.now, expect1(flow.New, expectation(1, 2000)))
			said := p.run(t, 2*sayEvery, nil)
			for _, x := range said[p.a] {
				if x.Has&wire.ExtExpects != 0 && !tt.a {
					t.Fatalf("said %+v", x)
				}
			}
			p.b.expects.external.each(p.b.expectGone)
			toldOf(t, p.b, wire.ExpNew, expectation(1, 9))
			p.run(t, 3*sayEvery, nil)
			if got, want := p.b.stats.Extensions.Repairs == 1, tt.a; got != want {
				t.Errorf("repaired: %v, want %v", got, want)
			}
		})
	}
}

// After -f the internal cache is no picture of what the kernel expects, until
// that has been read too.
func TestFlushedExpectsAreNotCompared(t *testing.T) {
	p := expectingSpeakers(t, FTFW, 5, nil)
	p.a.FlushInternal()
	p.a.FlushExpects()
	p.a.BeginSweep(Refresh)
	for i := range uint16(5) {
		p.a.Kernel(p.now, event1(flow.Dumped, tcp(i, 3)))
	}
	for !p.a.EndSweep(100) {
	}
	says := func() (flows, expects bool) {
		for _, x := range p.run(t, 4*sayEvery, nil)[p.a] {
			flows = flows || x.Has&wire.ExtDigest != 0
			expects = expects || x.Has&wire.ExtExpects != 0
		}
		return flows, expects
	}
	if flows, expects := says(); !flows || expects {
		t.Errorf("with the flows read it says flows %v, expectations %v", flows, expects)
	}
	p.a.BeginExpectSweep(Refresh)
	for i := range uint16(2) {
		p.a.Expects(p.now, expect1(flow.Dumped, expectation(i, 2000)))
	}
	p.a.EndExpectSweep()
	if flows, expects := says(); !flows || !expects {
		t.Errorf("with all read it says flows %v, expectations %v", flows, expects)
	}
	p.inStep(t, 2)
}

// A cache of expectations that refuses some is not what the peer told, and
// nothing can be done about it. With room again it is filled.
func TestExpectDigestAtTheLimit(t *testing.T) {
	const limit = 20
	p := expectingSpeakers(t, FTFW, limit, func(c *Config) { c.HashLimit = limit })
	p.a.expects.internal.limit++
	p.a.Expects(p.now, expect1(flow.New, expectation(1, 2001)))
	p.run(t, time.Minute, nil)
	if x := p.b.stats.Extensions; x.Compared == 0 || x.Different != 0 {
		t.Errorf("full: %+v", x)
	}
	if got := p.b.Stats().ExpectExternal; got.NoSpace == 0 || got.Active != limit {
		t.Fatalf("the limit was not reached: %+v", got)
	}
	p.a.Expects(p.now, expect1(flow.Destroy, expectation(3, 2000)))
	p.run(t, 4*sayEvery, nil)
	p.inStep(t, limit)
}

// What -R found and what was committed here is told to the peer: the sender
// sees that it has not been.
func TestUntoldExpectsAreTold(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(p *pair)
		want int
	}{
		{"committed", func(p *pair) {
			p.a.Expects(p.now, []flow.ExpectEvent{{Op: flow.New, Origin: flow.Self, Expect: expectation(1, 2001)}})
		}, 6},
		{"changed", func(p *pair) {
			p.a.BeginExpectSweep(Refresh)
			for i := range uint16(5) {
				x := expectation(i, 2000)
				if i == 3 {
					x.Class = 7
				}
				p.a.Expects(p.now, expect1(flow.Dumped, x))
			}
			p.a.EndExpectSweep()
		}, 5},
		{"ended", func(p *pair) {
			p.a.Expects(p.now, []flow.ExpectEvent{{Op: flow.Destroy, Origin: flow.Self, Expect: expectation(1, 2000)}})
		}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := expectingSpeakers(t, FTFW, 5, nil)
			tt.do(p)
			if sent := sentTypes(p.a, p.now); sent != [6]int{} {
				t.Fatalf("sent at once: %v", sent)
			}
			p.run(t, 3*sayEvery, nil)
			p.inStep(t, tt.want)
			p.run(t, time.Minute, nil)
			if a, b := p.a.stats.Extensions, p.b.stats.Extensions; a.Retold+b.Repairs != 1 && a.Retold+b.Repairs != 2 || !p.b.peer.compare.equal {
				t.Errorf("told anew %d times, asked for %d times", a.Retold, b.Repairs)
			}
		})
	}
}

// Digests are right while expectations come and go, at any moment that one is
// said.
func TestExpectDigestUnderLoad(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := expectingSpeakers(t, mode, 50, nil)
		for i := range uint16(600) {
			p.a.Expects(p.now, expect1(flow.New, expectation(i%50, 3000+i)))
			if i > 10 {
				p.a.Expects(p.now, expect1(flow.Destroy, expectation((i-10)%50, 3000+i-10)))
			}
			if i%100 == 50 {
				p.a.SendBulk()
			}
			p.run(t, 100*time.Millisecond, nil)
		}
		if x := p.b.stats.Extensions; x.Compared < 10 || x.Different != 0 {
			t.Errorf("%+v", x)
		}
	})
}

// recountAll is what the digest of a store should be: the entries are said as
// they are told.
func (s *expectStore) recountAll(o *wire.Options) (d digest) {
	s.each(func(id cache.ID) {
		e := s.at(id)
		if e.flags&counted == 0 {
			return
		}
		m, _, _ := wire.Next(o.AppendExpect(nil, wire.Header{Type: wire.ExpNew}, &e.x))
		before, behind := wire.AroundTimeout(m.Body)
		d.add(hashBytes(hashBytes(h3, before), behind))
	})
	return d
}

// anyExpect is an expectation as the kernel has it.
func anyExpect(r *rand.Rand, family uint8) flow.Expect {
	x := expectation(uint16(r.UintN(5)), uint16(2000+r.UintN(6)))
	x.Timeout, x.Class, x.Flags, x.ID = r.Uint32N(300), r.Uint32N(3), r.Uint32N(8), r.Uint32()
	x.Has |= flow.HasID
	if family == flow.IPv6 {
		for _, k := range []*flow.Key{&x.Master, &x.Tuple, &x.Mask} {
			k.Family = flow.IPv6
		}
		copy(x.Mask.Dst[4:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
	}
	if r.IntN(2) == 0 { // its addresses have no place on the wire if it is IPv6
		x.NAT, x.NATDir = x.Tuple, r.Uint32N(2)
		x.Has |= flow.HasSNAT | flow.HasSPAT | flow.HasNATDir | flow.HasFn
		copy(x.Fn[:], "nat-follow-master")
	}
	if r.IntN(4) == 0 { // too long to travel
		copy(x.Fn[:], "a-function-whose-name-is-31-long")
		copy(x.Helper[:], "sixteen-letters.")
		x.Has |= flow.HasFn
	}
	return x
}

// TestExpectDigestsAgree is TestDigestsAgree for expectations.
func TestExpectDigestsAgree(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, uint64(family)))
			p := newPair(t)
			for i := range uint16(5) {
				f := tcp(i, 3)
				f.Family = family
				p.a.Kernel(p.now, event1(flow.New, f))
			}
			p.exchange()
			for step := range 300 {
				x := anyExpect(r, family)
				switch dice := r.IntN(20); {
				case dice < 8:
					p.a.Expects(p.now, expect1(flow.New, x))
				case dice < 14:
					p.a.Expects(p.now, expect1(flow.Destroy, x))
				case dice == 14:
					p.a.BeginExpectSweep(Repair)
					for range 20 {
						p.a.Expects(p.now, expect1(flow.Dumped, anyExpect(r, family)))
					}
					p.a.EndExpectSweep()
				case dice == 15:
					p.a.Expects(p.now, []flow.ExpectEvent{{Op: flow.New, Origin: flow.Self, Expect: x}})
					p.a.SendBulk()
				case dice == 16:
					p.a.FlushExpects()
					p.a.BeginExpectSweep(Repair)
					p.a.Expects(p.now, expect1(flow.Dumped, x))
					p.a.EndExpectSweep()
					p.exchange()
					p.b.RequestResync()
					for range 3 {
						p.rest()
					}
				case dice == 17:
					p.b.FlushExpects()
					p.a.SendBulk()
				case dice == 18:
					p.a.SendBulk()
				default:
					p.now += time.Second
				}
				for which, s := range map[string]*expectStore{"internal": p.a.expects.internal, "external": p.b.expects.external} {
					if want := s.recountAll(&p.a.wire); s.digest != want {
						t.Fatalf("seed %d step %d: the %s cache has digest %v, want %v", seed, step, which, s.digest, want)
					}
				}
				if r.IntN(3) > 0 {
					continue
				}
				p.exchange()
				p.now += 10 * time.Millisecond
				if a, b := p.a.expects.internal.digest, p.b.expects.external.digest; a != b || int(a.count) != p.a.expects.internal.table.Len() {
					t.Fatalf("seed %d step %d: told %v of %d, the peer has %v", seed, step, a, p.a.expects.internal.table.Len(), b)
				}
			}
		}
	})
}

// TestExpectNoAllocations is TestNoAllocations for expectations, digests
// included.
func TestExpectNoAllocations(t *testing.T) {
	p := expectingSpeakers(t, FTFW, 10, nil)
	var events [2][]flow.ExpectEvent
	for i := range uint16(10) {
		x := expectation(i, 3000)
		events[0] = append(events[0], flow.ExpectEvent{Op: flow.New, Expect: x})
		events[1] = append(events[1], flow.ExpectEvent{Op: flow.Destroy, Expect: x})
	}
	cycle := func() {
		for _, e := range events {
			p.a.Expects(p.now, e)
			p.exchange()
		}
		p.later(1)
	}
	for range 20 {
		cycle()
	}
	before := p.b.Stats()
	if got := testing.AllocsPerRun(50, cycle); got != 0 {
		t.Errorf("%v allocations for 20 events", got)
	}
	after := p.b.Stats()
	if after.ExpectExternal.Destroyed-before.ExpectExternal.Destroyed < 500 || after.Extensions.Compared == before.Extensions.Compared {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}
