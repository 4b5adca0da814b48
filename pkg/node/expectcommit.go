package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// BeginExpectCommit starts to hand out the external cache of expectations for
// the kernel, which must have their masters. It reports false when that is
// already under way.
func (n *Node) BeginExpectCommit() bool {
	if n.expects.committing {
		return false
	}
	n.expects.committing, n.expects.commitAt = true, 0
	return true
}

// NextExpectCommit is NextCommit for expectations.
func (n *Node) NextExpectCommit(now time.Duration, batch []flow.Expect) (filled int, done bool) {
	if !n.expects.committing {
		return 0, true
	}
	s := n.expects.external
	n.expects.commitAt = s.scan(n.expects.commitAt, len(batch), func(id cache.ID) {
		e, x := s.at(id), &batch[filled]
		*x = e.x
		x.Timeout = n.timeLeft(x.Has, x.Timeout, seconds(now)-e.seen)
		x.Has |= flow.HasTimeout
		filled++
	})
	n.expects.committing = n.expects.commitAt != 0
	return filled, !n.expects.committing
}

// FlushExpects empties both caches of expectations, as -f does with those of
// flows. It is the caller's not to do that during a commit.
func (n *Node) FlushExpects() {
	n.engine.Released(n.release)
	in, ex := n.expects.internal, n.expects.external
	in.each(func(id cache.ID) {
		in.stats.Destroyed++
		n.unwatch(refExpect(id))
		if r := engine.Ref(refExpect(id)); n.engine.Queued(r) {
			n.engine.Forget(r)
			in.table.Unpin(id)
		}
		in.remove(id)
	})
	n.expects.flushed, n.expects.unread = true, true
	n.expects.orphans = n.expects.orphans[:0]
	ex.each(func(id cache.ID) { n.unheard(refExpect(id)) })
	ex.stats.Destroyed += uint64(ex.table.Len())
	ex.clear()
}
