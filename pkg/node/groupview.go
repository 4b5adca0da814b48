package node

import (
	"iter"
	"net/netip"
	"reflect"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
)

// A Cursor is a place in a dump of all relations' caches; the zero value is its
// start.
type Cursor struct {
	relation int
	flows    DumpCursor
	expects  ExpectCursor
	done     bool
}

// Done reports whether the dump is complete.
func (c *Cursor) Done() bool { return c.done }

// next moves on to the next relation.
func (c *Cursor) next(last bool) { *c = Cursor{relation: c.relation + 1, done: last} }

// last reports whether a cache of relation i is the last to be shown: the
// internal caches are alike, and one is shown.
func (g *Group) last(which Which, i int) bool { return which == Internal || i+1 >= len(g.relations) }

// Dump is Node.Dump of all relations. In a group it says whom an entry of an
// external cache is from.
func (g *Group) Dump(dst []byte, now time.Duration, wall time.Time, which Which, xml bool, c *Cursor, limit int) []byte {
	i := min(c.relation, len(g.relations)-1) // some may have been forgotten
	dst = g.relations[i].Dump(dst, now, wall, which, xml, &c.flows, limit)
	if c.flows.Done() {
		c.next(g.last(which, c.relation))
	}
	return dst
}

// DumpExpects is Dump for expectations.
func (g *Group) DumpExpects(dst []byte, now time.Duration, which Which, xml bool, c *Cursor, limit int) []byte {
	i := min(c.relation, len(g.relations)-1)
	dst = g.relations[i].DumpExpects(dst, now, which, xml, &c.expects, limit)
	if c.expects.Done() {
		c.next(g.last(which, c.relation))
	}
	return dst
}

// ResendQueue is Node.ResendQueue of one relation after the other.
func (g *Group) ResendQueue() iter.Seq[engine.Resendable] {
	if len(g.relations) == 1 {
		return g.relations[0].ResendQueue()
	}
	return func(yield func(engine.Resendable) bool) {
		for _, r := range g.relations {
			for x := range r.ResendQueue() {
				if !yield(x) {
					return
				}
			}
		}
	}
}

// PeerHealth is how far this node is in step with one peer.
type PeerHealth struct {
	Peer netip.Addr // not valid without Config.Group
	Health
	Stats Stats // of this relation
}

// Health tells how far this node is in step with each peer there is.
func (g *Group) Health(now time.Duration) (all []PeerHealth) {
	for _, r := range g.relations {
		if g.cfg.Group && !r.peer.IsValid() {
			continue
		}
		all = append(all, PeerHealth{Peer: r.peer, Health: r.Health(now), Stats: r.Stats()})
	}
	return all
}

// meeting is how long after the start the peers are waited for: they announce
// themselves once a second, and over UDP one that is there answers sooner.
const meeting = 3 * time.Second

// Ready reports whether this node could take over: somebody's table has been
// received, and so has that of everybody who is there. It stays so, like that
// of a pair: who joins later has nothing that is needed.
func (g *Group) Ready() bool {
	if !g.cfg.Group {
		return g.relations[0].Ready()
	}
	some, all := false, true
	for _, r := range g.relations {
		some = some || r.Ready()
		all = all && (r.Ready() || r.away || g.met && !r.Node.peer.heard)
	}
	g.ready = some && (g.ready || all && (g.met || !g.hail.on))
	return g.ready
}

// Stats returns the sums of all relations' counters. What each of them counts
// of the own kernel is counted once.
func (g *Group) Stats() Stats {
	s := g.relations[0].Stats()
	for _, r := range g.relations[1:] {
		o := r.Stats()
		o.Internal, o.ExpectInternal, o.Drift = CacheStats{}, CacheStats{}, Drift{}
		o.EventsFiltered, o.TrafficBytes, o.TrafficPackets = 0, 0, 0
		sum(reflect.ValueOf(&s).Elem(), reflect.ValueOf(o))
	}
	return s
}

// sum adds the counters in src to those in dst.
func sum(dst, src reflect.Value) {
	switch dst.Kind() {
	case reflect.Struct:
		for i := range dst.NumField() {
			sum(dst.Field(i), src.Field(i))
		}
	case reflect.Array:
		for i := range dst.Len() {
			sum(dst.Index(i), src.Index(i))
		}
	case reflect.Uint64:
		dst.SetUint(dst.Uint() + src.Uint())
	case reflect.Int:
		dst.SetInt(dst.Int() + src.Int())
	}
}

// Bytes is Node.Bytes of all relations together.
func (g *Group) Bytes() (now, peak int) {
	for _, r := range g.relations {
		n, p := r.Bytes()
		now, peak = now+n, peak+p
	}
	return now, peak
}
