// Package contrib_test runs primary-backup.sh with a daemon that only writes
// down how it is called, and compares it with the script conntrackd's package
// installs. Real failovers are in internal/nettest/failover.
package contrib_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

const stockScript = "/usr/share/doc/conntrackd/examples/sync/primary-backup.sh"

// fakeDaemon writes its option into $DIR/calls. It fails for the options in
// $FAIL, says at "-d" whether the lock is in its way, and waits at "-c" until
// $DIR/gate is written if there is one. "-d" leaves a process behind that keeps
// its descriptors, as a daemon does.
const fakeDaemon = `#!/bin/sh
[ "$1" = -C ] || echo "no -C: $*" >>"$DIR/calls"
[ "$2" = "$WANT_CONFIG" ] || echo "configuration $2" >>"$DIR/calls"
shift 2
printf '%s\n' "$*" >>"$DIR/calls"
case "$1" in
-s) echo statistics ;;
-c) [ ! -p "$DIR/gate" ] || read -r go <"$DIR/gate" ;;
-d) [ ! -e "$WANT_LOCK" ] || echo "lock is there" >>"$DIR/calls"
	sleep 20 >/dev/null 2>&1 & echo $! >"$DIR/child" ;;
esac
case " $FAIL " in *" $1 "*) exit 1 ;; esac
exit 0
`

const fakeLogger = `#!/bin/sh
for last; do :; done
echo "$last" >>"$DIR/log"
`

// stage is a directory with the fakes.
type stage struct {
	*testing.T
	dir, config, lock string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir := t.TempDir()
	s := &stage{t, dir, filepath.Join(dir, "conntrackd.conf"), filepath.Join(dir, "locks", "conntrack.lock")}
	s.write("conntrackd", fakeDaemon, 0o755)
	s.write("logger", fakeLogger, 0o755)
	s.write("conntrackd.conf", fmt.Sprintf("General {\n\tLogFile on\n\tLockFile %s\n\tUNIX {\n\t\tPath /x\n\t}\n}\n", s.lock), 0o644)
	if err := os.Mkdir(filepath.Join(dir, "locks"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.endChild)
	return s
}

// endChild ends what the fake daemon left behind.
func (s *stage) endChild() {
	var pid int
	if _, err := fmt.Sscan(s.read("child"), &pid); err == nil && pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (s *stage) write(name, text string, mode os.FileMode) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), mode); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) read(name string) string {
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Fatal(err)
	}
	return string(text)
}

func (s *stage) lines(name string) []string {
	return strings.FieldsFunc(s.read(name), func(r rune) bool { return r == '\n' })
}

// crashed leaves the lock of a dead daemon.
func (s *stage) crashed() {
	s.Helper()
	if err := os.WriteFile(s.lock, nil, 0o600); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) command(fail string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(s.Context(), 15*time.Second)
	s.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "./primary-backup.sh", args...)
	cmd.Env = append(os.Environ(), "PATH="+s.dir+":"+os.Getenv("PATH"), "DIR="+s.dir, "FAIL="+fail,
		"WANT_CONFIG="+s.config, "WANT_LOCK="+s.lock,
		"CONNTRACKD_BIN="+filepath.Join(s.dir, "conntrackd"), "CONNTRACKD_CONFIG="+s.config)
	return cmd
}

// stock runs the stock script where it finds the fakes at the usual places.
func (s *stage) stock(fail string, args ...string) *exec.Cmd {
	const mounts = `set -e
mount --bind "$DIR/conntrackd" /usr/sbin/conntrackd
mount --bind "$DIR/conntrackd.conf" /etc/conntrackd/conntrackd.conf
mount --bind "$DIR/logger" /usr/bin/logger
mount --bind "$DIR/locks" /run/lock
exec "$@"`
	cmd := s.command(fail)
	cmd.Path, cmd.Err = exec.LookPath("unshare")
	cmd.Args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh", stockScript}, args...)
	cmd.Env = append(cmd.Env, "WANT_CONFIG=/etc/conntrackd/conntrackd.conf", "WANT_LOCK=/var/lock/conntrack.lock")
	return cmd
}

func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

