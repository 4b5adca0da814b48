package grouptest_test

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestLargerGroupOfC is the control: three C daemons on one multicast group, as
// nothing forbids. Each follows one sequence number, whoever's. So it takes
// what comes from the node that is furthest ahead, and drops the others'
// messages as older ones, without a line in its log.
func TestLargerGroupOfC(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{over: multicast4, kinds: []nettest.Kind{nettest.C, nettest.C, nettest.C}, pairs: true})
	a, b, c := r.members[0], r.members[1], r.members[2]
	r.start(r.members...)
	// Numbers begin at the second of the start and grow with each message. So that
	// it is not luck who is ahead, A gets a lead on both, and B a smaller one.
	for _, first := range []struct {
		m *member
		n int
	}{{a, 300}, {b, 100}} {
		r.ok(first.m.begin(first.n))
		r.ok(first.m.end(first.n))
	}
	r.ok(a.begin(1000))
	r.eventually("B and C to know the flows of A", func() error { return errors.Join(r.has(b, a, 1000), r.has(c, a, 1000)) })
	r.ok(b.begin(1000))
	r.eventually("A to know the flows of B", func() error { return r.has(a, b, 1000) })
	r.ok(c.begin(500))
	r.ok(nettest.Throughout(r.Context(), 3*time.Second, func() error { return nil }))

	for _, want := range []struct {
		m, of *member
		most  int
	}{{a, c, 0}, {b, c, 0}, {c, b, 100}} {
		n := r.count(want.m, want.of)
		t.Logf("%s knows %d of %d flows of %s", want.m, n, want.of.next-want.of.first, want.of)
		if n > want.most {
			t.Errorf("%s knows %d flows of %s: the test shows nothing", want.m, n, want.of)
		}
	}
	for _, m := range r.members {
		counters := tracking.FindStringSubmatch(r.request(m, "-s", "network"))
		waiting, err := m.unacknowledged(r.Context())
		r.ok(err)
		t.Logf("%s counts %s messages lost and %s older ones; %d wait for acknowledgement", m, counters[1], counters[2], waiting)
		log, err := m.Messages()
		r.ok(err)
		if len(log) > quiet {
			t.Errorf("%s has noticed: %q", m, log)
		}
	}
}

// quiet is how many lines a C daemon logs when it starts.
const quiet = 4

var tracking = regexp.MustCompile(`Packets lost:\s+(\d+)\s+Packets before:\s+(\d+)`)

// count is how many flows of another node's kernel a node knows, by name.
func (r *rig) count(m, of *member) int {
	r.Helper()
	external, err := m.External(r.Context())
	r.ok(err)
	kernel, err := of.kernel()
	r.ok(err)
	return len(external.Only(func(e *nettest.Entry) bool { return kernel[e.Key] != nil }))
}

func (r *rig) has(m, of *member, want int) error {
	r.Helper()
	if n := r.count(m, of); n != want {
		return fmt.Errorf("%s knows %d of %d flows of %s", m, n, want, of)
	}
	return nil
}
