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
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
)

// TestOrderlyEnd ends the daemon by each signal that means so.
func TestOrderlyEnd(t *testing.T) {
	r := newRig(t, nil)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		r.OK(r.A.Start(t.Context()))
		proc := r.A.Proc()
		r.OK(proc.Signal(s))
		r.endsWell(s.String())
		if out := proc.Tail(100); strings.Contains(out, "goroutine ") {
			t.Errorf("%v: %s", s, out)
		}
	}
	if n := r.logged(r.A, "[notice] ---- shutdown received ----"); n != 3 {
		t.Errorf("%d shutdowns in the log, want 3", n)
	}
}

// TestSecondSignal repeats the order to end while the daemon still waits for a
// client, as an impatient operator does: it ends in good order all the same.
func TestSecondSignal(t *testing.T) {
	r := newRig(t, nil)
	first := map[string]func(*nettest.Proc){
		"a signal": func(p *nettest.Proc) { r.OK(p.Signal(syscall.SIGTERM)) },
		"-k":       func(*nettest.Proc) { r.Dial(r.A, duo.Ask(20)) },
	}
	shutdowns := 0
	for name, order := range first {
		r.OK(r.A.Start(t.Context()))
		proc := r.A.Proc()
		r.Dial(r.A, nil)     // says nothing,
		r.Request(r.A, "-s") // and was let in before this one
		order(proc)
		shutdowns++
		r.Eventually("the shutdown", func() error { return r.reports(r.A, "shutdown received", shutdowns) })
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
			if ended(proc.PID()) {
				t.Fatalf("%s: ended before the second signal: the test shows nothing", name)
			}
			r.OK(proc.Signal(s))
		}
		r.endsWell(name + ", and again")
	}
}

// endsWell waits for the end of the daemon on A, ordered in some way.
func (r *rig) endsWell(way string) {
	r.Helper()
	proc := r.A.Proc()
	r.await(proc)
	if err := proc.Err(); err != nil {
		r.Errorf("%s: %v, want exit code 0", way, err)
	}
	if err := left(r.A, proc.PID()); err != nil {
		r.Errorf("%s: %v", way, err)
	}
}

func (r *rig) await(p *nettest.Proc) {
	r.Helper()
	select {
	case <-p.Done():
	case <-time.After(duo.Patience):
		r.Fatalf("%s runs on: %s", p.Name, p.Tail(10))
	}
}

// TestHarmlessSignals sends what must not end the daemon.
func TestHarmlessSignals(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.Start(t.Context()))
	signals := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE}
	for range 3 {
		for _, s := range signals {
			r.OK(r.A.Proc().Signal(s))
		}
		r.Request(r.A, "-s")
	}
	r.OK(r.A.Stop())
}

// TestLogRotation moves the log file away: HUP makes a new one, and both are
// whole.
func TestLogRotation(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.Start(t.Context()))
	path := r.A.Config.LogFile
	r.OK(os.Rename(path, path+".1"))
	r.Request(r.A, "-n")
	r.OK(r.A.Proc().Signal(syscall.SIGHUP))
	r.Eventually("a new log file", func() error {
		_, err := os.Stat(path)
		return err
	})
	r.Request(r.A, "-B")
	if got := r.Messages(r.A); len(got) != 1 || got[0] != "[notice] sending bulk update" {
		t.Errorf("the new log has %q", got)
	}
	r.OK(r.A.Stop())
	r.OK(os.Rename(path+".1", path))
	if n := r.logged(r.A, "[notice] resync requested"); n != 1 {
		t.Errorf("the old log has %d requests, want the one before HUP", n)
	}
}

// TestLostLogReader has a reader of standard output that goes away: no line
// may end the daemon, nor keep others from the log file.
func TestLostLogReader(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.WriteConfig())
	proc, err := r.Two.A.Start(nil, "bash", "-c", fmt.Sprintf("exec %s -C %s > >(exec true) 2>&1", r.binary, r.A.ConfigPath))
	r.OK(err)
	r.Eventually("the daemon to answer", func() error {
		_, err := r.A.Client(t.Context(), "-s")
		return err
	})
	for range 5 {
		r.Request(r.A, "-B")
	}
	if n := r.logged(r.A, "sending bulk update"); n != 5 {
		t.Errorf("%d lines in the log file, want 5", n)
	}
	r.OK(proc.Stop(duo.Patience))
}

