package ftfw

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
