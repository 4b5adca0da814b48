package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// acknowledging is what we owe the peer. The numbers from..peer.Last have
// arrived without a gap.
type acknowledging struct {
	set    bool
	from   uint32
	window int // messages until the next acknowledgement
}

// acknowledge queues the ACK that is owed. It reports whether one was.
func (e *Engine) acknowledge() bool {
	if !e.ack.set {
		return false
	}
	e.ack.set = false
	return e.queueACK(e.ack.from, e.peer.Last)
}

// closeWindow acknowledges when the window is used up. An ACK counts, but the
// answer to it waits for the next message of another kind or for the timer:
// with a window of one, two nodes would acknowledge each other's ACKs as fast
// as the link allows.
func (e *Engine) closeWindow(c wire.Class) {
	if e.ack.window > 0 || c == wire.ACK {
		return
	}
	e.acknowledge()
	e.ack.window = e.cfg.ACKWindow
}

// queueACK queues ACKs for from..to, passing over the RESYNCs that are not to
// be acknowledged yet. It reports whether there was anything left.
func (e *Engine) queueACK(from, to uint32) (queued bool) {
	for _, held := range e.resync.held[:e.resync.heldCount] {
		if wire.Before(held, from) || wire.After(held, to) {
			continue
		}
		if held != from {
			e.queueControl(wire.FlagACK, from, held-1)
			queued = true
		}
		if held == to {
			return queued
		}
		from = held + 1
	}
	e.queueControl(wire.FlagACK, from, to)
	return true
}

// nack asks for from..to again.
func (e *Engine) nack(from, to uint32) {
	i := e.queueControl(wire.FlagNACK, from, to)
	e.resync.missed()
	if e.resync.active {
		e.q.at(i).tracked = true
		e.resync.outstanding++
	}
}

// acked takes the peer's ACK of from..to. Where the range has numbers with
// HELLO, those and what is before them prove nothing (see helloAnswered); its
// ends have arrived.
func (e *Engine) acked(now time.Duration, from, to uint32) {
	if !e.ours(to) {
		e.foreign(now, to)
		return
	}
	hello := e.out.helloFirst
	for i := e.seek(from); i != 0; {
		n := e.q.at(i)
		if wire.After(n.seq, to) {
			break
		}
		next := n.next
		vain := n.flags&wire.FlagHELLO != 0 || wire.Before(n.seq, hello) && !wire.Before(to, hello)
		trusted := !vain || n.seq == from || n.seq == to
		if trusted || n.kind == wire.FlagACK || n.kind == wire.FlagNACK {
			if n.tracked {
				e.resync.outstanding--
			}
			e.q.free(i)
		}
		i = next
	}
	e.out.heard, e.out.answered = true, now
	if wire.After(to, e.out.ackedTo) || !e.ours(e.out.ackedTo) {
		e.out.ackedTo = to
	}
	e.settle(to)
	e.stragglers(now)
}

// nacked queues again what the peer misses of from..to.
func (e *Engine) nacked(now time.Duration, from, to uint32) {
	if !e.ours(to) {
		e.foreign(now, to)
		return
	}
	e.out.answered = now
	for i := e.seek(from); i != 0; {
		n := e.q.at(i)
		if wire.After(n.seq, to) {
			break
		}
		next := n.next
		e.stats.Resent++
		e.requeue(i)
		i = next
	}
	if e.out.dropped && !wire.After(from, e.out.droppedTo) {
		if e.out.amends.Want(now, resyncPause, 0) {
			e.amend()
		}
	}
}

// foreign takes a range that ends with a number we have not sent. If it is ahead
// of us the peer has believed somebody else, perhaps an earlier life of ours
// whose datagrams were late: a C peer drops what we say until our numbers get
// there, and acknowledges it then. A HELLO brings it back. What it says amid its
// own hello, or along with the answer to ours, may be about an earlier life of
// ours; and of several nodes on one multicast group each hears what the others
// are told, so ours is said ever more seldom.
func (e *Engine) foreign(now time.Duration, to uint32) {
	e.stats.ForeignRanges++
	o := &e.out
	past := !e.InTouch() || !o.settled || e.peer.sayBack || now == o.doneAt
	if past || wire.Before(to, o.next) || now < o.strangeUntil {
		return
	}
	if now-o.strangeUntil > strangePauseEnd {
		o.strangePause = 0
	}
	o.strangePause = min(max(2*o.strangePause, strangePause), strangePauseEnd)
	o.strangeUntil = now + o.strangePause
	e.amend()
}

