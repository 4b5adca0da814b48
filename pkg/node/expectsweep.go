package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// expectSweep is sweep for the internal cache of expectations.
type expectSweep struct {
	active bool
	why    Purpose
	gone   map[goneExpect]struct{}
}

type goneExpect struct {
	id  uint32
	key expectKey
}

// BeginExpectSweep starts to make the internal cache of expectations equal to
// the kernel's, or starts it over. Flows come first: an expectation without
// its master is passed over. Feed the dump to Expects, then call
// EndExpectSweep.
func (n *Node) BeginExpectSweep(p Purpose) {
	n.expects.sweep = expectSweep{active: true, why: p, gone: make(map[goneExpect]struct{})}
	n.expects.internal.gen++
}

func (n *Node) expectDumped(now time.Duration, x *flow.Expect) {
	w, s := &n.expects.sweep, n.expects.internal
	if !w.active || !n.expectPasses(x) || !n.hasMaster(x) {
		return
	}
	if _, ok := w.gone[goneExpect{x.ID, keyOfExpect(x)}]; ok {
		return
	}
	id, fresh := s.put(x)
	if id == 0 {
		return
	}
	e := s.at(id)
	switch {
	case fresh || s.table.Dead(id):
		s.replace(id, fresh, x, seconds(now))
		s.at(id).flags |= told | renewed
		n.watch(now, refExpect(id))
	case e.gen == s.gen:
		return
	case sameExpect(e.x, *x):
		e.gen, e.x = s.gen, *x
		e.flags |= told
		if e.flags&unsaid == 0 {
			return
		}
	default:
		s.update(id, x, seconds(now))
		s.at(id).flags |= told
	}
	switch {
	case w.why >= Repair, n.bulk.active:
		n.enqueueExpect(id)
	case w.why == Refresh:
		s.at(id).flags |= unsaid
	}
}

// sameExpect reports whether nothing that travels differs, but for the timeout.
func sameExpect(a, b flow.Expect) bool {
	for _, x := range []*flow.Expect{&a, &b} {
		x.Has &^= flow.HasTimeout | flow.HasID
		x.Timeout, x.ID = 0, 0
	}
	return a == b
}

// EndExpectSweep removes what the dump did not show.
func (n *Node) EndExpectSweep() {
	s := n.expects.internal
	if !n.expects.sweep.active {
		return
	}
	s.each(func(id cache.ID) {
		if s.at(id).gen != s.gen {
			n.expectEnds(id, true)
		}
	})
	n.expects.sweep = expectSweep{}
	n.expects.unread, n.expects.unfilled = false, false
}

// AbortExpectSweep gives a sweep up: what was fed stays, nothing is removed.
func (n *Node) AbortExpectSweep() { n.expects.sweep = expectSweep{} }
