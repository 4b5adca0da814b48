package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// SendBulk is Node.SendBulk to all peers.
func (g *Group) SendBulk() {
	for _, r := range g.relations {
		r.SendBulk()
	}
}

// RequestResync is Node.RequestResync of all peers.
func (g *Group) RequestResync() {
	for _, r := range g.relations {
		r.RequestResync()
	}
}

// FlushInternal is Node.FlushInternal of all relations.
func (g *Group) FlushInternal() {
	for _, r := range g.relations {
		r.FlushInternal()
	}
}

// FlushExternal is Node.FlushExternal of all relations, or of none.
func (g *Group) FlushExternal() bool {
	if g.commit.flows.active || g.commit.expects.active {
		return false
	}
	ok := true
	for _, r := range g.relations {
		ok = r.FlushExternal() && ok
	}
	return ok
}

// FlushExpects is Node.FlushExpects of all relations.
func (g *Group) FlushExpects() {
	for _, r := range g.relations {
		r.FlushExpects()
	}
}

// askPause is the time between two requests to fill a relation.
const askPause = 5 * time.Second

// SweepWanted reports, once, that the kernel's table is to be read, and why: an
// internal cache has room for what it refused (Repair), or is that of a new
// relation (Join).
func (g *Group) SweepWanted(now time.Duration) (why Purpose, wanted bool) {
	why = Join
	for _, r := range g.relations {
		if r.SweepWanted() {
			why, wanted = Repair, true
		}
		if r.unfilled && !r.asleep && !r.sweep.active && now >= r.askedAt {
			r.askedAt, wanted = now+askPause, true
		}
	}
	return why, wanted
}

// BeginSweep is Node.BeginSweep of all relations. One that is new is filled.
func (g *Group) BeginSweep(p Purpose) {
	for r := range g.awake {
		r.BeginSweep(r.purpose(p))
	}
}

func (r *relation) purpose(p Purpose) Purpose {
	switch {
	case r.unfilled:
		return Start
	case p == Join:
		return Reconcile
	}
	return p
}

// Sweeping is Node.Sweeping.
func (g *Group) Sweeping() (gone int) {
	for _, r := range g.relations {
		gone = max(gone, r.Sweeping())
	}
	return gone
}

// EndSweep is Node.EndSweep of all relations, limit entries of each.
func (g *Group) EndSweep(limit int) (done bool) {
	done = true
	for _, r := range g.relations {
		done = r.EndSweep(limit) && done
	}
	return done
}

// AbortSweep is Node.AbortSweep of all relations.
func (g *Group) AbortSweep() {
	for _, r := range g.relations {
		r.AbortSweep()
	}
}

// BeginExpectSweep is Node.BeginExpectSweep of all relations.
func (g *Group) BeginExpectSweep(p Purpose) {
	for r := range g.awake {
		r.BeginExpectSweep(r.purpose(p))
	}
}

// EndExpectSweep is Node.EndExpectSweep of all relations.
func (g *Group) EndExpectSweep() {
	for _, r := range g.relations {
		r.EndExpectSweep()
	}
}

// AbortExpectSweep is Node.AbortExpectSweep of all relations.
func (g *Group) AbortExpectSweep() {
	for _, r := range g.relations {
		r.AbortExpectSweep()
	}
}

// PassExpect is Node.PassExpect: the kernel's table is the same for all.
func (g *Group) PassExpect(x *flow.Expect) bool { return g.relations[0].PassExpect(x) }
