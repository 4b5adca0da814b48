package grouptest_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// away is how long a peer may acknowledge nothing until nothing is kept for it
// any more.
const away = 10 * time.Second

// outage is a way to lose a node, and to get it back.
type outage struct {
	name        string
	over        transport
	lose, found func(*rig, *member) error
}

var outages = []outage{
	{"killed", multicast4, kill, restart},
	{"killed", udp6, kill, restart},
	{"no carrier", udp4,
		func(r *rig, m *member) error { return r.segment.SetCarrier(m.Node, false) },
		func(r *rig, m *member) error { return r.segment.SetCarrier(m.Node, true) }},
	{"cut off", multicast6,
		func(r *rig, m *member) error { return r.segment.SetJoined(m.Node, false) },
		func(r *rig, m *member) error { return r.segment.SetJoined(m.Node, true) }},
}

func kill(_ *rig, m *member) error {
	m.Kill9()
	return nil
}

func restart(r *rig, m *member) error { return m.Start(r.Context()) }

// churnRate is changes a second on each of the nodes that stay, if the machine
// is not too busy.
const churnRate = 1500

// queued is how much may wait for acknowledgements while all who get anything
// give them: half a second of changes.
const queued = churnRate / 2

// TestOutage loses one of three nodes for longer than the others wait for it,
// while flows come, change and go on all of them. The others stay in step with
// each other and keep nothing for the lost one, whose flows they still know.
// When it is back, all is exact again in both directions: what ended
// meanwhile, here and there, is forgotten.
func TestOutage(t *testing.T) {
	for _, o := range outages {
		t.Run(o.name+"/"+o.over.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{over: o.over, kinds: ours(3)})
			r.start(r.members...)
			r.each(r.members, func(m *member) error { return m.life(600) })
			r.exact("all", r.members...)
			lost, stay := r.members[2], r.members[:2]
			known, err := lost.inStep(r.Context())
			r.ok(err)
			memory := r.resident(stay)

			r.ok(o.lose(r, lost))
			began := time.Now()
			c := r.churn(stay)
			r.alone(stay, lost, false, time.Until(began.Add(away-2*time.Second)))
			r.eventually("the end of waiting for the lost node", func() error { return r.isAway(stay, lost) })
			r.alone(stay, lost, true, 3*time.Second)
			r.eventually("flows enough to fill a queue", c.enough)
			r.alone(stay, lost, true, 0)
			r.ok(lost.life(200))
			r.ok(c.stop())
			for _, m := range stay {
				r.ok(m.life(200))
				external, err := m.ExternalByNode(r.Context())
				r.ok(err)
				if err := nettest.DiffCaches(known, external[lost.addr]).Err(); err != nil {
					t.Errorf("flows of the lost node at %s: %v", m, err)
				}
			}
			for i, now := range r.resident(stay) {
				if now > memory[i]+memoryRoom {
					t.Errorf("%s had %d KiB resident before the outage, and %d after", stay[i], memory[i], now)
				}
			}

			r.ok(o.found(r, lost))
			back := time.Now()
			r.exact("all after the outage", r.members...)
			t.Logf("all exact %v after the outage", time.Since(back).Round(time.Millisecond))
			r.each(r.members, func(m *member) error { return m.life(300) })
			r.exact("all changes after the outage", r.members...)
		})
	}
}

// memoryRoom is what a daemon's resident memory may grow by in an outage: Go
// gives back late.
const memoryRoom = 16 << 10 // KiB

func (r *rig) resident(members []*member) (kib []int) {
	r.Helper()
	for _, m := range members {
		n, err := m.Proc().RSS()
		r.ok(err)
		kib = append(kib, n)
	}
	return kib
}

// isAway fails unless all of them say that a node is away.
func (r *rig) isAway(members []*member, lost *member) error {
	for _, m := range members {
		h, err := m.health(r.Context())
		if err != nil {
			return err
		}
		if !h.says(lost, "away", "yes") || h.group["peers-away"] != "1" {
			return fmt.Errorf("%s says %v", m, h.peers[lost.addr])
		}
	}
	return nil
}

// alone fails if the nodes that stay are disturbed by the loss of another:
// they are in step with each other, and with given up keep nothing for it.
func (r *rig) alone(stay []*member, lost *member, givenUp bool, during time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), during)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		for i, m := range stay {
			h, err := m.health(r.Context())
			r.ok(err)
			if other := stay[1-i]; !h.says(other, "in-step", "yes") || h.group["ready"] != "yes" {
				r.Fatalf("without %s, %s says %v and of %s %v", lost, m, h.group, other, h.peers[other.addr])
			}
			if !givenUp {
				continue
			}
			if !h.says(lost, "unacknowledged", "0") {
				r.Fatalf("%s keeps something for %s: %v", m, lost, h.peers[lost.addr])
			}
			// On a busy machine there may be more for a moment. What is kept for one
			// who is away would only grow.
			r.eventually("acknowledgements", func() error {
				n, err := m.unacknowledged(r.Context())
				if err == nil && n > queued {
					err = fmt.Errorf("%s has %d elements that wait for them", m, n)
				}
				return err
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// churning is flows that come, change and go on several nodes, beside those
// that the members count.
type churning struct {
	each   []*atomic.Int64 // changes, of each node
	cancel context.CancelFunc
	ended  chan error
}

func (r *rig) churn(members []*member) *churning {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	c := &churning{cancel: cancel, ended: make(chan error, len(members))}
	for _, m := range members {
		w, err := flood.Open(m.Node.Do)
		r.ok(err)
		n := new(atomic.Int64)
		c.each = append(c.each, n)
		go func() {
			defer func() { _ = w.Close() }()
			c.ended <- churnUntil(ctx, w, n)
		}()
	}
	r.Cleanup(func() { _ = c.stop() })
	return c
}

// churnUntil makes and ends flows [30000, 60000) again and again.
func churnUntil(ctx context.Context, w *flood.Writer, n *atomic.Int64) error {
	const first, flows, step = 30_000, 30_000, churnRate / 3
	for at := 0; ctx.Err() == nil; at = (at + step) % flows {
		_, err := w.Churn(flood.Churn{From: first + at, To: first + at + step, Rate: churnRate, Live: 100, Flow: func(i int, f *flood.Flow) {
			*f = flood.Mixed(i, 1)
			n.Add(1)
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// enough fails until so much has ended on each node that keeping it for one
// who is away would be seen.
func (c *churning) enough() error {
	for _, n := range c.each {
		if flows := n.Load() / 3; flows < 3*queued {
			return fmt.Errorf("%d flows", flows)
		}
	}
	return nil
}

// stop lets the flows there are end.
func (c *churning) stop() (err error) {
	c.cancel()
	for range c.each {
		err = errors.Join(err, <-c.ended)
	}
	c.each = nil
	return err
}
