package flood

import (
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	for _, test := range []struct {
		rate  int
		after time.Duration
		want  int
	}{
		{5000, 0, 1}, // the first at once
		{5000, time.Millisecond, 6},
		{5000, time.Second, 5001},
		{100, 9 * time.Millisecond, 1},
		{100, 10 * time.Millisecond, 2},
		{300_000, 500 * time.Microsecond, 151},
	} {
		if got := due(test.rate, test.after); got != test.want {
			t.Errorf("%d/s after %v: %d, want %d", test.rate, test.after, got, test.want)
		}
	}
}

func TestNext(t *testing.T) {
	for _, test := range []struct {
		rate, sent int
		now, want  time.Duration
	}{
		// Fast: at the next tick, whatever is due then.
		{20_000, 20, 900 * time.Microsecond, time.Millisecond},
		{20_000, 20, 1100 * time.Microsecond, 2 * time.Millisecond},
		// Slow: when the next request is due.
		{100, 1, 0, 10 * time.Millisecond},
		{100, 5, 41 * time.Millisecond, 50 * time.Millisecond},
		// Late: not in the past.
		{100, 1, 95500 * time.Microsecond, 96 * time.Millisecond},
	} {
		if got := next(test.rate, test.sent, test.now); got != test.want {
			t.Errorf("%d/s, %d sent at %v: look again at %v, want %v", test.rate, test.sent, test.now, got, test.want)
		}
	}
}

// TestPacerSendsInSmallGroups: at 5,000 a second a group is what came due in
// about a millisecond, unless the machine was busy with something else. That may
// be nearly always; how long the pacer itself sleeps is for TestNext.
func TestPacerSendsInSmallGroups(t *testing.T) {
	const rate, total = 5000, 1000
	p := newPacer(rate)
	defer p.stop()
	small, groups := -1, 0 // the first, of one, is no sign
	for sent := 0; sent < total; groups++ {
		n := p.wait(sent)
		if n < 1 || n > batchSize {
			t.Fatalf("group of %d", n)
		}
		if sent+n > due(rate, time.Since(p.start)) {
			t.Fatalf("%d sent after %v: too early", sent+n, time.Since(p.start))
		}
		if n <= 10 {
			small++
		}
		sent += n
	}
	if small == 0 {
		t.Errorf("none of %d groups is small", groups)
	}
}

// TestSchedule follows each flow through its life.
func TestSchedule(t *testing.T) {
	for _, test := range []struct{ flows, live int }{{1, 1}, {10, 3}, {100, 7}, {5, 50}} {
		s := schedule{flows: test.flows, live: test.live}
		stage := make([]int, test.flows)
		alive, most := 0, 0
		for range 3 * test.flows {
			i, o := s.next()
			if want := [3]op{opCreate, opUpdate, opDelete}[stage[i]]; o != want {
				t.Fatalf("%+v: flow %d: %+v at stage %d", test, i, o, stage[i])
			}
			stage[i]++
			switch o {
			case opCreate:
				alive++
			case opDelete:
				alive--
			}
			most = max(most, alive)
		}
		for i, n := range stage {
			if n != 3 {
				t.Errorf("%+v: flow %d got %d events", test, i, n)
			}
		}
		if want := min(test.flows, 2*test.live+1); alive != 0 || most != want {
			t.Errorf("%+v: at most %d alive, want %d; %d at the end", test, most, want, alive)
		}
	}
}