// TestCrash kills the daemon: what it leaves behind does not keep the next one
// from starting, in the foreground and with -d.
func TestCrash(t *testing.T) {
	r := newRig(t, nil)
	for i := range 3 {
		r.OK(r.A.Start(t.Context()))
		r.A.Kill9()
		for _, path := range []string{r.A.Config.Socket, r.A.Config.Lock} {
			if _, err := os.Lstat(path); err != nil {
				t.Fatalf("run %d: a killed daemon leaves its files, but: %v", i, err)
			}
		}
		pid := r.background(r.A)
		r.Request(r.A, "-s")
		r.OK(syscall.Kill(pid, syscall.SIGKILL))
		r.Eventually("its end", func() error {
			if !ended(pid) {
				return errors.New("it runs")
			}
			return nil
		})
	}
	r.OK(r.A.Start(t.Context()))
	r.OK(r.A.Stop())
	r.OK(left(r.A, r.A.Proc().PID()))
}

// TestSecondDaemon is refused, with the same lock and with the same socket
// only, and the first works on.
func TestSecondDaemon(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.Start(t.Context()))
	pid := r.A.Proc().PID()
	other := r.A.Config
	other.Lock += "2"
	tests := []struct {
		cfg    nettest.Config
		reason string
	}{
		{r.A.Config, fmt.Sprintf("lock %s: another daemon (pid %d) holds it", r.A.Config.Lock, pid)},
		{other, fmt.Sprintf("listen on %s: a running daemon answers there", r.A.Config.Socket)},
	}
	for _, test := range tests {
		path := r.Lab.Dir() + "/second.conf"
		r.OK(os.WriteFile(path, []byte(test.cfg.Text()), 0o600))
		for _, args := range [][]string{{"-C", path}, {"-C", path, "-d"}} {
			_, err := r.Two.A.Run(r.binary, args...)
			var exit *nettest.ExitError
			if !errors.As(err, &exit) || exit.Code != 1 || !strings.Contains(exit.Output, test.reason) {
				t.Errorf("%v: %v, want exit code 1 and %q", args, err, test.reason)
			}
		}
		r.Request(r.A, "-s")
		if r.pid(r.A) != pid {
			t.Error("the lock file names another process")
		}
	}
	r.OK(r.A.Stop())
}

// TestEndDuringWork orders the end while a large commit and a large flush are
// under way: the daemon does not wait for them, and is not said to have failed.
func TestEndDuringWork(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 40000
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)
	commit := r.Dial(r.B, duo.Ask(46))
	r.Eventually("the commit", func() error {
		if n := r.count(r.B); n == 0 {
			return errors.New("nothing written")
		}
		return nil
	})
	flush := r.Dial(r.B, duo.Ask(43))
	r.Eventually("the flush", func() error { return r.reports(r.B, "flushing kernel conntrack table", 1) })
	r.OK(r.B.Stop())
	r.finish(commit)
	r.finish(flush)
	for _, m := range r.Messages(r.B) {
		if strings.HasPrefix(m, "[ERROR]") {
			t.Errorf("in the log: %s", m)
		}
	}
}

// TestEndDuringStart orders the end while the daemon reads a large table.
func TestEndDuringStart(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.WriteConfig())
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, 100000)))
	early := 0
	for range 5 {
		proc, err := r.Two.A.Start(nil, r.binary, "-C", r.A.ConfigPath)
		r.OK(err)
		r.Eventually("the event socket", func() error {
			return r.reports(r.A, "netlink event socket buffer size", 1)
		})
		r.OK(proc.Stop(duo.Patience))
		r.OK(left(r.A, proc.PID()))
		if r.logged(r.A, "initialization completed") == 0 {
			early++
		}
		r.OK(os.Remove(r.A.Config.LogFile))
	}
	if early == 0 {
		t.Error("each had started before it was told to end: the test shows nothing")
	}
}
