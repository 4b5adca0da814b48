package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// life is what a HELLO says about the peer's life.
type life uint8

const (
	lifeNew       life = iota // the first HELLO of a life
	lifeContinued             // one more of the run
	lifeStale                 // the network repeats a HELLO
)

// hello receives a message with HELLO (docs/protocol.md 5.1, 5.8).
func (e *Engine) hello(now time.Duration, h wire.Header, c wire.Class) Verdict {
	p := &e.peer
	e.stats.HellosReceived++
	p.sayBack = true
	switch e.lifeOf(now, h.Seq) {
	case lifeStale:
		e.peer.Before++
		p.doubt = p.inRun
		return Drop
	case lifeNew:
		e.newLife(now, h.Seq)
		e.digest(now, h, c)
		e.accept(h.Seq, c)
	case lifeContinued:
		late := p.saidBack && now-p.backAt > helloRoundTrip
		p.doubt = p.doubt || late || h.Seq != p.Last+1
		e.digest(now, h, c)
		if h.Seq != p.Last+1 {
			e.gap(h.Seq, c)
		} else {
			p.sure = true
			e.accept(h.Seq, c)
		}
	}
	p.inRun, p.runLast, p.helloAt = true, h.Seq, now
	e.answerHello()
	return verdict(c)
}

// lifeOf tells a new life from a run of HELLOs that goes on and from HELLOs
// the network repeats. Numbers alone cannot: a life begins at the clock's
// seconds, and a peer that sends one message a second restarts right where it
// stopped. Taking a repetition for a restart costs one bulk, taking a restart
// for a repetition makes us deaf; so in doubt it is a restart.
func (e *Engine) lifeOf(now time.Duration, seq uint32) life {
	p := &e.peer
	if !p.Set || !p.run {
		return lifeNew
	}
	inside := !wire.Before(seq, p.runFirst-helloReorder) && !wire.After(seq, p.runLast)
	if inside && now-p.helloAt < helloDuplicate {
		return lifeStale
	}
	step := seq - p.Last
	if p.inRun && step >= 1 && step <= helloGap && now-p.helloAt < helloSilence {
		return lifeContinued
	}
	return lifeNew
}

// newLife begins a life of the peer in which it knows nothing of ours. C
// throws away what is unacknowledged; we send it again, and everything else.
func (e *Engine) newLife(now time.Duration, seq uint32) {
	p := &e.peer
	e.stats.PeerRestarts++
	p.run, p.runFirst, p.runLast = true, seq, seq
	p.saidBack, p.doubt = false, false
	if p.Set {
		e.leave(now, seq-p.Last > span && p.Last-seq > span)
	}
	if e.ack.set && wire.Before(seq, e.ack.from) {
		e.ack.window, e.ack.from = e.cfg.ACKWindow-1, seq
	}
	e.releaseHeld()
	e.startOver(now)
}

// startOver sends everything to a peer that may have nothing. Whoever forges
// HELLOs must not get it for each of them. It does not bring the news of what
// died and was dropped: the peer may be the same, and still miss it.
func (e *Engine) startOver(now time.Duration) {
	if !e.out.over.Want(now, overPause, overSlack) {
		return
	}
	e.requeueUnacked(true)
	e.raise(Event{Kind: PeerRestarted})
	e.raise(Event{Kind: BulkWanted})
}

// endRun ends the peer's run of HELLOs: our HELLO_BACK has arrived. What was
// sent before it may have gone to an earlier life if there was any doubt.
func (e *Engine) endRun(now time.Duration) {
	p := &e.peer
	if !p.inRun {
		return
	}
	p.inRun = false
	if p.doubt {
		p.doubt = false
		e.stats.DoubtfulRuns++
		e.startOver(now)
	}
}

// answerHello sees to it that HELLO_BACK goes out now. The peer holds its
// objects back until then.
func (e *Engine) answerHello() {
	if e.q.lists[expressList].n > 0 || !e.out.held && e.q.lists[txList].n > 0 {
		return
	}
	e.queueAlive()
}

// helloAnswered ends our own hello. A peer does not look for gaps before a
// message with HELLO, and a C peer acknowledges what it never got, so what was
// sent before the last of them is sent again, but for what this very message
// acknowledges.
func (e *Engine) helloAnswered(now time.Duration, seq uint32) {
	if e.out.hello != helloSay {
		return
	}
	e.out.hello, e.out.doneAt = helloDone, now
	e.out.settled = e.out.hellos == 1 && (!e.peer.Set || seq == e.peer.Last+1)
	e.peer.accepted = 0
	left := e.out.left
	e.out.left = false
	if left && !e.resync.active {
		e.RequestResync() // before the objects that were held
	}
	e.endHold()
	if e.out.settled {
		e.fillGap()
	}
	e.out.repeat = e.out.objects || !e.out.settled || e.doubtful()
	if e.out.objects || left || !e.peer.run {
		e.raise(Event{Kind: BulkWanted})
	}
	e.out.objects = false
}

// doubtful reports whether something is unacknowledged that was sent before our
// hello began.
func (e *Engine) doubtful() bool {
	head := e.q.lists[resendList].head
	return head != 0 && wire.Before(e.q.at(head).seq, e.out.helloFirst)
}

// heardAt watches for a peer that talks and never acknowledges anything: the
// HELLO_BACK we got was meant for an earlier life of ours, and to the peer
// our numbers are late. We say hello again.
func (e *Engine) heardAt(now time.Duration) {
	o := &e.out
	if o.heard || o.hello != helloDone {
		return
	}
	e.peer.accepted++
	if e.peer.accepted < 3 || now-o.doneAt < unheardAfter {
		return
	}
	e.sayHello()
}

// sayHello begins our hello once more. What we have asked for and not received
// a C peer throws away when it hears that.
func (e *Engine) sayHello() {
	o := &e.out
	o.hello, o.hellos, o.settled, o.helloFirst = helloInit, 0, false, o.next
	o.gap = o.gap || e.asking()
	e.stats.HellosRepeated++
}

// asking reports whether a NACK waits for its acknowledgement, or to be sent.
func (e *Engine) asking() bool {
	for _, l := range [...]listID{txList, expressList, resendList} {
		for i := e.q.lists[l].head; i != 0; i = e.q.at(i).next {
			if e.q.at(i).kind == wire.FlagNACK {
				return true
			}
		}
	}
	return false
}
