// Package node is one synchronisation node without its surroundings: the
// internal cache (what the own kernel tracks), the external cache (what the
// peer's kernel tracks), the protocol engine between them and the codec.
//
// It is a deterministic core. Inputs are method calls (Kernel, Datagram, Tick,
// and the requests of the operator); outputs are pulled (Next, NextCommit,
// NextNotice, Deadline). It does no I/O, reads no clock and starts no
// goroutine; exactly one goroutine may be inside at a time. Every time
// argument called now is the time since the node was made, from a clock that
// never jumps.
package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A Node is one synchronisation node.
type Node struct {
	cfg      Config
	wire     wire.Options
	engine   modeEngine
	speaker  speaker  // nil if nothing is announced
	timers   timers   // nil unless the mode has timers for each object
	numbers  numberer // nil unless there is no internal cache
	holder   holder   // nil unless the mode keeps the peer's order
	leaver   leaver   // nil unless the peer is one of several
	early    early
	release  func(engine.Ref)
	internal *store
	external *store
	expects  expectations

	out         sender
	direct      direct
	inject      []flow.Event
	injectX     []flow.ExpectEvent
	bulk        bulk
	window      window // of bulks
	sweep       sweep
	expiry      expiry
	commit      commit
	hold        hold
	restored    restored
	limits      [2]limited // by Which
	sweepWanted bool       // see limit.go
	flushed     bool       // the peer may hold flows that the internal cache has not
	unread      bool       // and the kernel's table has not been read since
	unfilled    bool       // nor ever before; see Unfilled
	away        bool       // the peer is; see away.go
	// leftovers: the peer may hold flows whose end it was not told, of before it
	// was away, or of a former life of ours. Used with Group.
	leftovers bool
	peer      peer
	silent    silent
	say       saying
	mark      marking
	hear      hearing
	said      wire.Ext
	untold    difference
	sent      clock
	notices   []Notice
	// resyncsHeard is the number of the peer's RESYNCs that were logged.
	resyncsHeard uint64
	doubted      bool // that PeerVersion is right
	stats        Stats
	tail         []byte // of the lines of external entries: whom they are from
	// ending is called, if set, before an external entry goes because the peer
	// says so; told is when the peer spoke of it last.
	ending func(now time.Duration, k *flow.Key, told uint32)

	scratch, other flow.Flow
}

// New makes a node at now = 0. firstSeq is the first sequence number, the
// UNIX time in seconds (docs/protocol.md 4); seed is 128 random
// bits that key the hash tables.
func New(cfg Config, firstSeq uint32, seed [2]uint64) *Node {
	n := &Node{
		cfg:    cfg,
		window: newWindow(min(cfg.BulkWindow, cfg.ResendQueueSize-2*bulkChunk), cfg.ACKWindowSize),
		wire: wire.Options{
			OmitTimeout: cfg.CommitTimeout != 0,
			WindowScale: cfg.TCPWindowTracking,
			Peer:        cfg.PeerVersion,
			Without:     cfg.DoNotSync,
		},
		internal: newStore(cfg.HashSize, cfg.HashLimit, cache.NewSeed(seed[0], seed[1])),
		external: newStore(cfg.HashSize, cfg.HashLimit, cache.NewSeed(seed[1], seed[0])),
		expects:  newExpectations(cfg.HashLimit, seed),
	}
	if cfg.Mode.Resyncs() {
		n.internal.digested(n.wire)
		theirs := n.wire
		theirs.WindowScale = true // if they have come
		n.external.digested(theirs)
	}
	n.sent.newest = firstSeq - 1
	n.cfg.Filter.Compile()
	n.release = n.released
	n.hold.listen.on = n.holds() && !cfg.DisableInternalCache
	n.engine = cfg.Mode.row().make(&n.cfg, firstSeq, seed[0]^seed[1])
	n.timers, _ = n.engine.(timers)
	n.holder, _ = n.engine.(holder)
	if cfg.Group {
		n.leaver, _ = n.engine.(leaver)
		n.leftovers = true
	}
	if cfg.Name != (wire.NodeName{}) {
		n.speaker, _ = n.engine.(speaker)
	}
	if cfg.DisableInternalCache {
		n.numbers = n.engine.(numberer)
	}
	return n
}

