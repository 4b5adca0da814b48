package node

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/capture"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

func TestModesTable(t *testing.T) {
	for mode, name := range map[Mode]string{FTFW: "FTFW", ALARM: "ALARM", NOTRACK: "NOTRACK", 0: "unknown", 99: "unknown"} {
		if mode.String() != name {
			t.Errorf("mode %d is called %q", mode, mode.String())
		}
	}
	for m := FTFW; int(m) < len(modes); m++ {
		cfg := simConfig()
		cfg.Mode, cfg.RefreshTime, cfg.CacheTimeout = m, time.Second, time.Second
		n := New(cfg, 1, [2]uint64{1, 2})
		if (n.timers != nil) != (m == ALARM) {
			t.Errorf("%v: timers %v", m, n.timers)
		}
		if got := n.ResendQueue() != nil; got != (m == FTFW) {
			t.Errorf("%v: a resend queue %v", m, got)
		}
		n.RequestResync()
		messages(n, 0)
		if got := n.Unanswered(time.Minute); (got == time.Minute) != (m == FTFW) || got != 0 && m != FTFW {
			t.Errorf("%v: unanswered for %v", m, got)
		}
		n.RequestResync()
		if types := controls(n); slices.Contains(types, wire.RESYNC) != m.Resyncs() {
			t.Errorf("%v sends %v when asked for a resync", m, types)
		}
	}
}

// messages pulls all there is to send.
func messages(n *Node, now time.Duration) (ms []wire.Message) {
	for b := n.Next(now, nil, 1472); len(b) > 0; b = n.Next(now, nil, 1472) {
		for len(b) > 0 {
			m, rest, err := wire.Next(b)
			if err != nil {
				panic(err)
			}
			ms = append(ms, m)
			b = rest
		}
	}
	return ms
}

func controls(n *Node) (classes []wire.Class) {
	for _, m := range messages(n, 0) {
		if m.Type == wire.Control {
			classes = append(classes, m.Class())
		}
	}
	return classes
}

func modePair(cfg Config) *pair {
	return &pair{a: New(cfg, 1000, [2]uint64{1, 2}), b: New(cfg, 5000, [2]uint64{3, 4})}
}

// pass lets time pass in steps, both nodes sending what they have; deaf loses
// what a sends.
func (p *pair) pass(d time.Duration, deaf bool) {
	for end := p.now + d; p.now < end; {
		p.now += 200 * time.Millisecond
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		if deaf {
			messages(p.a, p.now)
		}
		p.exchange()
	}
}

// A refresh brings back what was lost, as CT_UPD: the age at the peer goes on.
func TestALARMRefresh(t *testing.T) {
	p := modePair(alarmConfig())
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	if got := p.a.Stats().Sent; got[wire.CTNew] != 1 {
		t.Fatalf("sent %v", got)
	}
	p.a.Kernel(p.now, event1(flow.New, tcp(2, 3)))
	messages(p.a, p.now) // lost
	p.pass(5*time.Second, false)
	p.copied(t, 1, 2)
	if got := p.a.Stats().Sent; got[wire.CTNew] != 2 || got[wire.CTUpd] < 2 {
		t.Errorf("sent %v, want the refreshes as updates", got)
	}
	first := tcp(1, 3)
	if r := p.b.external.lookup(&first.Key); p.b.external.common(r).born != 0 {
		t.Error("the age began anew")
	}

	// The end is told once; lost, the peer finds out.
	p.a.Kernel(p.now, event1(flow.Destroy, tcp(1, 7)))
	p.exchange()
	p.copied(t, 2)
	p.a.Kernel(p.now, event1(flow.Destroy, tcp(2, 7)))
	messages(p.a, p.now) // lost
	if st := p.a.Stats().Internal; st.Total != 0 {
		t.Errorf("%d tombstones", st.Total)
	}
	p.pass(5*time.Second, false)
	if p.b.external.live() != 1 {
		t.Fatal("expired too early, or not the test of an expiry")
	}
	p.pass(6*time.Second, false)
	p.copied(t)
	if got := p.b.Stats(); got.Expired != 1 || got.External.Destroyed != 2 {
		t.Errorf("counted %d expired, %d destroyed", got.Expired, got.External.Destroyed)
	}
}