var contract = []struct {
	name    string
	fail    string // options that fail
	crashed bool   // a lock file is there
	args    []string
	calls   string
	exit    int
	logged  int // lines
}{
	{name: "primary", args: []string{"primary"}, calls: "-c -f -R -B"},
	{name: "primary, all fails", fail: "-c -f -R -B", args: []string{"primary"}, calls: "-c -f -R -B", logged: 4},
	{name: "backup", args: []string{"backup"}, calls: "-s -t -n"},
	{name: "backup, running with a lock", crashed: true, args: []string{"backup"}, calls: "-s -t -n"},
	{name: "backup, not running", fail: "-s", args: []string{"backup"}, calls: "-s -d -t -n"},
	{name: "backup, crashed", fail: "-s", crashed: true, args: []string{"backup"}, calls: "-s -d -t -n", logged: 1},
	{name: "backup, does not start", fail: "-s -d", args: []string{"backup"}, calls: "-s -d", exit: 1, logged: 1},
	{name: "backup, requests fail", fail: "-t -n", args: []string{"backup"}, calls: "-s -t -n", logged: 2},
	{name: "fault", args: []string{"fault"}, calls: "-t"},
	{name: "fault, fails", fail: "-t", args: []string{"fault"}, calls: "-t", logged: 1},
	{name: "more arguments", args: []string{"primary", "GROUP", "G1"}, calls: "-c -f -R -B"},
	{name: "unknown", args: []string{"stop"}, exit: 1},
	{name: "none", exit: 1},
}

// TestContract checks calls, exit code and number of log lines.
func TestContract(t *testing.T) {
	for _, test := range contract {
		t.Run(test.name, func(t *testing.T) {
			s := newStage(t)
			if test.crashed {
				s.crashed()
			}
			if got := exitCode(t, s.command(test.fail, test.args...)); got != test.exit {
				t.Errorf("exit code %d, want %d", got, test.exit)
			}
			if got := strings.Join(s.lines("calls"), " "); got != test.calls {
				t.Errorf("calls %q, want %q", got, test.calls)
			}
			if got := s.lines("log"); len(got) != test.logged {
				t.Errorf("%d lines logged, want %d: %q", len(got), test.logged, got)
			}
		})
	}
}

// TestStockContract runs the stock script in the same situations: it is what
// the expectations of TestContract come from.
func TestStockContract(t *testing.T) {
	if os.Geteuid() != 0 {
		nettest.SkipUnlessCI(t, "mount namespaces need root")
	}
	for _, file := range []string{stockScript, "/usr/sbin/conntrackd", "/etc/conntrackd/conntrackd.conf"} {
		if _, err := os.Stat(file); err != nil {
			nettest.SkipUnlessCI(t, "Debian's conntrackd is not installed: %v", err)
		}
	}
	for _, test := range contract {
		t.Run(test.name, func(t *testing.T) {
			s := newStage(t)
			if test.crashed {
				s.crashed()
			}
			if got := exitCode(t, s.stock(test.fail, test.args...)); got != test.exit {
				t.Errorf("exit code %d, want %d", got, test.exit)
			}
			if got := strings.Join(s.lines("calls"), " "); got != test.calls {
				t.Errorf("calls %q, want %q", got, test.calls)
			}
		})
	}
}

