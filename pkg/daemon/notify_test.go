package daemon

import (
	"context"
	"testing"
	"time"
)

// TestWatchdogAsksTheLoop: only a turn of the loop counts as progress, and it
// is asked for, as a quiet loop has none of its own.
func TestWatchdogAsksTheLoop(t *testing.T) {
	s := &syncer{armed: time.Hour}
	asked := 0
	s.alarm = func(d time.Duration) {
		if asked++; d > 0 {
			t.Errorf("asked to turn in %v", d)
		}
	}
	if s.progresses(t.Context(), 20*time.Millisecond) {
		t.Error("a loop that does not turn progresses")
	}
	if s.armed != 0 {
		t.Error("the turn would not arm the timer again")
	}
	s.alarm = func(time.Duration) { asked++; go s.turns.Add(1) }
	if !s.progresses(t.Context(), 20*time.Second) {
		t.Error("a loop that turns does not progress")
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.alarm = func(time.Duration) {}
	if !s.progresses(ctx, 20*time.Second) {
		t.Error("a daemon that ends has nothing to prove")
	}
	s.closed = true
	if !s.progresses(t.Context(), 20*time.Second) {
		t.Error("nor has one that has ended")
	}
}
