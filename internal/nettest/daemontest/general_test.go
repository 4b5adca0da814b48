package daemontest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// raw writes a configuration of the test's own for node a; %s becomes the
// General lines that name the files.
func (r *rig) raw(format string) {
	r.Helper()
	c := r.A.Config
	files := fmt.Sprintf("LockFile %s\nLogFile %s\nUNIX { Path %s\n}\n", c.Lock, c.LogFile, c.Socket)
	r.OK(os.WriteFile(r.A.ConfigPath, fmt.Appendf(nil, format, files), 0o600))
}

// runRaw starts the daemon in the foreground with that file.
func (r *rig) runRaw() *nettest.Proc {
	r.Helper()
	proc, err := r.Two.A.Start(nil, r.binary, "-C", r.A.ConfigPath)
	r.OK(err)
	r.Eventually("the daemon to answer", func() error {
		_, err := r.A.Client(r.Context(), "-s", "runtime")
		return err
	})
	return proc
}

// TestNoSync runs a daemon without anything to do. It answers few requests.
func TestNoSync(t *testing.T) {
	r := newRig(t, nil)
	r.raw("General {\nSystemd off\nScheduler {\nType FIFO\nPriority 0\n}\n%s}\n")
	proc := r.runRaw()
	for _, args := range []string{"-i", "-e", "-c", "-f", "-F", "-R", "-B", "-n", "-t", "-s", "-s network", "-s cache", "-s link", "-s queue", "-s rsqueue", "-s process", "-s expect", "-i expect -x"} {
		if out := r.Request(r.A, strings.Fields(args)...); out != "" {
			t.Errorf("%s printed %q", args, out)
		}
	}
	if out := r.Request(r.A, "-s", "runtime"); !strings.HasPrefix(out, "daemon uptime: 0 min\n\nnetlink stats:\n") {
		t.Errorf("-s runtime printed %q", out)
	}
	if out := r.Request(r.A, "-s", "health"); out != "mode: none\nready: no\nin-step: no\n" {
		t.Errorf("-s health printed %q", out)
	}
	r.Request(r.A, "-k")
	r.await(proc)
	r.OK(proc.Err())
	r.OK(left(r.A, proc.PID()))
}

// TestStatsRefused says what to run instead.
func TestStatsRefused(t *testing.T) {
	r := newRig(t, nil)
	r.raw("Stats {\nLogFile on\n}\nGeneral {\n%s}\n")
	_, err := r.Two.A.Run(r.binary, "-C", r.A.ConfigPath, "-d")
	var exit *nettest.ExitError
	want := "[ERROR] Stats mode is not supported: conntrackgo only synchronises; to log flows run `conntrack -E` or ulogd2 with its NFCT input\n"
	if !errors.As(err, &exit) || exit.Code != 1 || !strings.Contains(exit.Output, want) {
		t.Errorf("%v, want exit code 1 and %q", err, want)
	}
}

// TestScheduler reads the policy of every thread: real-time by default, also
// of threads made later, and ours after a refusal.
func TestScheduler(t *testing.T) {
	usual, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, block      string
		policy, priority uint32
		refusals         int
	}{
		{"default", "", unix.SCHED_RR, 99, 0},
		{"FIFO", "Scheduler {\nType FIFO\nPriority 7\n}\n", unix.SCHED_FIFO, 7, 0},
		{"refused", "Scheduler {\nType FIFO\nPriority 0\n}\n", usual.Policy, 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			text, _, _ := strings.Cut(r.A.Config.Text(), "General {")
			r.raw(strings.ReplaceAll(text, "%", "%%") + "General {\nSystemd off\n" + test.block + "%s}\n")
			_, err := r.Two.A.Run(r.binary, "-C", r.A.ConfigPath, "-d")
			r.OK(err)
			pid := r.pid(r.A)
			r.Must(r.Writer(r.Two.A).Create(flows(1, 0, 5000)))
			r.cached(r.A, 5000, -1)
			tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
			r.OK(err)
			if len(tasks) < 3 {
				t.Errorf("only %d threads", len(tasks))
			}
			for _, task := range tasks {
				tid, err := strconv.Atoi(task.Name())
				r.OK(err)
				attr, err := unix.SchedGetAttr(tid, 0)
				if errors.Is(err, unix.ESRCH) {
					continue
				}
				r.OK(err)
				if attr.Policy != test.policy || attr.Priority != test.priority {
					t.Errorf("thread %d has policy %d, priority %d, want %d, %d", tid, attr.Policy, attr.Priority, test.policy, test.priority)
				}
			}
			if n := r.logged(r.A, "can't set scheduler"); n != test.refusals {
				t.Errorf("%d warnings, want %d", n, test.refusals)
			}
			r.Request(r.A, "-k")
		})
	}
}
