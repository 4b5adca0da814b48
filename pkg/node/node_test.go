package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// tcp returns a flow that differs from others in its source port.
func tcp(sport uint16, state uint8) flow.Flow {
	f := flow.Flow{Key: flow.Key{Family: flow.IPv4, Proto: flow.ProtoTCP, Sport: sport, Dport: 80},
		Has:    flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasTimeout | flow.HasState | flow.HasReply | flow.HasID,
		Status: flow.StatusConfirmed | flow.StatusSeenReply, Timeout: 100, State: state, ID: uint32(sport)}
	copy(f.Src[:], []byte{10, 0, 0, 1})
	copy(f.Dst[:], []byte{10, 0, 0, 2})
	return f
}

func event1(op flow.Op, f flow.Flow) []flow.Event { return []flow.Event{{Op: op, Flow: f}} }

// sentTypes pulls all datagrams of n and counts the data messages by type.
func sentTypes(n *Node, now time.Duration) (types [6]int) {
	before := n.stats.Sent
	for len(n.Next(now, nil, 1472)) > 0 {
	}
	for i := range types {
		types[i] = int(n.stats.Sent[i] - before[i])
	}
	return types
}

// established are two nodes past their handshake; what b gets is not looked at.
func established(t *testing.T) *pair {
	t.Helper()
	p := newPair(t)
	if got := sentTypes(p.a, p.now); got != [6]int{} {
		t.Fatalf("messages left after the handshake: %v", got)
	}
	return p
}