// ours reports whether the last of from..to was sent in this life: whoever
// acknowledges or misses something has heard that, or a later one.
func (e *Engine) ours(to uint32) bool {
	o := &e.out
	return o.next != o.first && !wire.Before(to, o.first) && wire.Before(to, o.next)
}

// seek returns the first element of the resend queue not before from. The
// queue is in the order of numbers, so it starts at the nearer end: at the
// oldest element as a rule.
func (e *Engine) seek(from uint32) uint32 {
	l := &e.q.lists[resendList]
	if l.n == 0 {
		return 0
	}
	head, tail := e.q.at(l.head).seq, e.q.at(l.tail).seq
	switch {
	case !wire.Before(head, from):
		return l.head
	case wire.Before(tail, from):
		return 0
	case from-head <= tail-from:
		i := l.head
		for wire.Before(e.q.at(i).seq, from) {
			i = e.q.at(i).next
		}
		return i
	}
	i := l.tail
	for !wire.Before(e.q.at(e.q.at(i).prev).seq, from) {
		i = e.q.at(i).prev
	}
	return i
}

// settle notes that the peer has taken our last HELLO, as it acknowledges that
// or a later number; a HELLO_BACK says so only of a single HELLO. Up to then a C peer
// threw its unacknowledged messages away at every HELLO, so if anything was
// missed a NACK did not bring it back.
func (e *Engine) settle(to uint32) {
	o := &e.out
	if o.settled || o.hello != helloDone || wire.Before(to, o.helloTail) {
		return
	}
	o.settled = true
	e.fillGap()
}

// fillGap asks for everything if anything was missed before the peer took our
// last HELLO.
func (e *Engine) fillGap() {
	if !e.out.gap {
		return
	}
	e.out.gap = false
	if !e.resync.active {
		e.RequestResync()
	}
}

// stragglers sends again what an acknowledgement has left behind for long.
// Either the peer's ACK or NACK of it is still to come, which takes it a
// second or two, or it went astray. A RESYNC may wait longer, as the peer does
// not acknowledge it before its bulk is queued; but a peer that sends no objects
// is hardly at work on one.
func (e *Engine) stragglers(now time.Duration) {
	if e.out.hello != helloDone {
		return
	}
	i := e.q.lists[resendList].head
	var resync uint32
	for i != 0 && e.q.at(i).kind == wire.FlagRESYNC {
		resync = i
		i = e.q.at(i).next
	}
	patience := e.resync.patience
	if patience == resyncPatience && now-e.peer.objectAt >= stragglerAfter {
		patience = stragglerAfter
	}
	if e.out.resync.stuck(now, e.behind(resync), patience) {
		e.resync.patience = min(2*e.resync.patience, resyncPatienceEnd)
		e.stats.Requeued++
		e.requeue(resync)
	}
	if !e.out.oldest.stuck(now, e.behind(i), stragglerAfter) {
		return
	}
	for n := e.behind(i); n != nil; n = e.behind(i) {
		next := n.next
		if n.kind != wire.FlagRESYNC {
			e.stats.Requeued++
			e.requeue(i)
		}
		i = next
	}
}

// behind returns node i if a later number has been acknowledged, else nil.
func (e *Engine) behind(i uint32) *node {
	if i == 0 || !wire.Before(e.q.at(i).seq, e.out.ackedTo) {
		return nil
	}
	return e.q.at(i)
}

// A watch measures how long one element has been left behind.
type watch struct {
	on    bool
	seq   uint32
	since time.Duration
}

// stuck reports whether n, nil for nothing, has been seen here for limit.
func (w *watch) stuck(now time.Duration, n *node, limit time.Duration) bool {
	if n == nil {
		w.on = false
		return false
	}
	if !w.on || w.seq != n.seq {
		*w = watch{on: true, seq: n.seq, since: now}
	}
	if now-w.since < limit {
		return false
	}
	w.on = false
	return true
}
