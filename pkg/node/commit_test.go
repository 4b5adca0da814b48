package node

import (
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestHeld(t *testing.T) {
	translated := func(port uint16) flow.Flow {
		f := tcp(1, 3)
		f.Has |= flow.HasSNAT | flow.HasSPAT
		f.NAT.Src, f.NAT.Sport = flow.Addr{192, 0, 2, 1}, port
		return f
	}
	labelled := tcp(1, 3)
	labelled.Has |= flow.HasLabels
	labelled.Labels[0] = 1
	other := tcp(1, 7)
	other.Status, other.Mark, other.Timeout, other.ID = 0, 9, 1, 77
	other.Has = other.Has&^flow.HasReply | flow.HasMark // as a message is
	for _, c := range []struct {
		name string
		have *flow.Flow
		ask  flow.Flow
		want Held
	}{
		{"nothing", nil, tcp(1, 3), HeldMissing},
		{"another", new(tcp(2, 3)), tcp(1, 3), HeldMissing},
		{"the same", new(tcp(1, 3)), tcp(1, 3), HeldSame},
		{"the same tuples", new(tcp(1, 3)), other, HeldSame},
		{"same translation", new(translated(5)), translated(5), HeldSame},
		{"other translation", new(translated(5)), translated(6), HeldOther},
		{"translation came", new(tcp(1, 3)), translated(5), HeldOther},
		{"translation went", new(translated(5)), tcp(1, 3), HeldOther},
		{"labels to be cleared", &labelled, tcp(1, 3), HeldOther},
		{"labels to be set", new(tcp(1, 3)), labelled, HeldSame},
	} {
		n := New(simConfig(), 1, [2]uint64{1, 2})
		if c.have != nil {
			n.Kernel(0, event1(flow.New, *c.have))
		}
		if got := n.Held(&c.ask); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		if c.have == nil {
			continue
		}
		n.BeginSweep(Refresh)
		if got := n.Held(&c.ask); got != HeldUnknown {
			t.Errorf("%s: %d while the table is read", c.name, got)
		}
		n.AbortSweep()
		n.enqueue(n.internal.lookup(&c.have.Key))
		n.Kernel(0, event1(flow.Destroy, *c.have)) // leaves a tombstone
		if got := n.Held(&c.ask); got != HeldMissing {
			t.Errorf("%s: %d after its end", c.name, got)
		}
	}

	cfg := simConfig()
	cfg.Filter.Protocols = flow.Accept
	n := New(cfg, 1, [2]uint64{1, 2})
	f := tcp(1, 3)
	if got := n.Held(&f); got != HeldUnknown {
		t.Errorf("%d of a flow that is filtered", got)
	}
	cfg = simConfig()
	cfg.Mode, cfg.DisableInternalCache = NOTRACK, true
	n = New(cfg, 1, [2]uint64{1, 2})
	if got := n.Held(&f); got != HeldUnknown {
		t.Errorf("%d without an internal cache", got)
	}
}

// What was assumed before a flow was written stays if the kernel has spoken of
// it since, whatever became of the writing.
func TestAssumed(t *testing.T) {
	f := tcp(1, 3)
	reported := f
	reported.Has |= flow.HasID
	reported.ID = 7
	own := event1(flow.New, reported)
	own[0].Origin = flow.Self
	for _, c := range []struct {
		name    string
		events  []flow.Event
		refuted bool
		want    Held
	}{
		{"written", nil, false, HeldSame},
		{"refused", nil, true, HeldMissing},
		{"refused, a packet was first", event1(flow.New, reported), true, HeldSame},
		{"refused, there before", own, true, HeldSame},
		{"written, a packet came", event1(flow.Update, reported), true, HeldSame},
		{"written and ended", event1(flow.Destroy, reported), false, HeldMissing},
		{"refused and ended", event1(flow.Destroy, reported), true, HeldMissing},
	} {
		n := New(simConfig(), 1, [2]uint64{1, 2})
		n.Assume(0, &f)
		if got := n.Held(&f); got != HeldSame {
			t.Errorf("%s: %d once assumed", c.name, got)
		}
		if tx, _ := n.engine.Pending(); tx > 1 { // our first message
			t.Errorf("%s: the peer is told what it told us", c.name)
		}
		n.Kernel(0, c.events)
		if c.refuted {
			n.Refute(&f)
		}
		if got := n.Held(&f); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	n := New(simConfig(), 1, [2]uint64{1, 2})
	n.Refute(&f)
	n.Kernel(0, event1(flow.New, reported))
	n.Refute(&f)
	if got := n.Held(&f); got != HeldSame {
		t.Errorf("%d after nothing was assumed", got)
	}
}
