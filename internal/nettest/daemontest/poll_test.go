package daemontest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// TestPoll replicates without events: what is new, what has changed and what
// has gone, zones included, at each poll.
func TestPoll(t *testing.T) {
	r := newRig(t, func(a, _ *nettest.Config) { a.GeneralLines = []string{"PollSecs 1"} }).start()
	w := r.Writer(r.Two.A)
	zoned := func(l flood.Load, mark uint32) flood.Load {
		plain := l.Flow
		l.Flow = func(i int, f *flood.Flow) {
			plain(i, f)
			f.Zone, f.Mark = uint16(i%3), mark
		}
		return l
	}
	const n = 60
	r.Must(w.Create(zoned(flows(1, 0, n), 0)))
	r.cached(r.B, -1, n)
	if out := r.Request(r.B, "-e"); strings.Count(out, "zone=") != 40 {
		t.Errorf("zones at the peer: %s", out)
	}
	r.Must(w.Update(zoned(flows(1, 0, n), 77)))
	r.Eventually("the marks at the peer", func() error {
		return wantCount(strings.Count(r.Request(r.B, "-e"), "mark=77"), n)
	})
	r.Must(w.Delete(zoned(flows(1, 0, n/2), 0)))
	r.cached(r.B, -1, n/2)
	r.cached(r.A, n/2, -1)
	for _, line := range []string{"events received", "events filtered", "current buffer size (in bytes)"} {
		if got := r.counter(r.A, line); got != 0 {
			t.Errorf("%s: %d", line, got)
		}
	}
	if r.logged(r.A, "[notice] running in polling mode") != 1 || r.logged(r.A, "buffer size has been set") != 0 {
		t.Errorf("the log: %q", r.Messages(r.A))
	}
	// Entries that stay are neither made anew nor declared dead by a poll.
	if out := r.Request(r.A, "-s"); !strings.Contains(out, "connections created:\t\t          60\t") ||
		!strings.Contains(out, "connections destroyed:\t\t          30\t") {
		t.Errorf("the polls counted %s", out)
	}
	r.OK(r.A.Stop())
}

func wantCount(got, want int) error {
	if got != want {
		return fmt.Errorf("%d, want %d", got, want)
	}
	return nil
}
