// Package itest_test runs the daemons against the real kernel and against each
// other, in all four pairings of C and Go; C/C is the control that shows what
// a test is worth. See package nettest for the laboratory.
//
// A test that can't have our daemon (it doesn't build) is skipped with that
// reason, and fails if CI=true. To try a binary that is already there:
//
//	CONNTRACKGO_BIN=/path/to/conntrackgo go test ./internal/nettest/itest/ -run 'Attributes/Go_C'
package itest_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
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

// convergence bounds how long two nodes may take to agree after a quiet
// moment. Agreement normally takes milliseconds, after loss some seconds.
const convergence = 20 * time.Second

type pairing struct{ a, b nettest.Kind }

var pairings = []pairing{
	{nettest.C, nettest.C},
	{nettest.Go, nettest.C},
	{nettest.C, nettest.Go},
	{nettest.Go, nettest.Go},
}

// forPairings runs a test for every pairing, at most two at a time.
func forPairings(t *testing.T, f func(*testing.T, pairing)) {
	t.Parallel()
	for _, p := range pairings {
		t.Run(fmt.Sprintf("%s_%s", p.a, p.b), func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, p.a, p.b)
			f(t, p)
		})
	}
}

// rig is two nodes with a daemon each, not yet started.
type rig struct {
	*testing.T
	lab  *nettest.Lab
	two  *nettest.TwoNodes
	pair *nettest.Pair // only from newPairRig
	a, b *nettest.Daemon
}

// newRig makes a rig of two nodes without packets. change adapts the
// configurations and may be nil.
func newRig(t *testing.T, p pairing, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	r := &rig{T: t, lab: nettest.Get(t)}
	two, err := r.lab.NewTwoNodes()
	r.ok(err)
	r.two = two
	ca, cb := nettest.SyncConfigs(false)
	r.addDaemons(p, ca, cb, change)
	return r
}

// newPairRig makes a rig with client and server.
func newPairRig(t *testing.T, p pairing, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	r := &rig{T: t, lab: nettest.Get(t)}
	pair, err := r.lab.NewPair()
	r.ok(err)
	r.pair, r.two = pair, &pair.TwoNodes
	ca, cb := pair.Configs(false)
	r.addDaemons(p, ca, cb, change)
	return r
}

func (r *rig) addDaemons(p pairing, ca, cb nettest.Config, change func(a, b *nettest.Config)) {
	r.Helper()
	if change != nil {
		change(&ca, &cb)
	}
	var err error
	r.a, err = r.lab.NewDaemon(r.two.A, p.a, ca)
	r.ok(err)
	r.b, err = r.lab.NewDaemon(r.two.B, p.b, cb)
	r.ok(err)
	r.Cleanup(func() {
		if r.Failed() {
			ctx := context.Background()
			r.Logf("%s\n%s", r.a.State(ctx), r.b.State(ctx))
		}
	})
}

// start starts both daemons.
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

// request runs a client request of a daemon; it must succeed.
func (r *rig) request(d *nettest.Daemon, args ...string) string {
	r.Helper()
	out, err := d.Client(r.Context(), args...)
	r.ok(err)
	return out
}

func (r *rig) eventually(what string, check func() error) {
	r.Helper()
	r.ok(nettest.Eventually(r.Context(), convergence, what, check))
}

// handshake waits until neither side says HELLO any more. Before, a HELLO
// makes a C peer forget what it has not had acknowledged. No statistic shows
// the state of the handshake, but it takes three datagrams.
func (r *rig) handshake() {
	r.Helper()
	r.eventually("the handshake", func() error {
		for _, d := range []*nettest.Daemon{r.a, r.b} {
			if n := r.received(d); n < 3 {
				return fmt.Errorf("%s has received %d datagrams", d, n)
			}
		}
		return nil
	})
}

var receivedPattern = regexp.MustCompile(`Pckts sent\s+(\d+) Pckts recv`)

var errorPattern = regexp.MustCompile(`(\d+) Error send\s+(\d+) Error recv`)

func (r *rig) received(d *nettest.Daemon) int {
	r.Helper()
	m := receivedPattern.FindStringSubmatch(r.request(d, "-s", "network"))
	if m == nil {
		r.Fatalf("no received packets in -s network of %s", d)
	}
	n, err := strconv.Atoi(m[1])
	r.ok(err)
	return n
}

// cachesAgree waits until the internal cache of one daemon holds want entries
// and equals the external cache of the other.
func (r *rig) cachesAgree(from, to *nettest.Daemon, want int) {
	r.Helper()
	r.eventually(fmt.Sprintf("internal(%s) = external(%s)", from, to), func() error {
		internal, err := from.Internal(r.Context())
		if err != nil {
			return err
		}
		if len(internal) != want {
			return fmt.Errorf("the internal cache has %d entries, want %d", len(internal), want)
		}
		external, err := to.External(r.Context())
		if err != nil {
			return err
		}
		return nettest.DiffCaches(internal, external).Err()
	})
}

// count is the number of entries in the kernel of a daemon's node.
func (r *rig) count(d *nettest.Daemon) int {
	r.Helper()
	n, err := d.Node.Count()
	r.ok(err)
	return n
}

func (r *rig) kernel(n *nettest.Node) nettest.Table {
	r.Helper()
	t, err := n.Kernel()
	r.ok(err)
	return t
}

// sameKernels fails unless the standby's table equals the original's.
func (r *rig) sameKernels(original, standby *nettest.Node, k nettest.KernelDiff) {
	r.Helper()
	if err := k.Tables(r.kernel(original), r.kernel(standby)).Err(); err != nil {
		r.Errorf("kernel tables: %v", err)
	}
}

// flood opens a writer of kernel entries on a node.
func (r *rig) flood(n *nettest.Node) *flood.Writer {
	r.Helper()
	w, err := flood.Open(n.Do)
	r.ok(err)
	r.Cleanup(func() { _ = w.Close() })
	return w
}

// each makes a load of a list.
func each(flows []flood.Flow) flood.Load {
	return flood.Load{To: len(flows), Flow: func(i int, f *flood.Flow) { *f = flows[i] }}
}
