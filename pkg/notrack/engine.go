package notrack

import (
	"iter"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// aliveEvery is the silence that an ALIVE ends (docs/protocol.md 7.2).
const aliveEvery = time.Second

// Config is what the owner decides.
type Config struct {
	// FirstSeq is the first sequence number: the UNIX time in seconds when
	// the engine is made (docs/protocol.md 4).
	FirstSeq uint32
	// StartupResync asks the peer for everything with the first message.
	StartupResync bool
}

// Engine is one side of one NOTRACK relation. It is not safe for concurrent
// use.
type Engine struct {
	engine.Queue
	next   uint32
	timer  time.Duration // of the next ALIVE
	alive  bool          // an ALIVE is to be sent,
	resync bool          // a RESYNC,
	first  bool          // an ALIVE before everything else
	peer   wire.Tracker
	bulks  engine.Spaced
	wanted bool // the owner is yet to hear of a bulk
	stats  engine.Stats
}

// New makes an engine whose clock reads now.
func New(cfg Config, now time.Duration) *Engine {
	return &Engine{Queue: engine.NewQueue(), next: cfg.FirstSeq, timer: now + aliveEvery, resync: cfg.StartupResync}
}

// Receive takes the header of one message of the peer. The number of a message
// that is not bad becomes the newest, whatever it is (docs/protocol.md 4).
func (e *Engine) Receive(now time.Duration, h wire.Header) engine.Verdict {
	e.peer.Track(h.Seq)
	switch c := h.Class(); c {
	case wire.Data:
		e.peer.Accept(h.Seq)
		return engine.Deliver
	case wire.RESYNC, wire.ALIVE:
		e.peer.Accept(h.Seq)
		if c == wire.RESYNC {
			e.stats.ResyncsReceived++
			e.wantBulk(now)
		}
		return engine.Control
	}
	return engine.Bad
}

func (e *Engine) wantBulk(now time.Duration) {
	e.wanted = e.bulks.Want(now, engine.BulkPause, engine.BulkSlack) || e.wanted
}

// NextEvent returns the oldest event not yet pulled.
func (e *Engine) NextEvent() (engine.Event, bool) {
	if !e.wanted {
		return engine.Event{}, false
	}
	e.wanted = false
	return engine.Event{Kind: engine.BulkWanted}, true
}

// BulkDone means nothing here: no peer waits for the end of a bulk.
func (e *Engine) BulkDone() {}

// RequestResync queues one RESYNC unless one is queued already.
func (e *Engine) RequestResync() { e.resync = true }

// Alive makes an ALIVE the next message: its body is the owner's.
func (e *Engine) Alive() { e.first = true }

// InTouch reports whether anything of the peer has come.
func (e *Engine) InTouch() bool { return e.peer.Set }

// Number takes the next sequence number for a message that the owner makes
// without an object. It leaves before everything popped later.
func (e *Engine) Number() (seq uint32) {
	seq = e.next
	e.next++
	e.stats.Sent++
	return seq
}

// Pop returns the next message to send. The owner sends messages in this
// order, each exactly once, and calls Flushed after a run of Pops.
func (e *Engine) Pop(time.Duration) (engine.Frame, bool) {
	var kind uint8
	switch {
	case e.first:
		e.first, kind = false, wire.FlagALIVE
	case e.resync:
		e.resync, kind = false, wire.FlagRESYNC
		e.stats.ResyncsSent++
	case e.Len() > 0:
		e.alive = false // the objects say so
		return engine.Frame{Header: wire.Header{Seq: e.Number()}, Ref: e.Queue.Pop(), Object: true}, true
	case e.alive:
		e.alive, kind = false, wire.FlagALIVE
	default:
		return engine.Frame{}, false
	}
	return engine.Frame{Header: wire.Header{Type: wire.Control, Flags: kind, Seq: e.Number()}}, true
}

// Flushed tells the engine that messages left. The timer counts from here.
func (e *Engine) Flushed(now time.Duration) { e.timer = now + aliveEvery }

// Tick runs the timers that are due at now.
func (e *Engine) Tick(now time.Duration) {
	if e.bulks.Ripe(now) {
		e.wantBulk(now)
	}
	if now >= e.timer {
		e.timer = now + aliveEvery
		e.alive = true
	}
}

// Deadline is when Tick wants to be called.
func (e *Engine) Deadline() time.Duration {
	if e.bulks.Due {
		return min(e.timer, e.bulks.At)
	}
	return e.timer
}

// Pending returns the length of the transmit queue, control messages included;
// there is no resend queue.
func (e *Engine) Pending() (tx, resend int) {
	tx = e.Len()
	for _, control := range [...]bool{e.alive, e.resync, e.first} {
		if control {
			tx++
		}
	}
	return tx, 0
}

// ResendQueue returns nil: there is none.
func (e *Engine) ResendQueue() iter.Seq[engine.Resendable] { return nil }

// NextSeq returns the number of the next message.
func (e *Engine) NextSeq() uint32 { return e.next }

// Stats returns a copy of the counters.
func (e *Engine) Stats() engine.Stats {
	s := e.stats
	s.Lost, s.Before = e.peer.Lost, e.peer.Before
	return s
}
