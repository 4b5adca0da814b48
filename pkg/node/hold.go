package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Without an external cache the peer's flows lie in our kernel, where they age:
// packets refresh the timers of one side only, and no event says so. With
// Config.Hold the external cache is the account of what the peer has and was
// written here. Such an entry is given its protocol's normal timeout and Hold
// on top of it, anew each half of Hold, and so never has less left than the
// normal one. TakeOver takes Hold back from all of them.
//
// A flow is either ours, in the internal cache, or the peer's, in the external
// one: who spoke of it last. We speak by an event of our kernel that a packet
// caused, the peer by a message. Two nodes that held a flow for each other's
// sake would never let it end.
type hold struct {
	role   role
	since  uint32        // second in which it became a standby
	heard  time.Duration // when the peer was heard last
	normal flow.Timeouts
	walk   walk
	listen listen
	handed int // entries that got their normal timeout back, in this round
}

// role is what a node has been told it is.
type role uint8

const (
	starting role = iota // nothing, since it started
	standby              // StandBy
	primary              // TakeOver
)

const (
	// heldUnheard is how long entries are held for whom nobody vouches: the
	// peer by being heard where it acknowledges, so that none of its words is
	// lost; else its word about the very entry.
	heldUnheard = 24 * time.Hour
	// takeOverPace is the time that an entry takes in a take-over, which goes
	// on beside the traffic.
	takeOverPace = 40 * time.Microsecond

	walkChunk = 64 // slots at a time
	walkMost  = 16 // chunks in one Tick
)

// A walk goes through the account at an even pace.
type walk struct {
	active  bool
	at      cursor
	began   time.Duration
	slots   int // to visit in this round, as far as is known
	visited int
}

// due is when the next chunk is to be visited.
func (w *walk) due(period time.Duration) time.Duration {
	if share := w.visited + walkChunk; share < w.slots {
		return w.began + time.Duration(float64(period)*float64(share)/float64(w.slots))
	}
	return w.began + period
}

func (n *Node) holds() bool { return n.cfg.Hold != 0 }

// period is how long a round of the walk takes.
func (n *Node) period() time.Duration {
	if n.hold.role == primary {
		return time.Duration(n.hold.walk.slots) * takeOverPace
	}
	return n.cfg.Hold / 2
}

func (n *Node) beginWalk(now time.Duration) {
	n.hold.walk = walk{active: true, began: now, slots: n.external.slots()}
}

// SetTimeouts tells what is normal in the own kernel. Until then what the
// peer's messages say is.
func (n *Node) SetTimeouts(t flow.Timeouts) { n.hold.normal = t }

// TakeOver makes this the node that has the traffic: what is held gets its
// normal timeout back, without anybody having to wait for it, and what the
// peer says from now on is not held. It returns how many entries were held.
func (n *Node) TakeOver(now time.Duration) (held int) {
	n.hold.role = primary
	n.hold.listen = listen{}
	n.hold.handed = 0
	n.beginWalk(now)
	return n.external.live()
}

// StandBy makes this a node without traffic. What it had is the peer's as soon
// as the peer speaks of it.
func (n *Node) StandBy(now time.Duration) {
	if n.hold.role == primary {
		n.beginWalk(now) // at another pace
	}
	n.hold.role, n.hold.since = standby, seconds(now)
}

// Holds reports whether a flow is held for the peer.
func (n *Node) Holds(f *flow.Flow) bool {
	if !n.holds() || n.hold.role == primary {
		return false
	}
	r := n.external.lookup(&f.Key)
	return r != none && !n.external.dead(r)
}

// held takes a message about a flow that is going to be written to the kernel.
// It reports whether that is the peer's flow; then ev says how to write it.
func (n *Node) held(now time.Duration, ev *flow.Event) bool {
	f, s := &ev.Flow, n.external
	if ev.Op == flow.Destroy {
		if r := s.lookup(&f.Key); r != none {
			s.stats.Destroyed++
			s.remove(r, false)
		}
		return false
	}
	full := n.normal(f)
	in := n.internal.lookup(&f.Key)
	if in != none && n.internal.dead(in) {
		in = none
	}
	if n.hold.role == primary || f.Status&flow.StatusFixedTimeout != 0 || in != none && !n.past(in) {
		// The peer may be one that holds it, and mention that timeout.
		f.Timeout = min(f.Timeout, full)
		return false
	}
	r, fresh := s.put(&f.Key)
	if r == none {
		n.limitReached(External)
		return false
	}
	if in != none {
		n.drop(in)
	}
	if ev.Op == flow.New || fresh {
		n.replace(now, s, r, fresh, f)
	} else {
		s.save(r, f)
		s.stats.Updated++
	}
	c := s.common(r)
	c.seen = seconds(now)
	c.gen = s.gen
	f.Timeout = full + n.holdSeconds()
	f.Has |= flow.HasTimeout
	return true
}

func (n *Node) holdSeconds() uint32 { return uint32(n.cfg.Hold / time.Second) }