func TestMessageTypeFollowsTheEntry(t *testing.T) {
	tests := []struct {
		name   string
		events []flow.Event
		want   [6]int
	}{
		{"new", event1(flow.New, tcp(1, 1)), [6]int{wire.CTNew: 1}},
		{"new and update are one CT_UPD", append(event1(flow.New, tcp(1, 1)), event1(flow.Update, tcp(1, 3))...), [6]int{wire.CTUpd: 1}},
		{"update of an unknown flow", event1(flow.Update, tcp(1, 3)), [6]int{wire.CTUpd: 1}},
		{"a flow the peer never heard of dies unmentioned", append(event1(flow.New, tcp(1, 1)), event1(flow.Destroy, tcp(1, 1))...), [6]int{}},
		{"destroy of an unknown flow", event1(flow.Destroy, tcp(1, 1)), [6]int{}},
		{"own changes are not echoed", []flow.Event{{Op: flow.New, Origin: flow.Self, Flow: tcp(1, 1)}, {Op: flow.Update, Origin: flow.Self, Flow: tcp(1, 3)}}, [6]int{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := established(t)
			p.a.Kernel(p.now, tt.events)
			if got := sentTypes(p.a, p.now); got != tt.want {
				t.Errorf("sent %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTombstoneStaysUntilAcknowledged(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	p.a.Kernel(p.now, event1(flow.Destroy, tcp(1, 7)))
	if got := sentTypes(p.a, p.now); got[wire.CTDel] != 1 { // lost on the way
		t.Fatalf("sent %v, want one CT_DEL", got)
	}
	if st := p.a.Stats(); st.Internal.Active != 0 || st.Internal.Total != 1 {
		t.Fatalf("before the acknowledgement: %d live of %d", st.Internal.Active, st.Internal.Total)
	}
	if got := p.a.Dump(nil, p.now, time.Time{}, Internal, false, &DumpCursor{}, 100); len(got) != 0 {
		t.Errorf("a tombstone is shown: %s", got)
	}
	for range 3 {
		p.now += time.Second
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		p.exchange()
	}
	if st := p.a.Stats(); st.Internal.Total != 0 {
		t.Errorf("%d tombstones after the acknowledgement", st.Internal.Total)
	}
	if live := p.b.external.live(); live != 0 {
		t.Errorf("the lost CT_DEL never reached the peer: %d entries", live)
	}
}

func TestNewFlowRevivesTombstone(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	p.a.Kernel(p.now, event1(flow.Destroy, tcp(1, 7)))
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 1)))
	if got := sentTypes(p.a, p.now); got != [6]int{wire.CTNew: 1} {
		t.Errorf("sent %v, want only the CT_NEW", got)
	}
	if st := p.a.Stats().Internal; st.Active != 1 || st.Total != 1 {
		t.Errorf("%d live of %d, want 1 of 1", st.Active, st.Total)
	}
}

// A state filter must not keep flows from ending (docs/protocol.md 10).
func TestFilterLetsDestroysThrough(t *testing.T) {
	cfg := simConfig()
	cfg.Filter.States = flow.Accept
	cfg.Filter.State[3] = true
	n := New(cfg, 1, [2]uint64{1, 2})
	n.Kernel(0, event1(flow.New, tcp(1, 1)))
	if n.internal.live() != 0 || n.Stats().EventsFiltered != 1 {
		t.Fatal("a refused state was cached")
	}
	n.Kernel(0, event1(flow.Update, tcp(1, 3)))
	n.Kernel(0, event1(flow.Update, tcp(1, 7)))
	if n.internal.live() != 1 {
		t.Fatal("an accepted flow was not cached")
	}
	n.Kernel(0, event1(flow.Destroy, tcp(1, 7)))
	if n.internal.live() != 0 {
		t.Error("the end in a refused state was filtered away")
	}
}

func TestHashLimit(t *testing.T) {
	cfg := simConfig()
	cfg.HashLimit = 3
	n := New(cfg, 1, [2]uint64{1, 2})
	for i := range uint16(5) {
		n.Kernel(0, event1(flow.New, tcp(i, 1)))
	}
	st := n.Stats().Internal
	if st.Active != 3 || st.CreateFailed != 2 || st.NoSpace != 2 {
		t.Errorf("%+v, want 3 cached and 2 failed", st)
	}
	n.Kernel(0, event1(flow.Destroy, tcp(0, 1)))
	n.Kernel(0, event1(flow.Update, tcp(4, 3)))
	if got := n.Stats().Internal.Active; got != 3 {
		t.Errorf("a later update does not try again: %d entries", got)
	}
}

// Dumped entries are older than the events around them.
func TestSweep(t *testing.T) {
	p := established(t)
	n := p.a
	for i := range uint16(6) {
		n.Kernel(p.now, event1(flow.New, tcp(i, 3)))
	}
	p.exchange()

	n.BeginSweep(Repair)
	n.Kernel(p.now, event1(flow.Update, tcp(1, 4)))  // newer than the dump
	n.Kernel(p.now, event1(flow.Destroy, tcp(2, 7))) // ended after the dump saw it
	n.Kernel(p.now, event1(flow.New, tcp(7, 1)))     // the dump never saw it
	changed := tcp(3, 3)
	changed.Mark, changed.Has = 9, changed.Has|flow.HasMark
	n.Kernel(p.now, []flow.Event{
		{Op: flow.Dumped, Flow: tcp(0, 3)},
		{Op: flow.Dumped, Flow: tcp(1, 3)},
		{Op: flow.Dumped, Flow: tcp(2, 3)},
		{Op: flow.Dumped, Flow: changed},
		{Op: flow.Dumped, Flow: tcp(8, 3)}, // its event was lost
	}) // 4 and 5 are gone, their events were lost
	for !n.EndSweep(2) {
	}
	want := [6]int{wire.CTNew: 2, wire.CTUpd: 2, wire.CTDel: 3} // 7, 8; 1, 3; 2, 4, 5
	if got := sentTypes(n, p.now); got != want {
		t.Errorf("sent %v, want %v", got, want)
	}
	live := snapshot(n.internal)
	for _, sport := range []uint16{0, 1, 3, 7, 8} {
		if _, ok := live[tcp(sport, 0).Key]; !ok {
			t.Errorf("flow %d is missing", sport)
		}
	}
	if len(live) != 5 {
		t.Errorf("%d entries, want 5", len(live))
	}
	if got := live[tcp(1, 0).Key].State; got != 4 {
		t.Errorf("the dump took flow 1 back to state %d", got)
	}
}

func TestRefreshIsSilentButForWhatVanished(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	p.a.BeginSweep(Refresh)
	p.a.Kernel(p.now, event1(flow.Dumped, tcp(2, 3)))
	for !p.a.EndSweep(100) {
	}
	if got := sentTypes(p.a, p.now); got != [6]int{wire.CTDel: 1} {
		t.Errorf("sent %v, want one CT_DEL", got)
	}
}

func TestAbortedSweepRemovesNothing(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.a.BeginSweep(Repair)
	p.a.AbortSweep()
	if !p.a.EndSweep(100) || p.a.internal.live() != 1 {
		t.Error("an aborted sweep removed an entry")
	}
}

func TestCommitTimeouts(t *testing.T) {
	tests := []struct {
		name    string
		commit  time.Duration
		timeout uint32
		known   bool
		age     time.Duration
		want    uint32
	}{
		{"what is left", 0, 100, true, 30 * time.Second, 70},
		{"at once", 0, 100, true, 0, 100},
		{"run out", 0, 100, true, 200 * time.Second, 60},
		{"not sent", 0, 0, false, 5 * time.Second, 60},
		{"CommitTimeout", 180 * time.Second, 100, true, 30 * time.Second, 180},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := simConfig()
			cfg.CommitTimeout = tt.commit
			n := New(cfg, 1, [2]uint64{1, 2})
			f := tcp(1, 3)
			f.Timeout = tt.timeout
			if !tt.known {
				f.Has &^= flow.HasTimeout
			}
			receive(n, 0, wire.CTNew, &f)
			n.BeginCommit()
			batch := make([]flow.Flow, 8)
			got, _ := n.NextCommit(tt.age, batch)
			if got != 1 || batch[0].Timeout != tt.want || !batch[0].Has.Has(flow.HasTimeout) {
				t.Errorf("%d entries, timeout %d, want 1 with %d", got, batch[0].Timeout, tt.want)
			}
		})
	}
}

