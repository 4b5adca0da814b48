package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
)

// The words of package engine.
type (
	Ref        = engine.Ref
	Verdict    = engine.Verdict
	Frame      = engine.Frame
	Event      = engine.Event
	Resendable = engine.Resendable
	Stats      = engine.Stats
)

// Those that are no types.
const (
	Deliver = engine.Deliver
	Control = engine.Control
	Drop    = engine.Drop
	Hold    = engine.Hold
	Bad     = engine.Bad

	BulkWanted     = engine.BulkWanted
	PeerRestarted  = engine.PeerRestarted
	ResyncStarted  = engine.ResyncStarted
	ResyncComplete = engine.ResyncComplete
)

// Config is what the owner decides.
type Config struct {
	// FirstSeq is the first sequence number: the UNIX time in seconds when
	// the engine is made (docs/protocol.md 4).
	FirstSeq uint32
	// ACKWindow is the number of messages after which an acknowledgement is
	// sent at the latest; at least 1.
	ACKWindow int
	// ResendQueue is the largest number of unacknowledged messages kept; at
	// least 1.
	ResendQueue int
	// StartupResync asks the peer for everything with the first message.
	StartupResync bool
	// HelloHold is how long after the start objects wait for the peer's
	// answer to our hello; 0 sends them at once, as C does, and with Forever
	// a peer that is not there yet is like one that was left (see Leave).
	HelloHold time.Duration
	// Reorder is how long a message that came too early waits for those before
	// it, until they are asked for; 0 asks at once, as C does. Whoever sets it
	// keeps the message when the verdict is Hold, and asks Held for it.
	Reorder time.Duration
}

// The engine's times. None is configurable: the peer's C counterpart has them
// compiled in, or they follow from those it has.
const (
	aliveEvery        = time.Second            // docs/protocol.md 5.3
	helloDuplicate    = 200 * time.Millisecond // how late the network repeats a HELLO
	helloSilence      = 3 * time.Second        // a longer pause ends a run of HELLOs
	helloRoundTrip    = 200 * time.Millisecond
	stragglerAfter    = 3 * time.Second
	overPause         = engine.BulkPause // between bulks that the peer causes by HELLO or RESYNC,
	overSlack         = engine.BulkSlack // but the first five at once
	unheardAfter      = 5 * time.Second
	resyncPause       = 5 * time.Second
	resyncPatience    = 30 * time.Second // doubles with every repetition; the first comes earlier if nothing else does
	resyncPatienceEnd = 8 * time.Minute
	strangePause      = 5 * time.Second // doubles with every repetition
	strangePauseEnd   = 8 * time.Minute
)

// Limits in sequence numbers.
const (
	helloGap     = 1024    // a larger step inside a run of HELLOs is a restart
	helloReorder = 64      // how far below its first a run may arrive
	ownNumbers   = 1 << 30 // how far back a peer's range is taken for ours
)

// Engine is one side of one FTFW relation. It is not safe for concurrent use.
type Engine struct {
	cfg    Config
	q      queues
	out    sending
	peer   hearing
	hold   holding
	ack    acknowledging
	resync resyncing
	events []Event
	stats  Stats
}

// New makes an engine whose clock reads now. The first message is ready for
// Pop at once.
func New(cfg Config, now time.Duration) *Engine {
	cfg.ACKWindow = max(cfg.ACKWindow, 1)
	cfg.ResendQueue = max(cfg.ResendQueue, 1)
	e := &Engine{cfg: cfg}
	e.out = sending{
		first:      cfg.FirstSeq,
		next:       cfg.FirstSeq,
		helloFirst: cfg.FirstSeq,
		timer:      now + aliveEvery,
		held:       cfg.HelloHold > 0,
		holdUntil:  now + min(cfg.HelloHold, Forever-now),
		left:       cfg.HelloHold == Forever,
	}
	e.ack.window = cfg.ACKWindow
	e.hold.wait = cfg.Reorder
	e.resync.patience = resyncPatience
	if cfg.StartupResync {
		e.RequestResync()
	} else {
		e.queueAlive()
	}
	return e
}

// Enqueue asks for r to be sent. It reports true when r was in no queue
// before: the owner then keeps the object until Released names it. In the
// transmit queue it keeps its place; waiting for an acknowledgement it moves
// to the end of the transmit queue, because what is sent next supersedes what
// was sent (docs/protocol.md 5.5).
func (e *Engine) Enqueue(r Ref) (pinned bool) { return e.q.enqueue(r) }

// Queued reports whether r is in a queue.
func (e *Engine) Queued(r Ref) bool { return e.q.find(r) != 0 }

// Forget takes r out of its queue without reporting it released.
func (e *Engine) Forget(r Ref) { e.q.forget(r) }

// ForgetAll takes every object out of the queues without reporting them
// released. Control messages stay.
func (e *Engine) ForgetAll() { e.q.forgetAll() }

// Released calls f for every object that left its last queue since the last
// call and is in none now. f must not call the engine.
func (e *Engine) Released(f func(Ref)) { e.q.drain(f) }

// Pending returns the lengths of the transmit and the resend queue, control
// messages included.
func (e *Engine) Pending() (tx, resend int) {
	return e.q.lists[txList].n + e.q.lists[expressList].n, e.q.lists[resendList].n
}

// Unacked returns the number of objects that were sent and not acknowledged.
func (e *Engine) Unacked() int { return e.q.unacked }

// Unanswered returns how long the peer has acknowledged nothing although
// something waits for that, else 0. A peer that hears us does so each second
// (docs/protocol.md 5.3).
func (e *Engine) Unanswered(now time.Duration) time.Duration {
	if since, waits := e.UnansweredSince(); waits {
		return now - since
	}
	return 0
}

// UnansweredSince returns when that began, if anything waits.
func (e *Engine) UnansweredSince() (since time.Duration, waits bool) {
	return e.out.answered, e.q.lists[resendList].n > 0
}

// NextSeq returns the number of the next message.
func (e *Engine) NextSeq() uint32 { return e.out.next }

// Stats returns a copy of the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Lost, s.Before = e.peer.Lost, e.peer.Before
	return s
}
