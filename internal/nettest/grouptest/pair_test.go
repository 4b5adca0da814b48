package grouptest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestPairWithC: over UDP a node with Group on is one half of a pair with a C
// daemon like any other: new, changed and ended flows, -n, -B and a restart of
// either, both ways.
func TestPairWithC(t *testing.T) {
	for _, over := range []transport{udp4, udp6} {
		t.Run(over.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{over: over, kinds: []nettest.Kind{nettest.Go, nettest.C}})
			ours, c := r.members[0], r.members[1]
			both := []*member{ours, c}
			r.start(both...)
			r.handshake(ours)
			r.each(both, func(m *member) error { return m.begin(160) })
			r.pairInStep("new flows", ours, c)
			r.each(both, func(m *member) error { return m.change(80) })
			r.pairInStep("changes", ours, c)
			r.each(both, func(m *member) error { return m.end(40) })
			r.pairInStep("ends", ours, c)
			for _, order := range []struct {
				forgets, asked *member
				request        string
			}{{ours, ours, "-n"}, {ours, c, "-B"}, {c, c, "-n"}, {c, ours, "-B"}} {
				r.request(order.forgets, "-f", "external")
				r.request(order.asked, order.request)
				r.pairInStep("everything after "+order.request+" on "+order.asked.String(), ours, c)
			}

			c.Kill9()
			r.ok(c.RemoveLock())
			r.each(both, func(m *member) error { return m.begin(20) })
			r.start(c)
			r.request(c, "-n") // of its own accord it does not ask
			r.pairInStep("everything after a restart of C", ours, c)
			ours.Kill9()
			r.each(both, func(m *member) error { return m.begin(20) })
			r.start(ours)
			r.request(c, "-n")
			r.pairInStep("everything after a restart of ours", ours, c)
			r.ok(c.end(100))
			r.pairInStep("ends after the restarts", ours, c)
			r.request(ours, "-c", c.addr.String())
			r.kernelHas(ours, c)
		})
	}
}

// handshake waits until a node of ours has heard a C daemon's answer. Before, a
// HELLO makes a C daemon forget what it has not had acknowledged.
func (r *rig) handshake(m *member) {
	r.Helper()
	r.eventually("the handshake", func() error {
		h, err := m.health(r.Context())
		if err == nil && len(h.peers) == 0 {
			err = errors.New("there is no peer")
		}
		for addr, facts := range h.peers {
			if facts["handshake"] != "yes" {
				err = fmt.Errorf("of %v: %v", addr, facts)
			}
		}
		return err
	})
}

// pairInStep waits until each of two nodes has exactly the other's flows.
func (r *rig) pairInStep(what string, ours, c *member) {
	r.Helper()
	r.eventually(what, func() error {
		if err := r.knows(ours, c); err != nil {
			return err
		}
		internal, err := ours.inStep(r.Context())
		if err != nil {
			return err
		}
		external, err := c.External(r.Context())
		if err != nil {
			return err
		}
		return nettest.DiffCaches(internal, external).Err()
	})
}

// kernelHas fails unless a node's kernel has the entries of another's.
func (r *rig) kernelHas(m, of *member) {
	r.Helper()
	kernel, err := m.Node.Kernel()
	r.ok(err)
	original, err := of.Node.Kernel()
	r.ok(err)
	theirs := kernel.Only(func(e *nettest.Entry) bool { return original[e.Key] != nil })
	if err := (nettest.KernelDiff{Tolerance: -1, Committer: m.Kind}).Tables(original, theirs).Err(); err != nil {
		r.Errorf("committed: %v", err)
	}
}
