package daemon

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

// TestStuckManager has a service manager that does not read what it is told:
// nobody waits for it, at the end of the daemon least of all.
func TestStuckManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	fatal(t, err)
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	var said bytes.Buffer
	d := &Daemon{cfg: &confparse.Config{Systemd: true}, log: NewLogger(&said, &said), started: time.Now()}
	unhindered(t, 30*time.Second, 5000, func() { d.notify("WATCHDOG=1") })
	if d.manager.busy == nil {
		t.Fatal("all was taken unread: the test shows nothing")
	}
	if n := strings.Count(said.String(), errDeafManager.Error()); n == 0 || n > saidKinds[saidManager].lines {
		t.Errorf("%d lines about it: %.500s", n, said.String())
	}
}

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
