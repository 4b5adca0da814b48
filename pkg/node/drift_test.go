package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// reconcile plays a comparison with a kernel that has these flows.
func reconcile(n *Node, now time.Duration, kernel ...flow.Flow) Drift {
	before := n.Stats().Drift
	n.BeginSweep(Reconcile)
	for _, f := range kernel {
		n.Kernel(now, event1(flow.Dumped, f))
	}
	for !n.EndSweep(2) {
		continue
	}
	return n.Stats().Drift.Since(before)
}

func marked(f flow.Flow, mark uint32) flow.Flow {
	f.Has |= flow.HasMark
	f.Mark = mark
	return f
}

// TestReconcileFindsDrift: what was lost is counted, repaired and told.
func TestReconcileFindsDrift(t *testing.T) {
	p := established(t)
	for i := range uint16(6) {
		p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
	}
	p.exchange()
	if got := reconcile(p.a, p.now, tcp(0, 3), tcp(1, 3), tcp(2, 3), tcp(3, 3), tcp(4, 3), tcp(5, 3)); got != (Drift{}) {
		t.Errorf("nothing is wrong, found %+v", got)
	}
	if sent := sentTypes(p.a, p.now); sent != [6]int{} {
		t.Errorf("nothing is wrong, sent %v", sent)
	}
	// 0 has ended, 1 has a mark, 2 is another flow of the same tuple, 9 is new.
	other := tcp(2, 3)
	other.ID = 77
	kernel := []flow.Flow{marked(tcp(1, 3), 5), other, tcp(3, 3), tcp(4, 3), tcp(5, 3), tcp(9, 3)}
	if got, want := reconcile(p.a, p.now, kernel...), (Drift{Missing: 2, Different: 1, Superfluous: 1}); got != want {
		t.Errorf("found %+v, want %+v", got, want)
	}
	p.exchange()
	got := externalFlows(p.b)
	if _, ok := got[tcp(0, 0).Key]; ok || len(got) != 6 || got[tcp(1, 0).Key].Mark != 5 {
		t.Errorf("the other node has %d: %v", len(got), got)
	}
	if got := reconcile(p.a, p.now, kernel...); got != (Drift{}) {
		t.Errorf("the second time: %+v", got)
	}
}

// TestEventsOnTheWayAreNoDrift: a dump is ahead of the events that are yet to be
// read, and behind those that were.
func TestEventsOnTheWayAreNoDrift(t *testing.T) {
	ended := tcp(3, 7)
	for _, tt := range []struct {
		name          string
		before, after []flow.Event // of the dump
		want          Drift
	}{
		{"NEW is on its way", nil, event1(flow.New, tcp(8, 3)), Drift{}},
		{"NEW was lost, UPDATE comes", nil, event1(flow.Update, tcp(8, 3)), Drift{Missing: 1}},
		{"NEW was lost", nil, nil, Drift{Missing: 1}},
		{"UPDATE is on its way", nil, append(event1(flow.New, tcp(8, 3)), event1(flow.Update, marked(tcp(2, 3), 9))...), Drift{}},
		{"UPDATE was lost", nil, event1(flow.New, tcp(8, 3)), Drift{Different: 1}},
		{"the flow that was missing ends, and begins", nil, append(append(event1(flow.New, tcp(8, 3)), event1(flow.Update, marked(tcp(2, 3), 9))...),
			append(event1(flow.Destroy, tcp(8, 7)), event1(flow.New, tcp(8, 1))...)...), Drift{}},
		{"DESTROY came before", event1(flow.Destroy, ended), append(event1(flow.New, tcp(8, 3)), event1(flow.Update, marked(tcp(2, 3), 9))...), Drift{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := established(t)
			for i := range uint16(4) {
				p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
			}
			kernel := []flow.Flow{tcp(0, 3), tcp(1, 3), marked(tcp(2, 3), 9), tcp(3, 3), tcp(8, 3)}
			if tt.name == "NEW is on its way" || tt.want.Missing == 1 {
				kernel[2] = tcp(2, 3)
			}
			p.a.BeginSweep(Reconcile)
			p.a.Kernel(p.now, tt.before)
			for _, f := range kernel {
				p.a.Kernel(p.now, event1(flow.Dumped, f))
			}
			p.a.Kernel(p.now, tt.after)
			for !p.a.EndSweep(100) {
				continue
			}
			if got := p.a.Stats().Drift; got != tt.want {
				t.Errorf("found %+v, want %+v", got, tt.want)
			}
			// What a later sweep finds is not taken back by an event of this one.
			p.a.Kernel(p.now, event1(flow.Update, tcp(2, 3)))
			if got := p.a.Stats().Drift; got != tt.want {
				t.Errorf("after the sweep: %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestReconcileKeepsBelief: while it runs, commits and bulks go on as always.
func TestReconcileKeepsBelief(t *testing.T) {
	p := established(t)
	f := tcp(1, 3)
	p.a.Kernel(p.now, event1(flow.New, f))
	p.exchange()
	for why, want := range map[Purpose]Held{Repair: HeldUnknown, Reconcile: HeldSame} {
		p.a.BeginSweep(why)
		if got := p.a.Held(&f); got != want {
			t.Errorf("purpose %d: held %d, want %d", why, got, want)
		}
		p.a.SendBulk()
		if sent := sentTypes(p.a, p.now); (sent[wire.CTNew]+sent[wire.CTUpd] > 0) != (why == Reconcile) {
			t.Errorf("purpose %d: a bulk sends %v", why, sent)
		}
		p.a.AbortSweep()
		p.exchange()
	}
}

// TestReconcileOfACommit: what the kernel was given without an event is
// believed until it is seen. What it has is not told, for the peer told us; what
// it has not is no more.
func TestReconcileOfACommit(t *testing.T) {
	p := established(t)
	there, lost := tcp(1, 3), tcp(2, 3)
	for _, f := range []*flow.Flow{&there, &lost} {
		f.Has &^= flow.HasID | flow.HasReply
		p.a.Assume(p.now, f)
	}
	during := tcp(3, 3)
	p.a.BeginSweep(Reconcile)
	p.a.Assume(p.now, &during) // written after the dump went by
	p.a.Kernel(p.now, event1(flow.Dumped, marked(tcp(1, 3), 4)))
	for !p.a.EndSweep(100) {
		continue
	}
	if got, want := p.a.Stats().Drift, (Drift{Superfluous: 1}); got != want {
		t.Errorf("found %+v, want %+v", got, want)
	}
	if st := p.a.Stats(); st.Internal.Active != 2 || p.a.Held(&lost) != HeldMissing || p.a.Held(&during) != HeldSame {
		t.Errorf("%d entries", st.Internal.Active)
	}
	if sent := sentTypes(p.a, p.now); sent != [6]int{} {
		t.Errorf("sent %v of what the peer told us", sent)
	}
	p.a.Refute(&there) // too late: the kernel has it
	if got := p.a.Held(&there); got != HeldSame {
		t.Errorf("what was seen is refuted: held %d", got)
	}
}

// TestSweepingCounts: what ends during a sweep is remembered until it is over.
func TestSweepingCounts(t *testing.T) {
	p := established(t)
	p.a.BeginSweep(Reconcile)
	for i := range uint16(5) {
		p.a.Kernel(p.now, event1(flow.Destroy, tcp(i, 7)))
	}
	if got := p.a.Sweeping(); got != 5 {
		t.Errorf("%d", got)
	}
	for !p.a.EndSweep(100) {
		continue
	}
	if got := p.a.Sweeping(); got != 0 {
		t.Errorf("after the sweep: %d", got)
	}
}
