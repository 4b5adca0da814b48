package engine

// The lists of a Queue.
const (
	waiting = iota + 1 // to be sent
	sent               // the owner is yet to be told
)

// Queue is the transmit queue of a mode that forgets what it has sent. An
// object is in it once at most; what it is by then is sent
// (docs/protocol.md 5.5).
type Queue struct{ lists Lists }

// NewQueue makes an empty queue.
func NewQueue() Queue { return Queue{NewLists(sent)} }

// Enqueue asks for r to be sent. It reports true when r was in no queue
// before: the owner then keeps the object until Released names it.
func (q *Queue) Enqueue(r Ref) (pinned bool) {
	was := q.lists.Of(r)
	if was != waiting {
		q.lists.Push(waiting, r)
	}
	return was == 0
}

// Queued reports whether r waits to be sent.
func (q *Queue) Queued(r Ref) bool { return q.lists.Of(r) == waiting }

// Len returns how many wait.
func (q *Queue) Len() int { return q.lists.Len(waiting) }

// Pop takes the oldest off the queue, 0 if there is none. The object must be
// kept until it is rendered: Released names it later.
func (q *Queue) Pop() Ref {
	r := q.lists.Head(waiting)
	if r != 0 {
		q.lists.Push(sent, r)
	}
	return r
}

// Forget takes r out of the queue without reporting it released.
func (q *Queue) Forget(r Ref) { q.lists.Remove(r) }

// ForgetAll takes every object out of the queue without reporting it released.
func (q *Queue) ForgetAll() { q.lists.Clear() }

// Released calls f for every object that was sent since the last call and does
// not wait again. f must not call the engine.
func (q *Queue) Released(f func(Ref)) {
	for r := q.lists.Head(sent); r != 0; r = q.lists.Head(sent) {
		q.lists.Remove(r)
		f(r)
	}
}
