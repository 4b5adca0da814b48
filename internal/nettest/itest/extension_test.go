package itest_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// health reads -s health.
func (r *rig) health(d *nettest.Daemon) map[string]string {
	r.Helper()
	facts := map[string]string{}
	for line := range strings.Lines(r.request(d, "-s", "health")) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			r.Fatalf("a line without a colon: %q", line)
		}
		facts[name] = value
	}
	return facts
}

// healthIs waits until facts are so.
func (r *rig) healthIs(d *nettest.Daemon, want map[string]string) {
	r.Helper()
	r.eventually("the health of "+d.String(), func() error {
		got := r.health(d)
		for name, value := range want {
			if got[name] != value {
				return fmt.Errorf("%s is %q, want %q in %v", name, got[name], value, got)
			}
		}
		return nil
	})
}

// refused are the counters of -s network that say that something was wrong.
var refused = regexp.MustCompile(`(?m)^\s+([A-Za-z ]+):\s+(\d+)$`)

// TestExtensionIsNothingToC sends ALIVEs with a body to a C daemon: it counts
// nothing as wrong, loses nothing, and is replicated to and from as ever.
func TestExtensionIsNothingToC(t *testing.T) {
	for _, m := range modeRows {
		if m.mode == "ALARM" || m.inject {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, nettest.C, nettest.Go)
			r := newRig(t, pairing{nettest.Go, nettest.C}, m.both).start()
			r.eventually("three announcements", func() error {
				if n := r.health(r.a)["announcements-sent"]; len(n) == 1 && n < "3" {
					return fmt.Errorf("%s were sent", n)
				}
				return nil
			})
			r.must(r.flood(r.two.A).Create, load(0, 100, 0, 0, nil))
			r.arrives(m, "flows at the C daemon", all)
			r.must(r.flood(r.two.B).Create, load(200, 300, 0, 0, nil))
			r.eventually("its flows here", func() error {
				if n := r.health(r.a)["heard-flows"]; n != "100" {
					return fmt.Errorf("%s have arrived", n)
				}
				return nil
			})
			counters := refused.FindAllStringSubmatch(r.request(r.b, "-s", "network"), -1)
			if len(counters) < 9 {
				t.Fatalf("only %d counters", len(counters))
			}
			for _, c := range counters {
				if c[2] != "0" {
					t.Errorf("the C daemon counts %s: %s", c[1], c[2])
				}
			}
			r.healthIs(r.a, map[string]string{"handshake": "yes", "ready": "yes", "peer": "unknown", "announcements-received": "0", "digest": "none"})
		})
	}
}

// TestExtensionBetweenOurs follows two of our own from the start through a
// restart and a drift that no message tells of.
func TestExtensionBetweenOurs(t *testing.T) {
	for _, m := range modeRows {
		if m.mode == "ALARM" || m.bypass || m.inject {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, nettest.Go)
			r := newRig(t, pairing{nettest.Go, nettest.Go}, m.both).start()
			w := r.flood(r.two.A)
			r.must(w.Create, load(0, 500, 0, 0, nil))
			good := map[string]string{"ready": "yes", "in-step": "yes", "handshake": "yes", "digest": "equal", "table": "complete",
				"settings": "alike", "peer-hears-us": "yes", "other-nodes": "no"}
			r.healthIs(r.a, good)
			r.healthIs(r.b, good)
			r.cachesAgree(r.a, r.b, 500)

			// Flows end while A is down: they leave B's cache, unasked.
			r.a.Kill9()
			r.must(w.Delete, load(0, 100, 0, 0, nil))
			r.restart(r.a)
			r.cachesAgree(r.a, r.b, 400)
			r.healthIs(r.b, good)

			// B forgets everything: A does not know, B finds out. It takes two
			// digests, and longer if it has asked because of a difference before.
			r.request(r.b, "-f", "external")
			r.ok(nettest.Eventually(r.Context(), time.Minute, "B to find out", r.sameExternal))
			r.cachesAgree(r.a, r.b, 400)
		})
	}
}
