package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// A sweep makes the internal cache equal to the kernel's table: entries are
// marked with a generation, a dump refreshes those that exist, and what was
// not refreshed is gone. Events go on meanwhile and are newer than the dump:
// an entry that an event touched is left alone, and one that an event ended is
// not brought back by a dump read before.
type sweep struct {
	active bool
	why    Purpose
	ended  bool
	at     cursor
	gone   map[goneKey]struct{}
}

// rebuilds reports whether the cache is known to be wrong until the sweep is over.
func (w *sweep) rebuilds() bool { return w.active && w.why != Reconcile }

// goneKey names a conntrack that was destroyed during a sweep. CTA_ID alone
// is a hash and may repeat.
type goneKey struct {
	id  uint32
	key flow.Key
}

// Purpose says what a sweep repairs, and so what the peer hears of it.
type Purpose uint8

const (
	// Start fills the cache for the first time: nothing is sent.
	Start Purpose = iota
	// Refresh is -R: only what vanished is sent.
	Refresh
	// Repair follows an overrun: every difference is sent.
	Repair
	// Reconcile looks for what nobody noticed: as Repair, of a cache that is
	// right as far as anybody knows.
	Reconcile
	// Join fills the cache of a relation that is new, and is Reconcile to the
	// others of a group.
	Join
)

// Drift is what sweeps, but for the first, found wrong in the internal cache.
// What an event would have told at that very moment does not count.
type Drift struct {
	Missing     uint64 // in the kernel and not in the cache
	Different   uint64 // in both, and not the same
	Superfluous uint64 // in the cache only
}

// Sum is how many entries were wrong.
func (d Drift) Sum() uint64 { return d.Missing + d.Different + d.Superfluous }

// Since returns what was added since before.
func (d Drift) Since(before Drift) Drift {
	return Drift{d.Missing - before.Missing, d.Different - before.Different, d.Superfluous - before.Superfluous}
}

// Sweeping tells how many flows have ended since a sweep began; each takes some
// memory until it is over.
func (n *Node) Sweeping() (gone int) { return len(n.sweep.gone) }

// BeginSweep starts a sweep, or starts it over. Feed the dump to Kernel as
// Dumped events, then call EndSweep.
func (n *Node) BeginSweep(p Purpose) {
	n.sweep = sweep{active: true, why: p, gone: make(map[goneKey]struct{})}
	n.internal.gen++
}

// destroyed remembers what ended during a sweep.
func (w *sweep) destroyed(f *flow.Flow) {
	if w.active {
		w.gone[goneKey{f.ID, f.Key}] = struct{}{}
	}
}

// dumped takes one entry of the kernel's table.
func (n *Node) dumped(now time.Duration, f *flow.Flow) {
	if !n.sweep.active || !n.cfg.Filter.Pass(f) {
		return
	}
	if _, ok := n.sweep.gone[goneKey{f.ID, f.Key}]; ok {
		return
	}
	s := n.internal
	r, fresh := s.put(&f.Key)
	if r == none {
		n.limitReached(Internal)
		return
	}
	c := s.common(r)
	switch {
	case fresh || s.dead(r) || s.succeeded(r, f):
		n.replace(now, s, r, fresh, f)
		c.flags |= told | renewed
		n.watch(now, r)
		n.drifted(c, &n.stats.Drift.Missing)
	case c.gen == s.gen:
		return
	default:
		guess := c.flags&assumed != 0 // and now it is known
		c.gen = s.gen
		c.flags = c.flags&^(found|assumed) | told
		changed := n.correct(s, r, f)
		if changed {
			c.seen = seconds(now)
			c.flags |= updated
			s.stats.Updated++
		}
		switch {
		case guess && n.sweep.why == Reconcile: // the peer told us of it
			return
		case changed:
			n.drifted(c, &n.stats.Drift.Different)
		case c.flags&unsaid == 0:
			return
		}
	}
	switch {
	case n.sweep.why >= Repair, n.bulk.active: // which may have passed this place
		n.enqueue(r)
	case n.sweep.why == Refresh:
		c.flags |= unsaid
	}
}

