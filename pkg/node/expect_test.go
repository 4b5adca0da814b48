package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// expectation returns one that the flow tcp(sport, ...) announced for port
// dport, by the FTP helper.
func expectation(sport, dport uint16) flow.Expect {
	master := tcp(sport, 3)
	x := flow.Expect{
		Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasMaster | flow.HasMasterPort | flow.HasMask |
			flow.HasTimeout | flow.HasFlags | flow.HasClass | flow.HasHelper,
		Master: master.Key, Tuple: master.Key, Timeout: 300,
		Mask: flow.Key{Family: flow.IPv4, Proto: flow.ProtoTCP, Dport: 0xffff},
	}
	x.Tuple.Sport, x.Tuple.Dport = 0, dport
	copy(x.Mask.Src[:4], "\xff\xff\xff\xff")
	copy(x.Mask.Dst[:4], "\xff\xff\xff\xff")
	copy(x.Helper[:], "ftp")
	return x
}

func expect1(op flow.Op, x flow.Expect) []flow.ExpectEvent {
	return []flow.ExpectEvent{{Op: op, Expect: x}}
}

// expecting are two nodes with ExpectationSync past their handshake, of which
// the first has told the second of the flow tcp(1, 3).
func expecting(t *testing.T, change func(*Config)) *pair {
	t.Helper()
	p := newPairOf(t, func(c *Config) {
		c.ExpectationSync = true
		if change != nil {
			change(c)
		}
	})
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	return p
}

func (p *pair) later(ticks int) {
	for range ticks {
		p.now += time.Second
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		p.exchange()
	}
}

