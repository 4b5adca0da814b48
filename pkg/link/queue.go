package link

// A queue holds datagrams until they can be sent, in order and up to a limit;
// beyond it the oldest is lost. Its memory grows with use and is used again.
type queue struct {
	slots   [][]byte
	head, n int
	sent    int // bytes of the first that the connection took already
	limit   int
}

func (q *queue) full() bool { return q.n >= q.limit }

// push adds a copy of p, of which the connection took sent bytes already. It
// reports whether a datagram was lost to make room, or for want of it.
func (q *queue) push(p []byte, sent int) (lost bool) {
	if sent > 0 {
		q.sent = sent // only the first of all is sent in part
	} else if q.full() {
		if q.limit == 0 {
			return true
		}
		lost = q.drop()
	}
	if q.n == len(q.slots) {
		q.grow()
	}
	i := (q.head + q.n) % len(q.slots)
	q.slots[i] = append(q.slots[i][:0], p...)
	q.n++
	return lost
}

// drop loses the oldest datagram, but not one of which a part was sent: what
// follows that part must be its rest.
func (q *queue) drop() bool {
	sent := q.sent
	if sent > 0 {
		if q.n == 1 {
			return false
		}
		second := (q.head + 1) % len(q.slots)
		q.slots[q.head], q.slots[second] = q.slots[second], q.slots[q.head]
	}
	q.pop()
	q.sent = sent
	return true
}

// first returns what is left of the oldest datagram.
func (q *queue) first() []byte { return q.slots[q.head][q.sent:] }

// whole returns the oldest datagram.
func (q *queue) whole() []byte { return q.slots[q.head] }

func (q *queue) pop() {
	q.head = (q.head + 1) % len(q.slots)
	q.n--
	q.sent = 0
}

// restart forgets what was sent of the first: the connection is gone.
func (q *queue) restart() { q.sent = 0 }

func (q *queue) grow() {
	slots := make([][]byte, max(8, 2*len(q.slots)))
	for i := range q.n {
		slots[i] = q.slots[(q.head+i)%len(q.slots)]
	}
	q.slots, q.head = slots, 0
}
