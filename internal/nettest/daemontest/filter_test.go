package daemontest_test

import (
	"fmt"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// TestKernelFilter measures what a filter in the kernel is worth: the events
// that it refuses never reach the daemon, which otherwise counts each.
func TestKernelFilter(t *testing.T) {
	const refused, accepted = 3000, 5
	for _, test := range []struct {
		from               string
		received, filtered int
	}{
		{"Kernelspace", 2 * accepted, 0},
		{"Userspace", 2 * (refused + accepted), 2 * refused},
	} {
		t.Run(test.from, func(t *testing.T) {
			r := newRig(t, func(a, _ *nettest.Config) {
				a.GeneralLines = []string{"Filter From " + test.from + " {", "Protocol Accept {", "TCP", "}", "}"}
			}).start()
			w := r.Writer(r.Two.A)
			r.Must(w.Create(flows(1, 0, refused)))
			r.Must(w.Delete(flows(1, 0, refused)))
			tcp := flows(2, 0, accepted)
			udp := tcp.Flow
			tcp.Flow = func(i int, f *flood.Flow) {
				udp(i, f)
				f.Proto, f.State = flood.TCP, 3
			}
			r.Must(w.Create(tcp))
			r.cached(r.B, -1, accepted)
			r.Must(w.Delete(tcp))
			r.cached(r.B, -1, 0)
			r.Eventually("the counters", func() error {
				received, filtered := r.counter(r.A, "events received"), r.counter(r.A, "events filtered")
				if received != test.received || filtered != test.filtered {
					return fmt.Errorf("%d events received and %d filtered, want %d and %d", received, filtered, test.received, test.filtered)
				}
				return nil
			})
		})
	}
}
