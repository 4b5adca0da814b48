// Package sim runs nodes on a virtual clock over a faulty network. Everything
// happens in one goroutine in the order of its time, driven by one seed, so a
// failing run is repeated exactly by its seed.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// World is the clock, the dice and what is going to happen.
type World struct {
	now   time.Duration
	rand  *rand.Rand
	queue happenings
	count uint64
	trace []string
	lines int
}

// traceLimit is how many lines of the trace are kept: a failure is understood
// from its end.
const traceLimit = 5000

// New makes a world whose clock reads 0.
func New(seed uint64) *World {
	return &World{rand: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))}
}

// Now returns the time since the world began.
func (w *World) Now() time.Duration { return w.now }

// Rand returns the world's dice.
func (w *World) Rand() *rand.Rand { return w.rand }

// Chance reports true with probability p.
func (w *World) Chance(p float64) bool { return p > 0 && w.rand.Float64() < p }

// Between returns a random duration in [lo, hi).
func (w *World) Between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(w.rand.Int64N(int64(hi-lo)))
}

// At calls f at time t, or at once if t has passed. What is due at the same
// time happens in the order it was asked for.
func (w *World) At(t time.Duration, f func()) {
	w.count++
	heap.Push(&w.queue, happening{at: max(t, w.now), order: w.count, do: f})
}

// After calls f in d.
func (w *World) After(d time.Duration, f func()) { w.At(w.now+d, f) }

// Run lets everything happen that is due up to until, and sets the clock to
// until.
func (w *World) Run(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		h := heap.Pop(&w.queue).(happening)
		w.now = h.at
		h.do()
	}
	w.now = until
}

// Record switches the trace on. It is off at first: it costs more than the
// rest of the world.
func (w *World) Record() { w.trace = make([]string, traceLimit) }

// Logf adds a line to the trace if it is on.
func (w *World) Logf(format string, args ...any) {
	if w.trace == nil {
		return
	}
	w.trace[w.lines%traceLimit] = fmt.Sprintf("%12v ", w.now) + fmt.Sprintf(format, args...)
	w.lines++
}

// Trace returns the end of the trace as text.
func (w *World) Trace() string {
	var b strings.Builder
	for i := max(0, w.lines-traceLimit); i < w.lines; i++ {
		b.WriteString(w.trace[i%traceLimit])
		b.WriteByte('\n')
	}
	return b.String()
}

// An Alarm calls a function at the time last set.
type Alarm struct {
	w      *World
	f      func()
	set    uint64
	armed  bool
	target time.Duration
}

// NewAlarm makes an alarm that is not set.
func NewAlarm(w *World, f func()) *Alarm { return &Alarm{w: w, f: f} }

// Set replaces the time the alarm goes off.
func (a *Alarm) Set(t time.Duration) {
	if a.armed && a.target == t {
		return
	}
	a.set++
	a.armed, a.target = true, t
	set := a.set
	a.w.At(t, func() {
		if a.armed && a.set == set {
			a.armed = false
			a.f()
		}
	})
}

// Stop unsets the alarm.
func (a *Alarm) Stop() { a.armed = false }

type happening struct {
	at    time.Duration
	order uint64
	do    func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = happening{}
	*h = (*h)[:last]
	return x
}