// Kernel takes events in the order the kernel sent them, and the entries of a
// dump between BeginSweep and EndSweep.
func (n *Node) Kernel(now time.Duration, events []flow.Event) {
	if n.numbers != nil {
		n.pass(events)
		return
	}
	for i := range events {
		ev := &events[i]
		if n.holds() && ev.Origin == flow.Other && n.spoken(ev) {
			continue
		}
		if ev.Origin == flow.Self && n.cfg.DisableExternalCache && n.strange(&ev.Flow) {
			continue
		}
		n.take(now, ev)
	}
	if len(n.expects.orphans) > 0 {
		n.adoptOrphans(now)
	}
}

func (n *Node) take(now time.Duration, ev *flow.Event) {
	switch ev.Op {
	case flow.New:
		n.created(now, ev)
	case flow.Update:
		n.changed(now, ev)
	case flow.Destroy:
		n.destroyed(ev)
	case flow.Dumped:
		n.dumped(now, &ev.Flow)
	}
}

// admit finds or makes the internal entry of an event; none if the filter or
// the limit is against it.
func (n *Node) admit(f *flow.Flow) (r ref, fresh bool) {
	if !n.cfg.Filter.Pass(f) {
		n.stats.EventsFiltered++
		return none, false
	}
	if r, fresh = n.internal.put(&f.Key); r == none {
		n.limitReached(Internal)
	}
	if fresh && (n.flushed || n.leftovers) {
		n.internal.common(r).flags = told
	}
	return r, fresh
}

func (n *Node) created(now time.Duration, ev *flow.Event) {
	r, fresh := n.admit(&ev.Flow)
	if r == none {
		return
	}
	if !fresh {
		n.refound(n.internal.common(r), flow.New)
	}
	n.replace(now, n.internal, r, fresh, &ev.Flow)
	n.watch(now, r)
	if ev.Origin == flow.Other {
		n.internal.common(r).flags |= lively
		n.enqueue(r)
	}
}

// replace fills an entry anew, as CT_NEW and the kernel's NEW event do: a live
// one of the same key ends, a tombstone comes back to life.
func (n *Node) replace(now time.Duration, s *store, r ref, fresh bool, f *flow.Flow) {
	c := s.common(r)
	s.uncount(r, c)
	flags := c.flags &^ (updated | assumed | lively | found)
	if flags&told != 0 {
		flags |= renewed
	}
	switch {
	case fresh:
	case s.dead(r):
		s.revive(r)
	default:
		s.stats.Destroyed++
	}
	s.stats.Created++
	s.save(r, f)
	c.born = seconds(now)
	c.seen = c.born
	c.gen = s.gen
	c.flags = flags
}

func (n *Node) changed(now time.Duration, ev *flow.Event) {
	r, fresh := n.admit(&ev.Flow)
	if r == none {
		return
	}
	s := n.internal
	c, was := s.common(r), uint64(0)
	if fresh || s.dead(r) || s.succeeded(r, &ev.Flow) {
		n.replace(now, s, r, fresh, &ev.Flow)
		c.flags |= told // its NEW event was lost, or before our time
	} else {
		n.refound(s.common(r), flow.Update)
		was = s.uncount(r, c)
		s.merge(r, &ev.Flow, &n.scratch)
		s.stats.Updated++
	}
	c.seen = seconds(now)
	c.gen = s.gen
	c.flags = c.flags&^assumed | updated
	n.watch(now, r)
	if ev.Origin == flow.Other {
		c.flags |= lively
		n.enqueue(r)
	} else {
		s.recount(r, c, was)
	}
}

// destroyed lets the end of every cached flow through, whatever the filter
// says of its last state: else it would stay here and at the peer for ever.
func (n *Node) destroyed(ev *flow.Event) {
	n.sweep.destroyed(&ev.Flow)
	r := n.internal.lookup(&ev.Flow.Key)
	if r == none || n.internal.dead(r) {
		switch {
		case !n.cfg.Filter.Pass(&ev.Flow):
			n.stats.EventsFiltered++
		case r == none && n.flushed && ev.Origin == flow.Other && n.mayBury():
			n.bury(&ev.Flow)
		}
		return
	}
	for _, c := range ev.Flow.Counters {
		n.stats.TrafficBytes += c.Bytes
		n.stats.TrafficPackets += c.Packets
	}
	n.die(r, ev.Origin == flow.Other)
}

