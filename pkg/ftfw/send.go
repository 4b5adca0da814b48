package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

type helloState uint8

// The states of our own hello (docs/protocol.md 5.1).
const (
	helloInit helloState = iota
	helloSay
	helloDone
)

// sending is what the engine knows about its own messages.
type sending struct {
	first, next uint32 // the numbers in [first, next) are ours
	timer       time.Duration
	aliveQueued bool

	hello      helloState
	hellos     int           // messages sent with HELLO
	helloFirst uint32        // the first number of these
	helloTail  uint32        // the last one
	doneAt     time.Duration // when hello became helloDone
	objects    bool          // objects were sent with HELLO
	settled    bool          // the peer has taken helloTail
	repeat     bool          // what is unacknowledged is to be sent again
	gap        bool          // something was missed before settled
	heard      bool          // the peer has acknowledged a number of ours
	held       bool          // objects wait for the hello's answer,
	holdUntil  time.Duration // until then at most
	left       bool          // the peer is away, or was never there, and has not answered since

	strangeUntil time.Duration // no HELLO until then because of a foreign range,
	strangePause time.Duration // and how long that was

	dropped   bool          // the resend queue overflowed
	droppedTo uint32        // up to this number
	amends    engine.Spaced // the peer misses something of that: it gets everything
	over      engine.Spaced // the peer may have nothing: it gets everything
	bulks     engine.Spaced // the peer asked for everything

	answered       time.Duration // when the peer last acknowledged, or nothing waited for that
	ackedTo        uint32        // the highest number acknowledged
	oldest, resync watch         // what that has left behind
}

// Pop returns the next message to send. The owner sends messages in this
// order, each exactly once, and calls Flushed after a run of Pops.
func (e *Engine) Pop(now time.Duration) (Frame, bool) {
	if e.out.held && now >= e.out.holdUntil {
		e.endHold()
	}
	i := e.q.lists[expressList].head
	if i == 0 && !e.out.held {
		i = e.q.lists[txList].head
	}
	if i == 0 {
		return Frame{}, false
	}
	n := e.q.at(i)
	n.seq = e.out.next
	n.flags = n.kind | e.helloFlags(now, n.kind == 0)
	e.out.next++
	if e.out.next-e.out.first > ownNumbers {
		e.out.first = e.out.next - ownNumbers
		if wire.Before(e.out.helloFirst, e.out.first) {
			e.out.helloFirst = e.out.first
		}
	}
	f := Frame{Header: wire.Header{Flags: n.flags, Seq: n.seq}}
	if n.kind == 0 {
		f.Object, f.Ref = true, Ref(n.from)
	} else {
		f.Header.Type, f.Header.From, f.Header.To = wire.Control, n.from, n.to
	}
	e.stats.Sent++
	e.sent(now, i)
	return f, true
}

// helloFlags returns the HELLO bits of the next message (docs/protocol.md
// 5.1). They are always fresh: a message sent again carries no bits of old.
func (e *Engine) helloFlags(now time.Duration, object bool) (flags uint8) {
	if e.out.hello != helloDone {
		e.out.hello = helloSay
		e.out.helloTail = e.out.next
		e.out.hellos++
		e.out.objects = e.out.objects || object
		flags |= wire.FlagHELLO
	}
	if e.peer.sayBack {
		e.peer.sayBack = false
		flags |= wire.FlagHELLOBack
		if !e.peer.saidBack {
			e.peer.saidBack, e.peer.backAt = true, now
		}
	}
	return flags
}

// sent moves node i to where it waits for its acknowledgement
// (docs/protocol.md 5.4), if it does.
func (e *Engine) sent(now time.Duration, i uint32) {
	kind := e.q.at(i).kind
	switch kind {
	case wire.FlagALIVE:
		e.out.aliveQueued = false
	case wire.FlagACK:
		e.stats.ACKsSent++
	case wire.FlagNACK:
		e.stats.NACKsSent++
	case wire.FlagRESYNC:
		e.stats.ResyncsSent++
		e.resync.sent()
		e.raise(Event{Kind: ResyncStarted})
	}
	if !e.lasting(kind) {
		e.discard(i)
		return
	}
	if e.q.lists[resendList].n >= e.cfg.ResendQueue {
		e.overflow(now)
	}
	if e.q.lists[resendList].n == 0 {
		e.out.answered = now
	}
	e.q.move(resendList, i)
	e.finishResync()
}

// overflow drops the oldest element of the resend queue (docs/protocol.md
// 5.6), but passes over RESYNCs, of which there are few: nothing else tells when
// the peer has answered. Nothing is told to the peer now; see amend. A NACK that is dropped
// leaves a hole only a resync can fill; at some distance, because a bulk may
// be what fills the queue. One under way already will not be clean.
func (e *Engine) overflow(now time.Duration) {
	i := e.q.lists[resendList].head
	for e.q.at(i).kind == wire.FlagRESYNC && e.q.at(i).next != 0 {
		i = e.q.at(i).next
	}
	n := e.q.at(i)
	e.stats.ResendOverflow++
	kind := n.kind
	if kind == 0 {
		e.out.dropped, e.out.droppedTo = true, n.seq
	}
	e.discard(i)
	if kind == wire.FlagNACK && !e.resync.active && !e.resync.due {
		e.resync.due, e.resync.dueAt = true, now+resyncPause
	}
}

