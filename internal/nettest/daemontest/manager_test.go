package daemontest_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
)

// A manager is what systemd is to the daemon: a datagram socket that hears
// what state it is in.
type manager struct {
	*rig
	conn *net.UnixConn
	env  []string
}

func newManager(t *testing.T, systemd string) *manager {
	t.Helper()
	r := newRig(t, func(a, _ *nettest.Config) { a.GeneralLines = []string{"Systemd " + systemd} })
	path := filepath.Join(r.Lab.Dir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	r.OK(err)
	t.Cleanup(func() { conn.Close() })
	r.OK(r.A.WriteConfig())
	return &manager{r, conn, []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=400000"}}
}

// hears returns the next message.
func (m *manager) hears() string {
	m.Helper()
	m.OK(m.conn.SetReadDeadline(time.Now().Add(duo.Patience)))
	b := make([]byte, 4096)
	n, err := m.conn.Read(b)
	m.OK(err)
	return string(b[:n])
}

func (m *manager) wants(states ...string) {
	m.Helper()
	for _, want := range states {
		if got := m.hears(); got != want {
			m.Fatalf("the service manager heard %q, want %q", got, want)
		}
	}
}

// TestNotifyForeground is Type=notify.
func TestNotifyForeground(t *testing.T) {
	m := newManager(t, "on")
	proc, err := m.Two.A.Start(m.env, m.binary, "-C", m.A.ConfigPath)
	m.OK(err)
	m.wants("READY=1")
	m.Request(m.A, "-s") // at once
	m.wants("WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
	m.Request(m.A, "-k")
	m.await(proc)
	for got := ""; got != "STOPPING=1"; got = m.hears() {
		if got != "" && got != "WATCHDOG=1" {
			t.Fatalf("the service manager heard %q, want STOPPING=1", got)
		}
	}
}

// TestNotifyBackground is -d under a service manager, whose watchdog names the
// first process.
func TestNotifyBackground(t *testing.T) {
	m := newManager(t, "on")
	command := fmt.Sprintf("WATCHDOG_PID=$$ %s exec %s -C %s -d", strings.Join(m.env, " "), m.binary, m.A.ConfigPath)
	_, err := m.Two.A.Run("sh", "-c", command)
	m.OK(err)
	pid := m.pid(m.A)
	got := m.hears()
	for got == "WATCHDOG=1" { // the first process is slower
		got = m.hears()
	}
	if want := fmt.Sprintf("MAINPID=%d\nREADY=1", pid); got != want {
		t.Fatalf("the service manager heard %q, want %q", got, want)
	}
	m.wants("WATCHDOG=1", "WATCHDOG=1")
	m.Request(m.A, "-k")
}

// TestNotifyOff has a service manager that the configuration says not to tell.
func TestNotifyOff(t *testing.T) {
	m := newManager(t, "off")
	for _, d := range []string{"", " -d"} {
		_, err := m.Two.A.Run("sh", "-c", fmt.Sprintf("export %s; %s -C %s%s & until %s -C %s -s >/dev/null 2>&1; do :; done; %s -C %s -k; wait",
			strings.Join(m.env, " "), m.binary, m.A.ConfigPath, d, m.binary, m.A.ConfigPath, m.binary, m.A.ConfigPath))
		m.OK(err)
	}
	m.OK(m.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)))
	b := make([]byte, 4096)
	if n, err := m.conn.Read(b); !os.IsTimeout(err) {
		t.Errorf("the service manager heard %q, %v", b[:n], err)
	}
}

// TestDeafManager has a notify socket that nobody reads: the daemon starts,
// works and fills no log.
func TestDeafManager(t *testing.T) {
	m := newManager(t, "on")
	m.OK(m.conn.Close())
	m.env[1] = "WATCHDOG_USEC=2000"
	m.A.Env = m.env
	m.OK(m.A.Start(t.Context()))
	const most = 3 // in a minute
	m.Eventually("lines that say so", func() error { return m.reports(m.A, "service manager", most) })
	m.Request(m.A, "-s")
	m.OK(nettest.Throughout(t.Context(), 200*time.Millisecond, func() error { // about two hundred ticks
		if n := m.logged(m.A, "service manager"); n != most {
			return fmt.Errorf("%d lines about the service manager", n)
		}
		return nil
	}))
	m.OK(m.A.Stop())
}

// TestWatchdogExpiry is a daemon that hangs: it falls silent for longer than
// the interval, the manager ends it as systemd does, and the next one starts
// although the first left its lock and socket.
func TestWatchdogExpiry(t *testing.T) {
	m := newManager(t, "on")
	proc, err := m.Two.A.Start(m.env, m.binary, "-C", m.A.ConfigPath)
	m.OK(err)
	m.wants("READY=1", "WATCHDOG=1", "WATCHDOG=1")
	m.OK(proc.Signal(syscall.SIGSTOP))
	b := make([]byte, 4096)
	for expired := false; !expired; {
		m.OK(m.conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond)))
		n, err := m.conn.Read(b)
		if expired = os.IsTimeout(err); !expired {
			m.OK(err)
			if got := string(b[:n]); got != "WATCHDOG=1" { // sent before it was stopped
				t.Fatalf("heard %q of a stopped process", got)
			}
		}
	}
	m.OK(proc.Signal(syscall.SIGABRT))
	m.OK(proc.Signal(syscall.SIGCONT))
	m.await(proc)
	if proc.Err() == nil {
		t.Error("a process ended by SIGABRT says that all was well")
	}
	_, err = m.Two.A.Start(m.env, m.binary, "-C", m.A.ConfigPath)
	m.OK(err)
	m.wants("READY=1", "WATCHDOG=1")
	m.Request(m.A, "-s")
	m.Request(m.A, "-k")
}