// correct is the store's, and takes what changed out of the digest.
func (n *Node) correct(s *store, r ref, f *flow.Flow) (changed bool) {
	c := s.common(r)
	if c.flags&counted == 0 {
		return s.correct(r, f, &n.scratch)
	}
	was := s.hash(r)
	if changed = s.correct(r, f, &n.scratch); changed && s.hash(r) != was {
		c.flags &^= counted
		s.digest.sub(was)
	}
	return changed
}

// drifted counts what a sweep found wrong, and marks it: if the event is still
// to come nothing was lost.
func (n *Node) drifted(c *common, counter *uint64) {
	if n.sweep.why != Start {
		c.flags |= found
		*counter++
	}
}

// refound takes back what drifted counted, when an event comes within the
// sweep that would have told it: NEW of what was missing, UPDATE of what was
// different, which has been updated since.
func (n *Node) refound(c *common, op flow.Op) {
	if c.flags&found == 0 {
		return
	}
	c.flags &^= found
	if !n.sweep.active || c.gen != n.internal.gen {
		return
	}
	switch different := c.flags&updated != 0; {
	case op == flow.New && !different:
		n.stats.Drift.Missing--
	case op == flow.Update && different:
		n.stats.Drift.Different--
	}
}

// EndSweep removes up to limit entries that the dump did not refresh and
// reports whether the sweep is over; call it until it is.
func (n *Node) EndSweep(limit int) (done bool) {
	w := &n.sweep
	if !w.active {
		return true
	}
	w.ended = true
	n.internal.scan(&w.at, limit, func(r ref) {
		if n.internal.common(r).gen != n.internal.gen {
			if w.why != Start {
				n.stats.Drift.Superfluous++
			}
			n.die(r, true)
		}
	})
	if w.at.done {
		n.sweep = sweep{}
		n.unread, n.unfilled = false, false
		return true
	}
	return false
}

// AbortSweep gives a sweep up: what was fed stays, nothing is removed.
func (n *Node) AbortSweep() { n.sweep = sweep{} }

// expiry is the same for the external cache: what a complete and gapless bulk
// of the peer did not refresh has ended there.
type expiry struct {
	active bool
	at     cursor
	gaps   int           // bulks with gaps in a row
	retry  time.Duration // when to ask for another; 0 not planned
}

// A bulk with gaps is asked for again, at once and then ever more seldom: a C
// peer sends everything in one go, and a large table may overflow the link
// each time.
const (
	gapPatience    = time.Second
	gapPatienceMax = 5 * time.Minute
	gapsWorthALine = 4
)

func (n *Node) beginExpiry() {
	n.newPicture()
	n.expiry.retry = 0
}

// newPicture begins a generation of what the peer has. What the one before
// did not show stays for now.
func (n *Node) newPicture() {
	n.expiry.active, n.expiry.at = false, cursor{}
	n.external.gen++
	n.expects.external.gen++
	n.expects.expiryAt = 0
	n.peer.proven = false
}

func (n *Node) endExpiry(now time.Duration, clean bool) {
	x := &n.expiry
	if clean {
		*x = expiry{active: true}
		n.tableComplete(now)
		n.notices = append(n.notices, Notice{Kind: ResyncComplete})
		return
	}
	n.gapped(now)
}

// gapped plans to ask for everything once more.
func (n *Node) gapped(now time.Duration) {
	x := &n.expiry
	n.peer.proven = false
	x.gaps++
	x.retry = now + min(gapPatience<<min(x.gaps-1, 16), gapPatienceMax)
	if x.gaps == gapsWorthALine {
		n.notices = append(n.notices, Notice{Kind: ResyncGaps})
	}
}

// retryResync asks again for a bulk that had gaps, when its time has come.
func (n *Node) retryResync(now time.Duration) {
	if n.expiry.retry != 0 && now >= n.expiry.retry {
		n.expiry.retry = 0
		n.RequestResync()
	}
}

// Expire removes up to limit external entries that the peer no longer has and
// reports whether there is nothing more to do.
func (n *Node) Expire(limit int) (done bool) {
	if !n.expiry.active {
		return true
	}
	s := n.external
	s.scan(&n.expiry.at, limit, func(r ref) {
		if s.common(r).gen != s.gen {
			n.stats.Expired++
			n.gone(r)
		}
	})
	if n.expiry.at.done && n.expireExpects(limit) {
		n.expiry = expiry{}
	}
	return !n.expiry.active
}
