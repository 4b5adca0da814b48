// Package cluster simulates two to five whole nodes, of ours and models of the
// C daemon, with everything around them that can go wrong: the links, the
// kernels' events, the hosts, and strangers. One seed is one run, exactly.
package cluster

import (
	"cmp"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// Kind is what runs on a host.
type Kind uint8

// The kinds.
const (
	Go Kind = iota
	C
)

// A Profile is a group of hosts and what happens to them. Odds are those of
// each with every step of each host.
type Profile struct {
	Name  string
	Hosts []Kind
	Mode  node.Mode
	// Group: our nodes are a group, in which each has a relation with each. They
	// know of each other from the start, or with Found find each other.
	Group, Found bool

	// Change adapts the configuration of our nodes; nil changes nothing.
	Change func(cfg *node.Config)
	// Faults is what is wrong with each direction of each link; nil: nothing.
	Faults func(w *sim.World, f *sim.Faults)
	// Late begins the faults when all have greeted each other: a C daemon
	// believes a HELLO that the network repeats.
	Late bool

	Restart   float64       // sudden death, and a new life some seconds later
	ClockStep bool          // which begins at another time of day
	Pause     float64       // the daemon is stopped for up to ten seconds, the world is not
	Overrun   float64       // kernel events are lost
	OneWay    float64       // one direction of one link is cut for a while
	Partition float64       // a host is alone for a while
	Cut       time.Duration // how long those last at most; 0: 5 s
	Strangers float64       // datagrams that nobody of the group sent
	// Inbox is how many datagrams wait while the daemon is stopped; 0: 300.
	Inbox int
	// Asks: in the end every node asks for everything, as the mode needs it.
	Asks bool
	// Steps is how many steps the trouble lasts; 0: 200. Pace is how far apart
	// they are at most; 0: 30 ms.
	Steps int
	Pace  time.Duration
	// Frames bounds the datagrams that all send for an update while the trouble
	// lasts, beside two a second for each host; 0: 40.
	Frames int
}

// flows is what a kernel tracks: versions by the number of the flow.
type flows = map[int]int

// flowCount is how many flows there are on a host, so that they come again.
const flowCount = 24

// daemon is what runs on a host: one of our nodes or a model of C.
type daemon interface {
	// event takes what happened to a flow; made is whether it is another one
	// than before.
	event(id, version int, made bool)
	receive(p packet)
	// run does what is due, hands datagrams to send and returns when it wants
	// to run again. to is a host, or everybody.
	run(send func(to int, b []byte)) time.Duration
	// repair reads the kernel's table after events were lost.
	repair()
	resync()
	internal() flows
	external() map[origin]int
	// bounds returns an error if something grows that must not.
	bounds() error
	// heavy counts what is answered with everything.
	heavy() int
	// away reports whether a peer is given up.
	away() bool
}

// everybody is where a datagram goes that is for no host alone.
const everybody = -1

// packet is a datagram on its way.
type packet struct {
	from int
	all  bool // it was sent to everybody
	b    []byte
}

// origin names a flow of a host.
type origin struct{ host, id int }

// Cluster is one run of a profile.
type Cluster struct {
	*sim.World
	profile *Profile
	hosts   []*host
	clock   uint32 // the time of day when the world began, in seconds
	updates int
	version int
	wrong   error // the first invariant broken
}

// New makes the hosts of a profile and joins each with each.
func New(p *Profile, seed uint64) *Cluster {
	c := &Cluster{World: sim.New(seed), profile: p}
	c.clock = c.Rand().Uint32()
	if c.Chance(0.5) {
		c.clock = -c.Rand().Uint32N(200) // numbers wrap
	}
	for i, kind := range p.Hosts {
		c.hosts = append(c.hosts, newHost(c, i, kind))
	}
	for _, from := range c.hosts {
		for _, to := range c.hosts {
			if from != to {
				from.join(to)
			}
		}
	}
	return c
}

// Play runs the profile and returns what was wrong.
func (c *Cluster) Play() error {
	p := c.profile
	steps, pace := cmp.Or(p.Steps, 200), cmp.Or(p.Pace, 30*time.Millisecond)
	for _, h := range c.hosts {
		h.populate()
		c.After(c.Between(0, 3*time.Second), h.start)
	}
	if p.Late {
		c.Run(8 * time.Second)
	}
	c.faults(p.Faults)
	for range steps {
		for _, h := range c.hosts {
			h.trouble()
			h.churn()
		}
		c.Run(c.Now() + c.Between(0, pace))
		if c.wrong != nil {
			return c.wrong
		}
	}
	c.Run(c.Now() + 12*time.Second) // whoever was away is back
	c.faults(nil)
	c.Run(c.Now() + time.Second)
	for _, h := range c.hosts {
		if h.lost && h.daemon != nil {
			h.daemon.repair()
			h.nudge()
		}
	}
	c.Run(c.Now() + time.Second)
	if p.Asks {
		for _, h := range c.hosts {
			h.daemon.resync()
			h.nudge()
		}
	}
	return c.settle()
}

// settle waits until all agree, or as long as they may take. In some runs it
// waits that long anyway, as nothing may change any more once they agree.
func (c *Cluster) settle() error {
	patience := c.Chance(1. / 8)
	for end := c.Now() + longest; ; {
		c.Run(c.Now() + 10*time.Second)
		err := c.atRest()
		if c.wrong != nil {
			return c.wrong
		}
		if over := c.Now() >= end; over || err == nil && !patience {
			return err
		}
	}
}

// longest is how long agreement may take after the worst: a RESYNC that went
// astray is repeated after 30 seconds, then after 60.
const longest = 120 * time.Second

// faults sets what is wrong with every link; nil is nothing.
func (c *Cluster) faults(of func(w *sim.World, f *sim.Faults)) {
	for _, h := range c.hosts {
		for _, l := range h.links {
			*l.faults = sim.Faults{Delay: 100 * time.Microsecond}
			if of != nil {
				of(c.World, l.faults)
			}
		}
	}
}

// fail notes the first thing that was wrong.
func (c *Cluster) fail(format string, args ...any) {
	if c.wrong == nil {
		c.wrong = fmt.Errorf("at %v: "+format, append([]any{c.Now()}, args...)...)
		c.Logf("WRONG: %v", c.wrong)
	}
}

// atRest compares, entry by entry, what must be equal when nothing is wrong
// any more.
func (c *Cluster) atRest() error {
	for _, h := range c.hosts {
		if d := differ(h.kernel, h.daemon.internal()); d != "" {
			return fmt.Errorf("host %d, kernel and internal cache: %s", h.index, d)
		}
		got := h.daemon.external()
		for _, other := range c.hosts {
			if other == h {
				continue
			}
			mine := flows{}
			for o, version := range got {
				if o.host == other.index {
					mine[o.id] = version
					delete(got, o)
				}
			}
			if h.kind == C {
				other.forgive(mine)
			}
			if d := differ(other.kernel, mine); d != "" {
				return fmt.Errorf("kernel of host %d and external cache of host %d: %s", other.index, h.index, d)
			}
		}
		if len(got) > 0 {
			return fmt.Errorf("host %d has %d flows of nobody: %v", h.index, len(got), got)
		}
	}
	return c.frames()
}

// differ returns the first difference.
func differ(want, got flows) string {
	for id := range flowCount {
		if want[id] != got[id] {
			return fmt.Sprintf("flow %d is %d there and %d here", id, want[id], got[id])
		}
	}
	if len(got) > flowCount {
		return fmt.Sprintf("%d flows", len(got))
	}
	return ""
}

// frames bounds what was sent: some datagrams for each update, some a second,
// and everything for each time somebody asked for everything.
func (c *Cluster) frames() error {
	per := c.profile.Frames
	if per == 0 {
		per = 40
	}
	sent, heavy := 0, 0
	for _, h := range c.hosts {
		sent += h.sent
		heavy += h.heavy
		if h.daemon != nil {
			heavy += h.daemon.heavy()
		}
	}
	seconds := int(c.Now() / time.Second)
	if most := per*c.updates + 20*seconds*len(c.hosts) + 2*flowCount*heavy; sent > most {
		return fmt.Errorf("%d datagrams for %d updates, more than %d", sent, c.updates, most)
	}
	return nil
}
