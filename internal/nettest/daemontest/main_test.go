// Package daemontest_test runs our daemon as a process: how it starts and
// ends, what it leaves behind, and how it stands stalled clients, signals,
// overruns and hostile peers. Agreement with the C daemon is tested in itest.
package daemontest_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

func TestMain(m *testing.M) {
	code := m.Run()
	nettest.RemoveGoBinary()
	os.Exit(code)
}

// rig is two nodes with a daemon of ours each that does not run yet.
type rig struct {
	*duo.Rig
	binary string
}

// newRig makes a rig. change adapts the configurations and may be nil.
func newRig(t *testing.T, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	r := &rig{Rig: duo.New(t, nettest.Go, nettest.Go, change)}
	var err error
	r.binary, err = nettest.GoBinary()
	r.OK(err)
	return r
}

func (r *rig) start() *rig {
	r.Helper()
	r.Start()
	return r
}

// background runs the daemon with -d and returns its process id, which it
// writes into its lock file.
func (r *rig) background(d *nettest.Daemon) int {
	r.Helper()
	_, err := d.Node.Run(r.binary, "-C", d.ConfigPath, "-d")
	r.OK(err)
	return r.pid(d)
}

func (r *rig) pid(d *nettest.Daemon) int {
	r.Helper()
	text, err := os.ReadFile(d.Config.Lock)
	r.OK(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	r.OK(err)
	return pid
}

// left reports what of a daemon is still there: its files, or a process that
// has anything open. What has not may still be a line of the process table.
func left(d *nettest.Daemon, pid int) error {
	var errs []error
	for _, path := range []string{d.Config.Socket, d.Config.Lock} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s is left (%v)", path, err))
		}
	}
	if open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); len(open) > 0 {
		errs = append(errs, fmt.Errorf("process %d still has %v open", pid, open))
	}
	return errors.Join(errs...)
}

// ended reports whether a process has ended, reaped or not.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// As long as another thread has not ended, its files are open and its lock held.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || strings.Contains(string(stat), ") Z ") && len(threads) <= 1
}

func (r *rig) finish(conn net.Conn) string {
	r.Helper()
	text, err := io.ReadAll(conn)
	r.OK(err)
	return string(text)
}

func (r *rig) logged(d *nettest.Daemon, text string) (n int) {
	r.Helper()
	for _, m := range r.Messages(d) {
		if strings.Contains(m, text) {
			n++
		}
	}
	return n
}

// counter reads a line of "-s runtime".
func (r *rig) counter(d *nettest.Daemon, name string) int {
	r.Helper()
	return r.Number(r.Request(d, "-s", "runtime"), regexp.QuoteMeta(name)+`:\s+(\d+)`)
}

// flows is a load of UDP flows 10.NET.x.y; none of them times out soon.
func flows(network byte, from, to int) flood.Load { return flood.UDPFlows(network, from, to) }

func (r *rig) count(d *nettest.Daemon) int {
	r.Helper()
	n, err := d.Node.Count()
	r.OK(err)
	return n
}

// held is the kernel's own count of a node's entries.
func (r *rig) held(d *nettest.Daemon) int {
	r.Helper()
	n, err := d.Node.Held()
	r.OK(err)
	return n
}

// toldNothing fails if a daemon was told of what another has committed. After
// some seconds it is told on purpose, which that other counts.
func (r *rig) toldNothing(by, whom *nettest.Daemon) {
	r.Helper()
	_, external, err := whom.Sizes(r.Context())
	r.OK(err)
	if external != 0 && r.Number(r.Request(by, "-s", "health"), `retold: (\d+)`) == 0 {
		r.Errorf("the committed entries were sent back: %d", external)
	}
}

// cached waits until the caches of a daemon have so many entries; -1: any.
func (r *rig) cached(d *nettest.Daemon, internal, external int) {
	r.Helper()
	r.Eventually(fmt.Sprintf("%d internal and %d external entries", internal, external), func() error {
		i, e, err := d.Sizes(r.Context())
		if err != nil {
			return err
		}
		if internal >= 0 && i != internal || external >= 0 && e != external {
			return fmt.Errorf("%d internal and %d external entries", i, e)
		}
		return nil
	})
}

// reports fails as long as a line is not in the log so often.
func (r *rig) reports(d *nettest.Daemon, text string, times int) error {
	if n := r.logged(d, text); n < times {
		return fmt.Errorf("%q is in the log %d times, want %d", text, n, times)
	}
	return nil
}