// What a dump brought, or a commit, is not sent at once but refreshed.
func TestALARMRefreshesWhatItNeverSent(t *testing.T) {
	p := modePair(alarmConfig())
	p.a.BeginSweep(Start)
	p.a.Kernel(p.now, event1(flow.Dumped, tcp(1, 3)))
	for !p.a.EndSweep(10) {
	}
	p.a.Kernel(p.now, []flow.Event{{Op: flow.New, Origin: flow.Self, Flow: tcp(2, 3)}})
	if ms := messages(p.a, p.now); len(ms) != 0 {
		t.Fatalf("%d messages at once", len(ms))
	}
	p.pass(5*time.Second, false)
	p.copied(t, 1, 2)
}

// What is flushed has no timer any more.
func TestALARMFlush(t *testing.T) {
	p := modePair(alarmConfig())
	p.a.Kernel(p.now, append(event1(flow.New, tcp(1, 3)), event1(flow.New, tcp(2, 3))...))
	p.exchange()
	p.a.FlushInternal()
	p.b.FlushExternal()
	p.pass(20*time.Second, false)
	p.copied(t)
	if n := p.a.internal.total(); n != 0 {
		t.Errorf("%d internal entries after the flush", n)
	}
}

func TestALARMBadType(t *testing.T) {
	n := New(alarmConfig(), 1, [2]uint64{1, 2})
	n.Datagram(0, []byte{0x19, 0, 0, 8, 0, 0, 0, 1})
	n.Datagram(0, []byte{0x1a, 0, 0, 8, 0, 0, 0, 1})
	n.Datagram(0, []byte{0x1a, 0x10, 0, 8, 0, 0, 0, 1}) // a flag: ignored
	if s := n.Stats().Network; s.BadType != 2 || s.Malformed != 2 {
		t.Errorf("counted %+v", s)
	}
}

func TestALARMShowsWhenEntriesExpire(t *testing.T) {
	p := modePair(alarmConfig())
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	p.now = 2500 * time.Millisecond
	text := string(p.b.Dump(nil, p.now, time.Time{}, External, false, &DumpCursor{}, 100))
	if !strings.HasSuffix(text, " [expires in 7s] [active since 2s]\n") {
		t.Errorf("shows %q", text)
	}
	text = string(p.a.Dump(nil, p.now, time.Time{}, Internal, false, &DumpCursor{}, 100))
	if strings.Contains(text, "expires") || !strings.Contains(text, "[active since 2s]") {
		t.Errorf("shows %q of the internal cache", text)
	}
}

// Nobody acknowledges a NOTRACK bulk: it goes in portions a default socket
// buffer has room for, with changes in between.
func TestNOTRACKBulkIsPaced(t *testing.T) {
	n := New(notrackConfig(), 1, [2]uint64{1, 2})
	const flows = 5000
	for i := range flows {
		n.Kernel(0, event1(flow.New, tcp(uint16(i+1), 3)))
	}
	messages(n, 0)
	n.SendBulk()
	now, total, rounds := time.Duration(0), 0, 0
	for ; rounds < 20; rounds++ {
		got := len(messages(n, now))
		if got > windowFirst+bulkChunk {
			t.Fatalf("%d messages at once", got)
		}
		total += got
		if !n.bulk.active {
			break
		}
		if d := n.Deadline(); d != now+bulkPause {
			t.Fatalf("at %v the deadline is %v", now, d)
		}
		now += bulkPause
		n.Tick(now)
	}
	if total != flows || rounds < 4 {
		t.Errorf("%d messages in %d rounds", total, rounds)
	}
}

