package daemontest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// rss is the resident memory of a daemon in KiB.
func (r *rig) rss(d *nettest.Daemon) int {
	r.Helper()
	kib, err := d.Proc().RSS()
	r.OK(err)
	return kib
}

// TestMemoryOfFloods has many flows come and go, several times. The last must
// take no more than the first, an entry must not cost more than a few times its
// size, and when it is over the memory goes back.
func TestMemoryOfFloods(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const (
		many, rounds = 100000, 6
		perEntry     = 256    // bytes
		returned     = 4_000  // KiB, about half of what the entries took
		slack        = 16_000 // KiB; the collector's, mostly
	)
	limit, peak := make(map[*nettest.Daemon]int), make(map[*nettest.Daemon]int)
	for _, d := range []*nettest.Daemon{r.A, r.B} {
		limit[d] = r.rss(d) + many*perEntry/1024 + slack
	}
	w := r.Writer(r.Two.A)
	for i := range rounds {
		load := flows(byte(i), 0, many)
		r.Must(w.Create(load))
		r.cached(r.B, -1, many)
		for d := range limit {
			peak[d] = r.rss(d)
		}
		r.Must(w.Delete(load))
		r.cached(r.A, 0, -1)
		r.cached(r.B, -1, 0)
		for d, max := range limit {
			if got := r.rss(d); got > max {
				t.Errorf("round %d: %s has %d KiB, want at most %d", i, d, got, max)
			}
		}
	}
	r.OK(nettest.Eventually(r.Context(), time.Minute, "memory to go back", func() error {
		for d, kib := range peak {
			if got := r.rss(d); got > kib-returned {
				return fmt.Errorf("%s has %d KiB, and had %d in the flood", d, got, kib)
			}
		}
		return nil
	}))
}
