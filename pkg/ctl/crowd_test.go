package ctl

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// closed reports whether the server closes a connection that says nothing.
func closed(t *testing.T, conn net.Conn, within time.Duration) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// Many more silent clients than there may be: who asks is answered long before
// they time out, and those that go are the oldest.
func TestSilentCrowdMakesRoom(t *testing.T) {
	const limit, many = 8, 200
	s := startServer(t, []Request{{Code: 21, Handle: write("reply")}}, Config{MaxWaiting: limit, RequestTimeout: time.Minute})
	var silent []net.Conn
	for i := range many {
		silent = append(silent, s.dial(t))
		if i%20 == 0 {
			if got := s.call(t, 21); got != "reply" {
				t.Fatalf("after %d silent clients: %q", i, got)
			}
		}
	}
	if got := s.call(t, 21); got != "reply" {
		t.Fatal(got)
	}
	dropped := int(s.counters.LocalDropped.Load())
	if dropped < many-limit || dropped >= many {
		t.Errorf("%d dropped of %d, want all but %d or a few less", dropped, many, limit)
	}
	if !closed(t, silent[0], 20*time.Second) {
		t.Error("the oldest was kept")
	}
	if closed(t, silent[many-1], 20*time.Millisecond) {
		t.Error("the youngest was dropped")
	}
}

// As many clients as are served at once do not read: others need not wait
// until these time out.
func TestStalledCrowdMakesRoom(t *testing.T) {
	const limit, yield = 3, time.Second
	ended := make(chan error, limit)
	s := startServer(t, []Request{
		{Code: 16, Handle: endless(ended)},
		{Code: 21, Handle: write("reply")},
	}, Config{MaxClients: limit, YieldTimeout: yield, StallTimeout: time.Minute})
	for range limit {
		conn := s.dial(t)
		if _, err := conn.Write(native(16)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.counters.LocalDropped.Load(); n != 0 {
		t.Fatalf("%d dropped although nobody waits", n)
	}
	for range 5 {
		if got := s.call(t, 21); got != "reply" {
			t.Fatalf("got %q", got)
		}
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stalled reply ended with %v", err)
	}
	// One that takes long to go is taken for stuck, and another one goes.
	if n := s.counters.LocalDropped.Load(); n == 0 || n >= limit {
		t.Errorf("%d dropped, want the one that was in the way", n)
	}
}

// A request that is worked on is not dropped, whoever waits.
func TestWorkKeepsItsPlace(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	s := startServer(t, []Request{{Code: 46, Handle: func(_ context.Context, w io.Writer) error {
		entered <- struct{}{}
		<-leave
		_, err := io.WriteString(w, "done")
		return err
	}}}, Config{MaxClients: 1, YieldTimeout: time.Millisecond})
	first, second := s.dial(t), s.dial(t)
	for _, conn := range []net.Conn{first, second} {
		if _, err := conn.Write(native(46)); err != nil {
			t.Fatal(err)
		}
		if conn == first {
			<-entered
		}
	}
	if closed(t, first, 20*time.Millisecond) || closed(t, second, 20*time.Millisecond) {
		t.Error("dropped")
	}
	select {
	case <-entered:
		t.Error("both are worked on")
	default:
	}
	close(leave)
	for _, conn := range []net.Conn{first, second} {
		conn.SetReadDeadline(time.Time{})
		if got, err := io.ReadAll(conn); string(got) != "done" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if n := s.counters.LocalDropped.Load(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}
