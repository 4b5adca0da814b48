package abuse_test

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// TestClockBack restarts a daemon whose first sequence number is an hour and
// more below those of its life before, as after a step of the clock: numbers
// begin at the clock's seconds and grow with each message, so a daemon that
// said much in few seconds is ahead of it. The other node goes on.
func TestClockBack(t *testing.T) {
	for _, peer := range []nettest.Kind{nettest.Go, nettest.C} {
		t.Run(string(peer), func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			r := newRigOf(t, peer, nil).start()
			const hours = 3
			w := r.Writer(r.Two.A)
			load := flood.UDPFlows(60, 0, hours*3600)
			r.Must(w.Create(load))
			r.inStep()
			r.Must(w.Delete(flood.UDPFlows(60, 0, load.To/2)))
			for range 2 {
				r.inStep()
				if passed := time.Since(started); passed > time.Hour {
					t.Fatalf("%v have passed: the test shows nothing", passed)
				}
				r.OK(r.A.Stop())
				r.startA()
			}
			r.Must(w.Delete(flood.UDPFlows(60, load.To/2, load.To)))
			r.recovered()
		})
	}
}
