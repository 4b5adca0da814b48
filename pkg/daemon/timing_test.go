package daemon

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSeldom(t *testing.T) {
	var s seldom
	written := func(kind int, now time.Duration) (n int) {
		for range 1000 {
			if s.allow(kind, now) {
				n++
			}
		}
		return n
	}
	const kinds = 3
	for _, now := range []time.Duration{0, saidPeriod, 10 * saidPeriod} {
		for kind := range kinds {
			if n := written(kind, now); n != saidKinds[kind].lines {
				t.Errorf("at %v, kind %d: %d lines of 1000, want %d", now, kind, n, saidKinds[kind].lines)
			}
		}
		end := now + saidPeriod
		if n := written(0, end-1); n != 0 {
			t.Errorf("%d more lines within the period", n)
		}
		if lines := s.leftOut(end - 1); lines != nil {
			t.Errorf("within the period: %q", lines)
		}
		lines := s.leftOut(end)
		slices.Sort(lines)
		want := []string{
			"left out 1997 more lines about lost kernel events",
			"left out 997 more lines about polling the conntrack table",
			"left out 997 more lines about the service manager",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("at the end: %q, want %q", lines, want)
		}
		if lines := s.leftOut(end + saidPeriod); lines != nil {
			t.Errorf("said twice: %q", lines)
		}
	}
}

// A few lines are none too many.
func TestSeldomWithinBounds(t *testing.T) {
	var s seldom
	most := saidKinds[saidLink].lines
	for i := range 100 * most {
		if !s.allow(saidLink, time.Duration(i)*saidPeriod/time.Duration(most)) {
			t.Fatalf("line %d is left out", i)
		}
	}
	if lines := s.leftOut(time.Hour * 24); lines != nil {
		t.Errorf("%q", lines)
	}
}

func TestPurgeSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p purge
		var runs atomic.Int32
		fn := func(context.Context) { runs.Add(1) }
		if !p.schedule(time.Minute, fn) || p.schedule(time.Second, fn) {
			t.Fatal("the first order counts, the second does not")
		}
		time.Sleep(time.Minute - 1)
		if runs.Load() != 0 {
			t.Fatal("it came early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if runs.Load() != 1 {
			t.Fatalf("%d runs", runs.Load())
		}
		if !p.schedule(time.Minute, fn) {
			t.Fatal("no new purge after the first is done")
		}
		p.cancel()
		p.cancel()
		time.Sleep(time.Hour)
		if runs.Load() != 1 {
			t.Fatal("it came although cancelled")
		}
		if !p.schedule(time.Minute, fn) {
			t.Fatal("no new purge after a cancelled one")
		}
		p.cancel()
	})
}

// TestPurgeCancelWaits cancels a purge that deletes: cancel returns when it
// deletes no more, whoever else schedules meanwhile.
func TestPurgeCancelWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p purge
		var deleting atomic.Bool
		p.schedule(time.Second, func(ctx context.Context) {
			deleting.Store(true)
			<-ctx.Done()
			time.Sleep(time.Second) // the batch under way
			deleting.Store(false)
		})
		time.Sleep(2 * time.Second)
		if !deleting.Load() {
			t.Fatal("the purge did not begin")
		}
		if p.schedule(time.Second, func(context.Context) {}) {
			t.Fatal("a second purge while one is under way")
		}
		var others sync.WaitGroup
		for range 3 {
			others.Go(func() {
				p.cancel()
				if deleting.Load() {
					t.Error("a cancel beside another returned while the purge deletes")
				}
			})
		}
		synctest.Wait()
		later := make(chan struct{}) // the one after it, which is also under way when it ends
		if !p.schedule(0, func(context.Context) { close(later) }) {
			t.Error("no new purge while an aborted one ends")
		}
		<-later
		p.cancel()
		if deleting.Load() {
			t.Fatal("cancel returned while the purge deletes")
		}
		others.Wait()
		if len(p.aborted) > 0 {
			t.Errorf("%d runs are remembered", len(p.aborted))
		}
		p.end()
		if p.schedule(time.Second, func(context.Context) {}) {
			t.Error("scheduled after the end")
		}
	})
}

func TestCalm(t *testing.T) {
	const quiet, limit = 500 * time.Millisecond, 30 * time.Second
	storm := func(t *testing.T, every, length time.Duration) time.Duration {
		c := make(chan struct{}, 1)
		var stormy sync.WaitGroup
		defer stormy.Wait()
		stormy.Go(func() {
			for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(every) {
				notice(c)
			}
		})
		start := time.Now()
		if !calm(t.Context(), c, quiet, limit) {
			t.Error("ended without reason")
		}
		return time.Since(start)
	}
	synctest.Test(t, func(t *testing.T) {
		if got := storm(t, time.Second, 0); got != quiet {
			t.Errorf("without a storm it took %v, want %v", got, quiet)
		}
		if got := storm(t, 100*time.Millisecond, 5*time.Second); got < 5*time.Second || got > 6*time.Second {
			t.Errorf("a storm of 5 s took %v", got)
		}
		if got := storm(t, 100*time.Millisecond, time.Minute); got != limit {
			t.Errorf("a long storm took %v, want %v", got, limit)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if calm(ctx, nil, quiet, limit) {
			t.Error("calm after the end")
		}
	})
}