func TestModesAllocateNothing(t *testing.T) {
	bypass, inject := notrackConfig(), notrackConfig()
	bypass.DisableInternalCache, inject.DisableExternalCache = true, true
	inject.DisableInternalCache = true
	for name, cfg := range map[string]Config{"ALARM": alarmConfig(), "NOTRACK": notrackConfig(), "bypass": bypass, "inject": inject} {
		t.Run(name, func(t *testing.T) {
			p := modePair(cfg)
			p.exchange()
			p.a.TableWanted()
			events := churnEvents(50, flow.IPv4)
			var spare []flow.Event
			arrived := 0
			cycle := func() {
				for i := range events {
					p.a.Kernel(p.now, events[i:i+1])
					p.exchange()
					spare = p.b.Injections(spare[:0])
					arrived += len(spare)
				}
				p.now += 100 * time.Millisecond
				p.a.Tick(p.now)
				p.b.Tick(p.now)
			}
			for range 40 {
				cycle()
			}
			if got := testing.AllocsPerRun(50, cycle); got != 0 {
				t.Errorf("%v allocations for %d events", got, len(events))
			}
			if cfg.DisableExternalCache && arrived < 50*len(events) || !cfg.DisableExternalCache && p.b.Stats().External.Created < 50*50 {
				t.Errorf("%d injected, %d created", arrived, p.b.Stats().External.Created)
			}
		})
	}
}

// parsed is a message without what we leave out on purpose.
func parsed(t *testing.T, m *wire.Message) (wire.Header, flow.Flow) {
	t.Helper()
	var f flow.Flow
	o := wire.Options{}
	if err := o.ParseFlow(m.Body, &f); err != nil {
		t.Fatal(err)
	}
	f.Has &^= flow.HasSynproxy // zeros
	return m.Header, f
}

