package daemontest_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestOrderlyEnd ends the daemon by each signal that means so.
func TestOrderlyEnd(t *testing.T) {
	r := newRig(t, nil)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		r.ok(r.a.Start(t.Context()))
		proc := r.a.Proc()
		r.ok(proc.Signal(s))
		r.await(proc)
		if err := proc.Err(); err != nil {
			t.Errorf("%v: %v, want exit code 0", s, err)
		}
		if err := left(r.a, proc.PID()); err != nil {
			t.Errorf("%v: %v", s, err)
		}
		if out := proc.Tail(100); strings.Contains(out, "goroutine ") {
			t.Errorf("%v: %s", s, out)
		}
	}
	if n := r.logged(r.a, "[notice] ---- shutdown received ----"); n != 3 {
		t.Errorf("%d shutdowns in the log, want 3", n)
	}
}

func (r *rig) await(p *nettest.Proc) {
	r.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		r.Fatalf("%s runs on: %s", p.Name, p.Tail(10))
	}
}

// TestHarmlessSignals sends what must not end the daemon.
func TestHarmlessSignals(t *testing.T) {
	r := newRig(t, nil)
	r.ok(r.a.Start(t.Context()))
	signals := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE}
	for range 3 {
		for _, s := range signals {
			r.ok(r.a.Proc().Signal(s))
		}
		r.request(r.a, "-s")
	}
	r.ok(r.a.Stop())
}

// TestLogRotation moves the log file away: HUP makes a new one, and both are
// whole.
func TestLogRotation(t *testing.T) {
	r := newRig(t, nil)
	r.ok(r.a.Start(t.Context()))
	path := r.a.Config.LogFile
	r.ok(os.Rename(path, path+".1"))
	r.request(r.a, "-n")
	r.ok(r.a.Proc().Signal(syscall.SIGHUP))
	r.eventually("a new log file", func() error {
		_, err := os.Stat(path)
		return err
	})
	r.request(r.a, "-B")
	if got := r.messages(r.a); len(got) != 1 || got[0] != "[notice] sending bulk update" {
		t.Errorf("the new log has %q", got)
	}
	r.ok(r.a.Stop())
	r.ok(os.Rename(path+".1", path))
	if n := r.logged(r.a, "[notice] resync requested"); n != 1 {
		t.Errorf("the old log has %d requests, want the one before HUP", n)
	}
}

// TestLostLogReader has a reader of standard output that goes away: no line
// may end the daemon, nor keep others from the log file.
func TestLostLogReader(t *testing.T) {
	r := newRig(t, nil)
	r.ok(r.a.WriteConfig())
	proc, err := r.two.A.Start(nil, "bash", "-c", fmt.Sprintf("exec %s -C %s > >(exec true) 2>&1", r.binary, r.a.ConfigPath))
	r.ok(err)
	r.eventually("the daemon to answer", func() error {
		_, err := r.a.Client(t.Context(), "-s")
		return err
	})
	for range 5 {
		r.request(r.a, "-B")
	}
	if n := r.logged(r.a, "sending bulk update"); n != 5 {
		t.Errorf("%d lines in the log file, want 5", n)
	}
	r.ok(proc.Stop(patience))
}

// TestCrash kills the daemon: what it leaves behind does not keep the next one
// from starting, in the foreground and with -d.
func TestCrash(t *testing.T) {
	r := newRig(t, nil)
	for i := range 3 {
		r.ok(r.a.Start(t.Context()))
		r.a.Kill9()
		for _, path := range []string{r.a.Config.Socket, r.a.Config.Lock} {
			if _, err := os.Lstat(path); err != nil {
				t.Fatalf("run %d: a killed daemon leaves its files, but: %v", i, err)
			}
		}
		pid := r.background(r.a)
		r.request(r.a, "-s")
		r.ok(syscall.Kill(pid, syscall.SIGKILL))
		r.eventually("its end", func() error {
			if !ended(pid) {
				return errors.New("it runs")
			}
			return nil
		})
	}
	r.ok(r.a.Start(t.Context()))
	r.ok(r.a.Stop())
	r.ok(left(r.a, r.a.Proc().PID()))
}

// TestSecondDaemon is refused, with the same lock and with the same socket
// only, and the first works on.
func TestSecondDaemon(t *testing.T) {
	r := newRig(t, nil)
	r.ok(r.a.Start(t.Context()))
	pid := r.a.Proc().PID()
	other := r.a.Config
	other.Lock += "2"
	tests := []struct {
		cfg    nettest.Config
		reason string
	}{
		{r.a.Config, fmt.Sprintf("lock %s: another daemon (pid %d) holds it", r.a.Config.Lock, pid)},
		{other, fmt.Sprintf("listen on %s: a running daemon answers there", r.a.Config.Socket)},
	}
	for _, test := range tests {
		path := r.lab.Dir() + "/second.conf"
		r.ok(os.WriteFile(path, []byte(test.cfg.Text()), 0o600))
		for _, args := range [][]string{{"-C", path}, {"-C", path, "-d"}} {
			_, err := r.two.A.Run(r.binary, args...)
			var exit *nettest.ExitError
			if !errors.As(err, &exit) || exit.Code != 1 || !strings.Contains(exit.Output, test.reason) {
				t.Errorf("%v: %v, want exit code 1 and %q", args, err, test.reason)
			}
		}
		r.request(r.a, "-s")
		if r.pid(r.a) != pid {
			t.Error("the lock file names another process")
		}
	}
	r.ok(r.a.Stop())
}

// TestEndDuringWork orders the end while a large commit and a large flush are
// under way: the daemon does not wait for them, and is not said to have failed.
func TestEndDuringWork(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 40000
	r.must(r.writer(r.two.A).Create(flows(1, 0, many)))
	r.cached(r.b, -1, many)
	commit := r.connect(r.b, 46)
	r.eventually("the commit", func() error {
		if n := r.count(r.b); n == 0 {
			return errors.New("nothing written")
		}
		return nil
	})
	flush := r.connect(r.b, 43)
	r.eventually("the flush", func() error { return r.reports(r.b, "flushing kernel conntrack table", 1) })
	r.ok(r.b.Stop())
	r.finish(commit)
	r.finish(flush)
	for _, m := range r.messages(r.b) {
		if strings.HasPrefix(m, "[ERROR]") {
			t.Errorf("in the log: %s", m)
		}
	}
}

// TestEndDuringStart orders the end while the daemon reads a large table.
func TestEndDuringStart(t *testing.T) {
	r := newRig(t, nil)
	r.ok(r.a.WriteConfig())
	r.must(r.writer(r.two.A).Create(flows(1, 0, 100000)))
	early := 0
	for range 5 {
		proc, err := r.two.A.Start(nil, r.binary, "-C", r.a.ConfigPath)
		r.ok(err)
		r.eventually("the event socket", func() error {
			return r.reports(r.a, "netlink event socket buffer size", 1)
		})
		r.ok(proc.Stop(patience))
		r.ok(left(r.a, proc.PID()))
		if r.logged(r.a, "initialization completed") == 0 {
			early++
		}
		r.ok(os.Remove(r.a.Config.LogFile))
	}
	if early == 0 {
		t.Error("each had started before it was told to end: the test shows nothing")
	}
}
