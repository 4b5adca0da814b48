package node

import (
	"net/netip"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// MaxPeers is how many peers a group's node keeps at most.
const MaxPeers = 15

// A Group is everything one node has to do with others: a relation of its own
// with each of them, as if they were a pair (docs/protocol.md 13). Without
// Config.Group there is one, with whoever speaks on the link.
//
// Its methods are a Node's, of all relations. The kernel's events go to each;
// what is to be sent is pulled from one after the other.
type Group struct {
	cfg       Config
	firstSeq  uint32
	seed      [2]uint64
	relations []*relation
	turn      int // whose datagrams are pulled
	hail      hailing
	commit    groupCommit
	meetBy    time.Duration // when whoever is there has been heard
	met       bool
	ready     bool
	strange   Strangers
}

// A relation is what there is between this node and one peer.
type relation struct {
	*Node
	peer netip.Addr // not valid: whoever there is, or nobody yet in a group
	// A relation that was made after the start is asleep until its peer answers:
	// whoever pretends to be there must not cost a cache. Then the kernel's table
	// is read for it, which is asked for at askedAt.
	asleep  bool
	askedAt time.Duration
	hailed  time.Duration // when the peer was last heard to be there
}

// NewGroup makes a node at now = 0; see New for the arguments. In a group Add
// and Hail bring the peers.
func NewGroup(cfg Config, firstSeq uint32, seed [2]uint64) *Group {
	g := &Group{cfg: cfg, firstSeq: firstSeq, seed: seed}
	g.relations = []*relation{{Node: New(cfg, firstSeq, seed)}}
	return g
}

// Pair returns the only relation of a node without Config.Group, for what is
// refused in a group.
func (g *Group) Pair() *Node { return g.relations[0].Node }

// Add begins the relation with a peer, unless there are too many.
func (g *Group) Add(now time.Duration, peer netip.Addr) bool {
	if g.of(peer) != nil {
		return true
	}
	if first := g.relations[0]; !first.peer.IsValid() { // the one that every node has
		g.begin(now, first, peer)
		return true
	}
	if len(g.relations) == MaxPeers {
		return false
	}
	// The number of a life is the time of day at its beginning (docs/protocol.md 4).
	r := &relation{Node: New(g.cfg, g.firstSeq+seconds(now), g.seed)}
	g.begin(now, r, peer)
	if now > 0 {
		r.Unfilled()
		r.asleep = true
	}
	g.relations = append(g.relations, r)
	return true
}

func (g *Group) begin(now time.Duration, r *relation, peer netip.Addr) {
	r.peer, r.hailed = peer, now
	r.ending = func(now time.Duration, k *flow.Key, told uint32) { g.ended(now, r, k, told) }
	r.tail = append(append([]byte(" [from "), peer.String()...), ']')
}

// of returns the relation with a peer, nil if there is none. Without
// Config.Group it is the only one, whoever speaks.
func (g *Group) of(peer netip.Addr) *relation {
	if !g.cfg.Group {
		return g.relations[0]
	}
	for _, r := range g.relations {
		if r.peer == peer {
			return r
		}
	}
	return nil
}

// Has reports whether there is a relation with a peer of a group.
func (g *Group) Has(peer netip.Addr) bool { return g.cfg.Group && g.of(peer) != nil }

// awake are the relations that follow the own kernel.
func (g *Group) awake(yield func(*relation) bool) {
	for _, r := range g.relations {
		if !r.asleep && !yield(r) {
			return
		}
	}
}

// Kernel is Node.Kernel for all relations.
func (g *Group) Kernel(now time.Duration, events []flow.Event) {
	for r := range g.awake {
		r.Kernel(now, events)
	}
}

// Expects is Node.Expects for all relations.
func (g *Group) Expects(now time.Duration, events []flow.ExpectEvent) {
	for r := range g.awake {
		r.Expects(now, events)
	}
}

// ReadMaster is Node.ReadMaster for all relations.
func (g *Group) ReadMaster(now time.Duration, f *flow.Flow) {
	for r := range g.awake {
		r.ReadMaster(now, f)
	}
}

// Datagram takes what one datagram of a peer holds. Nothing of b is kept.
func (g *Group) Datagram(now time.Duration, from netip.Addr, b []byte) {
	switch r := g.of(from); {
	case r != nil:
		r.Datagram(now, b)
	case !g.hail.on: // else it is ahead of its announcement
		g.stranger(from)
	}
}

// Turn gives the next relation its turn, and returns its peer: what Next
// returns from then on is for it.
func (g *Group) Turn() (to netip.Addr) {
	g.turn = (g.turn + 1) % len(g.relations)
	return g.relations[g.turn].peer
}

// Turns is how many relations there are to take turns.
func (g *Group) Turns() int { return len(g.relations) }

// Next is Node.Next of the relation whose turn it is.
func (g *Group) Next(now time.Duration, dst []byte, size int) []byte {
	r := g.relations[g.turn]
	if g.cfg.Group && !r.peer.IsValid() {
		return dst[:0]
	}
	return r.Next(now, dst, size)
}

// Tick runs the timers that are due.
func (g *Group) Tick(now time.Duration) {
	for _, r := range g.relations {
		r.Tick(now)
		r.asleep = r.asleep && !r.leaver.InTouch()
	}
	g.forget(now)
	if g.meetBy == 0 {
		g.meetBy = now + meeting
	}
	g.met = now >= g.meetBy
}

// Deadline is when Tick and Next want to be called at the latest.
func (g *Group) Deadline() time.Duration {
	d := g.relations[0].Deadline()
	for _, r := range g.relations[1:] {
		d = min(d, r.Deadline())
	}
	return g.hailDeadline(d)
}

// Expire is Node.Expire for all relations.
func (g *Group) Expire(limit int) (done bool) {
	done = true
	for _, r := range g.relations {
		done = r.Expire(limit) && done
	}
	return done
}

// NextNotice returns the oldest notice of a relation, and whose it is.
func (g *Group) NextNotice() (x Notice, peer netip.Addr, ok bool) {
	for i, r := range g.relations {
		for x, ok = r.NextNotice(); ok; x, ok = r.NextNotice() {
			if x.Kind == RoomAgain && x.Which == Internal && i > 0 {
				continue // all internal caches are alike
			}
			return x, r.peer, true
		}
	}
	return Notice{}, netip.Addr{}, false
}
