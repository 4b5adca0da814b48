package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// TestGroupReadyWithEverybody: a node that starts is ready when it has the
// tables of all who are there, even if it hears of some later; and without
// those who are not.
func TestGroupReadyWithEverybody(t *testing.T) {
	for _, find := range []bool{true, false} {
		w := newGroupNet(t, 4, find)
		w.down[2], w.down[3] = true, true
		for i := range uint16(200) {
			w.event(0, flow.New, tcp(i, 3))
			w.event(1, flow.New, tcp(1000+i, 3))
		}
		w.run(5 * time.Second)
		w.down[1] = true
		w.nodes[2] = w.start(2, 4, find)
		w.down[2] = false
		w.run(500 * time.Millisecond)
		if w.nodes[2].Ready() {
			t.Errorf("find %v: ready after half a second, with one of two tables", find)
		}
		w.down[1] = false
		for i := 0; !w.nodes[2].Ready(); i++ {
			if i == 100 {
				t.Fatalf("find %v: not ready without the fourth", find)
			}
			w.run(100 * time.Millisecond)
		}
		if a, b := len(w.told(2, 0)), len(w.told(2, 1)); a != 200 || b != 200 {
			t.Errorf("find %v: ready with %d and %d flows", find, a, b)
		}
	}
}
