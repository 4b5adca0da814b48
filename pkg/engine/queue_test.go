package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// queueModel is the queue as one would explain it.
type queueModel struct {
	waiting, sent []Ref
}

func without(s []Ref, r Ref) []Ref {
	return slices.DeleteFunc(s, func(x Ref) bool { return x == r })
}

func (m *queueModel) enqueue(r Ref) (pinned bool) {
	if slices.Contains(m.waiting, r) {
		return false
	}
	pinned = !slices.Contains(m.sent, r)
	m.sent = without(m.sent, r)
	m.waiting = append(m.waiting, r)
	return pinned
}

func (m *queueModel) pop() Ref {
	if len(m.waiting) == 0 {
		return 0
	}
	r := m.waiting[0]
	m.waiting = m.waiting[1:]
	m.sent = append(m.sent, r)
	return r
}

func TestQueueLikeItsModel(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		q, m := NewQueue(), queueModel{}
		for step := range 2000 {
			r := Ref(1 + rnd.IntN(40)*(listPage/8)) // over several pages
			switch rnd.IntN(8) {
			case 0, 1, 2:
				if got, want := q.Enqueue(r), m.enqueue(r); got != want {
					t.Fatalf("seed %d step %d: enqueue %d pinned %v, want %v", seed, step, r, got, want)
				}
			case 3, 4:
				if got, want := q.Pop(), m.pop(); got != want {
					t.Fatalf("seed %d step %d: popped %d, want %d", seed, step, got, want)
				}
			case 5:
				q.Forget(r)
				m.waiting, m.sent = without(m.waiting, r), without(m.sent, r)
			case 6:
				var got []Ref
				q.Released(func(r Ref) { got = append(got, r) })
				if !slices.Equal(got, m.sent) {
					t.Fatalf("seed %d step %d: released %v, want %v", seed, step, got, m.sent)
				}
				m.sent = nil
			case 7:
				if rnd.IntN(50) == 0 {
					q.ForgetAll()
					m = queueModel{}
				}
			}
			if q.Len() != len(m.waiting) || q.Queued(r) != slices.Contains(m.waiting, r) {
				t.Fatalf("seed %d step %d: length %d, queued %v; want %v", seed, step, q.Len(), q.Queued(r), m.waiting)
			}
		}
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	q := NewQueue()
	cycle := func() {
		for r := Ref(1); r < 3000; r++ {
			q.Enqueue(r)
		}
		for q.Pop() != 0 {
		}
		q.Released(func(Ref) {})
	}
	if got := testing.AllocsPerRun(20, cycle); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestRefZeroIsNoObject(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Ref 0 was queued")
		}
	}()
	q := NewQueue()
	q.Enqueue(0)
}

func TestSpaced(t *testing.T) {
	var s Spaced
	for i := range 5 {
		if !s.Want(0, BulkPause, BulkSlack) {
			t.Fatalf("bulk %d has to wait", i)
		}
	}
	if s.Want(0, BulkPause, BulkSlack) || !s.Due || s.At != time.Second {
		t.Fatalf("a sixth at once: %+v", s)
	}
	if s.Ripe(s.At-1) || !s.Ripe(s.At) {
		t.Errorf("ripe at another time than %v", s.At)
	}
	if !s.Want(s.At, BulkPause, BulkSlack) || s.Due {
		t.Errorf("not when it was due: %+v", s)
	}
}
