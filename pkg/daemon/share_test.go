package daemon

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestShared has many come while one works: they share one more work, which
// begins after all of them asked.
func TestShared(t *testing.T) {
	const crowd = 100
	var s shared
	var began, asked atomic.Int32
	first, release := make(chan struct{}), make(chan struct{})
	failure := errors.New("no")
	work := func() error {
		if began.Add(1) == 1 {
			close(first)
			<-release
			return nil
		}
		if n := asked.Load(); n != crowd {
			t.Errorf("work began when %d of %d had asked", n, crowd)
		}
		return failure
	}
	var g sync.WaitGroup
	g.Go(func() {
		if err := s.do(work); err != nil {
			t.Error(err)
		}
	})
	<-first
	joined := make(chan struct{}, crowd)
	for range crowd {
		g.Go(func() {
			// What do does, with a sign between its two halves.
			r, lead := s.join()
			asked.Add(1)
			joined <- struct{}{}
			if lead {
				s.lead(r, work)
			}
			<-r.done
			if r.err != failure {
				t.Errorf("answered with %v", r.err)
			}
		})
	}
	for range crowd {
		<-joined
	}
	close(release)
	g.Wait()
	if n := began.Load(); n != 2 {
		t.Errorf("worked %d times, want 2", n)
	}
	// Nobody waits: who comes now has work of his own.
	began.Store(1)
	if err := s.do(work); err != failure || began.Load() != 2 {
		t.Errorf("alone: %v, %d", err, began.Load())
	}
}

// TestRefreshesAreShared: of clients that all want the table read (-R) one
// waits to read it, whatever their number, and none is answered before.
func TestRefreshesAreShared(t *testing.T) {
	d := newTestDaemon(t, &fakeLink{room: 1 << 20}, io.Discard)
	defer d.end()
	d.sync.checks = newChecks()
	ended, end := context.WithCancel(context.Background())
	end() // the kernel is not asked
	const clients = 50
	asked := func() uint64 {
		d.sync.mu.Lock()
		defer d.sync.mu.Unlock()
		return d.sync.kernel.resyncs
	}

	d.sync.resync.Lock() // as whoever is reading it
	answers := make(chan error, clients)
	for range clients {
		go func() { answers <- d.onRefresh(ended, io.Discard) }()
	}
	deadline := time.Now().Add(20 * time.Second)
	for asked() < clients || d.sync.tableWanted.Load() == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d have asked, %d wait", asked(), clients, d.sync.tableWanted.Load())
		}
		runtime.Gosched()
	}
	if n := d.sync.tableWanted.Load(); n != 1 {
		t.Errorf("%d wait to read the table, want 1", n)
	}
	if n := len(answers); n != 0 {
		t.Errorf("%d were answered before the table was read", n)
	}
	d.sync.resync.Unlock()
	for range clients {
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Errorf("answered with %v", err)
		}
	}
}