// receive hands a message of the peer to the node, past the engine.
func receive(n *Node, now time.Duration, typ uint8, f *flow.Flow) {
	var o wire.Options
	b := o.AppendFlow(nil, wire.Header{Type: typ}, f)
	m, _, err := wire.Next(b)
	if err != nil {
		panic(err)
	}
	n.deliver(now, &m, n.read(&m))
}

func TestCommitHandsMastersOutFirst(t *testing.T) {
	n := New(simConfig(), 1, [2]uint64{1, 2})
	for i := range uint16(40) {
		f := tcp(i, 3)
		if i%2 == 0 {
			f.Has |= flow.HasMaster | flow.HasMasterPort
			f.Master = tcp(i+1, 0).Key
		}
		receive(n, 0, wire.CTNew, &f)
	}
	if !n.BeginCommit() || n.BeginCommit() {
		t.Fatal("a second commit may not begin while one runs")
	}
	if n.FlushExternal() {
		t.Fatal("the external cache was flushed during a commit")
	}
	batch := make([]flow.Flow, 7)
	var order []bool
	for done := false; !done; {
		var k int
		k, done = n.NextCommit(0, batch)
		for i := range k {
			order = append(order, batch[i].Has.Has(flow.HasMaster))
		}
	}
	if len(order) != 40 {
		t.Fatalf("%d entries, want 40", len(order))
	}
	for i, related := range order {
		if related != (i >= 20) {
			t.Fatalf("entry %d has a master: %v", i, related)
		}
	}
	if n.commit.active || !n.FlushExternal() {
		t.Error("the commit never ends")
	}
}

// A bulk of many entries is paced by the receiver's acknowledgements.
func TestBulkIsPaced(t *testing.T) {
	p := established(t)
	const flows = 10000
	for i := range uint16(flows) {
		p.a.Kernel(p.now, []flow.Event{{Op: flow.New, Origin: flow.Self, Flow: tcp(i, 3)}})
	}
	p.a.SendBulk()
	if got := sentTypes(p.a, p.now); got[wire.CTNew] > windowFirst+bulkChunk {
		t.Errorf("%d messages without any acknowledgement, want at most %d", got[wire.CTNew], windowFirst+bulkChunk)
	}
	for range 20 {
		p.now += time.Second
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		p.exchange()
	}
	if got := p.b.external.live(); got != flows {
		t.Errorf("%d entries reached the peer, want %d", got, flows)
	}
}

