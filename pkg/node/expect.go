package node

import (
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// expectations are what a node with ExpectationSync has besides its flows: two
// caches of flows that are yet to come. They live by the rules of flows (see
// node.go, sweep.go and commit.go) with these differences: whose master is not
// in the internal cache is not replicated, and only listed helpers count.
type expectations struct {
	internal, external *expectStore

	orphans []orphan // their masters' events are on the way
	sweep   expectSweep
	flushed bool // the peer may hold what the internal cache has not
	unread  bool // and the kernel's table has not been read since

	unfilled bool // see Unfilled

	bulkAt, expiryAt cache.ID
	committing       bool
	commitAt         cache.ID

	scratch flow.Expect
}

// An orphan is an expectation that is older than its master: a helper sees a
// packet before the flow of it is confirmed (docs/protocol.md 3.7).
type orphan struct {
	ev    flow.ExpectEvent
	until time.Duration
}

// The master's event follows within the same packet's way through the kernel.
// A master that a filter refuses never comes.
const (
	orphansMax    = 256
	orphanPatient = 2 * time.Second
)

func newExpectations(limit int, seed [2]uint64) expectations {
	return expectations{
		internal: newExpectStore(limit, cache.NewSeed(seed[0], seed[1])),
		external: newExpectStore(limit, cache.NewSeed(seed[1], seed[0])),
	}
}

// Expects takes events about expectations in the order the kernel sent them,
// after the flow events that were read with them; and the entries of a dump
// between BeginExpectSweep and EndExpectSweep. Without ExpectationSync it does
// nothing.
func (n *Node) Expects(now time.Duration, events []flow.ExpectEvent) {
	if !n.cfg.ExpectationSync {
		return
	}
	if n.numbers != nil {
		n.passExpects(events)
		return
	}
	for i := range events {
		ev := &events[i]
		if ev.Origin == flow.Self && n.cfg.DisableExternalCache && n.strangeExpect(&ev.Expect) {
			continue
		}
		switch ev.Op {
		case flow.New, flow.Update:
			n.expectCreated(now, ev)
		case flow.Destroy:
			n.expectDestroyed(ev)
		case flow.Dumped:
			n.expectDumped(now, &ev.Expect)
		}
	}
}

// expectPasses reports whether the helper is one of those to be replicated.
func (n *Node) expectPasses(x *flow.Expect) bool {
	if len(n.cfg.ExpectHelpers) == 0 {
		return true
	}
	var buf [len(x.Helper)]byte
	name := strings.TrimRight(string(append(buf[:0], x.Helper[:]...)), "\x00")
	for _, prefix := range n.cfg.ExpectHelpers {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

// hasMaster reports whether the internal cache has the flow that announced x.
func (n *Node) hasMaster(x *flow.Expect) bool {
	master := x.Master
	master.Zone = x.Tuple.Zone
	r := n.internal.lookup(&master)
	return r != none && !n.internal.dead(r)
}

func (n *Node) expectCreated(now time.Duration, ev *flow.ExpectEvent) {
	if !n.expectPasses(&ev.Expect) {
		n.stats.EventsFiltered++
		return
	}
	if !n.hasMaster(&ev.Expect) {
		if len(n.expects.orphans) < orphansMax {
			n.expects.orphans = append(n.expects.orphans, orphan{*ev, now + orphanPatient})
		}
		return
	}
	n.expectAdmit(now, ev)
}

// ReadMaster takes what the kernel's table says of a flow that announced
// something: no event tells that a helper has changed the length of what it
// translated, and without the adjustment of sequence numbers a connection does
// not survive a failover. Everything else events tell better.
func (n *Node) ReadMaster(now time.Duration, f *flow.Flow) {
	const adjusted = flow.HasSeqOrig | flow.HasSeqRepl
	if !f.Has.Any(adjusted) {
		return
	}
	if n.numbers != nil {
		n.pass([]flow.Event{{Op: flow.Update, Flow: *f}})
		return
	}
	s := n.internal
	r := s.lookup(&f.Key)
	if r == none || s.dead(r) || s.succeeded(r, f) {
		return
	}
	n.other = flow.Flow{Key: f.Key, Has: f.Has & adjusted, SeqAdj: f.SeqAdj}
	if !s.merge(r, &n.other, &n.scratch) {
		return
	}
	c := s.common(r)
	c.seen = seconds(now)
	c.flags |= updated
	s.stats.Updated++
	n.enqueue(r)
}

func (n *Node) expectAdmit(now time.Duration, ev *flow.ExpectEvent) {
	s := n.expects.internal
	id, fresh := s.put(&ev.Expect)
	if id == 0 {
		return
	}
	if fresh && (n.expects.flushed || n.leftovers) {
		s.at(id).flags = told
	}
	s.replace(id, fresh, &ev.Expect, seconds(now))
	n.watch(now, refExpect(id))
	if ev.Origin == flow.Other {
		n.enqueueExpect(id)
	}
}

// adoptOrphans looks again for the masters that were missing.
func (n *Node) adoptOrphans(now time.Duration) {
	kept := n.expects.orphans[:0]
	for i := range n.expects.orphans {
		o := &n.expects.orphans[i]
		switch {
		case n.hasMaster(&o.ev.Expect):
			n.expectAdmit(now, &o.ev)
		case now < o.until:
			kept = append(kept, *o)
		}
	}
	n.expects.orphans = kept
}

func (n *Node) expectDestroyed(ev *flow.ExpectEvent) {
	key := keyOfExpect(&ev.Expect)
	for i := range n.expects.orphans {
		if keyOfExpect(&n.expects.orphans[i].ev.Expect) == key {
			n.expects.orphans = append(n.expects.orphans[:i], n.expects.orphans[i+1:]...)
			break
		}
	}
	if w := &n.expects.sweep; w.active {
		w.gone[goneExpect{ev.Expect.ID, key}] = struct{}{}
	}
	s := n.expects.internal
	id := s.lookup(&ev.Expect)
	switch {
	case id != 0 && !s.table.Dead(id):
		n.expectEnds(id, ev.Origin == flow.Other)
	case !n.expectPasses(&ev.Expect):
		n.stats.EventsFiltered++
	case id == 0 && n.expects.flushed && ev.Origin == flow.Other && !n.away:
		n.buryExpect(&ev.Expect)
	}
}

// expectEnds is die for an expectation.
func (n *Node) expectEnds(id cache.ID, tell bool) {
	s := n.expects.internal
	s.stats.Destroyed++
	n.unwatch(refExpect(id))
	r := engine.Ref(refExpect(id))
	if s.at(id).flags&told == 0 || n.away {
		tell = false
		if n.engine.Queued(r) {
			n.engine.Forget(r)
			s.table.Unpin(id)
		}
	}
	if tell {
		n.enqueueExpect(id)
	}
	s.remove(id)
}

// buryExpect is bury for an expectation.
func (n *Node) buryExpect(x *flow.Expect) {
	s := n.expects.internal
	id, _ := s.put(x)
	if id == 0 {
		return
	}
	s.at(id).x = *x
	n.enqueueExpect(id)
	s.remove(id)
}

func (n *Node) enqueueExpect(id cache.ID) {
	if n.away {
		return
	}
	if n.engine.Enqueue(engine.Ref(refExpect(id))) {
		n.expects.internal.table.Pin(id)
	}
}

func (n *Node) releaseExpect(r ref) {
	t := n.expects.internal
	t.at(r.expectID()).flags &^= renewed
	t.table.Unpin(r.expectID())
}

// renderExpect is render for an expectation.
func (n *Node) renderExpect(r ref, h wire.Header, dst []byte) []byte {
	s, id, start := n.expects.internal, r.expectID(), len(dst)
	e := s.at(id)
	e.flags = e.flags&^unsaid | told
	switch {
	case s.table.Dead(id):
		h.Type = wire.ExpDel
	case e.flags&(updated|renewed) == updated:
		h.Type = wire.ExpUpd
	default:
		h.Type = wire.ExpNew
	}
	n.stats.Sent[h.Type]++
	dst = n.wire.AppendExpect(dst, h, &e.x)
	if h.Type != wire.ExpDel {
		m, _, _ := wire.Next(dst[start:])
		s.count(id, m.Body)
	}
	return dst
}

// bulkExpects queues the next expectations of a bulk and reports whether all
// are queued.
func (n *Node) bulkExpects() (done bool) {
	if !n.cfg.ExpectationSync {
		return true
	}
	n.expects.bulkAt = n.expects.internal.scan(n.expects.bulkAt, bulkChunk, n.enqueueExpect)
	return n.expects.bulkAt == 0
}

// deliverExpect applies a message about an expectation to the external cache,
// ExpectationSync or not (docs/protocol.md 6.1).
func (n *Node) deliverExpect(now time.Duration, m *wire.Message) {
	x, s := &n.expects.scratch, n.expects.external
	if n.cfg.DisableExternalCache {
		n.injectX = append(n.injectX, flow.ExpectEvent{Op: injectOp[m.Type], Origin: flow.Self, Expect: *x})
		return
	}
	if m.Type == wire.ExpDel {
		if id := s.lookup(x); id != 0 {
			n.expectGone(id)
		}
		return
	}
	id, fresh := s.put(x)
	if id == 0 {
		return
	}
	n.heard(now, refExpect(id))
	switch {
	case fresh || m.Type == wire.ExpNew:
		s.replace(id, fresh, x, seconds(now))
	default:
		s.update(id, x, seconds(now))
	}
	s.count(id, m.Body)
}

// expectGone is gone for an expectation.
func (n *Node) expectGone(id cache.ID) {
	n.unheard(refExpect(id))
	n.expects.external.stats.Destroyed++
	n.expects.external.remove(id)
}

// expireExpects is Expire for expectations.
func (n *Node) expireExpects(limit int) (done bool) {
	s := n.expects.external
	n.expects.expiryAt = s.scan(n.expects.expiryAt, limit, func(id cache.ID) {
		if s.at(id).gen != s.gen {
			n.stats.Expired++
			n.expectGone(id)
		}
	})
	return n.expects.expiryAt == 0
}
