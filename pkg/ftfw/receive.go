package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// hearing is what the engine knows about the peer's messages.
type hearing struct {
	wire.Tracker
	objectAt time.Duration // when the latest object came

	// The peer's current run of HELLOs, or its latest.
	sayBack  bool // the next message carries HELLO_BACK
	inRun    bool // the newest message accepted had HELLO
	run      bool // there was a run
	runFirst uint32
	runLast  uint32
	helloAt  time.Duration // when the run's newest HELLO was accepted
	saidBack bool          // the run got a HELLO_BACK,
	backAt   time.Duration // the first of them at this time
	doubt    bool          // a restart may hide in the run

	sure   bool // that the last number is the peer's: it followed another
	former place
	stray  stray
	asks   engine.Spaced

	accepted int // since our hello was answered
}

// Receive takes the header of one message of the peer, whose body can be read.
func (e *Engine) Receive(now time.Duration, h wire.Header) Verdict {
	v := e.receive(now, h, classify(h))
	if v == Deliver {
		e.peer.objectAt = now
	}
	if e.out.repeat {
		e.out.repeat = false
		e.requeueUnacked(false)
	}
	e.hold.passes = false
	e.finishResync()
	return v
}

// Refuse takes the header of a data message whose body cannot be read. Where
// it is the next it counts as received, or it would be asked for again and
// again; anywhere else it is not believed. Deliver means that the owner counts
// it as malformed.
func (e *Engine) Refuse(now time.Duration, h wire.Header) Verdict {
	p := &e.peer
	step := h.Seq - p.Last
	hello := h.Flags&wire.FlagHELLO != 0
	passes := e.hold.passes
	switch {
	case !p.Set || hello && (step != 1 || e.lifeOf(now, h.Seq) != lifeContinued):
	case step == 1:
		return e.Receive(now, h)
	case step-2 < span-1 && !passes:
		if v, held := e.hold.take(now, h.Seq); held {
			return v
		}
	case step-1 >= 1<<31:
		p.Before++
		return Drop
	}
	e.hold.passes = false
	return Deliver
}

// classify is wire's classification and the one thing it cannot see from the
// flags: a range that ends before it begins (docs/protocol.md 5.2).
func classify(h wire.Header) wire.Class {
	c := h.Class()
	if (c == wire.ACK || c == wire.NACK) && wire.Before(h.To, h.From) {
		return wire.Bad
	}
	return c
}

func (e *Engine) receive(now time.Duration, h wire.Header, c wire.Class) Verdict {
	hello := h.Flags&wire.FlagHELLO != 0
	if c == wire.Bad {
		if !hello && e.peer.Track(h.Seq) == wire.BeforeNow {
			return Drop
		}
		return Bad
	}
	if !e.peer.Set {
		e.firstContact(h)
	}
	if h.Flags&wire.FlagHELLOBack != 0 {
		e.helloAnswered(now, h.Seq)
	}
	if hello {
		return e.hello(now, h, c)
	}
	return e.inPlace(now, h, c)
}

// inPlace receives a message without HELLO at the place we are.
func (e *Engine) inPlace(now time.Duration, h wire.Header, c wire.Class) Verdict {
	p := &e.peer
	switch step := h.Seq - p.Last; {
	case step == 1 || !p.Set:
		p.sure = p.Set
		e.digest(now, h, c)
		e.accept(h.Seq, c)
	case step-2 < span-1:
		if v, held := e.hold.take(now, h.Seq); held {
			return e.early(v)
		}
		e.digest(now, h, c)
		e.gap(h.Seq, c)
	default:
		switch e.elsewhere(now, h.Seq) {
		case noWay:
			return Drop
		case back:
			return e.inPlace(now, h, c)
		}
		e.digest(now, h, c)
		e.accept(h.Seq, c)
	}
	e.endRun(now)
	e.heardAt(now)
	return verdict(c)
}

// early counts a message that is held already.
func (e *Engine) early(v Verdict) Verdict {
	if v == Drop {
		e.peer.Before++
	}
	return v
}

// firstContact takes the first message ever. Nothing tells whether others were
// missed before it, unless it answers the only message that we have sent.
func (e *Engine) firstContact(h wire.Header) {
	if h.Flags&wire.FlagHELLOBack == 0 || e.out.next-e.out.first != 1 {
		e.resync.missed()
	}
}

func verdict(c wire.Class) Verdict {
	if c == wire.Data {
		return Deliver
	}
	return Control
}

// digest does what a message orders, before the message is acknowledged: the
// order of the two in the transmit queue tells the peer when an answer is
// complete (docs/protocol.md 5.7).
func (e *Engine) digest(now time.Duration, h wire.Header, c wire.Class) {
	switch c {
	case wire.ACK:
		e.stats.ACKsReceived++
		e.acked(now, h.From, h.To)
	case wire.NACK:
		e.stats.NACKsReceived++
		e.nacked(now, h.From, h.To)
	case wire.RESYNC:
		e.stats.ResyncsReceived++
		e.resyncWanted(now, h.Seq)
	}
}

// accept takes a message as the next one and acknowledges when the window is
// used up.
func (e *Engine) accept(seq uint32, c wire.Class) {
	a := &e.ack
	if !a.set {
		a.set, a.from = true, seq
	}
	a.window--
	e.update(seq)
	e.closeWindow(c)
}

// gap takes a message and asks for those missing before it.
func (e *Engine) gap(seq uint32, c wire.Class) {
	a, last := &e.ack, e.peer.Last
	e.peer.Lost += uint64(seq - last - 1)
	e.acknowledge()
	e.nack(last+1, seq-1)
	a.window, a.set, a.from = e.cfg.ACKWindow-1, true, seq
	e.update(seq)
	e.closeWindow(c)
	if !e.out.settled {
		e.out.gap = true
	}
}

func (e *Engine) update(seq uint32) {
	e.peer.Accept(seq)
	if !e.hold.passes { // that one was heard before
		e.peer.stray.set = false
	}
}
