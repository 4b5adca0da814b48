package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Nothing but its number says that a message is the peer's. So a number that
// cannot follow from the last one moves us only when another follows it, and
// where we were stays a place to come back to.

// span is how far ahead of the last number the next message may be, after a
// loss or out of order, and how far behind it is merely late.
const span = 4096

const (
	formerLife = 10 * time.Second       // how long we can come back
	formerRest = 100 * time.Millisecond // what the network still delivers of before a jump
	behindFor  = 900 * time.Millisecond // how long a place behind is heard before we follow
	askPause   = 100 * time.Millisecond // between questions for a stray message,
	askSlack   = 900 * time.Millisecond // but the first ten at once
)

// A place is where we were before we believed a far number.
type place struct {
	set  bool
	last uint32
	left time.Duration
	sure bool
	owed struct {
		set  bool
		from uint32
	}
}

// A stray is a run of messages somewhere else, since the last that was
// accepted.
type stray struct {
	set         bool
	first, last uint32
	since       time.Duration
}

// leave notes the place we are about to leave, unless it was never more than
// one message's word, or not far. What is owed there stays behind: an
// acknowledgement that reaches from one place to the other would claim
// everything between them.
func (e *Engine) leave(now time.Duration, far bool) {
	p := &e.peer
	if p.sure && far {
		p.former = place{set: true, last: p.Last, left: now, sure: true}
		p.former.owed.set, p.former.owed.from = e.ack.set, e.ack.from
	}
	if far {
		e.ack.set = false
	}
	p.sure = false
	e.hold.drop()
}

// goBack exchanges the present place and the former one.
func (e *Engine) goBack(now time.Duration) {
	p := &e.peer
	here := place{set: true, last: p.Last, left: now - formerRest, sure: p.sure}
	here.owed.set, here.owed.from = e.ack.set, e.ack.from
	there := p.former
	p.Last, p.sure, p.former = there.last, there.sure, here
	e.ack.set, e.ack.from = there.owed.set, there.owed.from
	p.inRun, p.doubt = false, false
	e.hold.drop()
	e.stats.WentBack++
	e.resyncSpaced(now)
}

// comesFrom reports whether seq goes on where we were before: what made us
// leave was not the peer's. Right after a jump it may be what the network held
// up; that is old.
func (p *hearing) comesFrom(now time.Duration, seq uint32) bool {
	f := &p.former
	rest := now - f.left
	return f.set && rest >= formerRest && rest < formerLife && seq-f.last-1 < span
}

// A way is how we got to a message.
type way uint8

const (
	noWay  way = iota // not to be believed
	back              // the former place; it is to be judged there
	across            // a jump
)

// elsewhere decides about a message that is neither the next nor a little
// ahead.
func (e *Engine) elsewhere(now time.Duration, seq uint32) way {
	p := &e.peer
	behind := p.Last - seq
	far := behind >= span
	if far && p.comesFrom(now, seq) {
		e.goBack(now)
		return back
	}
	if wire.After(seq, p.Last) {
		e.hold.giveUp()
	} else {
		p.Before++
	}
	followed := e.follows(now, seq)
	lone := far && !p.sure && !p.former.set // nothing to lose here
	if !followed && !lone {
		if near := p.former.last-seq+span < 2*span; far && !near {
			e.ask(now, seq)
		}
		return noWay
	}
	e.jump(now, seq)
	p.sure = followed
	return across
}

// follows reports whether seq belongs to a run of messages that is to be
// believed: ahead as soon as there are two of them, behind, where a replay
// would be, only if nothing else is heard for a while.
func (e *Engine) follows(now time.Duration, seq uint32) bool {
	s := &e.peer.stray
	switch {
	case !s.set || seq-s.last >= span && s.last-seq >= span:
		*s = stray{set: true, first: seq, last: seq, since: now}
		return false
	case s.last-seq < span:
		return false
	}
	s.last = seq
	return wire.After(seq, e.peer.Last) || now-s.since >= behindFor
}

// ask asks for a stray message once more. Who sent it sends it again, under a
// number that follows; to whoever did not it means nothing.
func (e *Engine) ask(now time.Duration, seq uint32) {
	if e.peer.asks.Want(now, askPause, askSlack) {
		e.queueControl(wire.FlagNACK, seq, seq)
		e.stats.NACKsAsked++
	}
	e.peer.asks.Due = false // not later: it may be a flood
}

// jump goes to seq. What was missed is asked for: what the peer can still have
// of it, and everything if that is not all, or if seq is behind, as then the
// peer has begun anew without our knowing.
func (e *Engine) jump(now time.Duration, seq uint32) {
	p := &e.peer
	missed := seq - p.Last - 1
	e.acknowledge()
	e.leave(now, true)
	e.ack.window = e.cfg.ACKWindow
	e.stats.Adopted++
	switch {
	case !wire.After(seq, p.Last):
		e.miss(p.stray.first, seq)
		e.RequestResync()
		e.startOver(now)
	case missed > uint32(e.cfg.ResendQueue):
		p.Lost += uint64(missed)
		e.miss(p.stray.first, seq)
		e.resync.missed()
		e.resyncSpaced(now)
	default:
		p.Lost += uint64(missed)
		e.miss(p.Last+1, seq)
	}
}

// miss asks for what is before seq, from first on.
func (e *Engine) miss(first, seq uint32) {
	if first != seq {
		e.nack(first, seq-1)
	}
}
