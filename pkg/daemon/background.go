package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

// readyEnv names the descriptor on which a background daemon tells the
// process that started it that everything works.
const readyEnv = "CONNTRACKGO_READY_FD"

// IsBackground reports whether this process was started by Background.
func IsBackground() bool { return os.Getenv(readyEnv) != "" }

// Background runs the same command line again in a session of its own and
// returns when that process has everything working. Go cannot fork, hence the
// second execution. What the child has to say until then goes to stdout and
// stderr of this process.
func Background(cfg *confparse.Config) error {
	path, err := ownBinary()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(childEnv(os.Environ()), readyEnv+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start background process: %w", err)
	}
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 1)); err == nil {
		if cfg.Systemd {
			handOver(cmd.Process.Pid)
		}
		return nil
	}
	if err := cmd.Wait(); err != nil {
		return errors.New("initialization failed")
	}
	return errors.New("background process ended early")
}

// handOver tells the service manager who the daemon is, and that it is ready. By
// default it listens to the process that it takes for the daemon only, so a word
// of the next one would be lost if it came first.
func handOver(pid int) {
	if err := tell(new(patient), "MAINPID="+strconv.Itoa(pid)+"\n"+sd.SdNotifyReady); err != nil {
		fmt.Fprintf(os.Stderr, "can't notify the service manager: %v\n", err)
	}
}

// ownBinary returns the path this process was started by, a link or not: the
// process takes its name from it. A path that leads to another program, as
// argv[0] may be anything, is not it.
func ownBinary() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	named, err := exec.LookPath(os.Args[0])
	if err != nil {
		return own, nil
	}
	a, errA := os.Stat(own)
	b, errB := os.Stat(named)
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return own, nil
	}
	return named, nil
}

// childEnv drops WATCHDOG_PID, which names this process: the watchdog is the
// background process's to feed.
func childEnv(env []string) []string {
	return slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, "WATCHDOG_PID=") })
}

// detach ends the relation to the process that started this one: it may exit,
// and the terminal is let go.
func detach() error {
	fd, err := strconv.Atoi(os.Getenv(readyEnv))
	if err != nil {
		return fmt.Errorf("read %s: %w", readyEnv, err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("detach from terminal: %w", err)
	}
	defer null.Close()
	for std := range 3 {
		if err := unix.Dup3(int(null.Fd()), std, 0); err != nil {
			return fmt.Errorf("detach from terminal: %w", err)
		}
	}
	ready := os.NewFile(uintptr(fd), "ready")
	defer ready.Close()
	os.Unsetenv(readyEnv)
	_, err = ready.Write([]byte{0})
	return err
}

// ready tells whoever waits that everything works.
func (d *Daemon) ready() error {
	if !IsBackground() {
		d.log.Info("-- starting in console mode --")
		d.notify(sd.SdNotifyReady)
		return nil
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	d.log.Info("-- starting in daemon mode --")
	return detach()
}