// A second request in the middle of a bulk starts it over. The peer must not
// hear of its end before that: it would take the entries of the first half,
// which came before its second request, for gone.
func TestSecondResyncDuringBulk(t *testing.T) {
	p := established(t)
	const flows = 1000
	for i := range uint16(flows) {
		p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
	}
	p.exchange()
	answers := func() {
		for b := p.b.Next(p.now, nil, 1472); len(b) > 0; b = p.b.Next(p.now, nil, 1472) {
			p.a.Datagram(p.now, b)
		}
	}
	datagrams := func(most int) {
		for range most {
			b := p.a.Next(p.now, nil, 1472)
			if len(b) == 0 {
				return
			}
			p.b.Datagram(p.now, b)
			for !p.b.Expire(100) {
			}
			answers()
		}
	}
	p.b.RequestResync()
	answers()
	datagrams(3)
	p.b.RequestResync()
	answers()
	for range 5 {
		datagrams(1000)
		if got, gone := p.b.external.live(), p.b.Stats().Expired; got != flows || gone != 0 {
			t.Fatalf("%d entries, %d taken for gone; want %d and none", got, gone, flows)
		}
		p.now += time.Second
		p.a.Tick(p.now)
		p.b.Tick(p.now)
	}
}

func TestFlushInternalIsSilent(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.a.FlushInternal()
	if got := sentTypes(p.a, p.now); got != [6]int{} {
		t.Errorf("sent %v after a flush", got)
	}
	p.a.Kernel(p.now, event1(flow.New, tcp(2, 3)))
	p.exchange()
	if p.b.external.live() != 1 {
		t.Error("nothing is sent any more after a flush")
	}
}

func TestDump(t *testing.T) {
	n := New(simConfig(), 1, [2]uint64{1, 2})
	for i := range uint16(50) {
		n.Kernel(0, event1(flow.New, tcp(i, 3)))
	}
	var c DumpCursor
	var out []byte
	for !c.Done() {
		out = n.Dump(out, 7*time.Second, time.Time{}, Internal, false, &c, 8)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 50 {
		t.Fatalf("%d lines, want 50", len(lines))
	}
	want := "tcp      6 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=0 dport=80 src=10.0.0.2 dst=10.0.0.1 sport=80 dport=0 [active since 7s]"
	if lines[0] != want {
		t.Errorf("line is\n%s\nwant\n%s", lines[0], want)
	}
}

// Three bits of datagram assembly: messages are never split, a datagram stays
// below the size, and a message larger than that travels alone.
func TestDatagramSizes(t *testing.T) {
	p := established(t)
	for i := range uint16(100) {
		p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
	}
	messages := 0
	for _, size := range []int{200, 1472, 10} {
		for i := range 10 {
			b := p.a.Next(p.now, nil, size)
			first := true
			for rest := b; len(rest) > 0; first = false {
				_, r, err := wire.Next(rest)
				if err != nil {
					t.Fatalf("size %d: %v", size, err)
				}
				messages++
				rest = r
				if size == 10 && !first {
					t.Fatal("two messages in a datagram too small for one")
				}
			}
			if size > 100 && len(b) >= size {
				t.Errorf("datagram %d has %d bytes, the limit is %d", i, len(b), size)
			}
		}
	}
	if messages < 100 {
		t.Errorf("%d messages, want at least 100", messages)
	}
}

// noticeKinds takes all notices of n.
func noticeKinds(n *Node) (kinds []NoticeKind) {
	for x, ok := n.NextNotice(); ok; x, ok = n.NextNotice() {
		kinds = append(kinds, x.Kind)
	}
	return kinds
}

// The log tells a peer that started from one that asked.
func TestNoticesOfThePeer(t *testing.T) {
	n := New(simConfig(), 1, [2]uint64{1, 2})
	say := func(seq uint32, flags uint8) []NoticeKind {
		n.Datagram(time.Second, wire.AppendControl(nil, wire.Header{Type: wire.Control, Seq: seq, Flags: flags}))
		return noticeKinds(n)
	}
	if got := say(100, wire.FlagALIVE|wire.FlagHELLO); !slices.Equal(got, []NoticeKind{PeerRestarted}) {
		t.Errorf("a hello is noticed as %v", got)
	}
	if got := say(101, wire.FlagRESYNC|wire.FlagHELLO); !slices.Equal(got, []NoticeKind{ResyncRequested}) {
		t.Errorf("a request is noticed as %v", got)
	}
}
