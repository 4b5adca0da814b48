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
	r.must(r.writer(r.two.A).Create(flows(1, 0, many)))
	r.cached(r.b, -1, many)
	for _, what := range []string{"the commit", "the second commit"} {
		r.request(r.b, "-c")
		if n := r.count(r.b); n != many {
			t.Errorf("%d entries in the kernel after %s, want %d", n, what, many)
		}
		r.cached(r.b, many, many)
	}
	r.request(r.b, "-F")
	if n := r.count(r.b); n != 0 {
		t.Errorf("%d entries in the kernel after the flush", n)
	}
	r.cached(r.b, 0, many)
	r.cached(r.a, many, 0)
	if n := r.counter(r.b, "netlink overrun"); n != 0 {
		t.Errorf("%d overruns", n)
	}
}