// normal is the timeout that a packet would give a flow.
func (n *Node) normal(f *flow.Flow) uint32 {
	if full := n.hold.normal.Of(f); full != 0 {
		return full
	}
	if f.Has.Has(flow.HasTimeout) {
		return f.Timeout
	}
	return fallbackTimeout
}

// past reports whether an internal entry is of a time when this node had the
// traffic, or may be. Whose flow it is now the peer will say; its end here is
// no news.
func (n *Node) past(in ref) bool {
	c := n.internal.common(in)
	switch {
	case n.hold.role == standby:
		return c.flags&lively == 0 || c.seen <= n.hold.since
	case c.flags&lively != 0:
		return false
	case n.hold.role == primary:
		return false
	case n.hold.listen.on:
		return true
	}
	// It was read from the table when we started. With more time than a packet
	// gives, it was held in our life before.
	f := &n.scratch
	n.internal.load(in, f)
	return f.Timeout > n.normal(f)
}

// offer queues an entry of a bulk. A standby does not claim what it had.
func (n *Node) offer(r ref) {
	if n.holds() && n.hold.role == standby && n.past(r) {
		return
	}
	n.enqueue(r)
}

// spoken takes an event of the own kernel about a flow that the peer has. It
// reports whether that is no news: a packet makes the flow ours, but that it is
// there, or has ended here, says nothing about the peer's.
func (n *Node) spoken(ev *flow.Event) (ignore bool) {
	s := n.external
	if s.live() == 0 {
		return false
	}
	r := s.lookup(&ev.Flow.Key)
	switch {
	case r == none:
		return false
	case ev.Op == flow.Dumped:
		return n.hold.role != primary
	case ev.Op == flow.Destroy && n.hold.role != primary:
		return true // and it comes back with the next round
	}
	s.remove(r, false)
	return false
}

// Lost takes flows of which the kernel says that they are not there when their
// timeouts are renewed. Those that are still held are written anew.
func (n *Node) Lost(flows []flow.Flow) {
	for i := range flows {
		if !n.Holds(&flows[i]) {
			continue
		}
		ev := n.order(flow.New)
		n.external.load(n.external.lookup(&flows[i].Key), &ev.Flow)
		ev.Flow.Timeout = n.normal(&ev.Flow) + n.holdSeconds()
		ev.Flow.Has |= flow.HasTimeout
	}
}

// keep goes on with the walk.
func (n *Node) keep(now time.Duration) {
	w := &n.hold.walk
	for range walkMost {
		if !w.active {
			if n.external.live() == 0 {
				return
			}
			n.beginWalk(now)
		}
		if now < w.due(n.period()) {
			return
		}
		n.external.scan(&w.at, walkChunk, func(r ref) { n.renew(now, r) })
		if w.visited += walkChunk; !w.at.done {
			continue
		}
		n.tellHanded()
		next := max(now, w.began+n.period()) // a page with few entries is walked through early
		*w = walk{}
		if n.external.live() > 0 {
			n.beginWalk(next)
		}
	}
}

// tellHanded ends a round.
func (n *Node) tellHanded() {
	h := &n.hold
	if h.handed == 0 {
		return
	}
	kind := HoldLapsed
	if h.role == primary {
		kind = TakenOver
	}
	n.notices = append(n.notices, Notice{Kind: kind, Count: h.handed})
	h.handed = 0
}

// renew orders a new timeout for an entry of the account.
func (n *Node) renew(now time.Duration, r ref) {
	ev := n.order(flow.Renew)
	f := &ev.Flow
	n.external.load(r, f)
	f.Timeout = n.normal(f)
	if n.hold.role != primary && n.vouched(now, r) {
		f.Timeout += n.holdSeconds()
	} else {
		n.hold.handed++
		n.external.remove(r, false)
	}
	f.Has = f.Has&(flow.HasAddr|flow.HasProto|flow.HasPorts|flow.HasZone|flow.HasZoneOrig) | flow.HasTimeout
}

func (n *Node) vouched(now time.Duration, r ref) bool {
	last := n.hold.heard
	if !n.cfg.Mode.row().acknowledged {
		last = time.Duration(n.external.common(r).seen) * time.Second
	}
	return now-last < heldUnheard
}

// ended takes an entry of the account that the peer did not mention in a
// complete bulk. What was never told to be a standby may have the traffic, so
// it deletes nothing.
func (n *Node) ended(r ref) {
	ev := n.order(flow.Destroy)
	n.external.load(r, &ev.Flow)
	if n.hold.role != standby {
		ev.Op = flow.Renew
		ev.Flow.Timeout = n.normal(&ev.Flow)
		ev.Flow.Has |= flow.HasTimeout
	}
}

// holdDeadline is when Tick is wanted.
func (n *Node) holdDeadline() time.Duration {
	d := n.hold.listen.deadline()
	if w := &n.hold.walk; w.active {
		d = min(d, w.due(n.period()))
	}
	return d
}
