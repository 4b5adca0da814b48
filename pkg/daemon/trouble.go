package daemon

import (
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// A trouble is something that can go wrong a hundred thousand times a second
// for one cause. A line for each would fill the disk, no line would hide it:
// it is said when it begins, and then each saidPeriod how often it came, as
// long as it goes on.
type trouble struct {
	count func(*health) uint64
	text  func(h *health, n uint64) string // about n new ones
	// ownLine: the line about it is one more of it, and does not count.
	ownLine bool

	seen uint64
	on   bool
	said time.Duration
}

// health is what the troubles look at.
type health struct {
	node      node.Stats
	strangers node.Strangers
	link      link.Stats
	dropped   uint64 // clients of the control socket
	unwritten uint64 // lines of the log file
	why       error  // the last of these
}

// lookEvery is how often the troubles are looked at.
const lookEvery = time.Second

// lookAround says what goes wrong. It belongs to the loop, which something
// that goes wrong wakes up, or the node's timer soon after.
func (d *Daemon) lookAround(now time.Duration) {
	if d.looked != 0 && now-d.looked < lookEvery {
		return
	}
	d.looked = now
	if d.troubles == nil {
		d.troubles = d.makeTroubles()
	}
	h := d.health()
	for i := range d.troubles {
		t := &d.troubles[i]
		if text := t.news(&h, now); text != "" {
			d.log.Warn(text)
			if t.ownLine {
				after := d.health()
				t.seen = t.count(&after)
			}
		}
	}
	for _, text := range d.seldom.leftOut(now) {
		d.log.Warn(text)
	}
	d.askAgain(now)
}

// news returns what is to be said now, if anything.
func (t *trouble) news(h *health, now time.Duration) string {
	n := t.count(h)
	t.seen = min(t.seen, n) // a peer of a group that is forgotten takes its counters along
	if t.on && now-t.said < saidPeriod {
		return ""
	}
	if t.on = n != t.seen; !t.on {
		return ""
	}
	fresh := n - t.seen
	t.seen, t.said = n, now
	return t.text(h, fresh)
}

func (d *Daemon) health() (h health) {
	s := d.sync
	s.mu.Lock()
	h.node, h.strangers = s.node.Stats(), s.node.Strangers()
	s.mu.Unlock()
	h.link = s.link.Stats()
	h.dropped = d.counters.LocalDropped.Load()
	if d.logFile != nil {
		h.unwritten, h.why = d.logFile.unwritten()
	}
	return h
}

// makeTroubles is the table of troubles.
func (d *Daemon) makeTroubles() []trouble {
	limit := d.cfg.Node.HashLimit
	full := func(which node.Which) func(*health, uint64) string {
		return func(_ *health, n uint64) string {
			return fmt.Sprintf("%s cache is full (HashLimit %d): new flows are not replicated (%d times); raise HashLimit", which, limit, n)
		}
	}
	return append(d.lackTroubles(), []trouble{{
		count: func(h *health) uint64 { return h.link.Refused },
		text:  d.refusedText,
	}, {
		count: func(h *health) uint64 { return h.node.Network.Malformed },
		text: func(h *health, n uint64) string {
			return fmt.Sprintf("malformed messages came over the sync link (%d): either something else talks to its port, or the other node speaks another version (see -s network)", n)
		},
	}, {
		count: func(h *health) uint64 { return h.strangers.Datagrams },
		text: func(h *health, n uint64) string {
			return fmt.Sprintf("datagrams came from %s (%d) that is not of the group: there too conntrackgo must run, with Conntrackgo { Group on }", h.strangers.Last, n)
		},
	}, {
		count: func(h *health) uint64 { return h.strangers.Refused },
		text: func(h *health, n uint64) string {
			return fmt.Sprintf("%s is not taken into the group (%d): it has %d peers, which is the most", h.strangers.Last, n, node.MaxPeers)
		},
	}, {
		count: func(h *health) uint64 { return h.link.Truncated },
		text: func(_ *health, n uint64) string {
			return fmt.Sprintf("datagrams of the sync link were longer than any can be, and dropped (%d)", n)
		},
	}, {
		count: func(h *health) uint64 { return h.link.RecvDropped },
		text: func(_ *health, n uint64) string {
			return fmt.Sprintf("datagrams did not fit into the receive buffer of the sync link (%d); raise RcvSocketBuffer if this repeats", n)
		},
	}, {
		count: func(h *health) uint64 { return h.link.Unsendable },
		text: func(h *health, n uint64) string {
			return fmt.Sprintf("datagrams could not be sent on the sync link (%d): %v", n, h.link.LastUnsendable)
		},
	}, {
		count: func(h *health) uint64 { return h.link.Unaccepted },
		text: func(h *health, n uint64) string {
			return fmt.Sprintf("the other node's connection on the sync link could not be accepted (%d times): %v", n, h.link.LastUnaccepted)
		},
	}, {
		count: func(h *health) uint64 { return h.node.Internal.NoSpace },
		text:  full(node.Internal),
	}, {
		count: func(h *health) uint64 { return h.node.External.NoSpace },
		text:  full(node.External),
	}, {
		count: func(h *health) uint64 { return h.dropped },
		text: func(_ *health, n uint64) string {
			return fmt.Sprintf("clients of the control socket that asked for nothing, or did not read the answer, had to make room for others (%d)", n)
		},
	}, {
		ownLine: true,
		count:   func(h *health) uint64 { return h.unwritten },
		text: func(h *health, n uint64) string {
			return fmt.Sprintf("lines could not be written to the log file (%d): %v", n, h.why)
		},
	}}...)
}

// lackTroubles are about entries that were injected without an attribute.
func (d *Daemon) lackTroubles() (all []trouble) {
	if d.sync.inject == nil {
		return nil
	}
	l := &d.sync.inject.lacking
	for i := range l {
		all = append(all, trouble{
			count: func(*health) uint64 { return l[i].Load() },
			text:  func(_ *health, n uint64) string { return l.text(i, n, "injected") },
		})
	}
	return all
}

func (d *Daemon) refusedText(h *health, n uint64) string {
	what := fmt.Sprintf("a datagram from %s", h.link.LastRefused)
	if n > 1 {
		what = fmt.Sprintf("%d datagrams, the last one from %s", n, h.link.LastRefused)
	}
	return fmt.Sprintf("refused %s: %s", what, whyRefused(d.cfg.Links))
}
