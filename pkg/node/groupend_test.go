package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// TestGroupEndsMove: what ends on a node that has taken over from a silent one
// has ended, whatever the silent one told. What ends on a node beside one that
// is there, or that told of it before the other fell silent, says nothing.
func TestGroupEndsMove(t *testing.T) {
	w := newGroupNet(t, 3, true)
	w.run(5 * time.Second)
	for i := range uint16(10) {
		w.event(0, flow.New, tcp(i, 3))
	}
	w.run(2 * time.Second)
	w.event(1, flow.New, tcp(8, 3))
	w.event(1, flow.New, tcp(9, 3))
	w.run(3 * time.Second)
	w.event(1, flow.Destroy, tcp(8, 3))
	w.run(time.Second)
	if got := len(w.told(2, 0)); got != 10 {
		t.Fatalf("of the node that is there %d flows are left, want 10", got)
	}

	w.down[0] = true
	w.run(3 * time.Second)
	for i := range uint16(5) {
		w.event(1, flow.New, tcp(i, 3))
	}
	w.run(3 * time.Second)
	for _, i := range []uint16{3, 4, 9} {
		w.event(1, flow.Destroy, tcp(i, 3))
	}
	w.run(time.Second)
	all := w.committed(2, netip.Addr{})
	if len(all) != 8 || all[3] != 0 || all[4] != 0 || all[9] == 0 {
		t.Errorf("committed %v, want all but 3 and 4", all)
	}

	w.down[0] = false // it was never gone
	w.run(30 * time.Second)
	w.agree()
}
