package daemontest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// newPurgeRig has flows on B that its filter passes (network 1) and that it
// ignores (network 9), and a purge after purgeTimeout.
func newPurgeRig(t *testing.T) *rig {
	r := newRig(t, func(_, b *nettest.Config) {
		b.PurgeTimeout = purgeTimeout
		b.FilterLines = []string{"Address Ignore {", "IPv4_address 10.9.0.0/16", "}"}
	})
	return r.start()
}

const passed, ignored = 300, 50

// purgeTimeout is in seconds: time enough for some requests of a slow machine.
const purgeTimeout = 4

// scheduled counts the purges scheduled on B.
func (r *rig) scheduled() int {
	r.Helper()
	return r.logged(r.B, fmt.Sprintf("[notice] flushing conntrack table in %d secs", purgeTimeout))
}

// fill makes the flows anew.
func (r *rig) fill() {
	r.Helper()
	r.OK(r.B.Node.FlushKernel())
	r.cached(r.B, 0, -1)
	w := r.Writer(r.Two.B)
	r.Must(w.Create(flows(1, 0, passed)))
	r.Must(w.Create(flows(9, 0, ignored)))
	r.cached(r.B, passed, -1)
	r.cached(r.A, -1, passed)
}

// spared waits until the kernel and the internal cache hold only what the
// filter ignores, and then holds the other node to not having been told.
func (r *rig) spared(what string) {
	r.Helper()
	r.Eventually(what, func() error {
		internal, _, err := r.B.Sizes(r.Context())
		if n := r.count(r.B); n != ignored || internal != 0 {
			return fmt.Errorf("%d entries in the kernel, want %d; %d in the internal cache (%v)", n, ignored, internal, err)
		}
		return nil
	})
	r.OK(nettest.Throughout(r.Context(), 1200*time.Millisecond, func() error {
		if _, external, err := r.A.Sizes(r.Context()); err != nil || external != passed {
			return fmt.Errorf("%s told the other node: it has %d entries, want %d (%v)", what, external, passed, err)
		}
		return nil
	}))
}

// TestPurge lets a scheduled flush come, and flushes at once.
func TestPurge(t *testing.T) {
	r := newPurgeRig(t)
	r.fill()
	r.Request(r.B, "-t")
	r.Request(r.B, "-t")
	if n := r.count(r.B); n != passed+ignored {
		t.Errorf("%d entries right after -t, want %d", n, passed+ignored)
	}
	r.Request(r.B, "-f", "external") // cancels nothing
	r.spared("the purge")
	if n := r.scheduled(); n != 1 {
		t.Errorf("%d purges scheduled, want one", n)
	}
	if n := r.logged(r.B, "[notice] flushing kernel conntrack table (scheduled)"); n != 1 {
		t.Errorf("%d purges done, want one", n)
	}

	r.fill()
	r.Request(r.B, "-F")
	r.spared("the flush")
	if n := r.counter(r.B, "flush kernel table"); n != 2 {
		t.Errorf("%d flushes counted, want 2", n)
	}
	// The next purge is scheduled anew.
	r.fill()
	r.Request(r.B, "-t")
	r.spared("the second purge")
}

// TestPurgeCancelled orders what takes a purge back.
func TestPurgeCancelled(t *testing.T) {
	r := newPurgeRig(t)
	r.fill()
	for _, order := range [][]string{{"-c"}, {"-f"}, {"-f", "internal"}} {
		r.Request(r.B, "-t")
		r.Request(r.B, order...)
	}
	r.OK(nettest.Throughout(t.Context(), purgeTimeout*time.Second+600*time.Millisecond, func() error {
		if n := r.count(r.B); n != passed+ignored {
			return fmt.Errorf("%d entries in the kernel, want %d", n, passed+ignored)
		}
		return nil
	}))
	if n := r.scheduled(); n != 3 {
		t.Errorf("%d purges scheduled, want 3", n)
	}
}

// TestRefreshAfterFlush empties the internal cache and fills it from the
// kernel: nothing of that is sent, and a bulk sends all of it.
func TestRefreshAfterFlush(t *testing.T) {
	r := newPurgeRig(t)
	r.fill()
	r.Request(r.B, "-f", "internal")
	r.cached(r.B, 0, -1)
	r.Request(r.A, "-f", "external")
	r.Request(r.B, "-R")
	r.cached(r.B, passed, -1)
	r.OK(nettest.Throughout(t.Context(), time.Second, func() error {
		if _, external, err := r.A.Sizes(t.Context()); err != nil || external != 0 {
			return fmt.Errorf("%d entries were sent (%v)", external, err)
		}
		return nil
	}))
	r.Request(r.B, "-B")
	r.cached(r.A, -1, passed)
	if n := r.counter(r.B, "resync with kernel table"); n != 1 {
		t.Errorf("%d resyncs counted, want 1", n)
	}
}
