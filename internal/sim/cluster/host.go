package cluster

import (
	"cmp"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
)

// host is a machine: its kernel lives on when the daemon dies or is stopped.
type host struct {
	*Cluster
	index  int
	kind   Kind
	links  []*link
	alarm  *sim.Alarm
	kernel flows

	daemon daemon // nil: down
	life   int
	born   time.Duration
	paused bool
	inbox  []packet
	events []event
	deaf   bool // events are being lost
	lost   bool // some were, and are not repaired

	sent   int
	heavy  int          // of former lives
	past   []packet     // what came, for a stranger to repeat
	buried map[int]bool // destroyed before the daemon's present life, or while a peer was away
}

// link is one direction between two hosts.
type link struct {
	faults *sim.Faults
	pipe   *sim.Pipe[packet]
	to     int
}

type event struct {
	id, version int
	made        bool
}

const (
	inboxMost  = 300
	eventsMost = 100 // events that wait while the daemon is stopped
	pastMost   = 300
	stormMost  = 100_000
)

func newHost(c *Cluster, index int, kind Kind) *host {
	h := &host{Cluster: c, index: index, kind: kind, kernel: flows{}, buried: map[int]bool{}}
	h.alarm = sim.NewAlarm(c.World, h.run)
	return h
}

func (h *host) String() string {
	return fmt.Sprintf("%s%d", [...]string{Go: "go", C: "c"}[h.kind], h.index)
}

// join makes the direction from h to another host.
func (h *host) join(to *host) {
	f := &sim.Faults{Delay: 100 * time.Microsecond}
	h.links = append(h.links, &link{faults: f, pipe: sim.NewPipe(h.World, f, to.arrive), to: to.index})
}

// populate gives the kernel half of its flows.
func (h *host) populate() {
	for id := range flowCount / 2 {
		h.Cluster.version++
		h.kernel[id] = h.Cluster.version
	}
}

// start begins a life of the daemon.
func (h *host) start() {
	h.life++
	h.born = h.Now()
	h.inbox, h.events, h.lost, h.deaf, h.paused = nil, nil, false, false, false
	firstSeq := h.clock + uint32(h.Now()/time.Second)
	if h.profile.ClockStep && h.life > 1 {
		firstSeq += h.Rand().Uint32N(7200) - 3600
	}
	h.bury()
	h.Logf("%v starts at %d", h, firstSeq)
	if h.kind == C {
		h.daemon = newCDaemon(h, firstSeq)
	} else {
		h.daemon = newGoDaemon(h, firstSeq)
	}
	h.run()
}

// bury notes whose end nobody will be told of.
func (h *host) bury() {
	for id := range flowCount {
		if h.kernel[id] == 0 {
			h.buried[id] = true
		}
	}
}

// forgive takes out of what a C daemon has of this host the flows of whose end
// nobody can tell it.
func (h *host) forgive(external flows) {
	for id := range external {
		if h.kernel[id] == 0 && h.buried[id] {
			delete(external, id)
		}
	}
}

func (h *host) die() {
	h.Logf("%v dies", h)
	h.heavy += h.daemon.heavy()
	h.daemon = nil
	h.alarm.Stop()
	h.After(h.Between(300*time.Millisecond, 8*time.Second), h.start)
}

// later calls f if the same life goes on by then.
func (h *host) later(d time.Duration, f func()) {
	life := h.life
	h.After(d, func() {
		if h.life == life && h.daemon != nil {
			f()
		}
	})
}

// stop is SIGSTOP and, some time later, SIGCONT.
func (h *host) stop() {
	if h.paused {
		return
	}
	h.Logf("%v is stopped", h)
	h.paused = true
	h.alarm.Stop()
	h.later(h.Between(0, 10*time.Second), func() {
		h.Logf("%v goes on", h)
		h.paused = false
		inbox, events := h.inbox, h.events
		h.inbox, h.events = nil, nil
		for _, p := range inbox {
			h.daemon.receive(p)
		}
		for _, e := range events {
			h.daemon.event(e.id, e.version, e.made)
		}
		if h.lost {
			h.repairSoon()
		}
		h.run()
	})
}

// nudge has the daemon run soon.
func (h *host) nudge() {
	if !h.paused {
		h.alarm.Set(h.Now() + h.Between(0, 2*time.Millisecond))
	}
}

