package daemon

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openWaiter(t *testing.T) *waiter {
	t.Helper()
	w, err := newWaiter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.close() })
	return w
}

// pipe returns the ends of a socket pair; writing makes the first readable.
func pipe(t *testing.T) (r, w int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

func put(t testing.TB, fd int) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		t.Fatal(err)
	}
}

func take(t testing.TB, fd int) {
	t.Helper()
	if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// expect waits, ten seconds at most.
func (w *waiter) expect(t testing.TB, want ...source) {
	t.Helper()
	guard := time.AfterFunc(10*time.Second, func() { _ = w.file.Close() })
	defer guard.Stop()
	got, err := w.wait()
	if err != nil {
		t.Fatal(err)
	}
	var ready [sources]bool
	for _, s := range want {
		ready[s] = true
	}
	if got != ready {
		t.Errorf("ready %v, want %v (timer, events, link)", got, ready)
	}
}

func TestWaiter(t *testing.T) {
	w := openWaiter(t)
	events, kernel := pipe(t)
	link, peer := pipe(t)
	if err := w.add(events, sourceEvents); err != nil {
		t.Fatal(err)
	}
	put(t, kernel)
	w.expect(t, sourceEvents)
	w.expect(t, sourceEvents) // nobody has read it
	put(t, peer)
	if w.has(sourceLink) {
		t.Error("has a link before one was added")
	}
	if err := w.add(link, sourceLink); err != nil { // readable when it is added
		t.Fatal(err)
	}
	w.expect(t, sourceEvents, sourceLink)
	take(t, events)
	w.expect(t, sourceLink)
	take(t, link)
	w.set(time.Millisecond)
	w.expect(t, sourceTimer)
	w.set(time.Hour)
	time.AfterFunc(time.Millisecond, func() { put(t, peer) })
	w.expect(t, sourceLink) // the timer is not ready any more
	take(t, link)
	w.set(-1)
	w.expect(t, sourceTimer)
}

// A paused source is silent, also towards the runtime's threads, and is back
// with the next wait.
func TestWaiterPause(t *testing.T) {
	w := openWaiter(t)
	events, kernel := pipe(t)
	if err := w.add(events, sourceEvents); err != nil {
		t.Fatal(err)
	}
	if err := w.pause(); err != nil {
		t.Fatal(err)
	}
	put(t, kernel)
	_ = w.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); n != 0 || err != nil {
			t.Errorf("a paused waiter is readable: %d, %v", n, err)
		}
	})
	w.expect(t, sourceEvents)
}

func TestWaiterClose(t *testing.T) {
	w := openWaiter(t)
	done := make(chan error)
	go func() {
		_, err := w.wait()
		done <- err
	}()
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("wait: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("wait goes on after close")
	}
	if err := w.pause(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("pause: %v", err)
	}
	if err := w.add(0, sourceLink); err == nil {
		t.Error("added to a closed waiter")
	}
}

func TestWaiterAllocatesNothing(t *testing.T) {
	w := openWaiter(t)
	events, kernel := pipe(t)
	if err := w.add(events, sourceEvents); err != nil {
		t.Fatal(err)
	}
	put(t, kernel)
	var failed error
	if n := testing.AllocsPerRun(100, func() {
		w.set(time.Hour)
		_, err1 := w.wait()
		failed = errors.Join(failed, err1, w.pause())
	}); n != 0 || failed != nil {
		t.Errorf("%v allocations, %v", n, failed)
	}
}

// Whoever waits for the network hears of it although the loop rests all the
// time in a way the scheduler does not know.
func TestBreatherLetsOthersWork(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make(chan struct{})
	go func() {
		if _, _, err := c.ReadFrom(make([]byte, 1)); err == nil {
			close(got)
		}
	}()
	s, err := net.Dial("udp4", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b breather
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		if b == breath/2 {
			if _, err := s.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		b.rest(time.Millisecond)
		select {
		case <-got:
			return
		default:
		}
	}
	t.Error("the reader waits after ten seconds")
}
