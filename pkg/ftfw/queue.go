package ftfw

import "iter"

// listID names the list a node is in.
type listID uint8

// Each object is in at most one of the lists, once. The transmit queue is in
// two parts: while objects are held back at the start, control messages go by
// the express list.
const (
	freeList listID = iota
	txList
	expressList
	resendList
	listCount
)

// A node is one queued message. It holds no pointers, so the collector never
// looks at the queues however long they are. Index 0 is no node.
type node struct {
	prev, next uint32
	seq        uint32 // of the last transmission
	from, to   uint32 // of a control message; from is the Ref of an object
	kind       uint8  // 0 for an object, else the flag of the control message
	flags      uint8  // of the last transmission
	where      listID
	tracked    bool // a resync of ours waits for its acknowledgement
}

type list struct {
	head, tail uint32
	n          int
}

const (
	nodePage = 1 << 12
	refPage  = 1 << 14
)

// What refs says about a Ref that has no node.
const (
	refIdle     uint32 = 0
	refReleased uint32 = ^uint32(0) // left its queue, the owner not yet told
)

// queues holds the nodes, the lists through them and the way from a Ref to
// its node. Pages never move; the steady state allocates nothing.
type queues struct {
	pages    []*[nodePage]node
	used     uint32
	lists    [listCount]list
	refs     []*[refPage]uint32
	released []Ref
	unacked  int // objects in the resend list
}

func (q *queues) at(i uint32) *node { return &q.pages[i/nodePage][i%nodePage] }

// alloc returns a zeroed node that is in no list.
func (q *queues) alloc() uint32 {
	if i := q.lists[freeList].head; i != 0 {
		q.unlink(i)
		*q.at(i) = node{}
		return i
	}
	q.used++
	if int(q.used/nodePage) >= len(q.pages) {
		q.pages = append(q.pages, new([nodePage]node))
	}
	return q.used
}

// push appends node i, which is in no list, to list to.
func (q *queues) push(to listID, i uint32) {
	l, n := &q.lists[to], q.at(i)
	n.where, n.prev, n.next = to, l.tail, 0
	if l.tail != 0 {
		q.at(l.tail).next = i
	} else {
		l.head = i
	}
	l.tail = i
	l.n++
	if to == resendList && n.kind == 0 {
		q.unacked++
	}
}

func (q *queues) unlink(i uint32) {
	n := q.at(i)
	l := &q.lists[n.where]
	if n.prev != 0 {
		q.at(n.prev).next = n.next
	} else {
		l.head = n.next
	}
	if n.next != 0 {
		q.at(n.next).prev = n.prev
	} else {
		l.tail = n.prev
	}
	l.n--
	if n.where == resendList && n.kind == 0 {
		q.unacked--
	}
}

func (q *queues) move(to listID, i uint32) {
	q.unlink(i)
	q.push(to, i)
}

// free ends node i and, if it was an object's, releases the object.
func (q *queues) free(i uint32) {
	if n := q.at(i); n.kind == 0 {
		r := Ref(n.from)
		*q.slot(r) = refReleased
		q.released = append(q.released, r)
	}
	q.move(freeList, i)
}

// slot returns where the node of r is noted, growing the table to hold r.
func (q *queues) slot(r Ref) *uint32 {
	p := int(r / refPage)
	for p >= len(q.refs) {
		q.refs = append(q.refs, nil)
	}
	if q.refs[p] == nil {
		q.refs[p] = new([refPage]uint32)
	}
	return &q.refs[p][r%refPage]
}

// find returns the node of r, 0 if r is in no queue.
func (q *queues) find(r Ref) uint32 {
	p := int(r / refPage)
	if p >= len(q.refs) || q.refs[p] == nil {
		return 0
	}
	if i := q.refs[p][r%refPage]; i != refReleased {
		return i
	}
	return 0
}

func (q *queues) enqueue(r Ref) (pinned bool) {
	slot := q.slot(r)
	switch i := *slot; i {
	case refIdle, refReleased:
		pinned = i == refIdle
		i = q.alloc()
		q.at(i).from = uint32(r)
		*slot = i
		q.push(txList, i)
	default:
		if q.at(i).where == resendList {
			q.move(txList, i)
		}
	}
	return pinned
}

func (q *queues) forget(r Ref) {
	if i := q.find(r); i != 0 {
		q.move(freeList, i)
	}
	if p := int(r / refPage); p < len(q.refs) && q.refs[p] != nil {
		q.refs[p][r%refPage] = refIdle
	}
}

func (q *queues) forgetAll() {
	for _, l := range [...]listID{txList, resendList} {
		for i := q.lists[l].head; i != 0; {
			n := q.at(i)
			next := n.next
			if n.kind == 0 {
				q.forget(Ref(n.from))
			}
			i = next
		}
	}
	for _, r := range q.released {
		if slot := q.slot(r); *slot == refReleased {
			*slot = refIdle
		}
	}
	q.released = q.released[:0]
}

// drain reports the released. A Ref queued again in the meantime was never
// let go from the owner's point of view and is passed over.
func (q *queues) drain(f func(Ref)) {
	for _, r := range q.released {
		if slot := q.slot(r); *slot == refReleased {
			*slot = refIdle
			f(r)
		}
	}
	q.released = q.released[:0]
}

// ResendQueue iterates over the resend queue, the oldest element first.
func (e *Engine) ResendQueue() iter.Seq[Resendable] {
	return func(yield func(Resendable) bool) {
		for i := e.q.lists[resendList].head; i != 0; {
			n := e.q.at(i)
			if !yield(Resendable{Seq: n.seq, Object: n.kind == 0, Flags: n.flags}) {
				return
			}
			i = n.next
		}
	}
}
