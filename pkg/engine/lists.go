package engine

const listPage = 1 << 12

// Lists are doubly linked lists of Refs. A Ref is in at most one of them, and
// Ref 0 is in none. The links are in pages that hold no pointers and never
// move: the collector does not look at them and the steady state allocates
// nothing.
type Lists struct {
	pages []*[listPage]place
	ends  []ends
}

type place struct {
	prev, next Ref
	list       int32 // 0: none
}

type ends struct {
	head, tail Ref
	n          int
}

// NewLists makes n empty lists, numbered from 1.
func NewLists(n int) Lists { return Lists{ends: make([]ends, n+1)} }

// Of returns the list r is in, 0 for none.
func (l *Lists) Of(r Ref) int {
	if p := int(r / listPage); p >= len(l.pages) || l.pages[p] == nil {
		return 0
	}
	return int(l.at(r).list)
}

// Head returns the oldest element of a list, 0 if it is empty.
func (l *Lists) Head(list int) Ref { return l.ends[list].head }

// Next returns the element after r in its list, 0 at the end.
func (l *Lists) Next(r Ref) Ref { return l.at(r).next }

// Len returns the length of a list.
func (l *Lists) Len(list int) int { return l.ends[list].n }

// Push puts r at the end of a list, wherever it was before.
func (l *Lists) Push(list int, r Ref) {
	if r == 0 {
		panic("engine: Ref 0 in a list")
	}
	l.Remove(r)
	e, p := &l.ends[list], l.grow(r)
	*p = place{prev: e.tail, list: int32(list)}
	if e.tail != 0 {
		l.at(e.tail).next = r
	} else {
		e.head = r
	}
	e.tail = r
	e.n++
}

// Remove takes r out of its list, if it is in one.
func (l *Lists) Remove(r Ref) {
	if l.Of(r) == 0 {
		return
	}
	p := l.at(r)
	e := &l.ends[p.list]
	if p.prev != 0 {
		l.at(p.prev).next = p.next
	} else {
		e.head = p.next
	}
	if p.next != 0 {
		l.at(p.next).prev = p.prev
	} else {
		e.tail = p.prev
	}
	e.n--
	*p = place{}
}

// Clear empties all lists.
func (l *Lists) Clear() {
	clear(l.pages)
	l.pages = l.pages[:0]
	clear(l.ends)
}

func (l *Lists) at(r Ref) *place { return &l.pages[r/listPage][r%listPage] }

func (l *Lists) grow(r Ref) *place {
	p := int(r / listPage)
	for p >= len(l.pages) {
		l.pages = append(l.pages, nil)
	}
	if l.pages[p] == nil {
		l.pages[p] = new([listPage]place)
	}
	return l.at(r)
}
