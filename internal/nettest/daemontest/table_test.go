package daemontest_test

import (
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestManyChangesSmallBuffer commits and flushes many entries with a small
// receive buffer for the events of it: none is lost, so there is nothing to
// repair and nobody is told.
func TestManyChangesSmallBuffer(t *testing.T) {
	r := newRig(t, func(_, b *nettest.Config) {
		b.GeneralLines = append(b.GeneralLines, "NetlinkBufferSize 262144", "NetlinkBufferSizeMaxGrowth 262144")
	}).start()
	const many = 20000
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)
	for _, what := range []string{"the commit", "the second commit"} {
		r.Request(r.B, "-c")
		if n := r.count(r.B); n != many {
			t.Errorf("%d entries in the kernel after %s, want %d", n, what, many)
		}
		r.cached(r.B, many, many)
	}
	r.Request(r.B, "-F")
	if n := r.count(r.B); n != 0 {
		t.Errorf("%d entries in the kernel after the flush", n)
	}
	r.cached(r.B, 0, many)
	r.cached(r.A, many, -1)
	r.toldNothing(r.B, r.A)
	if n := r.counter(r.B, "netlink overrun"); n != 0 {
		t.Errorf("%d overruns", n)
	}
}
