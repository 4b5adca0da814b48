package daemontest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
)

// A systemd is a service manager of the test's own: systemd's user instance,
// which is the same program, in control groups, a process table and a mount
// namespace that the machine does not see.
type systemd struct {
	*rig
	init int // process 1 of the namespaces
}

// bootScript ends with the manager in the foreground. Its arguments are the
// control groups' name, the daemon, its configuration and the directory with
// the units.
const bootScript = `set -eu
for h in $(` + hierarchies + `); do
	mkdir $h/$1
	echo $$ >$h/$1/cgroup.procs
done
exec unshare --mount --cgroup --pid --fork --kill-child --uts --ipc sh -euc '
	mount --make-rprivate /
	for h in $(` + hierarchies + `); do
		case $h in *systemd) kind="cgroup -o none,name=systemd";; *) kind=cgroup2;; esac
		umount $h
		mount -t $kind cgroup $h
	done
	mount -t proc proc /proc
	mount -t tmpfs tmpfs /run
	mkdir -p /run/systemd/system /run/manager
	cp "$1" /run/conntrackgo
	cp "$2" /run/conntrackd.conf
	cp -r "$3" /run/units
	export XDG_RUNTIME_DIR=/run/manager HOME=/run/manager SYSTEMD_UNIT_PATH=/run/units SYSTEMD_LOG_TARGET=console
	/lib/systemd/systemd --user --unit=idle.target & # not as process 1
	wait $!
' sh "$2" "$3" "$4"
`

// hierarchies prints where systemd looks for control groups: one place, or on
// an older machine two.
const hierarchies = `if [ -d /sys/fs/cgroup/unified ]; then echo /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; else echo /sys/fs/cgroup; fi`

// newSystemd skips the test where systemd cannot run, with CI=true too: what
// can be shown without it manager_test.go shows.
func newSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{rig: newRig(t, func(a, _ *nettest.Config) {
		a.Socket, a.Lock, a.LogFile = "/run/conntrackd.ctl", "/run/conntrackd.lock", "/run/conntrackd.log"
		a.GeneralLines = []string{"Systemd on"}
	})}
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("no systemd here: ", err)
	}
	s.OK(s.A.WriteConfig())
	units := filepath.Join(s.Lab.Dir(), "units")
	s.OK(os.Mkdir(units, 0o755))
	for name, text := range s.units() {
		s.OK(os.WriteFile(filepath.Join(units, name), []byte(text), 0o644))
	}
	group := fmt.Sprintf("cgo-%d-systemd", os.Getpid())
	t.Cleanup(func() { removeGroups(group) })
	proc, err := s.Two.A.Start(nil, "sh", "-c", bootScript, "sh", group, s.binary, s.A.ConfigPath, units)
	s.OK(err)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := s.run("sh", "-c", "systemctl --user status '*.service'; cat /run/conntrackd.log")
			t.Logf("the manager:\n%s\nits units and the daemon's log:\n%s", proc.Tail(40), log)
		}
		proc.Kill9() // and with it all in its process table
	})
	err = nettest.Eventually(t.Context(), duo.Patience, "systemd to answer", func() error {
		select {
		case <-proc.Done():
			return nil
		default:
		}
		if s.init = onlyChild(proc.PID()); s.init == 0 {
			return errors.New("not begun")
		}
		_, err := s.run("systemctl", "--user", "is-active", "idle.target")
		return err
	})
	select {
	case <-proc.Done():
		t.Skip("systemd does not run here: ", proc.Err(), " ", proc.Tail(3))
	default:
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, proc.Tail(20))
	}
	return s
}

// watchdog is the units' WatchdogSec: long enough for a daemon that waits for a
// processor.
const watchdog = 6 * time.Second

// units are the shipped one, of which only the paths are the test's and the
// watchdog is in a hurry, and one that goes into the background.
func (s *systemd) units() map[string]string {
	s.Helper()
	text, err := os.ReadFile("../../../contrib/conntrackgo.service")
	s.OK(err)
	unit := string(text)
	const target = "[Unit]\nDefaultDependencies=no\n"
	for _, change := range [][2]string{
		{"/usr/sbin/conntrackgo -C /etc/conntrackd/conntrackd.conf", "/run/conntrackgo -C /run/conntrackd.conf"},
		{"WatchdogSec=60s", fmt.Sprintf("WatchdogSec=%ds", watchdog/time.Second)},
		{"PrivateTmp=yes\n", ""},
		{"StateDirectory=conntrackgo\nStateDirectoryMode=0700\n", ""}, // of a user's manager it is in the home
		// Mounts that a container refuses.
		{"ProtectHome=yes\n", ""}, {"ProtectKernelLogs=yes\n", ""}, {"ProtectKernelTunables=yes\n", ""},
	} {
		if !strings.Contains(unit, change[0]) {
			s.Fatalf("the unit has no %q", change[0])
		}
		unit = strings.ReplaceAll(unit, change[0], change[1])
	}
	return map[string]string{
		"idle.target":         target,
		"basic.target":        target, // every service wants it
		"shutdown.target":     target,
		"conntrackgo.service": unit,
		"background.service":  strings.Replace(unit, "conntrackd.conf\n", "conntrackd.conf -d\nNotifyAccess=all\n", 1),
	}
}

