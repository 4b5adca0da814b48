package link

import "time"

// A failover decides which of several links to send on. It knows no clock, no
// socket and no interface: it is told what was received and how the
// interfaces are, at times since a start of its own.
//
// All nodes receive on all links, so they need not agree at once, but they
// should end up on one link. Hence: where the other node is heard, there we
// send, a better link at once and a worse one only if the present one is not
// heard. That way two nodes that change at the same moment do not swap links
// for ever. A link whose interface is not up and running is left at once. When
// nothing is heard on any link for a while, our words may be getting lost
// (or those of the other node, which then tries likewise): the next link is
// tried, and so on, in ever longer intervals, as the other node may just be
// down. The same when the other node is heard but answers nothing: a C daemon
// that hears nothing stays where it is until it hears something.
type failover struct {
	members   []member
	home      int // the Default link
	current   int // the one to send on
	announced int // the last one known to work
	goHome    bool
	silence   time.Duration // without a word until another is tried; 0: never

	lastHeard  time.Duration // on any link
	heardSince time.Duration // without a silence
	switchedAt time.Duration
	probes     int // links tried since something was heard
	appeals    int // links tried since something was answered
	none       bool

	holdUntil   time.Duration // until then nobody leads us away
	returnedAt  time.Duration
	returnDelay time.Duration
	nextReturn  time.Duration
}

// member is one link.
type member struct {
	running bool
	since   time.Duration // when it began to run
	heard   time.Duration // when something came last
}

const (
	settleTime  = 100 * time.Millisecond // see above: not heard
	mostSilence = time.Minute            // between two tries
	// After a return or an appeal the other node may not have followed yet: it
	// says something each second, and so do we.
	holdTime    = 2 * time.Second
	leastReturn = 10 * time.Second // how long the Default link must have been up
	mostReturn  = 10 * time.Minute
	lasting     = time.Minute // a return that held so long was no mistake
	never       = -time.Hour
)

// outcome is what became of an input.
type outcome uint8

const (
	unchanged outcome = iota
	// moved: current is another link. What the old one did not send yet must
	// go out on the new one.
	moved
	// failed: moved, because the old link's interface went.
	failed
	// exhausted: no interface is up and running.
	exhausted
)

func newFailover(running []bool, home int, goHome bool, silence time.Duration) *failover {
	f := &failover{home: home, current: home, announced: home, goHome: goHome, silence: silence, returnDelay: leastReturn, returnedAt: never, holdUntil: never}
	for _, r := range running {
		f.members = append(f.members, member{running: r, heard: never, since: never})
	}
	if !running[home] {
		if i, ok := f.next(); ok {
			f.current, f.announced = i, i
		}
	}
	return f
}

// better orders the links: the Default one, then as configured.
func (f *failover) better(i, j int) bool { return i == f.home || j != f.home && i < j }

// next returns the best running link beside the current one.
func (f *failover) next() (best int, ok bool) {
	for i := range f.members {
		if i != f.current && f.members[i].running && (!ok || f.better(i, best)) {
			best, ok = i, true
		}
	}
	return best, ok
}

// hear is told that something came on link i.
func (f *failover) hear(now time.Duration, i int) outcome {
	if now-f.lastHeard >= f.silence {
		f.heardSince = now
	}
	f.members[i].heard, f.lastHeard, f.probes = now, now, 0
	if i == f.current {
		f.announced = i
		return unchanged
	}
	present := &f.members[f.current]
	switch {
	case !f.members[i].running:
		return unchanged
	case present.running && now < f.holdUntil:
		return unchanged
	case present.running && !f.better(i, f.current) && now-present.heard < settleTime:
		return unchanged
	}
	f.move(now, i)
	f.announced = i
	return moved
}

// listen is told that nobody has listened until now: that was no silence.
func (f *failover) listen(now time.Duration) { f.switchedAt = max(f.switchedAt, now) }

// state is told whether the interface of link i is up and running. When all
// are known, choose acts on it.
func (f *failover) state(now time.Duration, i int, running bool) {
	m := &f.members[i]
	if running && !m.running {
		m.since = now
	}
	m.running = running
}

// choose leaves a link whose interface is not running.
func (f *failover) choose(now time.Duration) outcome {
	if f.members[f.current].running {
		f.none = false
		return unchanged
	}
	best, ok := f.next()
	if !ok {
		if f.none {
			return unchanged
		}
		f.none = true
		return exhausted
	}
	f.none = false
	f.move(now, best)
	f.announced = best
	return failed
}

// tick is told the time, every now and then, and how long the other node has
// not answered.
func (f *failover) tick(now, unanswered time.Duration) outcome {
	if unanswered < f.silence {
		f.appeals = 0
	}
	if f.goHome && f.current != f.home && f.probes == 0 && f.members[f.home].running &&
		now >= f.nextReturn && now-f.members[f.home].since >= leastReturn {
		f.move(now, f.home)
		f.announced = f.home
		f.returnedAt, f.holdUntil = now, now+holdTime
		return moved
	}
	if f.silence == 0 {
		return unchanged
	}
	silent := now-max(f.lastHeard, f.switchedAt) >= f.patience(f.probes)
	unheard := unanswered >= f.silence && now-max(f.heardSince, f.switchedAt) >= f.patience(f.appeals)
	i, ok := f.after(f.current)
	if !ok || !silent && !unheard {
		return unchanged
	}
	f.move(now, i)
	if silent {
		f.probes++
	} else {
		f.appeals++
		f.holdUntil = now + holdTime // what it says meanwhile on the old link is no answer
	}
	return moved
}

// patience doubles with every round of all links.
func (f *failover) patience(tried int) time.Duration {
	return min(f.silence<<min(tried/len(f.members), 10), max(mostSilence, f.silence))
}

// after returns the running link that follows, around.
func (f *failover) after(current int) (int, bool) {
	for k := 1; k < len(f.members); k++ {
		if i := (current + k) % len(f.members); f.members[i].running {
			return i, true
		}
	}
	return 0, false
}

// move changes the link. Whoever leaves the Default link comes back the later
// the sooner after a return that was.
func (f *failover) move(now time.Duration, to int) {
	if f.current == f.home {
		if now-f.returnedAt < lasting {
			f.returnDelay = min(2*f.returnDelay, mostReturn)
		} else {
			f.returnDelay = leastReturn
		}
		f.nextReturn = now + f.returnDelay
		f.returnedAt = never
	}
	f.current, f.switchedAt = to, now
}
