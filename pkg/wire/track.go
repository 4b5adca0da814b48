package wire

// Order is how a sequence number stands to the newest one accepted.
type Order uint8

// The orders.
const (
	InSync    Order = iota // the next number, or the first ever
	AfterGap               // numbers before it are missing
	BeforeNow              // late or repeated
)

// Tracker follows the sequence numbers of a peer (docs/protocol.md 4). All
// modes with sequence numbers count with it; what they do about a gap is
// theirs.
type Tracker struct {
	Set  bool   // a number was accepted
	Last uint32 // the newest number accepted

	Lost   uint64 // numbers missed, seq-last-1 for each gap
	Before uint64 // numbers that were late or repeated
}

// Track compares seq with the newest number accepted and counts.
func (t *Tracker) Track(seq uint32) Order {
	switch {
	case !t.Set || seq == t.Last+1:
		return InSync
	case After(seq, t.Last+1):
		t.Lost += uint64(seq - t.Last - 1)
		return AfterGap
	default:
		t.Before++
		return BeforeNow
	}
}

// Accept makes seq the newest number, whatever it was compared to the last.
func (t *Tracker) Accept(seq uint32) { t.Set, t.Last = true, seq }
