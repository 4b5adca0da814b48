package ftfw

import "time"

// holding is the numbers of messages that came too early. Their owner keeps
// them, until those before them have come or have been waited for long enough
// (docs/decisions/0072-believe-late.md).
type holding struct {
	wait   time.Duration // 0: nobody keeps anything
	n      int
	head   uint32               // the lowest
	at     *[span]time.Duration // when each came, and one more; 0: it did not
	over   bool                 // no more waiting for those before them
	passes bool                 // the next message received is one of them
}

// take holds a number that is 2 to span ahead of the last. It reports false
// if the message is to be received as it is.
func (h *holding) take(now time.Duration, seq uint32) (v Verdict, held bool) {
	if h.wait == 0 || h.passes {
		return 0, false
	}
	if h.at == nil {
		h.at = new([span]time.Duration)
	}
	at := &h.at[seq%span]
	if *at != 0 {
		return Drop, true
	}
	*at = now + 1
	if h.n++; h.n == 1 || int32(seq-h.head) < 0 {
		h.head = seq
	}
	return Hold, true
}

// giveUp ends the wait for what is missing.
func (h *holding) giveUp() { h.over = h.n > 0 }

// drop forgets what is held.
func (h *holding) drop() {
	if h.n > 0 {
		clear(h.at[:])
	}
	h.n, h.over = 0, false
}

// deadline is when the wait for what is before the lowest ends.
func (h *holding) deadline() time.Duration {
	if h.over {
		return 0
	}
	return h.at[h.head%span] + h.wait
}

// Held returns the number of a message that is to be received again now, if
// there is one. The owner calls it after every Receive and Tick until there is
// none; one that it does not have any more it passes over.
func (e *Engine) Held(now time.Duration) (seq uint32, ok bool) {
	h := &e.hold
	h.passes = false
	if h.n == 0 || h.head != e.peer.Last+1 && now < h.deadline() {
		return 0, false
	}
	seq = h.head
	h.at[seq%span] = 0
	h.passes = true
	if h.n--; h.n == 0 {
		h.over = false
		return seq, true
	}
	for h.head++; h.at[h.head%span] == 0; h.head++ {
	}
	return seq, true
}
