package grouptest_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestConverge makes, changes and ends flows on all nodes of a group at the
// same time: some before the daemons start, so that they come with the first
// exchange, and some while they run. Then every node must know of every other
// exactly the flows that it has.
func TestConverge(t *testing.T) {
	for _, c := range []struct {
		over  transport
		nodes int
	}{
		{multicast4, 3}, {multicast4, 4}, {multicast4, 5}, {multicast6, 3},
		{udp4, 3}, {udp4, 5}, {udp6, 3}, {udp6, 4},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.over, c.nodes), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{over: c.over, kinds: ours(c.nodes)})
			life := func(m *member) error { return m.life(300) }
			r.each(r.members, life)
			r.start(r.members...)
			r.each(r.members, life)
			r.exact("all after the start", r.members...)
			for range 3 {
				r.each(r.members, life)
			}
			r.exact("all changes", r.members...)
			r.sizes()
			r.each(r.members, func(m *member) error { return m.end(m.next - m.first - 1) })
			r.exact("all ends", r.members...)
			r.nothingWrong()
		})
	}
}

// sizes compares the sums in -s with what there is.
func (r *rig) sizes() {
	r.Helper()
	total := 0
	for _, m := range r.members {
		total += m.next - m.first
	}
	for _, m := range r.members {
		internal, external, err := m.Sizes(r.Context())
		r.ok(err)
		if own := m.next - m.first; internal != own || external != total-own {
			r.Errorf("-s of %s counts %d internal and %d external entries, want %d and %d", m, internal, external, own, total-own)
		}
	}
}

// nothingWrong fails if a node refused anything, or missed and asked for
// anything: nothing was lost on the way.
func (r *rig) nothingWrong() {
	r.Helper()
	for _, m := range r.members {
		h, err := m.health(r.Context())
		r.ok(err)
		for addr, facts := range h.peers {
			for _, name := range []string{"lost", "gaps", "resend-overflows", "repairs"} {
				if facts[name] != "0" {
					r.Errorf("%s says of %v that %s is %q", m, addr, name, facts[name])
				}
			}
		}
		log, err := m.Messages()
		r.ok(err)
		for _, line := range log {
			if !strings.HasPrefix(line, "[notice]") && !machine.MatchString(line) {
				r.Errorf("%s says: %s", m, line)
			}
		}
	}
}

// machine is what a daemon may say about the machine and the lab's settings.
var machine = regexp.MustCompile(`scheduler|Scheduler|HashLimit`)

// TestAlone: a node that has not heard of anybody knows its own flows, and
// tells them to the first that comes.
func TestAlone(t *testing.T) {
	for _, over := range []transport{multicast4, udp6} {
		t.Run(over.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{over: over, kinds: ours(2)})
			a, b := r.members[0], r.members[1]
			r.ok(a.life(100))
			r.start(a)
			r.ok(a.life(100))
			r.eventually("the own flows", func() error {
				_, err := a.inStep(r.Context())
				return err
			})
			h, err := a.health(r.Context())
			r.ok(err)
			if h.group["ready"] != "no" || h.group["peers-in-step"] != "0" {
				t.Errorf("alone it says %v", h.group)
			}
			r.ok(b.life(100))
			r.start(b)
			r.exact("both", a, b)
		})
	}
}

// TestParsers: what the other tests stand on tells nonsense from facts.
func TestParsers(t *testing.T) {
	h, err := parseHealth("peers: 1\nready: yes\n\npeer-address: 192.0.2.2\nin-step: yes\n")
	about := &member{addr: nettest.SyncAddr(0, false)}
	if err != nil || h.group["ready"] != "yes" || len(h.peers) != 1 || h.says(about, "in-step", "yes") {
		t.Errorf("read as %+v, %v", h, err)
	}
	for _, text := range []string{
		"", "peers 1\n", "peers: 1\npeers: 2\n", "peers: 1\n\nin-step: yes\n",
		"peers: 1\n\npeer-address: 192.0.2.2\n\npeer-address: 192.0.2.2\n",
	} {
		if h, err := parseHealth(text); err == nil && len(h.group) > 0 {
			t.Error(errors.New("nonsense was read as"), h)
		}
	}
}
