package ftfw

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

// NextEvent returns the oldest event not yet pulled.
func (e *Engine) NextEvent() (Event, bool) {
	if len(e.events) == 0 {
		return Event{}, false
	}
	ev := e.events[0]
	e.events = e.events[:copy(e.events, e.events[1:])]
	return ev, true
}

// raise queues ev unless the same is already waiting.
func (e *Engine) raise(ev Event) {
	for _, old := range e.events {
		if old.Kind == ev.Kind && ev.Kind <= PeerRestarted {
			return
		}
	}
	e.events = append(e.events, ev)
}

// wanted reports whether the owner has yet to hear of a bulk.
func (e *Engine) wanted() bool {
	for _, ev := range e.events {
		if ev.Kind == BulkWanted {
			return true
		}
	}
	return false
}
