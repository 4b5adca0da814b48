package node

import (
	"net/netip"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// groupCommit walks the external caches one after the other. Of a flow that
// several peers have told of, the newest is written: it went from one to
// another with the traffic.
type groupCommit struct {
	flows, expects tour
}

// A tour is a place among the relations.
type tour struct {
	active bool
	from   netip.Addr // whose entries; not valid: everybody's
	left   []*relation
}

// set sets out on a tour, which begins something in each relation; false if one
// is under way.
func (g *Group) set(w *tour, from netip.Addr, begin func(*Node) bool) bool {
	if w.active {
		return false
	}
	*w = tour{from: from}
	for _, r := range g.relations {
		if !from.IsValid() || r.peer == from {
			begin(r.Node)
			w.left = append(w.left, r)
		}
	}
	w.active = len(w.left) > 0
	return true
}

// next moves on to the next relation and reports whether there is none.
func (w *tour) next() (done bool) {
	if w.left = w.left[1:]; len(w.left) > 0 {
		return false
	}
	*w = tour{}
	return true
}

// BeginCommit is Node.BeginCommit of the external caches of all peers, or of
// one.
func (g *Group) BeginCommit(from netip.Addr) bool {
	return g.set(&g.commit.flows, from, (*Node).BeginCommit)
}

// NextCommit is Node.NextCommit.
func (g *Group) NextCommit(now time.Duration, batch []flow.Flow) (filled int, done bool) {
	w := &g.commit.flows
	if !w.active {
		return 0, true
	}
	r := w.left[0]
	n, over := r.NextCommit(now, batch)
	if len(g.relations) > 1 && !w.from.IsValid() {
		n = g.newest(r, batch[:n])
	}
	return n, over && w.next()
}

// newest leaves only those of a relation's flows in a batch of which no other
// has later news. Among equals the first relation's is taken.
func (g *Group) newest(r *relation, batch []flow.Flow) (n int) {
	for i := range batch {
		f := &batch[i]
		if g.overtaken(r, func(o *relation) (seen uint32, ok bool) { return o.external.told(&f.Key) }) {
			continue
		}
		if i != n {
			batch[n] = *f
		}
		n++
	}
	return n
}

// overtaken reports whether another relation has later news of something than
// r has. told returns when a relation was told of it.
func (g *Group) overtaken(r *relation, told func(*relation) (seen uint32, ok bool)) bool {
	seen, _ := told(r)
	before := true // in the order of relations
	for _, o := range g.relations {
		if o == r {
			before = false
			continue
		}
		if at, ok := told(o); ok && (at > seen || at == seen && before) {
			return true
		}
	}
	return false
}

// told returns when the store was last told of a flow, in seconds of the node's
// clock.
func (s *store) told(k *flow.Key) (seen uint32, ok bool) {
	r := s.lookup(k)
	if r == none || s.dead(r) {
		return 0, false
	}
	return s.common(r).seen, true
}

// Held is Node.Held: all internal caches are alike.
func (g *Group) Held(f *flow.Flow) Held { return g.relations[0].Held(f) }

// Assume is Node.Assume for all relations.
func (g *Group) Assume(now time.Duration, f *flow.Flow) {
	for r := range g.awake {
		r.Assume(now, f)
	}
}

// Refute is Node.Refute for all relations.
func (g *Group) Refute(f *flow.Flow) {
	for r := range g.awake {
		r.Refute(f)
	}
}

// BeginExpectCommit is BeginCommit for expectations.
func (g *Group) BeginExpectCommit(from netip.Addr) bool {
	return g.set(&g.commit.expects, from, (*Node).BeginExpectCommit)
}

// NextExpectCommit is NextCommit for expectations.
func (g *Group) NextExpectCommit(now time.Duration, batch []flow.Expect) (filled int, done bool) {
	w := &g.commit.expects
	if !w.active {
		return 0, true
	}
	r := w.left[0]
	n, over := r.NextExpectCommit(now, batch)
	if len(g.relations) > 1 && !w.from.IsValid() {
		kept := 0
		for i := range batch[:n] {
			x := &batch[i]
			if !g.overtaken(r, func(o *relation) (uint32, bool) { return o.expects.external.told(x) }) {
				batch[kept] = *x
				kept++
			}
		}
		n = kept
	}
	return n, over && w.next()
}

// told is store.told for an expectation.
func (s *expectStore) told(x *flow.Expect) (seen uint32, ok bool) {
	id := s.lookup(x)
	if id == 0 || s.table.Dead(id) {
		return 0, false
	}
	return s.at(id).seen, true
}