// run lets the daemon work, and looks whether all is in bounds.
func (h *host) run() {
	if h.daemon == nil || h.paused {
		return
	}
	next := h.daemon.run(h.send)
	h.mourn()
	if err := h.daemon.bounds(); err != nil {
		h.fail("%v: %v", h, err)
	}
	if h.sent > stormMost {
		h.fail("%v does not stop sending", h)
		return
	}
	h.alarm.Set(max(next, h.Now()+time.Microsecond))
}

func (h *host) send(to int, b []byte) {
	h.sent++
	h.Logf("%v sends %s", h, text(b))
	for _, l := range h.links {
		if to == everybody || to == l.to {
			l.pipe.Send(packet{from: h.index, all: to == everybody, b: b})
		}
	}
}

// arrive takes a datagram off a link.
func (h *host) arrive(p packet) {
	if h.past = append(h.past, p); len(h.past) > 2*pastMost {
		h.past = append(h.past[:0], h.past[pastMost:]...)
	}
	h.take(p)
}

func (h *host) take(p packet) {
	switch {
	case h.daemon == nil:
	case !h.paused:
		h.Logf("%v hears %s", h, text(p.b))
		h.daemon.receive(p)
		h.nudge()
	case len(h.inbox) < h.room():
		h.inbox = append(h.inbox, p)
	}
}

func (h *host) room() int {
	if h.profile.Inbox > 0 {
		return h.profile.Inbox
	}
	return inboxMost
}

// churn does one random thing in the kernel.
func (h *host) churn() {
	id := h.Rand().IntN(flowCount)
	was := h.kernel[id]
	if was != 0 && h.Chance(0.3) {
		delete(h.kernel, id)
	} else {
		h.Cluster.version++
		h.kernel[id] = h.Cluster.version
		delete(h.buried, id)
	}
	h.updates++
	h.tell(event{id: id, version: h.kernel[id], made: was == 0})
}

// tell is the kernel's event, if there is somebody to hear it.
func (h *host) tell(e event) {
	switch {
	case h.daemon == nil:
	case h.deaf || h.paused && len(h.events) >= eventsMost:
		h.lost = true
	case h.paused:
		h.events = append(h.events, e)
	default:
		h.Logf("%v: flow %d is %d", h, e.id, e.version)
		h.daemon.event(e.id, e.version, e.made)
		h.mourn()
		h.nudge()
	}
}

// mourn buries what ends as the peer is given up, and until it is back.
func (h *host) mourn() {
	if h.daemon.away() {
		h.bury()
	}
}

// overrun loses events for a while.
func (h *host) overrun() {
	h.Logf("%v: overrun", h)
	h.deaf = true
	h.later(100*time.Millisecond, func() {
		h.deaf = false
		h.repairSoon()
	})
}

func (h *host) repairSoon() {
	h.later(600*time.Millisecond, func() {
		if h.paused {
			return
		}
		h.lost = false
		h.daemon.repair()
		h.nudge()
	})
}

// trouble does what the profile has in store.
func (h *host) trouble() {
	p := h.profile
	if h.daemon == nil {
		return
	}
	if h.Chance(p.OneWay) {
		h.cut(h.links[h.Rand().IntN(len(h.links))])
	}
	if h.Chance(p.Partition) {
		h.alone()
	}
	if h.Chance(p.Strangers) && h.kind == Go {
		h.strangers()
	}
	if h.Chance(p.Overrun) {
		h.overrun()
	}
	if h.Chance(p.Pause) {
		h.stop()
	}
	if h.Chance(p.Restart) {
		h.die()
	}
}

// cut takes one direction of a link down for a while.
func (h *host) cut(links ...*link) {
	h.Logf("%v: %d links are cut", h, len(links))
	for _, l := range links {
		l.faults.Down = true
	}
	h.After(h.Between(0, cmp.Or(h.profile.Cut, 5*time.Second)), func() {
		for _, l := range links {
			l.faults.Down = false
		}
	})
}

// alone cuts a host off, in both directions.
func (h *host) alone() {
	both := append([]*link(nil), h.links...)
	for _, other := range h.hosts {
		if other != h {
			i := h.index
			if other.index < i {
				i--
			}
			both = append(both, other.links[i])
		}
	}
	h.cut(both...)
}
