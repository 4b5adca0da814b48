package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPatient has something that blocks: it is waited for once, nothing is begun
// beside it, and all is as before when it is done.
func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patient
		begun, start := 0, time.Now()
		quick := func() { begun++ }
		try := func(what string, fn func(), wantBegun, wantDone bool) {
			t.Helper()
			if begun, done := p.do(fn); begun != wantBegun || done != wantDone {
				t.Errorf("%s: begun %t, done %t", what, begun, done)
			}
		}
		try("something quick", quick, true, true)
		if begun != 1 || time.Since(start) != 0 {
			t.Errorf("begun %d, after %v", begun, time.Since(start))
		}
		release := make(chan struct{})
		try("what blocks", func() { <-release }, true, false)
		for range 100 {
			try("something beside it", quick, false, false)
		}
		if begun != 1 || time.Since(start) != blockPatience {
			t.Errorf("begun %d beside what blocks, after %v", begun, time.Since(start))
		}
		close(release)
		synctest.Wait()
		try("something when nothing blocks any more", quick, true, true)
		if begun != 2 {
			t.Errorf("begun %d", begun)
		}
	})
}

// unhindered does something many times, with nobody to read it: it fails if that
// is waited for.
func unhindered(t *testing.T, limit time.Duration, many int, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range many {
			fn()
		}
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatal("the daemon waits for its reader")
	}
}