func expectLines(n *Node, now time.Duration, which Which) (lines []string) {
	c := ExpectCursor{}
	for !c.Done() {
		text := n.DumpExpects(nil, now, which, false, &c, 3)
		for line := range strings.Lines(string(text)) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func (p *pair) inStep(t *testing.T, want int) {
	t.Helper()
	var lines [2][]string // without their ages
	for i, text := range [2][]string{expectLines(p.a, p.now, Internal), expectLines(p.b, p.now, External)} {
		for _, line := range text {
			line, _, _ = strings.Cut(line, " [active")
			lines[i] = append(lines[i], line)
		}
	}
	if len(lines[0]) != want || !slices.Equal(lines[0], lines[1]) {
		t.Errorf("%d, want %d (-internal +external):\n%.2000s", len(lines[0]), want, cmp.Diff(lines[0], lines[1]))
	}
}

func TestExpectMessages(t *testing.T) {
	x := expectation(1, 2000)
	changed := x
	changed.Flags = flow.ExpectInactive
	tests := []struct {
		name   string
		events []flow.ExpectEvent
		want   [6]int
		left   int
	}{
		{"new", expect1(flow.New, x), [6]int{wire.ExpNew: 1}, 1},
		{"twice", append(expect1(flow.New, x), expect1(flow.New, changed)...), [6]int{wire.ExpNew: 1}, 1},
		{"fulfilled before the peer heard of it", append(expect1(flow.New, x), expect1(flow.Destroy, x)...), [6]int{}, 0},
		{"end of an unknown one", expect1(flow.Destroy, x), [6]int{}, 0},
		{"master unknown", expect1(flow.New, expectation(9, 2000)), [6]int{}, 0},
		{"our own", []flow.ExpectEvent{{Op: flow.New, Origin: flow.Self, Expect: x}}, [6]int{}, 1},
		{"two of one master", append(expect1(flow.New, x), expect1(flow.New, expectation(1, 2001))...), [6]int{wire.ExpNew: 2}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := expecting(t, nil)
			p.a.Expects(p.now, tt.events)
			if got := sentTypes(p.a, p.now); got != tt.want {
				t.Errorf("sent %v, want %v", got, tt.want)
			}
			if got := len(expectLines(p.a, p.now, Internal)); got != tt.left {
				t.Errorf("%d in the cache, want %d", got, tt.left)
			}
		})
	}
}

// Everything that travels arrives, the end of it too, although its message is
// lost at first.
func TestExpectToPeerAndBack(t *testing.T) {
	p := expecting(t, nil)
	x := expectation(1, 2000)
	x.Has |= flow.HasSPAT | flow.HasSNAT | flow.HasNATDir | flow.HasFn
	x.NAT, x.NATDir, x.Class, x.Flags = flow.Key{Family: flow.IPv4, Proto: flow.ProtoTCP, Sport: 2000}, 1, 2, flow.ExpectPermanent
	copy(x.Fn[:], "nat-follow-master")
	p.a.Expects(p.now, expect1(flow.New, x))
	p.exchange()
	p.inStep(t, 1)

	batch := make([]flow.Expect, 4)
	if !p.b.BeginExpectCommit() || p.b.BeginExpectCommit() {
		t.Error("not exactly one commit at a time")
	}
	if p.b.FlushExternal() {
		t.Error("flushed during a commit")
	}
	n, done := p.b.NextExpectCommit(p.now+10*time.Second, batch)
	if n != 1 || !done {
		t.Fatalf("%d to commit, done %v", n, done)
	}
	want := x
	want.Timeout = 290
	if batch[0] != want {
		t.Errorf("committed %+v\nwant %+v", batch[0], want)
	}

	p.a.Expects(p.now, expect1(flow.Destroy, x))
	if got := sentTypes(p.a, p.now); got[wire.ExpDel] != 1 { // lost on the way
		t.Fatalf("sent %v, want one EXP_DEL", got)
	}
	if st := p.a.Stats().ExpectInternal; st.Active != 0 || st.Total != 1 {
		t.Errorf("before the acknowledgement: %d live of %d", st.Active, st.Total)
	}
	p.later(8)
	p.inStep(t, 0)
	if st := p.a.Stats().ExpectInternal; st.Total != 0 || st.Created != 1 || st.Destroyed != 1 {
		t.Errorf("in the end %+v", st)
	}
}

// The timeout of a commit is what is left, CommitTimeout, or 60.
func TestExpectCommitTimeout(t *testing.T) {
	tests := []struct {
		commit time.Duration
		has    flow.Has
		age    time.Duration
		want   uint32
	}{
		{0, flow.HasTimeout, 0, 300},
		{0, flow.HasTimeout, 299 * time.Second, 1},
		{0, flow.HasTimeout, time.Hour, 60},
		{0, 0, 0, 60},
		{180 * time.Second, flow.HasTimeout, 5 * time.Second, 180},
	}
	for _, tt := range tests {
		p := expecting(t, func(c *Config) { c.CommitTimeout = tt.commit })
		x := expectation(1, 2000)
		x.Has = x.Has&^flow.HasTimeout | tt.has
		p.a.Expects(p.now, expect1(flow.New, x))
		p.exchange()
		batch := make([]flow.Expect, 1)
		p.b.BeginExpectCommit()
		if n, _ := p.b.NextExpectCommit(p.now+tt.age, batch); n != 1 || batch[0].Timeout != tt.want {
			t.Errorf("CommitTimeout %v, age %v: %d expectations, timeout %d, want %d", tt.commit, tt.age, n, batch[0].Timeout, tt.want)
		}
	}
}

func TestExpectHelpers(t *testing.T) {
	tests := []struct {
		list []string
		name string
		want bool
	}{
		{nil, "ftp", true},
		{nil, "", true},
		{[]string{"sip", "ftp"}, "ftp", true},
		{[]string{"sip"}, "sip-5060", true},
		{[]string{"SIP"}, "sip-5060", true},
		{[]string{"sip"}, "ftp", false},
		{[]string{"ftp-21"}, "ftp", false},
		{[]string{"ftp"}, "", false},
		{[]string{"Q.931"}, "q.931", true},
	}
	for _, tt := range tests {
		p := expecting(t, func(c *Config) { c.ExpectHelpers = tt.list })
		x := expectation(1, 2000)
		clear(x.Helper[:])
		copy(x.Helper[:], tt.name)
		if tt.name == "" {
			x.Has &^= flow.HasHelper
		}
		p.a.Expects(p.now, expect1(flow.New, x))
		st := p.a.Stats()
		if got := st.ExpectInternal.Active == 1; got != tt.want || got == (st.EventsFiltered == 1) {
			t.Errorf("%q with %q: cached %v, filtered %d, want %v", tt.name, tt.list, got, st.EventsFiltered, tt.want)
		}
	}
}

// An expectation may be older than its master's event, in the same batch or in
// the next, but waits for it only so long.
func TestExpectBeforeMaster(t *testing.T) {
	p := expecting(t, nil)
	p.a.Expects(p.now, expect1(flow.New, expectation(5, 2000)))
	p.a.Expects(p.now, expect1(flow.New, expectation(6, 2001)))
	p.a.Expects(p.now, expect1(flow.New, expectation(7, 2002)))
	p.a.Expects(p.now, expect1(flow.Destroy, expectation(6, 2001)))
	p.a.Kernel(p.now, append(event1(flow.New, tcp(5, 1)), event1(flow.New, tcp(6, 1))...))
	p.exchange()
	p.inStep(t, 1)
	p.now += orphanPatient
	p.a.Kernel(p.now, event1(flow.New, tcp(8, 1)))
	p.a.Kernel(p.now, event1(flow.New, tcp(7, 1)))
	p.exchange()
	p.inStep(t, 1)
	if got := len(p.a.expects.orphans); got != 0 {
		t.Errorf("%d still wait for their masters", got)
	}
	for i := range uint16(2 * orphansMax) {
		p.a.Expects(p.now, expect1(flow.New, expectation(9, i)))
	}
	if got := len(p.a.expects.orphans); got != orphansMax {
		t.Errorf("%d wait, want the limit %d", got, orphansMax)
	}
}

// Without ExpectationSync the kernel's expectations are of no interest, but
// what a peer sends is checked and kept, as conntrackd does.
func TestNoExpectationSync(t *testing.T) {
	p := newPairOf(t, func(c *Config) { c.ExpectationSync = false })
	p.a.cfg.ExpectationSync = true
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.a.Expects(p.now, expect1(flow.New, expectation(1, 2000)))
	p.exchange()
	p.inStep(t, 1)
	p.b.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.b.Expects(p.now, expect1(flow.New, expectation(1, 2000)))
	if got := p.b.Stats().ExpectInternal.Created; got != 0 {
		t.Errorf("%d expectations of the own kernel kept", got)
	}
	bad := wire.Message{Header: wire.Header{Type: wire.ExpNew}}
	p.b.deliver(p.now, &bad, p.b.read(&bad))
	if got := p.b.Stats().Network.BadPayload; got != 1 {
		t.Errorf("%d bad payloads, want 1", got)
	}
}

// A received EXP_NEW begins a new life, an EXP_UPD goes on with the old one;
// each replaces everything (docs/protocol.md 6.1).
func TestExpectReceived(t *testing.T) {
	for _, tt := range []struct {
		typ     uint8
		age     string
		created uint64
		updated uint64
	}{{wire.ExpNew, "[active since 0s]", 2, 0}, {wire.ExpUpd, "[active since 7s]", 1, 1}} {
		p := expecting(t, nil)
		x := expectation(1, 2000)
		deliver := func(typ uint8, x *flow.Expect) {
			t.Helper()
			m, _, err := wire.Next(p.b.wire.AppendExpect(nil, wire.Header{Type: typ}, x))
			if err != nil {
				t.Fatal(err)
			}
			p.b.deliver(p.now, &m, p.b.read(&m))
		}
		deliver(wire.ExpNew, &x)
		p.now += 7 * time.Second
		x.Flags, x.Has = flow.ExpectInactive, x.Has&^flow.HasClass
		deliver(tt.typ, &x)
		got := expectLines(p.b, p.now, External)
		if len(got) != 1 || !strings.HasSuffix(got[0], " INACTIVE helper=ftp "+tt.age+"\n") {
			t.Errorf("type %d: %q", tt.typ, got)
		}
		if st := p.b.Stats().ExpectExternal; st.Created != tt.created || st.Updated != tt.updated {
			t.Errorf("type %d: %+v", tt.typ, st)
		}
		deliver(wire.ExpDel, &x)
		deliver(wire.ExpDel, &x)
		if st := p.b.Stats().ExpectExternal; st.Active != 0 || st.Destroyed != tt.created {
			t.Errorf("after EXP_DEL: %+v", st)
		}
		bad := wire.Message{Header: wire.Header{Type: wire.ExpNew}}
		p.b.deliver(p.now, &bad, p.b.read(&bad))
		if got := p.b.Stats().Network.BadPayload; got != 1 {
			t.Errorf("%d bad payloads, want 1", got)
		}
	}
}

// A peer can't fill the memory: HashLimit holds for each cache.
func TestExpectLimit(t *testing.T) {
	p := expecting(t, func(c *Config) { c.HashLimit = 3 })
	for i := range uint16(5) {
		x := expectation(1, i)
		m, _, _ := wire.Next(p.b.wire.AppendExpect(nil, wire.Header{Type: wire.ExpNew}, &x))
		p.b.deliver(p.now, &m, p.b.read(&m))
	}
	if st := p.b.Stats().ExpectExternal; st.Active != 3 || st.CreateFailed != 2 || st.NoSpace != 2 {
		t.Errorf("%+v", st)
	}
}

// A bulk sends the flows before the expectations, in portions too, and the
// peer drops what is not in it.
func TestExpectBulk(t *testing.T) {
	const flows, expects = 3 * bulkChunk, 2*bulkChunk + 5
	p := expecting(t, nil)
	for i := range uint16(flows) {
		p.a.Kernel(p.now, event1(flow.New, tcp(1+i, 3)))
	}
	for i := range uint16(expects) {
		p.a.Expects(p.now, expect1(flow.New, expectation(1, i)))
	}
	p.exchange()
	p.inStep(t, expects)

	stale := expectation(1, 60000)
	m, _, _ := wire.Next(p.b.wire.AppendExpect(nil, wire.Header{Type: wire.ExpNew}, &stale))
	p.b.deliver(p.now, &m, p.b.read(&m))
	p.b.FlushExternal()
	before := p.a.stats.Sent
	p.b.RequestResync()
	p.later(5)
	for !p.b.Expire(10) {
	}
	p.inStep(t, expects)
	if got := p.b.Stats().External.Active; got != flows {
		t.Errorf("%d flows after the bulk, want %d", got, flows)
	}
	if got := p.a.stats.Sent[wire.ExpNew] - before[wire.ExpNew]; got != expects {
		t.Errorf("%d EXP_NEW in the bulk, want %d", got, expects)
	}
}

func TestExpectBulkOrder(t *testing.T) {
	p := expecting(t, nil)
	for i := range uint16(100) {
		p.a.Kernel(p.now, event1(flow.New, tcp(1+i, 3)))
		p.a.Expects(p.now, expect1(flow.New, expectation(1+i, i)))
	}
	p.later(2)
	p.a.SendBulk()
	var order []uint8
	for b := p.a.Next(p.now, nil, 1472); len(b) > 0; b = p.a.Next(p.now, nil, 1472) {
		for rest := b; len(rest) > 0; {
			var m wire.Message
			m, rest, _ = wire.Next(rest)
			if m.Type <= wire.ExpDel && m.Flags == 0 {
				order = append(order, m.Type)
			}
		}
	}
	if len(order) != 200 || !slices.IsSorted(order) {
		t.Errorf("%d messages, not in the order flows, expectations: %v", len(order), order)
	}
}

// A sweep finds what events did not tell, and forgets what is gone.
func TestExpectSweep(t *testing.T) {
	for _, tt := range []struct {
		why  Purpose
		want [6]int
	}{
		{Start, [6]int{wire.ExpDel: 1}},
		{Refresh, [6]int{wire.ExpDel: 1}},
		{Repair, [6]int{wire.ExpNew: 1, wire.ExpUpd: 1, wire.ExpDel: 1}},
	} {
		p := expecting(t, nil)
		same, changed, gone, fresh := expectation(1, 1), expectation(1, 2), expectation(1, 3), expectation(1, 4)
		for _, x := range []flow.Expect{same, changed, gone} {
			p.a.Expects(p.now, expect1(flow.New, x))
		}
		p.later(3)
		p.a.BeginExpectSweep(tt.why)
		ended, strange := expectation(1, 5), expectation(9, 6)
		p.a.Expects(p.now, expect1(flow.Destroy, ended))
		changed.Flags = flow.ExpectInactive
		for _, x := range []flow.Expect{same, changed, fresh, ended, strange} {
			p.a.Expects(p.now, expect1(flow.Dumped, x))
		}
		p.a.EndExpectSweep()
		if got := sentTypes(p.a, p.now); got != tt.want {
			t.Errorf("purpose %d: sent %v, want %v", tt.why, got, tt.want)
		}
		text := fmt.Sprint(expectLines(p.a, p.now, Internal))
		if got := p.a.Stats().ExpectInternal.Active; got != 3 || !strings.Contains(text, "INACTIVE") || !strings.Contains(text, "dport=4 ") {
			t.Errorf("purpose %d: %d left: %s", tt.why, got, text)
		}
		p.a.AbortExpectSweep()
		p.a.EndExpectSweep()
		if got := p.a.Stats().ExpectInternal.Active; got != 3 {
			t.Errorf("a sweep given up left %d", got)
		}
		p.later(8)
		p.a.SendBulk()
		p.later(3)
		p.inStep(t, 3)
	}
}

// A flush is not told to the peer, but what ends after it is.
func TestExpectFlush(t *testing.T) {
	p := expecting(t, nil)
	x, y := expectation(1, 2000), expectation(1, 2001)
	p.a.Expects(p.now, append(expect1(flow.New, x), expect1(flow.New, y)...))
	p.exchange()
	p.a.Expects(p.now, expect1(flow.New, expectation(1, 2002))) // in the queue
	p.a.FlushExpects()
	if got := sentTypes(p.a, p.now); got != [6]int{} {
		t.Errorf("the flush was told: %v", got)
	}
	if got := p.a.Stats().ExpectInternal; got.Active != 0 || got.Total != 0 || got.Destroyed != 3 {
		t.Errorf("after the flush: %+v", got)
	}
	p.a.Expects(p.now, expect1(flow.Destroy, x))
	if got := sentTypes(p.a, p.now); got != [6]int{wire.ExpDel: 1} {
		t.Errorf("the end of a flushed one: %v", got)
	}
	p.b.FlushExpects()
	if got := p.b.Stats().ExpectExternal; got.Active != 0 || got.Destroyed != 2 {
		t.Errorf("the external cache after its flush: %+v", got)
	}
}

// A flush of the flows leaves the queue of expectations in order.
func TestFlushInternalKeepsExpects(t *testing.T) {
	p := expecting(t, nil)
	p.a.Expects(p.now, expect1(flow.New, expectation(1, 2000)))
	p.a.FlushInternal()
	p.exchange()
	p.inStep(t, 1)
	p.later(8)
	p.a.Expects(p.now, expect1(flow.Destroy, expectation(1, 2000)))
	p.exchange()
	p.later(8)
	p.inStep(t, 0)
	if st := p.a.Stats(); st.ExpectInternal.Total != 0 {
		t.Errorf("%d tombstones", st.ExpectInternal.Total)
	}
}

// ReadMaster takes over the adjustment of sequence numbers and nothing else,
// and only of the flow that is still there.
func TestReadMaster(t *testing.T) {
	p := expecting(t, nil)
	f := tcp(1, 7)
	f.SeqAdj[0] = flow.SeqAdj{Pos: 1, Before: 2, After: 3}
	f.Has |= flow.HasSeqOrig | flow.HasSeqRepl
	other, missing, dull := f, f, tcp(1, 7)
	other.ID++
	missing.Sport = 99
	for _, ignored := range []flow.Flow{other, missing, dull} {
		p.a.ReadMaster(p.now, &ignored)
	}
	if got := sentTypes(p.a, p.now); got != [6]int{} {
		t.Errorf("sent %v for what is not there or says nothing", got)
	}
	p.a.ReadMaster(p.now, &f)
	p.a.ReadMaster(p.now, &f)
	if got := p.a.Stats().Internal.Updated; got != 1 {
		t.Errorf("%d updates, want 1", got)
	}
	p.exchange()
	var got flow.Flow
	p.b.external.load(p.b.external.lookup(&f.Key), &got)
	if got.SeqAdj != f.SeqAdj || got.State != 3 {
		t.Errorf("the peer has %+v in state %d", got.SeqAdj, got.State)
	}
}