// die ends an internal entry and, if tell, lets the peer know. A flow that
// came and went before the peer heard of it is nothing to speak of.
func (n *Node) die(r ref, tell bool) {
	s := n.internal
	s.stats.Destroyed++
	c := s.common(r)
	n.unwatch(r)
	queued := n.engine.Queued(engine.Ref(r))
	if c.flags&told == 0 || n.away || n.holds() && n.past(r) {
		tell = false
		if queued {
			n.engine.Forget(engine.Ref(r))
			s.unpin(r)
			queued = false
		}
	}
	if tell {
		n.enqueue(r)
		queued = true
	}
	s.remove(r, queued)
}

// mayBury reports whether a flow that is not in the internal cache may have
// been. Without an external cache it is most likely the peer's, and has ended
// here because no packets come this way.
func (n *Node) mayBury() bool {
	return !n.away && (!n.cfg.DisableExternalCache || n.holds() && n.hold.role == primary)
}

// bury tells the peer of the end of a flow that was flushed here: it may still
// be there.
func (n *Node) bury(f *flow.Flow) {
	s := n.internal
	r, _ := s.put(&f.Key)
	if r == none {
		return
	}
	s.save(r, f)
	n.enqueue(r)
	s.remove(r, true)
}

func (n *Node) enqueue(r ref) {
	if n.away {
		return
	}
	if n.engine.Enqueue(engine.Ref(r)) {
		n.internal.pin(r)
	}
}

// Datagram takes what one datagram of the peer holds. Nothing of b is kept.
func (n *Node) Datagram(now time.Duration, b []byte) {
	n.hold.heard = now
	n.hearRestored(now)
	for len(b) > 0 {
		m, rest, err := wire.Next(b)
		b = rest
		if err != nil {
			n.stats.Network.count(err)
			continue
		}
		n.message(now, &m)
		if n.holder != nil {
			n.takeHeld(now)
		}
	}
	n.settle(now)
}

// settle does what the engine asks for after an input.
func (n *Node) settle(now time.Duration) {
	n.engine.Released(n.release)
	n.returned()
	for {
		ev, ok := n.engine.NextEvent()
		if !ok {
			return
		}
		n.engineEvent(now, ev)
	}
}

// released gives up what the engine has no more use for: the peer has
// acknowledged it, or nobody will.
func (n *Node) released(r engine.Ref) {
	if ref(r).isExpect() {
		n.releaseExpect(ref(r))
		return
	}
	n.internal.common(ref(r)).flags &^= renewed
	n.internal.unpin(ref(r))
}

// Tick runs the timers that are due.
func (n *Node) Tick(now time.Duration) {
	n.engine.Tick(now)
	if n.holder != nil {
		n.takeHeld(now)
	}
	n.giveUp(now)
	n.refresh(now)
	n.watchPeer(now)
	n.watchSilence(now)
	n.endRestored(now)
	n.retryResync(now)
	n.refill(now)
	if n.holds() {
		n.hold.listen.tick(now, n.reading() || n.hold.heard == 0)
		n.keep(now)
	}
	n.settle(now)
}

// Deadline is when Tick and Next want to be called at the latest.
func (n *Node) Deadline() time.Duration {
	d := n.engine.Deadline()
	if n.bulk.waiting() && !n.filling() {
		d = min(d, n.bulk.retry)
	}
	if n.expiry.retry != 0 {
		d = min(d, n.expiry.retry)
	}
	if n.holds() {
		d = min(d, n.holdDeadline())
	}
	if n.restored.until != 0 {
		d = min(d, n.restored.until)
	}
	return n.sayDeadline(min(d, n.giveUpAt()))
}

func seconds(now time.Duration) uint32 { return uint32(now / time.Second) }
