// Package duo is what the tests of two daemons share: two nodes joined by the
// sync link with a daemon on each, and ways to ask, to wait and to read that
// end the test themselves when something fails.
package duo

import (
	"encoding/binary"
	"errors"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// Patience bounds every wait for something that takes milliseconds, or with
// loss some seconds.
const Patience = 30 * time.Second

// logged is how many lines of each log a failed test shows.
const logged = 40

// Rig is two nodes and their daemons.
type Rig struct {
	*testing.T
	Lab  *nettest.Lab
	Two  *nettest.TwoNodes
	A, B *nettest.Daemon
}

// New makes a rig with daemons of two kinds that do not run yet. change adapts
// the configurations and may be nil.
func New(t *testing.T, a, b nettest.Kind, change func(a, b *nettest.Config)) *Rig {
	t.Helper()
	r := &Rig{T: t, Lab: nettest.Get(t)}
	nettest.Need(t, a, b)
	var err error
	r.Two, err = r.Lab.NewTwoNodes()
	r.OK(err)
	ca, cb := nettest.SyncConfigs(false)
	if change != nil {
		change(&ca, &cb)
	}
	r.A, err = r.Lab.NewDaemon(r.Two.A, a, ca)
	r.OK(err)
	r.B, err = r.Lab.NewDaemon(r.Two.B, b, cb)
	r.OK(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("a:\n%s\nb:\n%s", r.A.Log(logged), r.B.Log(logged))
		}
	})
	return r
}

// Start starts both daemons.
func (r *Rig) Start() {
	r.Helper()
	r.OK(r.A.Start(r.Context()))
	r.OK(r.B.Start(r.Context()))
}

// OK ends the test at an error.
func (r *Rig) OK(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// Eventually waits until check returns nil.
func (r *Rig) Eventually(what string, check func() error) {
	r.Helper()
	r.OK(nettest.Eventually(r.Context(), Patience, what, check))
}

// Request runs a client and returns what it printed.
func (r *Rig) Request(d *nettest.Daemon, args ...string) string {
	r.Helper()
	out, err := d.Client(r.Context(), args...)
	r.OK(err)
	return out
}

// Dial connects to a daemon's control socket and sends some bytes, for a client
// that may be a bad one.
func (r *Rig) Dial(d *nettest.Daemon, request []byte) net.Conn {
	r.Helper()
	conn, err := net.Dial("unix", d.Config.Socket)
	r.OK(err)
	r.Cleanup(func() { conn.Close() })
	if len(request) > 0 {
		if _, err := conn.Write(request); err != nil && !errors.Is(err, net.ErrClosed) {
			r.Logf("write: %v", err) // it had to make room already
		}
	}
	return conn
}

// Ask is what a client sends that has a request of this number.
func Ask(code int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(code)) }

// Writer changes the kernel's table of a node until the end of the test.
func (r *Rig) Writer(n *nettest.Node) *flood.Writer {
	r.Helper()
	w, err := flood.Open(n.Do)
	r.OK(err)
	r.Cleanup(func() { w.Close() })
	return w
}

// Must takes what a Writer returns.
func (r *Rig) Must(result flood.Result, err error) {
	r.Helper()
	r.OK(err)
	r.OK(result.Err())
}

// Messages returns the texts of a daemon's log file, oldest first.
func (r *Rig) Messages(d *nettest.Daemon) []string {
	r.Helper()
	all, err := d.Messages()
	r.OK(err)
	return all
}

// Number finds a number in a report: the first group of the pattern.
func (r *Rig) Number(report, pattern string) int {
	r.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(report)
	if m == nil {
		r.Fatalf("no %s in %q", pattern, report)
	}
	n, err := strconv.Atoi(m[1])
	r.OK(err)
	return n
}
