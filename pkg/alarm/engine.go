package alarm

import (
	"iter"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Config is what the owner decides.
type Config struct {
	// FirstSeq is the first sequence number (docs/protocol.md 4).
	FirstSeq uint32
	// Refresh is the longest time between two messages about an object, in
	// whole seconds.
	Refresh time.Duration
	// Expire is how long an external object lives without being heard of.
	Expire time.Duration
	// Seed makes the dice.
	Seed uint64
}

// Engine is one side of one ALARM relation. It is not safe for concurrent use.
type Engine struct {
	engine.Queue
	cfg     Config
	next    uint32
	dice    uint64
	refresh wheel // internal objects
	expire  wheel // external objects
	stats   engine.Stats
}

// New makes an engine.
func New(cfg Config) *Engine {
	return &Engine{Queue: engine.NewQueue(), cfg: cfg, next: cfg.FirstSeq, dice: cfg.Seed,
		refresh: newWheel(), expire: newWheel()}
}

// Watch sets the refresh timer of an internal object anew.
func (e *Engine) Watch(now time.Duration, r engine.Ref) { e.refresh.set(r, now+e.spread()) }

// Unwatch ends the timer of an internal object.
func (e *Engine) Unwatch(r engine.Ref) { e.refresh.stop(r) }

// UnwatchAll ends the timers of all internal objects.
func (e *Engine) UnwatchAll() { e.refresh.clear() }

// DueRefresh returns an internal object whose time has come and sets its timer
// anew; 0 if there is none.
func (e *Engine) DueRefresh(now time.Duration) engine.Ref {
	r := e.refresh.due(now)
	if r != 0 {
		e.stats.Refreshed++
		e.Watch(now, r)
	}
	return r
}

// Heard sets the expiry timer of an external object anew.
func (e *Engine) Heard(now time.Duration, r engine.Ref) { e.expire.set(r, now+e.cfg.Expire) }

// Gone ends the timer of an external object.
func (e *Engine) Gone(r engine.Ref) { e.expire.stop(r) }

// NextExpired returns an external object that was not heard of for too long
// and ends its timer; 0 if there is none.
func (e *Engine) NextExpired(now time.Duration) engine.Ref {
	r := e.expire.due(now)
	e.expire.stop(r)
	return r
}

// Left returns how long an external object has to live.
func (e *Engine) Left(now time.Duration, r engine.Ref) time.Duration { return e.expire.left(r, now) }

// spread returns a time as C spreads its refreshes: whole seconds from 1 to
// RefreshTime, and 0.2, 0.4, 0.6, 0.8 or 1 second (docs/protocol.md 7.1.1).
func (e *Engine) spread() time.Duration {
	// SplitMix64, http://prng.di.unimi.it/splitmix64.c
	e.dice += 0x9e3779b97f4a7c15
	z := e.dice
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	seconds := uint64(max(e.cfg.Refresh/time.Second, 1))
	return time.Duration(1+z%seconds)*time.Second + time.Duration(1+z>>32%5)*tick
}

// Receive takes the header of one message of the peer. The owner finds out
// about a type that is no data's.
func (e *Engine) Receive(_ time.Duration, h wire.Header) engine.Verdict {
	if h.Flags != 0 {
		e.stats.Ignored++
		return engine.Drop
	}
	return engine.Deliver
}

// Pop returns the next message to send.
func (e *Engine) Pop(time.Duration) (engine.Frame, bool) {
	r := e.Queue.Pop()
	if r == 0 {
		return engine.Frame{}, false
	}
	f := engine.Frame{Header: wire.Header{Seq: e.next}, Ref: r, Object: true}
	e.next++
	e.stats.Sent++
	return f, true
}

// Deadline is when objects may be due.
func (e *Engine) Deadline() time.Duration { return min(e.refresh.next(), e.expire.next()) }

// never is later than any deadline, and leaves room for sums.
const never = time.Duration(1 << 62)

// Pending returns the length of the transmit queue; there is no resend queue.
func (e *Engine) Pending() (tx, resend int) { return e.Len(), 0 }

// NextSeq returns the number of the next message.
func (e *Engine) NextSeq() uint32 { return e.next }

// Stats returns a copy of the counters. Lost and Before stay zero: nobody looks
// at numbers.
func (e *Engine) Stats() engine.Stats { return e.stats }

// What other modes do and this one does not.

// Tick has nothing to do: the owner asks for what is due.
func (e *Engine) Tick(time.Duration) {}

// Flushed has nothing to do.
func (e *Engine) Flushed(time.Duration) {}

// NextEvent never has one.
func (e *Engine) NextEvent() (engine.Event, bool) { return engine.Event{}, false }

// BulkDone has nothing to do: there are no bulks.
func (e *Engine) BulkDone() {}

// RequestResync has nothing to do: there is no RESYNC.
func (e *Engine) RequestResync() {}

// ResendQueue returns nil: there is none.
func (e *Engine) ResendQueue() iter.Seq[engine.Resendable] { return nil }