// amend makes up for something the peer misses and we have forgotten. Sending
// everything brings back what lives but not the news of what died, so we say
// hello again as well: a Go peer then asks for everything and drops the rest.
func (e *Engine) amend() {
	o := &e.out
	o.dropped = false
	e.sayHello()
	e.raise(Event{Kind: BulkWanted})
}

// discard frees node i without its having been acknowledged.
func (e *Engine) discard(i uint32) {
	if e.q.at(i).tracked {
		e.resync.outstanding--
		e.resync.clean = false
	}
	e.q.free(i)
}

// Flushed tells the engine that messages left. The timer counts from here.
func (e *Engine) Flushed(now time.Duration) { e.out.timer = now + aliveEvery }

// Tick runs the timers that are due at now.
func (e *Engine) Tick(now time.Duration) {
	if e.out.held && now >= e.out.holdUntil {
		e.endHold()
	}
	if e.resync.due && now >= e.resync.dueAt {
		e.resync.due = false
		e.RequestResync()
	}
	if e.out.amends.Ripe(now) && e.out.amends.Want(now, resyncPause, 0) {
		e.amend()
	}
	if e.out.over.Ripe(now) {
		e.startOver(now)
	}
	if e.out.bulks.Ripe(now) {
		e.wantBulk(now)
	}
	if e.resync.spaced.Ripe(now) {
		e.resyncSpaced(now)
	}
	if now < e.out.timer {
		return
	}
	e.out.timer = now + aliveEvery
	if !e.acknowledge() {
		e.queueAlive()
	}
}

// Deadline is when Tick wants to be called.
func (e *Engine) Deadline() time.Duration {
	d := e.out.timer
	if e.out.held {
		d = min(d, e.out.holdUntil)
	}
	if e.resync.due {
		d = min(d, e.resync.dueAt)
	}
	if e.hold.n > 0 {
		d = min(d, e.hold.deadline())
	}
	for _, s := range [...]*engine.Spaced{&e.out.amends, &e.out.over, &e.out.bulks, &e.resync.spaced} {
		if s.Due {
			d = min(d, s.At)
		}
	}
	return d
}

// queueControl queues a control message.
func (e *Engine) queueControl(kind uint8, from, to uint32) uint32 {
	i := e.q.alloc()
	n := e.q.at(i)
	n.kind, n.from, n.to = kind, from, to
	e.q.push(e.controlList(), i)
	return i
}

func (e *Engine) controlList() listID {
	if e.out.held {
		return expressList
	}
	return txList
}

// queueAlive queues one ALIVE; a link that takes nothing for hours must not
// find a pile of them.
func (e *Engine) queueAlive() {
	if !e.out.aliveQueued {
		e.out.aliveQueued = true
		e.queueControl(wire.FlagALIVE, 0, 0)
	}
}

// Alive makes an ALIVE the next message: its body is the owner's.
func (e *Engine) Alive() {
	i := e.queueControl(wire.FlagALIVE, 0, 0)
	e.q.unlink(i)
	e.q.push(expressList, i)
}

// InTouch reports whether the peer has answered our hello.
func (e *Engine) InTouch() bool { return e.out.hello == helloDone && e.peer.Set && !e.out.held }

// endHold lets objects go.
func (e *Engine) endHold() {
	e.out.held = false
	if !e.resync.bulkOwed {
		e.releaseHeld()
	}
}

// requeue moves an element of the resend queue to the end of the transmit
// queue.
func (e *Engine) requeue(i uint32) {
	n := e.q.at(i)
	switch {
	case n.kind == 0:
		e.q.move(txList, i)
	case n.kind == wire.FlagRESYNC && e.resync.queued:
		e.discard(i)
	default:
		if n.kind == wire.FlagRESYNC {
			e.resync.queued = true
		}
		e.q.move(e.controlList(), i)
	}
}

// requeueUnacked queues again everything the peer may not have, but for what
// is about numbers of a peer that is no more. An ACK waits for its turn: the
// peer asks for it, or makes up for it; a NACK is made up for by nobody.
func (e *Engine) requeueUnacked(newPeer bool) {
	for i := e.q.lists[resendList].head; i != 0; {
		n := e.q.at(i)
		next := n.next
		switch {
		case newPeer && (n.kind == wire.FlagACK || n.kind == wire.FlagNACK):
			e.discard(i)
		case n.kind != wire.FlagACK:
			e.stats.Requeued++
			e.requeue(i)
		}
		i = next
	}
}
