package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// commit walks the external cache.
type commit struct {
	active bool
	order  *order
}

// BeginCommit starts to hand out the external cache for the kernel. It
// reports false when a commit is already under way.
func (n *Node) BeginCommit() bool {
	if n.commit.active {
		return false
	}
	n.commit = commit{active: true, order: &order{}}
	return true
}

// NextCommit fills batch with the next flows to write, as the kernel takes
// them: the timeout is what is left of it, and what is not restored is not
// there. done is true when there are no
// more; until then a call may return none, as the first ones of a large cache do,
// which work out the order. An entry that lives during the whole commit is handed out once.
func (n *Node) NextCommit(now time.Duration, batch []flow.Flow) (filled int, done bool) {
	c := &n.commit
	if !c.active {
		return 0, true
	}
	s := n.external
	if !c.order.prepare(now, s) {
		return 0, false
	}
	for range batch {
		r, more := c.order.take()
		if !more {
			n.commit = commit{}
			return filled, true
		}
		if !s.lives(r) {
			continue
		}
		f := &batch[filled]
		s.load(r, f)
		f.Timeout = n.timeLeft(f.Has, f.Timeout, seconds(now)-s.common(r).seen)
		f.Has |= flow.HasTimeout
		n.unrestored(f)
		filled++
	}
	return filled, false
}

// Held is what the internal cache says of the kernel's entry of a flow.
type Held uint8

// What it may say. HeldUnknown: the cache is no mirror of it, for there is none,
// the filter is against the flow, or the table is being read. HeldSame: both tuples are the
// flow's, and there are no labels to clear, which the flow has not.
const (
	HeldUnknown Held = iota
	HeldMissing
	HeldOther
	HeldSame
)

// Held tells how the kernel is to be asked for a flow of the external cache.
// The cache follows the kernel by some events, so it is a belief, not a fact.
func (n *Node) Held(f *flow.Flow) Held {
	if n.cfg.DisableInternalCache || n.sweep.rebuilds() || n.unfilled || !n.cfg.Filter.Pass(f) {
		return HeldUnknown
	}
	s := n.internal
	r := s.lookup(&f.Key)
	if r == none || s.dead(r) {
		return HeldMissing
	}
	g := &n.scratch
	s.load(r, g)
	there, _ := g.Reply()
	wanted, _ := f.Reply()
	clear := g.Has &^ f.Has &^ n.cfg.NotRestored()
	if there != wanted || clear.Has(flow.HasLabels) {
		return HeldOther
	}
	return HeldSame
}

// Assume takes up in the internal cache what is about to be created in the
// kernel without an event: what the kernel says of it afterwards finds it here.
// Only for a flow that is HeldMissing.
func (n *Node) Assume(now time.Duration, f *flow.Flow) {
	r, fresh := n.admit(f)
	if r == none {
		return
	}
	n.replace(now, n.internal, r, fresh, f)
	c := n.internal.common(r)
	c.status = c.status&^(flow.StatusExpected|flow.StatusDying) | flow.StatusConfirmed
	c.flags |= assumed
	n.watch(now, r)
}

// Refute takes back what was assumed of a flow, unless the kernel has spoken
// of it since.
func (n *Node) Refute(f *flow.Flow) {
	s := n.internal
	if r := s.lookup(&f.Key); r != none && !s.dead(r) && s.common(r).flags&assumed != 0 {
		n.die(r, false)
	}
}

// fallbackTimeout is given to a flow whose timeout is not known or has run
// out, in seconds.
const fallbackTimeout = 60

// timeLeft is the timeout a committed entry gets.
func (n *Node) timeLeft(has flow.Has, timeout, age uint32) uint32 {
	if n.cfg.CommitTimeout != 0 {
		return uint32(n.cfg.CommitTimeout / time.Second)
	}
	if !has.Has(flow.HasTimeout) || timeout <= age {
		return fallbackTimeout
	}
	return timeout - age
}

// FlushInternal empties the internal cache; the peer is not told and keeps its
// copies. What ended before is news that still goes out.
func (n *Node) FlushInternal() {
	n.engine.Released(n.release)
	s := n.internal
	s.stats.Destroyed += uint64(s.live())
	if s.total() == s.live() && n.expects.internal.table.Total() == 0 {
		n.engine.ForgetAll()
		n.unwatchAll()
		s.clear()
	}
	for c := (cursor{}); !c.done; {
		s.scan(&c, flushChunk, n.drop)
	}
	n.flushed, n.unread = true, n.numbers == nil // else the kernel is asked each time
	n.limits[Internal].full = false              // it is wanted empty
	n.sweep.at, n.bulk.at = cursor{}, cursor{}
	n.expects.bulkAt = 0
}

const flushChunk = 1 << 16

// drop forgets a live internal entry.
func (n *Node) drop(r ref) {
	n.unwatch(r)
	if n.engine.Queued(engine.Ref(r)) {
		n.engine.Forget(engine.Ref(r))
		n.internal.unpin(r)
	}
	n.internal.remove(r, false)
}

// FlushExternal empties the external cache. It reports false, and does
// nothing, during a commit. The account of what is held is no cache.
func (n *Node) FlushExternal() bool {
	if n.holds() {
		return true
	}
	if n.commit.active || n.expects.committing {
		return false
	}
	if n.timers != nil {
		for c := (cursor{}); !c.done; {
			n.external.scan(&c, flushChunk, func(r ref) { n.timers.Gone(engine.Ref(r)) })
		}
	}
	n.limits[External].full = false
	n.external.stats.Destroyed += uint64(n.external.live())
	n.external.clear()
	return true
}
