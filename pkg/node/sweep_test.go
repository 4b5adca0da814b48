package node

import (
	"math/rand/v2"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A flow ended and another began on its tuple, and both events were lost. The
// new flow must inherit nothing, here or at a C peer.
func TestSuccessorInheritsNothing(t *testing.T) {
	old, successor := tcp(1, 3), tcp(1, 1)
	old.Has |= flow.HasMark | flow.HasLabels | flow.HasSNAT
	old.Mark, old.Labels[0], old.NAT.Src[0] = 7, 1, 100
	successor.ID++
	successor.Has &^= flow.HasReply // an event or dump that says less than usual
	for _, op := range []flow.Op{flow.Update, flow.Dumped} {
		p := established(t)
		p.a.Kernel(p.now, event1(flow.New, old))
		p.rest()
		p.a.BeginSweep(Repair)
		p.a.Kernel(p.now, event1(op, successor))
		for !p.a.EndSweep(100) {
		}
		if got := snapshot(p.a.internal)[old.Key]; got.Mark != 0 || got.Labels[0] != 0 || got.Has.Has(flow.HasSNAT) {
			t.Errorf("op %d: the new flow has mark %d, labels %v, SNAT %v", op, got.Mark, got.Labels, got.Has.Has(flow.HasSNAT))
		}
		if got := sentTypes(p.a, p.now); got != [6]int{wire.CTNew: 1} {
			t.Errorf("op %d: sent %v, want one CT_NEW", op, got)
		}
	}
}

// The kernel leaves a mark of zero and empty labels out of a dump. If the event
// of their clearing was lost, the dump has to clear them.
func TestDumpClearsWhatItDoesNotMention(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		f := tcp(1, 3)
		f.Family = family
		f.Has |= flow.HasMark | flow.HasLabels
		f.Mark, f.Labels[0] = 7, 1
		p := established(t)
		p.a.Kernel(p.now, event1(flow.New, f))
		p.rest()
		f.Has &^= flow.HasMark | flow.HasLabels
		f.Mark, f.Labels[0] = 0, 0
		p.a.BeginSweep(Repair)
		p.a.Kernel(p.now, event1(flow.Dumped, f))
		for !p.a.EndSweep(100) {
		}
		p.rest()
		for name, s := range map[string]*store{"internal": p.a.internal, "external": p.b.external} {
			if got := snapshot(s)[f.Key]; got.Has.Any(flow.HasMark | flow.HasLabels) {
				t.Errorf("%s cache: mark %d, labels %v", name, got.Mark, got.Labels)
			}
		}
	})
}

// What no message carries is not worth one.
func TestSweepSendsOnlyWhatTravels(t *testing.T) {
	p := established(t)
	f := tcp(1, 3)
	p.a.Kernel(p.now, event1(flow.New, f))
	p.rest()
	f.Timeout--
	f.Start, f.Has = 1, f.Has|flow.HasStart
	p.a.BeginSweep(Repair)
	p.a.Kernel(p.now, event1(flow.Dumped, f))
	for !p.a.EndSweep(100) {
	}
	if got := sentTypes(p.a, p.now); got != [6]int{} {
		t.Errorf("sent %v for a time stamp and a timeout", got)
	}
}

// A peer that is gone acknowledges no end of a flow. Its tombstones must not
// take the place of the living.
func TestDeadPeerLeavesRoom(t *testing.T) {
	cfg := simConfig()
	cfg.HashLimit, cfg.ResendQueueSize = 100, 250
	n := New(cfg, 1, [2]uint64{1, 2})
	now := helloHold
	for i := range uint16(5000) {
		n.Kernel(now, event1(flow.New, tcp(i, 3)))
		sentTypes(n, now)
		n.Kernel(now, event1(flow.Destroy, tcp(i, 7)))
		sentTypes(n, now)
	}
	for i := range uint16(100) {
		n.Kernel(now, event1(flow.New, tcp(i, 3)))
	}
	st := n.Stats().Internal
	if st.Active != 100 || st.NoSpace != 0 {
		t.Errorf("%d of 100 flows cached, %d refused", st.Active, st.NoSpace)
	}
	if dead := st.Total - st.Active; dead > cfg.ResendQueueSize {
		t.Errorf("%d tombstones, the resend queue holds %d", dead, cfg.ResendQueueSize)
	}
	n.Kernel(now, event1(flow.New, tcp(4999, 3))) // one of the tombstones
	if st := n.Stats().Internal; st.Active != 100 || st.NoSpace != 1 {
		t.Errorf("%d cached with a limit of 100, %d refused", st.Active, st.NoSpace)
	}
}

// -R comes between an overrun and its repair. It sends nothing, but the repair
// must not take what it found for said.
func TestRepairAfterRefreshTellsWhatWasLost(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 1)))
	p.rest()
	for _, why := range []Purpose{Refresh, Repair, Repair} {
		p.a.BeginSweep(why)
		p.a.Kernel(p.now, event1(flow.Dumped, tcp(1, 3))) // an update was lost,
		p.a.Kernel(p.now, event1(flow.Dumped, tcp(2, 3))) // and a new flow
		for !p.a.EndSweep(100) {
		}
		want := [6]int{}
		if why == Repair && p.b.external.live() == 1 {
			want = [6]int{wire.CTNew: 1, wire.CTUpd: 1}
		}
		before := p.a.Stats().Sent
		p.rest()
		for typ, n := range p.a.Stats().Sent {
			if got := int(n - before[typ]); got != want[typ] {
				t.Errorf("sweep %d sent %d of type %d, want %d", why, got, typ, want[typ])
			}
		}
	}
	p.copied(t, 1, 2)
	if got := snapshot(p.b.external)[tcp(1, 0).Key].State; got != 3 {
		t.Errorf("the peer has flow 1 in state %d", got)
	}
}

// TestCorrectPlain corrects entries the short way and the long one.
func TestCorrectPlain(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		r := rand.New(rand.NewPCG(7, uint64(family)))
		short, long := testStore(1<<20), testStore(1<<20)
		plain := func() flow.Flow {
			f := randomFlow(r, family)
			for f.Has.Any(inRare) || family == flow.IPv6 && f.Has.Any(flow.HasNAT) {
				f = randomFlow(r, family)
			}
			return f
		}
		var scratch, a, b flow.Flow
		same := 0
		for i := range 4000 {
			first, then := plain(), plain()
			if i%2 == 0 { // differ in little or nothing
				then = first
				then.Timeout, then.ID = r.Uint32(), r.Uint32()
				then.Has |= flow.HasTimeout | flow.HasID
				if i%4 == 0 {
					then.Mark, then.Has = 77, then.Has|flow.HasMark
				}
			}
			then.Key = first.Key
			r1, _ := short.put(&first.Key)
			r2, _ := long.put(&first.Key)
			short.save(r1, &first)
			long.save(r2, &first)
			long.common(r2).rare = long.rare.alloc() // which makes it go the long way
			changed := short.correct(r1, &then, &scratch)
			if want := long.correct(r2, &then, &scratch); changed != want {
				t.Fatalf("changed %v, the long way %v: %+v to %+v", changed, want, first, then)
			}
			if !changed {
				same++
			}
			short.load(r1, &a)
			long.load(r2, &b)
			if a != b {
				t.Fatalf("%+v, the long way %+v", a, b)
			}
		}
		if same < 500 || same > 1500 {
			t.Errorf("%d of 4000 were the same", same)
		}
	})
}
