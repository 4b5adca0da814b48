package alarm

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
)

// tick is how exact the timers are.
const tick = 200 * time.Millisecond

// spokes is how many ticks the wheel turns in, about 200 s. What is due later
// is passed over until its turn.
const spokes = 1024

const duePage = 1 << 12

// A wheel holds one timer for each object. To set one costs a few writes and
// allocates nothing once the table has seen the Ref.
type wheel struct {
	lists engine.Lists
	at    []*[duePage]uint32 // the tick each is due at
	now   uint32             // everything due before this tick has been named
	here  engine.Ref         // the next to look at in the present spoke
	begun bool               // here is set
	count int
}

func newWheel() wheel { return wheel{lists: engine.NewLists(spokes)} }

func ticks(t time.Duration) uint32 { return uint32(t / tick) }

func spoke(at uint32) int { return 1 + int(at%spokes) }

func (w *wheel) set(r engine.Ref, at time.Duration) {
	w.stop(r)
	due := max(ticks(at), w.now+1)
	*w.slot(r) = due
	w.lists.Push(spoke(due), r)
	w.count++
}

func (w *wheel) stop(r engine.Ref) {
	if r == 0 || w.lists.Of(r) == 0 {
		return
	}
	if w.begun && w.here == r {
		w.here = w.lists.Next(r)
	}
	w.lists.Remove(r)
	w.count--
}

func (w *wheel) clear() {
	w.lists.Clear()
	w.count, w.begun = 0, false
}

// due returns a Ref whose time has come, 0 if there is none. It is named again
// and again until it is set anew or stopped.
func (w *wheel) due(now time.Duration) engine.Ref {
	if w.count == 0 {
		w.now, w.begun = max(w.now, ticks(now)), false
		return 0
	}
	end := ticks(now)
	if end > w.now+spokes { // one turn finds all
		w.now, w.begun = end-spokes, false
	}
	for w.now <= end {
		if !w.begun {
			w.here, w.begun = w.lists.Head(spoke(w.now)), true
		}
		for w.here != 0 {
			if *w.slot(w.here) <= w.now {
				return w.here
			}
			w.here = w.lists.Next(w.here)
		}
		if w.now == end {
			break
		}
		w.now++
		w.begun = false
	}
	w.begun = false
	return 0
}

// next is when due may name something.
func (w *wheel) next() time.Duration {
	if w.count == 0 {
		return never
	}
	return time.Duration(w.now+1) * tick
}

func (w *wheel) left(r engine.Ref, now time.Duration) time.Duration {
	if w.lists.Of(r) == 0 {
		return 0
	}
	return max(time.Duration(*w.slot(r))*tick-now, 0)
}

func (w *wheel) slot(r engine.Ref) *uint32 {
	p := int(r / duePage)
	for p >= len(w.at) {
		w.at = append(w.at, nil)
	}
	if w.at[p] == nil {
		w.at[p] = new([duePage]uint32)
	}
	return &w.at[p][r%duePage]
}