// run runs a command where the manager is.
func (s *systemd) run(args ...string) (string, error) {
	return s.Two.A.Run("nsenter", append([]string{"--target", strconv.Itoa(s.init), "--mount", "--pid", "--cgroup", "--",
		"env", "XDG_RUNTIME_DIR=/run/manager"}, args...)...)
}

func (s *systemd) must(args ...string) string {
	s.Helper()
	out, err := s.run(args...)
	s.OK(err)
	return out
}

// wants waits until a property of a unit is as it should be.
func (s *systemd) wants(unit, property, want string) {
	s.Helper()
	s.Eventually(unit+" "+property+"="+want, func() error {
		got, err := s.run("systemctl", "--user", "show", "--value", "-p", property, unit)
		if got = strings.TrimSpace(got); err == nil && got != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

func (s *systemd) mainPID(unit string) string {
	s.Helper()
	return strings.TrimSpace(s.must("systemctl", "--user", "show", "--value", "-p", "MainPID", unit))
}

// answers asks the daemon, which must be ready.
func (s *systemd) answers() {
	s.Helper()
	if out := s.must("/run/conntrackgo", "-C", "/run/conntrackd.conf", "-s"); !strings.HasPrefix(out, "cache internal:") {
		s.Errorf("-s printed %q", out)
	}
}

// TestSystemd lives through what systemd does to the shipped unit: it starts
// and is ready, is told to reload, hangs and is replaced, ends.
func TestSystemd(t *testing.T) {
	s := newSystemd(t)
	const unit = "conntrackgo.service"
	s.must("systemctl", "--user", "start", unit)
	s.answers() // start returns when it is ready
	s.wants(unit, "ActiveState", "active")
	first := s.mainPID(unit)

	s.must("mv", "/run/conntrackd.log", "/run/conntrackd.log.1")
	s.must("systemctl", "--user", "reload", unit)
	s.Eventually("a new log file", func() error {
		_, err := s.run("test", "-e", "/run/conntrackd.log")
		return err
	})
	// Longer than the watchdog waits: it is being told that all is well.
	s.OK(nettest.Throughout(t.Context(), watchdog+time.Second, func() error {
		if pid := s.mainPID(unit); pid != first {
			return fmt.Errorf("process %s instead of %s", pid, first)
		}
		return nil
	}))

	s.must("kill", "-STOP", first)
	s.Eventually("a new process", func() error {
		if pid := s.mainPID(unit); pid == "0" || pid == first {
			return fmt.Errorf("the process is %s", pid)
		}
		return nil
	})
	s.wants(unit, "NRestarts", "1")
	s.wants(unit, "ActiveState", "active")
	s.answers()

	s.must("systemctl", "--user", "stop", unit)
	s.wants(unit, "ActiveState", "inactive")
	s.wants(unit, "Result", "success")
	for _, path := range []string{"/run/conntrackd.ctl", "/run/conntrackd.lock"} {
		s.must("test", "!", "-e", path)
	}
}

// TestSystemdLateLink gives the link its address after more attempts than a
// manager makes by default.
func TestSystemdLateLink(t *testing.T) {
	s := newSystemd(t)
	const unit = "conntrackgo.service"
	addr := nettest.SyncA.String() + "/30"
	s.OK(s.Two.A.DelAddr(nettest.SyncIf, addr))
	if out, err := s.run("systemctl", "--user", "start", unit); err == nil {
		t.Errorf("started without its address: %s", out)
	}
	s.Eventually("seven attempts", func() error {
		n, err := strconv.Atoi(strings.TrimSpace(s.must("systemctl", "--user", "show", "--value", "-p", "NRestarts", unit)))
		if err == nil && n < 7 {
			err = fmt.Errorf("%d", n)
		}
		return err
	})
	s.OK(s.Two.A.AddAddr(nettest.SyncIf, addr))
	s.wants(unit, "ActiveState", "active")
	s.answers()
}

// TestSystemdBackground is a unit whose daemon goes into the background: the
// manager is told which process it is.
func TestSystemdBackground(t *testing.T) {
	s := newSystemd(t)
	const unit = "background.service"
	s.must("systemctl", "--user", "start", unit)
	s.answers()
	pid := strings.TrimSpace(s.must("cat", "/run/conntrackd.lock"))
	s.wants(unit, "MainPID", pid)
	s.OK(nettest.Throughout(t.Context(), watchdog+time.Second, func() error {
		if got := s.mainPID(unit); got != pid {
			return fmt.Errorf("process %s instead of %s", got, pid)
		}
		return nil
	}))
	s.must("/run/conntrackgo", "-C", "/run/conntrackd.conf", "-k")
	s.wants(unit, "ActiveState", "inactive")
	s.wants(unit, "Result", "success")
}

// onlyChild is the process that unshare made, 0 if there is none yet.
func onlyChild(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return child
}

// removeGroups removes control groups from the leaves on, as soon as the last
// process has gone.
func removeGroups(name string) {
	out, err := exec.Command("sh", "-c", hierarchies).Output()
	if err != nil {
		return
	}
	for _, h := range strings.Fields(string(out)) {
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			var all []string
			_ = filepath.WalkDir(filepath.Join(h, name), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			if len(all) == 0 {
				break
			}
			for _, path := range slices.Backward(all) {
				_ = syscall.Rmdir(path)
			}
		}
	}
}
