package sim

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOrderOfTime(t *testing.T) {
	w := New(1)
	var got []string
	note := func(s string) func() { return func() { got = append(got, s) } }
	w.At(2*time.Second, note("c"))
	w.At(time.Second, func() {
		note("a")()
		w.At(0, note("b"))
	})
	w.At(2*time.Second, note("d"))
	w.At(3*time.Second, note("late"))
	w.Run(2 * time.Second)
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
		t.Errorf("happened %v, want %v", got, want)
	}
	if w.Now() != 2*time.Second {
		t.Errorf("the clock reads %v", w.Now())
	}
}

func TestAlarmLastSetCounts(t *testing.T) {
	w := New(1)
	var at []time.Duration
	a := NewAlarm(w, func() { at = append(at, w.Now()) })
	a.Set(time.Second)
	a.Set(3 * time.Second)
	a.Set(2 * time.Second)
	w.Run(4 * time.Second)
	a.Set(5 * time.Second)
	a.Stop()
	w.Run(6 * time.Second)
	if want := []time.Duration{2 * time.Second}; !slices.Equal(at, want) {
		t.Errorf("went off at %v, want %v", at, want)
	}
}

func TestPipe(t *testing.T) {
	const n = 1000
	for _, c := range []struct {
		name      string
		faults    Faults
		min, max  int
		inOrder   bool
		latestEnd time.Duration
	}{
		{"perfect", Faults{Delay: time.Millisecond}, n, n, true, time.Millisecond},
		{"jitter", Faults{Jitter: time.Second}, n, n, true, time.Second},
		{"loss", Faults{Loss: 0.2}, n * 7 / 10, n * 9 / 10, true, 0},
		{"duplicate", Faults{Duplicate: 0.2}, n * 11 / 10, n * 13 / 10, false, 0},
		{"reorder", Faults{Reorder: 0.2, Late: time.Second}, n, n, false, time.Second},
		{"down", Faults{Down: true}, 0, 0, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := New(7)
			var got []int
			var last time.Duration
			p := NewPipe(w, &c.faults, func(i int) { got, last = append(got, i), w.Now() })
			for i := range n {
				p.Send(i)
			}
			w.Run(time.Minute)
			if len(got) < c.min || len(got) > c.max || last > c.latestEnd {
				t.Errorf("%d of %d arrived, the last at %v", len(got), n, last)
			}
			if c.inOrder && !slices.IsSorted(got) {
				t.Error("out of order")
			}
			if !c.inOrder && c.faults.Late > 0 && slices.IsSorted(got) {
				t.Error("in order")
			}
		})
	}
}

func TestSeedRepeats(t *testing.T) {
	run := func(seed uint64) string {
		w := New(seed)
		w.Record()
		p := NewPipe(w, &Faults{Loss: 0.3, Jitter: time.Second}, func(i int) { w.Logf("got %d", i) })
		for i := range 50 {
			p.Send(i)
		}
		w.Run(time.Minute)
		return w.Trace()
	}
	if first, again := run(1), run(1); first != again {
		t.Error("the same seed ran differently")
	}
	if run(1) == run(2) {
		t.Error("different seeds ran alike")
	}
}

func TestTraceKeepsTheEnd(t *testing.T) {
	w := New(1)
	w.Logf("not recorded")
	w.Record()
	for i := range traceLimit + 10 {
		w.Logf("line %d.", i)
	}
	trace := w.Trace()
	if strings.Contains(trace, "line 9.") || !strings.Contains(trace, "line 10.") ||
		strings.Count(trace, "\n") != traceLimit {
		t.Errorf("kept %d lines:\n%.100s", strings.Count(trace, "\n"), trace)
	}
}
