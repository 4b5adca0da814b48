package abuse_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// limited is how many flows a cache may have in the tests of the limit.
const limited = 2000

// TestHashLimit has far more flows than HashLimit allows, on one node or on
// the other. When enough of them have ended, those refused are replicated.
func TestHashLimit(t *testing.T) {
	for _, which := range []string{"internal", "external"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(a, _ *nettest.Config) { a.HashLimit = limited }).start()
			before, lines, begun := r.usage(), len(r.lines(0)), time.Now()
			const many = 10 * limited
			node := map[string]*nettest.Node{"internal": r.Two.A, "external": r.Two.B}[which]
			w := r.Writer(node)
			r.Must(w.Create(flood.UDPFlows(70, 0, many)))
			r.Eventually("the cache to be full", func() error {
				internal, external, err := r.A.Sizes(r.Context())
				if err != nil {
					return err
				}
				if n := map[string]int{"internal": internal, "external": external}[which]; n != limited {
					return fmt.Errorf("%d entries", n)
				}
				return nil
			})
			// Those that stay are the last, which were refused.
			r.Must(w.Delete(flood.UDPFlows(70, 0, many-limited/2)))
			r.recovered()
			r.bounded(before, 32<<10, 2)
			r.saysOnce(lines, which+` cache is full \(HashLimit 2000\): .*\(\d+ times\)`, begun)
			r.says(lines, which+` cache has room again`, 1, 3)
			r.short(lines, 12)
		})
	}
}

// TestMemoryLimit lets the daemon have little more address space and heap than
// the caches need at their limit, and fills them again and again.
func TestMemoryLimit(t *testing.T) {
	const limit, many = 30_000, 60_000
	r := newRig(t, func(a, _ *nettest.Config) { a.HashLimit = limit })
	r.A.Env = []string{"GOMEMLIMIT=48MiB"}
	r.start()
	lines := len(r.lines(0))
	wa, wb := r.Writer(r.Two.A), r.Writer(r.Two.B)
	most := 0
	for i := range 2 {
		a, b := flood.UDPFlows(byte(80+i), 0, many), flood.UDPFlows(byte(90+i), 0, many)
		r.Must(wa.Create(a))
		r.Must(wb.Create(b))
		most = max(most, r.usage().kib)
		r.Must(wa.Delete(a))
		r.Must(wb.Delete(b))
	}
	r.recovered()
	t.Logf("at most %d KiB", most)
	if most > 96<<10 {
		t.Errorf("%d KiB", most)
	}
	r.short(lines, 15)
}