// gate makes "-c" wait. The function it returns opens it once.
func (s *stage) gate() (open func()) {
	s.Helper()
	path := filepath.Join(s.dir, "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		s.Fatal(err)
	}
	return func() {
		s.Helper()
		if err := os.WriteFile(path, []byte("go\n"), 0); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *stage) start(cmd *exec.Cmd) {
	s.Helper()
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) await(what string, check func() bool) {
	s.Helper()
	err := nettest.Eventually(s.Context(), 10*time.Second, what, func() error {
		if !check() {
			return fmt.Errorf("calls %q, log %q", s.lines("calls"), s.lines("log"))
		}
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
}

// queued waits until a run has said that it is the latest.
func (s *stage) queued(cmd *exec.Cmd) {
	s.Helper()
	s.await("a run to queue", func() bool {
		return slices.Equal(s.lines("locks/conntrack.lock.latest"), []string{fmt.Sprint(cmd.Process.Pid)})
	})
}

// TestOverlap lets a commit take long while the firewall changes its state
// three more times. The runs must not mix, and the last state must stay.
func TestOverlap(t *testing.T) {
	for _, test := range []struct {
		later []string
		last  string // calls after those of the first run, but for those
		looks int    // whether the daemon runs, which may be later too
	}{
		{[]string{"backup"}, "-t -n", 1},
		{[]string{"backup", "fault", "backup"}, "-t -n", 2},
		{[]string{"fault", "backup", "fault"}, "-t", 1},
		{[]string{"fault", "fault", "primary"}, "-c -f -R -B", 0},
	} {
		t.Run(strings.Join(test.later, " "), func(t *testing.T) {
			s := newStage(t)
			open := s.gate()
			runs := []*exec.Cmd{s.command("", "primary")}
			s.start(runs[0])
			s.await("the commit", func() bool { return slices.Contains(s.lines("calls"), "-c") })
			for _, state := range test.later {
				run := s.command("", state)
				s.start(run)
				s.queued(run)
				runs = append(runs, run)
			}
			open()
			if strings.HasPrefix(test.last, "-c") {
				s.await("the last commit", func() bool {
					return strings.Count(strings.Join(s.lines("calls"), " "), "-c") == 2
				})
				open()
			}
			for i, run := range runs {
				if err := run.Wait(); err != nil {
					t.Errorf("run %d: %v", i, err)
				}
			}
			calls := s.lines("calls")
			all := len(calls)
			calls = slices.DeleteFunc(calls, func(c string) bool { return c == "-s" })
			if got, want := strings.Join(calls, " "), "-c -f -R -B "+test.last; got != want || all-len(calls) != test.looks {
				t.Errorf("calls %q and %d times -s, want %q and %d", got, all-len(calls), want, test.looks)
			}
			if got, want := len(s.lines("log")), len(test.later)-1; got != want {
				t.Errorf("%d runs said they were overtaken, want %d: %q", got, want, s.lines("log"))
			}
		})
	}
}

// TestDaemonFreesTurn starts a daemon, which lives on. It must not hold the
// turn of the script.
func TestDaemonFreesTurn(t *testing.T) {
	s := newStage(t)
	if code := exitCode(t, s.command("-s", "backup")); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	cmd := s.command("", "primary")
	cmd.Env = append(cmd.Env, "CONNTRACKD_MAX_WAIT=1")
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if log := s.lines("log"); len(log) != 0 {
		t.Errorf("the second run waited: %q", log)
	}
}

// TestStuckRun lets an earlier run hang. A later one waits its time, says so
// and goes on: a firewall must not stay without its connections.
func TestStuckRun(t *testing.T) {
	s := newStage(t)
	open := s.gate()
	first := s.command("", "primary")
	s.start(first)
	s.await("the commit", func() bool { return slices.Contains(s.lines("calls"), "-c") })
	second := s.command("", "backup")
	second.Env = append(second.Env, "CONNTRACKD_MAX_WAIT=1")
	if code := exitCode(t, second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := strings.Join(s.lines("calls"), " "); got != "-c -s -t -n" {
		t.Errorf("calls %q", got)
	}
	if log := s.lines("log"); len(log) != 1 || !strings.Contains(log[0], "still works after 1 seconds") {
		t.Errorf("log %q", log)
	}
	open()
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}

// TestLiveLock keeps the lock of a daemon that lives but does not answer:
// conntrackgo holds its lock file locked, and without the file a second
// daemon could start.
func TestLiveLock(t *testing.T) {
	s := newStage(t)
	s.crashed()
	held, err := os.Open(s.lock)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, s.command("-s -d", "backup")); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if _, err := os.Stat(s.lock); err != nil {
		t.Errorf("the lock of a living daemon is gone: %v", err)
	}
	if got := s.lines("calls"); !slices.Equal(got, []string{"-s", "-d", "lock is there"}) {
		t.Errorf("calls %q", got)
	}
}

// TestNoLockDirectory takes away the place for the turn: nothing but the
// waiting may be lost.
func TestNoLockDirectory(t *testing.T) {
	s := newStage(t)
	if err := os.Remove(filepath.Dir(s.lock)); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, s.command("", "primary")); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := strings.Join(s.lines("calls"), " "); got != "-c -f -R -B" {
		t.Errorf("calls %q", got)
	}
	if log := s.lines("log"); len(log) != 1 || !strings.Contains(log[0], "cannot write") {
		t.Errorf("log %q", log)
	}
}

// TestShellcheck holds the script to POSIX sh.
func TestShellcheck(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed")
	}
	out, err := exec.Command("shellcheck", "--shell=sh", "--severity=style", "primary-backup.sh").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
