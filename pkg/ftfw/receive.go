package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// hearing is what the engine knows about the peer's messages.
type hearing struct {
	wire.Tracker

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

	// Messages dropped as late since the last that was accepted.
	deaf      int // how many in sequence
	deafFirst uint32
	deafLast  uint32
	deafSince time.Duration

	accepted int // since our hello was answered
}

// Receive takes the header of one message of the peer.
func (e *Engine) Receive(now time.Duration, h wire.Header) Verdict {
	v := e.receive(now, h, classify(h))
	e.finishResync()
	return v
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
	switch e.peer.Track(h.Seq) {
	case wire.AfterGap:
		e.digest(now, h, c)
		e.gap(h.Seq, c)
	case wire.BeforeNow:
		if !e.adopt(now, h.Seq) {
			return Drop
		}
		e.digest(now, h, c)
		e.accept(h.Seq, c)
	default:
		e.digest(now, h, c)
		e.accept(h.Seq, c)
	}
	e.endRun(now)
	e.heardAt(now)
	return verdict(c)
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
	e.peer.deaf = 0
}

// adopt decides about a message dropped as late. A peer of which nothing but
// late messages arrive, and those in good order, is not repeating itself: we
// have its position wrong, say because the first HELLO of its new life looked
// like a repetition. It reports true once we are to follow it.
func (e *Engine) adopt(now time.Duration, seq uint32) bool {
	p := &e.peer
	if p.deaf == 0 || seq != p.deafLast+1 {
		p.deaf, p.deafFirst, p.deafSince = 0, seq, now
	}
	p.deaf++
	p.deafLast = seq
	if p.deaf < 3 || now-p.deafSince < deafAfter {
		return false
	}
	e.stats.Adopted++
	e.ack.set, e.ack.window = false, e.cfg.ACKWindow
	e.nack(p.deafFirst, seq-1)
	e.RequestResync()
	e.startOver(now)
	return true
}
