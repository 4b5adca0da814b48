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
	w := r.writer(r.two.A)
	zoned := func(l flood.Load, mark uint32) flood.Load {
		plain := l.Flow
		l.Flow = func(i int, f *flood.Flow) {
			plain(i, f)
			f.Zone, f.Mark = uint16(i%3), mark
		}
		return l
	}
	const n = 60
	r.must(w.Create(zoned(flows(1, 0, n), 0)))
	r.cached(r.b, -1, n)
	if out := r.request(r.b, "-e"); strings.Count(out, "zone=") != 40 {
		t.Errorf("zones at the peer: %s", out)
	}
	r.must(w.Update(zoned(flows(1, 0, n), 77)))
	r.eventually("the marks at the peer", func() error {
		return wantCount(strings.Count(r.request(r.b, "-e"), "mark=77"), n)
	})
	r.must(w.Delete(zoned(flows(1, 0, n/2), 0)))
	r.cached(r.b, -1, n/2)
	r.cached(r.a, n/2, -1)
	for _, line := range []string{"events received", "events filtered", "current buffer size (in bytes)"} {
		if got := r.counter(r.a, line); got != 0 {
			t.Errorf("%s: %d", line, got)
		}
	}
	if r.logged(r.a, "[notice] running in polling mode") != 1 || r.logged(r.a, "buffer size has been set") != 0 {
		t.Errorf("the log: %q", r.messages(r.a))
	}
	// Entries that stay are neither made anew nor declared dead by a poll.
	if out := r.request(r.a, "-s"); !strings.Contains(out, "connections created:\t\t          60\t") ||
		!strings.Contains(out, "connections destroyed:\t\t          30\t") {
		t.Errorf("the polls counted %s", out)
	}
	r.ok(r.a.Stop())
}

func wantCount(got, want int) error {
	if got != want {
		return fmt.Errorf("%d, want %d", got, want)
	}
	return nil
}