// TestReplayWithoutCaches puts a node without caches in the place of each C
// daemon of a capture: given the kernel events that C's messages show, it sends
// the same messages, and what C hears is what it wants written to the kernel.
func TestReplayWithoutCaches(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableInternalCache, cfg.DisableExternalCache = true, true
	for _, side := range []string{"192.168.100.1", "192.168.100.2"} {
		var n *Node
		sent, heard, tables, resyncs := 0, 0, 0, 0
		dumping := false
		for i, c := range capture.Read(t, "notrack-nocache-udp") {
			raw, err := hex.DecodeString(c.Raw)
			if err != nil {
				t.Fatal(err)
			}
			m, _, err := wire.Next(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(c.Src, side+":") {
				if n == nil {
					continue
				}
				n.Datagram(0, raw)
				if n.TableWanted() {
					tables++
					dumping = true
					n.BeginTable()
				}
				got := n.Injections(nil)
				if m.Type == wire.Control {
					if len(got) != 0 {
						t.Errorf("message %d: %d injections", i, len(got))
					}
					continue
				}
				heard++
				_, want := parsed(t, &m)
				if len(got) != 1 || got[0].Op != injectOp[m.Type] || got[0].Flow.Key != want.Key {
					t.Errorf("message %d: injections %+v", i, got)
				}
				continue
			}
			if n == nil {
				n = New(cfg, m.Seq-1, [2]uint64{1, 2})
				messages(n, 0) // differs: a RESYNC at the start
			}
			switch {
			case m.Class() == wire.RESYNC:
				resyncs++
				n.RequestResync()
			case m.Type == wire.Control:
				if dumping {
					n.EndTable(true)
					dumping = false
				}
				n.engine.Tick(time.Hour * time.Duration(i+1))
			default:
				op := map[uint8]flow.Op{wire.CTNew: flow.New, wire.CTUpd: flow.Update, wire.CTDel: flow.Destroy}[m.Type]
				if dumping {
					op = flow.Dumped
				}
				_, f := parsed(t, &m)
				n.Kernel(0, event1(op, f))
			}
			got := messages(n, time.Hour*time.Duration(i+1))
			if len(got) != 1 || got[0].Header != m.Header {
				t.Fatalf("C sent %+v, we %+v", m.Header, got)
			}
			if m.Type != wire.Control {
				_, want := parsed(t, &m)
				if _, f := parsed(t, &got[0]); f != want {
					t.Errorf("message %d: C sent %+v, we %+v", i, want, f)
				}
			}
			sent++
		}
		if sent < 8 || side == "192.168.100.1" && tables != 1 || side == "192.168.100.2" && (heard < 8 || resyncs != 1) {
			t.Errorf("%s: %d messages sent, %d heard, %d tables, %d resyncs", side, sent, heard, tables, resyncs)
		}
	}
}

func TestWithoutInternalCache(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableInternalCache = true
	cfg.Filter.States = flow.Accept
	cfg.Filter.State[3] = true
	n := New(cfg, 1, [2]uint64{1, 2})
	messages(n, 0)
	types := func(events ...flow.Event) (types []uint8) {
		n.Kernel(0, events)
		for _, m := range messages(n, 0) {
			types = append(types, m.Type)
		}
		return types
	}
	other := func(op flow.Op, sport uint16, state uint8) flow.Event {
		return flow.Event{Op: op, Flow: tcp(sport, state)}
	}
	if got := types(other(flow.New, 1, 3), other(flow.Update, 1, 3), other(flow.New, 2, 1)); !slices.Equal(got, []uint8{wire.CTNew, wire.CTUpd}) {
		t.Errorf("sent %v", got)
	}
	if got := types(other(flow.Destroy, 1, 7)); !slices.Equal(got, []uint8{wire.CTDel}) {
		t.Errorf("the end of a flow in a state that is filtered: sent %v", got)
	}
	if got := types(flow.Event{Op: flow.New, Origin: flow.Self, Flow: tcp(3, 3)}); got != nil {
		t.Errorf("our own change is echoed: %v", got)
	}
	if st := n.Stats(); st.EventsFiltered != 1 || st.Internal.Total != 0 {
		t.Errorf("%d events filtered, %d cached", st.EventsFiltered, st.Internal.Total)
	}

	n.SendBulk()
	if !n.TableWanted() || n.TableWanted() {
		t.Fatal("the table is wanted once")
	}
	n.BeginTable()
	n.Kernel(0, []flow.Event{other(flow.Destroy, 4, 3), other(flow.Update, 5, 3)})
	got := types(other(flow.Dumped, 4, 3), other(flow.Dumped, 5, 3), other(flow.Dumped, 6, 3), other(flow.Dumped, 7, 1))
	if !slices.Equal(got, []uint8{wire.CTDel, wire.CTUpd, wire.CTNew}) {
		t.Errorf("a dump that is older than events: sent %v", got)
	}
	if st := n.Stats(); st.Passed[wire.CTNew] != st.Sent[wire.CTNew]-1 {
		t.Errorf("%d of %d new flows are said to be events, want all but that of the dump", st.Passed[wire.CTNew], st.Sent[wire.CTNew])
	}
	n.EndTable(true)
	if got := types(other(flow.Dumped, 4, 3)); !slices.Equal(got, []uint8{wire.CTNew}) {
		t.Errorf("events before the last table matter: sent %v", got)
	}
}

// Messages made without a cache fill datagrams by the same rule as others, and
// what a dead link leaves behind is bounded.
func TestDirectDatagrams(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableInternalCache = true
	n := New(cfg, 1, [2]uint64{1, 2})
	messages(n, 0)
	for i := range 100 {
		n.Kernel(0, event1(flow.New, tcp(uint16(i), 3)))
	}
	n.RequestResync() // numbered last, so it travels last
	total := 0
	for {
		b := n.Next(0, nil, 1472)
		if len(b) == 0 {
			break
		}
		if len(b) >= 1472 || total == 0 && len(b) < 1300 {
			t.Errorf("a datagram of %d bytes", len(b))
		}
		for len(b) > 0 {
			m, rest, _ := wire.Next(b)
			if total++; m.Seq != uint32(1+total) {
				t.Fatalf("message %d has number %d", total, m.Seq)
			}
			b = rest
		}
	}
	if total != 101 {
		t.Errorf("%d messages", total)
	}
	f := tcp(1, 3)
	for n.Stats().DirectLost == 0 {
		n.Kernel(0, event1(flow.Update, f))
	}
	if size := len(n.direct.queued); size > directLimit+200 {
		t.Errorf("%d bytes wait", size)
	}
}

// With injection our own events are echoes of the peer's: nothing is cached,
// unless the flow is one of ours that the peer has taken over.
func TestInjectionEchoes(t *testing.T) {
	cfg := simConfig()
	cfg.DisableExternalCache = true
	n := New(cfg, 1, [2]uint64{1, 2})
	self := func(op flow.Op, f flow.Flow) { n.Kernel(0, []flow.Event{{Op: op, Origin: flow.Self, Flow: f}}) }
	self(flow.New, tcp(1, 3))
	self(flow.Update, tcp(1, 4))
	self(flow.Destroy, tcp(1, 4))
	if st := n.Stats().Internal; st.Total != 0 || st.Created != 0 {
		t.Fatalf("cached: %+v", st)
	}
	n.Kernel(0, event1(flow.New, tcp(2, 3)))
	self(flow.Update, tcp(2, 5))
	two := tcp(2, 0)
	var f flow.Flow
	if n.internal.load(n.internal.lookup(&two.Key), &f); f.State != 5 {
		t.Errorf("the peer changed our flow, and the cache says state %d", f.State)
	}
	self(flow.Destroy, tcp(2, 7))
	if n.internal.live() != 0 {
		t.Error("the peer ended our flow, and the cache has it still")
	}
	if got := n.Stats().TxQueue; got > 2 { // hello, the CT_NEW of ours
		t.Errorf("%d messages to send", got)
	}
}

// A flow of ours that the peer has taken over follows what the peer says, for
// the kernel keeps the echo to itself.
func TestInjectionFollowsThePeer(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableExternalCache = true
	n := New(cfg, 1, [2]uint64{1, 2})
	n.Kernel(0, event1(flow.New, tcp(1, 3)))
	sent := n.Stats().TxQueue
	seq := uint32(0)
	hear := func(typ uint8, f flow.Flow) {
		seq++
		o := wire.Options{}
		n.Datagram(0, o.AppendFlow(nil, wire.Header{Type: typ, Seq: seq}, &f))
	}
	hear(wire.CTUpd, tcp(1, 5))
	hear(wire.CTNew, tcp(2, 3))
	var f flow.Flow
	one := tcp(1, 0)
	if n.internal.load(n.internal.lookup(&one.Key), &f); f.State != 5 {
		t.Errorf("the peer changed our flow, and the cache says state %d", f.State)
	}
	if n.internal.live() != 1 {
		t.Errorf("%d entries in the internal cache, want ours only", n.internal.live())
	}
	hear(wire.CTDel, tcp(1, 7))
	if n.internal.live() != 0 {
		t.Error("the peer ended our flow, and the cache has it still")
	}
	if got := n.Injections(nil); len(got) != 3 {
		t.Errorf("%d injections", len(got))
	}
	if got := n.Stats().TxQueue; got > sent {
		t.Errorf("%d messages to send, %d before the peer spoke", got, sent)
	}
}

func TestInjectionRefusesBadPayload(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableExternalCache = true
	n := New(cfg, 1, [2]uint64{1, 2})
	o := wire.Options{}
	f := tcp(1, 3)
	good := o.AppendFlow(nil, wire.Header{Type: wire.CTUpd, Seq: 1}, &f)
	n.Datagram(0, good)
	n.Datagram(0, []byte{0x10, 0, 0, 16, 0, 0, 0, 2, 0, 8, 0, 99, 0, 0, 0, 0})
	n.Datagram(0, wire.AppendControl(nil, wire.Header{Flags: wire.FlagALIVE, Seq: 3}))
	if got := n.Injections(nil); len(got) != 1 || got[0].Op != flow.Update || got[0].Flow.Key != f.Key {
		t.Errorf("injections %+v", got)
	}
	if got := n.Injections(nil); len(got) != 0 {
		t.Errorf("taken twice: %+v", got)
	}
	if s := n.Stats(); s.Network.BadPayload != 1 || s.External.Total != 0 {
		t.Errorf("counted %+v, %d cached", s.Network, s.External.Total)
	}
}
