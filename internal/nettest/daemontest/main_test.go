// Package daemontest_test runs our daemon as a process: how it starts and
// ends, what it leaves behind, and how it stands stalled clients, signals,
// overruns and hostile peers. Agreement with the C daemon is tested in itest.
package daemontest_test

import (
	"encoding/binary"
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
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

func TestMain(m *testing.M) {
	code := m.Run()
	nettest.RemoveGoBinary()
	os.Exit(code)
}

// patience bounds every wait for something that takes milliseconds.
const patience = 20 * time.Second

// rig is two nodes joined by the sync link, with a daemon each that does not
// run yet.
type rig struct {
	*testing.T
	lab    *nettest.Lab
	two    *nettest.TwoNodes
	a, b   *nettest.Daemon
	binary string
}

// newRig makes a rig. change adapts the configurations and may be nil.
func newRig(t *testing.T, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	r := &rig{T: t, lab: nettest.Get(t)}
	nettest.Need(t, nettest.Go)
	var err error
	r.binary, err = nettest.GoBinary()
	r.ok(err)
	r.two, err = r.lab.NewTwoNodes()
	r.ok(err)
	ca, cb := nettest.SyncConfigs(false)
	if change != nil {
		change(&ca, &cb)
	}
	r.a, err = r.lab.NewDaemon(r.two.A, nettest.Go, ca)
	r.ok(err)
	r.b, err = r.lab.NewDaemon(r.two.B, nettest.Go, cb)
	r.ok(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("a:\n%s\nb:\n%s", r.a.Log(30), r.b.Log(30))
		}
	})
	return r
}

func (r *rig) start() *rig {
	r.Helper()
	r.ok(r.a.Start(r.Context()))
	r.ok(r.b.Start(r.Context()))
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) eventually(what string, check func() error) {
	r.Helper()
	r.ok(nettest.Eventually(r.Context(), patience, what, check))
}

func (r *rig) request(d *nettest.Daemon, args ...string) string {
	r.Helper()
	out, err := d.Client(r.Context(), args...)
	r.ok(err)
	return out
}

// background runs the daemon with -d and returns its process id, which it
// writes into its lock file.
func (r *rig) background(d *nettest.Daemon) int {
	r.Helper()
	_, err := d.Node.Run(r.binary, "-C", d.ConfigPath, "-d")
	r.ok(err)
	return r.pid(d)
}

func (r *rig) pid(d *nettest.Daemon) int {
	r.Helper()
	text, err := os.ReadFile(d.Config.Lock)
	r.ok(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	r.ok(err)
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
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// connect sends a request number over a connection of the test's own, so that
// it can be a bad client.
func (r *rig) connect(d *nettest.Daemon, code int32) net.Conn {
	r.Helper()
	conn, err := net.Dial("unix", d.Config.Socket)
	r.ok(err)
	r.Cleanup(func() { conn.Close() })
	_, err = conn.Write(binary.NativeEndian.AppendUint32(nil, uint32(code)))
	r.ok(err)
	return conn
}

func (r *rig) finish(conn net.Conn) string {
	r.Helper()
	text, err := io.ReadAll(conn)
	r.ok(err)
	return string(text)
}

// messages returns the texts of a daemon's log file, oldest first.
func (r *rig) messages(d *nettest.Daemon) []string {
	r.Helper()
	all, err := d.Messages()
	r.ok(err)
	return all
}

func (r *rig) logged(d *nettest.Daemon, text string) (n int) {
	r.Helper()
	for _, m := range r.messages(d) {
		if strings.Contains(m, text) {
			n++
		}
	}
	return n
}

// counter reads a line of "-s runtime".
func (r *rig) counter(d *nettest.Daemon, name string) int {
	r.Helper()
	out := r.request(d, "-s", "runtime")
	m := regexp.MustCompile(regexp.QuoteMeta(name) + `:\s+(\d+)`).FindStringSubmatch(out)
	if m == nil {
		r.Fatalf("no counter %q in %q", name, out)
	}
	n, err := strconv.Atoi(m[1])
	r.ok(err)
	return n
}

// flows is a load of UDP flows 10.NET.x.y; none of them times out soon.
func flows(network byte, from, to int) flood.Load { return flood.UDPFlows(network, from, to) }

func (r *rig) writer(n *nettest.Node) *flood.Writer {
	r.Helper()
	w, err := flood.Open(n.Do)
	r.ok(err)
	r.Cleanup(func() { w.Close() })
	return w
}

func (r *rig) must(result flood.Result, err error) {
	r.Helper()
	r.ok(err)
	r.ok(result.Err())
}

func (r *rig) count(d *nettest.Daemon) int {
	r.Helper()
	n, err := d.Node.Count()
	r.ok(err)
	return n
}

// cached waits until the caches of a daemon have so many entries; -1: any.
func (r *rig) cached(d *nettest.Daemon, internal, external int) {
	r.Helper()
	r.eventually(fmt.Sprintf("%d internal and %d external entries", internal, external), func() error {
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
