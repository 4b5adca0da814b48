package ftfw

import (
	"math"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Forever is a HelloHold without an end: objects wait until the peer answers.
const Forever = time.Duration(math.MaxInt64)

// Leave takes the peer to be away. All objects are released and nothing is kept
// for it any more; our hello begins anew, and objects queued from now on wait
// for its answer, however long that takes. What goes out is one HELLO a second.
// When the peer answers, everything is exchanged as after a start:
// BulkWanted, and a RESYNC of ours.
//
// A resync of ours that is under way ends without an event.
func (e *Engine) Leave(now time.Duration) {
	e.q.release()
	o := &e.out
	o.aliveQueued, o.objects, o.gap, o.heard, o.dropped = false, false, false, false, false
	o.left, o.held, o.holdUntil = true, true, Forever
	o.oldest, o.resync = watch{}, watch{}
	for _, s := range [...]*engine.Spaced{&o.amends, &o.over, &o.bulks, &e.resync.spaced} {
		s.Due = false
	}
	e.sayHello()
	e.resync = resyncing{patience: resyncPatience, spaced: e.resync.spaced}
	e.forgetPeer()
	o.timer = now
}

// forgetPeer forgets where the peer was: whatever it says next is the first
// that we hear of it. What it said meanwhile is not asked for, since a C peer
// throws that away when it hears our hello, and a Go peer sends it again.
func (e *Engine) forgetPeer() {
	p := &e.peer
	*p = hearing{Tracker: wire.Tracker{Lost: p.Lost, Before: p.Before}, asks: p.asks}
	e.hold.drop()
	e.ack = acknowledging{window: e.cfg.ACKWindow}
}

// release empties the queues.
func (q *queues) release() {
	for _, l := range [...]listID{txList, expressList, resendList} {
		for i := q.lists[l].head; i != 0; i = q.lists[l].head {
			q.free(i)
		}
	}
}

// lasting reports whether a message waits for its acknowledgement. An ALIVE has
// none. ACKs and NACKs for a peer that does not answer would pile up, and are
// about numbers that mean nothing once it has heard our hello.
func (e *Engine) lasting(kind uint8) bool {
	switch kind {
	case wire.FlagALIVE:
		return false
	case wire.FlagACK, wire.FlagNACK:
		return !e.out.left
	}
	return true
}
