package engine

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A Ref is the owner's name of one object: a small, dense number, since the
// engines keep some bytes for every number up to the largest seen.
type Ref uint32

// A Verdict is what the owner does with a received message.
type Verdict uint8

// The verdicts.
const (
	Deliver Verdict = iota + 1 // data: apply it
	Control                    // the engine's own; done
	Drop                       // late, repeated or not for us; done
	Bad                        // count it as malformed, bad header
	Hold                       // it came too early: keep it until Held names it
)

// A Frame is one message to send. An object's Header.Type is the owner's to
// fill in from what the object is by now; everything else is final.
type Frame struct {
	Header wire.Header
	Ref    Ref
	Object bool
}

// EventKind tells events apart.
type EventKind uint8

// The events.
const (
	// BulkWanted: send everything. The owner enqueues every object, at its
	// own pace, and calls BulkDone. Pulled while a bulk is under way it
	// means: once more from the beginning.
	BulkWanted EventKind = iota + 1
	// PeerRestarted: the peer is in a new life and knows nothing of ours;
	// what it sent and we missed is gone. The owner calls RequestResync
	// unless it wants to live with that.
	PeerRestarted
	// ResyncStarted: a RESYNC of ours left. Whatever the peer still has is
	// delivered between this event and ResyncComplete.
	ResyncStarted
	// ResyncComplete: all the peer's answer has arrived. If Clean, an object
	// not delivered since the last ResyncStarted is gone at the peer.
	ResyncComplete
)

// Event is something the owner must act on.
type Event struct {
	Kind  EventKind
	Clean bool // ResyncComplete: nothing was missed in between
}

// Resendable is one element of the resend queue.
type Resendable struct {
	Seq    uint32
	Object bool
	Flags  uint8 // the header's flags when it was sent
}

// Stats counts what happened since the engine was made. A mode leaves at zero
// what it does not know. Bytes of the wire are the owner's.
type Stats struct {
	Lost   uint64 // messages missed, seq-last-1 for each gap
	Before uint64 // messages that came late or repeated

	Sent           uint64 // messages of any kind
	Resent         uint64 // of these, transmissions asked for by NACK
	ACKsSent       uint64
	ACKsReceived   uint64
	NACKsSent      uint64
	NACKsReceived  uint64
	ForeignRanges  uint64 // ACK and NACK about numbers that we never sent
	ResendOverflow uint64 // elements dropped because the resend queue was full
	Requeued       uint64 // unacknowledged elements queued again unasked

	HellosReceived  uint64
	PeerRestarts    uint64
	DoubtfulRuns    uint64 // runs of HELLOs that may have hidden a restart
	HellosRepeated  uint64 // times we said hello again
	Adopted         uint64 // far numbers believed because others followed
	WentBack        uint64 // times a far number turned out not to be the peer's
	NACKsAsked      uint64 // of those sent, questions for the sender of a far number
	ResyncsSent     uint64
	ResyncsReceived uint64

	Refreshed uint64 // objects sent again because their time had come
	Ignored   uint64 // messages with flags, which ALARM does not know
}

// Spaced is something costly that a peer, or who pretends to be it, can cause
// with one message. It happens once per pause; slack is how far it may be ahead
// of that.
type Spaced struct {
	Due bool
	At  time.Duration // when, if Due
	sum time.Duration // of the pauses
}

// Want reports whether it may happen now; if not, it is due later.
func (s *Spaced) Want(now, pause, slack time.Duration) bool {
	s.sum = max(s.sum, now)
	s.At = s.sum - slack
	s.Due = now < s.At
	if !s.Due {
		s.sum += pause
	}
	return !s.Due
}

// Ripe reports whether its time has come.
func (s *Spaced) Ripe(now time.Duration) bool { return s.Due && now >= s.At }

// Between bulks that the peer causes, BulkPause; but BulkSlack of it at once.
const (
	BulkPause = time.Second
	BulkSlack = 4 * time.Second
)
