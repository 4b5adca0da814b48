package ftfw

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// heldMax is how many RESYNCs wait for a bulk at most: the latest ones.
const heldMax = 8

// resyncing is both directions of RESYNC (docs/protocol.md 5.7).
type resyncing struct {
	// Ours. The answer is complete when neither the RESYNC nor a NACK sent
	// after it waits for its acknowledgement: the peer queues what they ask
	// for before it acknowledges them.
	active      bool
	queued      bool // a RESYNC is in the transmit queue
	clean       bool
	outstanding int           // RESYNCs and NACKs not acknowledged
	patience    time.Duration // before a RESYNC without answer is repeated
	due         bool          // a resync is to be requested at dueAt
	dueAt       time.Duration
	spaced      engine.Spaced // resyncs for what may happen often

	// The peer's. Its RESYNC is not acknowledged before all of our answer
	// is queued, for the same reason.
	bulkOwed  bool
	held      [heldMax]uint32
	heldCount int
}

func (r *resyncing) sent()   { r.queued, r.clean, r.due = false, true, false }
func (r *resyncing) missed() { r.clean = false }

// RequestResync queues one RESYNC unless one is queued already.
func (e *Engine) RequestResync() {
	r := &e.resync
	if r.queued {
		return
	}
	r.queued, r.active = true, true
	r.outstanding++
	e.q.at(e.queueControl(wire.FlagRESYNC, 0, 0)).tracked = true
}

// resyncSpaced requests a resync, though not more often than every few
// seconds.
func (e *Engine) resyncSpaced(now time.Duration) {
	if e.resync.spaced.Want(now, resyncPause, 0) {
		e.RequestResync()
	}
}

// finishResync reports the end of a resync of ours.
func (e *Engine) finishResync() {
	r := &e.resync
	if !r.active || r.outstanding > 0 {
		return
	}
	r.active, r.patience = false, resyncPatience
	e.raise(Event{Kind: ResyncComplete, Clean: r.clean})
}

// resyncWanted answers a RESYNC of the peer.
func (e *Engine) resyncWanted(now time.Duration, seq uint32) {
	r := &e.resync
	e.wantBulk(now)
	r.bulkOwed = true
	if r.heldCount == heldMax {
		e.releaseOldest()
	}
	r.held[r.heldCount] = seq
	r.heldCount++
}

// releaseOldest acknowledges a RESYNC before its bulk, to make room for a later
// one. A Go peer's resync is not over before all its RESYNCs are acknowledged,
// and to a C peer it makes no difference.
func (e *Engine) releaseOldest() {
	r := &e.resync
	oldest := r.held[0]
	r.heldCount--
	copy(r.held[:r.heldCount], r.held[1:])
	if !e.ack.set || wire.Before(oldest, e.ack.from) { // else it goes with the next ACK
		e.queueControl(wire.FlagACK, oldest, oldest)
	}
}

// wantBulk asks the owner for a bulk, though not for each of a flood of RESYNCs.
func (e *Engine) wantBulk(now time.Duration) {
	if e.out.bulks.Want(now, overPause, overSlack) {
		e.raise(Event{Kind: BulkWanted})
	}
}

// BulkDone tells that every object has been enqueued since the last
// BulkWanted was pulled.
func (e *Engine) BulkDone() {
	if e.wanted() || e.out.bulks.Due {
		return
	}
	e.resync.bulkOwed = false
	if !e.out.held {
		e.releaseHeld()
	}
}

// releaseHeld acknowledges the peer's RESYNCs.
func (e *Engine) releaseHeld() {
	r := &e.resync
	for _, seq := range r.held[:r.heldCount] {
		e.queueControl(wire.FlagACK, seq, seq)
	}
	r.heldCount, r.bulkOwed = 0, false
}
