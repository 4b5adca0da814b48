package ftfw

// Stats counts what happened since New. Bytes of the wire are the owner's.
type Stats struct {
	Lost   uint64 // messages missed, seq-last-1 for each gap
	Before uint64 // messages dropped as late or repeated

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
	Adopted         uint64 // positions taken over from a peer that was ignored
	ResyncsSent     uint64
	ResyncsReceived uint64
}

// Stats returns a copy of the counters.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Lost, s.Before = e.peer.Lost, e.peer.Before
	return s
}
