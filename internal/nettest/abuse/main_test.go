// Package abuse_test treats our daemon badly while a pair replicates: garbage
// on the sync link, bad clients, a full disk, links that go, a process that is
// stopped, a full kernel table. Each time it must stay up, go on with what it
// can, say the cause once with a count, and be in step again by itself when the
// cause is gone, without a restart of anything.
//
// ABUSE_TIME is how long the floods last ("1m"; 5 s without).
package abuse_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

func TestMain(m *testing.M) {
	// Most of what is parallel waits.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	code := m.Run()
	nettest.RemoveGoBinary()
	os.Exit(code)
}

// patience bounds every wait for something that takes milliseconds, or with
// loss some seconds.
const patience = 30 * time.Second

// floodTime is how long a flood lasts.
func floodTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("ABUSE_TIME")
	if text == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("ABUSE_TIME: %v", err)
	}
	return d
}

// rig is two nodes joined by the sync link, with a daemon each. What is done
// to them is done to a, unless a test says otherwise.
type rig struct {
	*testing.T
	lab  *nettest.Lab
	two  *nettest.TwoNodes
	a, b *nettest.Daemon
	pids [2]int
	next int // number of the next flow made by inStep
}

// newRig makes a rig of two of our daemons that do not run yet. change adapts
// the configurations and may be nil.
func newRig(t *testing.T, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	return newRigOf(t, nettest.Go, change)
}

// newRigOf is newRig with a peer of another kind.
func newRigOf(t *testing.T, peer nettest.Kind, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	r := &rig{T: t, lab: nettest.Get(t)}
	nettest.Need(t, nettest.Go, peer)
	var err error
	r.two, err = r.lab.NewTwoNodes()
	r.ok(err)
	ca, cb := nettest.SyncConfigs(false)
	if change != nil {
		change(&ca, &cb)
	}
	r.a, err = r.lab.NewDaemon(r.two.A, nettest.Go, ca)
	r.ok(err)
	r.b, err = r.lab.NewDaemon(r.two.B, peer, cb)
	r.ok(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("a:\n%s\nb:\n%s", r.a.Log(40), r.b.Log(40))
		}
	})
	return r
}

// start starts both and waits until flows go both ways.
func (r *rig) start() *rig {
	r.Helper()
	for i, d := range []*nettest.Daemon{r.a, r.b} {
		r.ok(d.Start(r.Context()))
		r.pids[i] = d.Proc().PID()
	}
	r.must(r.writer(r.two.A).Create(flood.UDPFlows(1, 0, 50)))
	r.must(r.writer(r.two.B).Create(flood.UDPFlows(2, 0, 50)))
	r.inStep()
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

// inStep waits until kernels and caches are equal, in both directions, and so
// they are after new flows: what was there before may hide that nothing
// arrives any more.
func (r *rig) inStep() {
	r.Helper()
	both := func(what string) {
		r.Helper()
		r.eventually(what, func() error {
			if err := nettest.InStep(r.Context(), r.a, r.b); err != nil {
				return err
			}
			return nettest.InStep(r.Context(), r.b, r.a)
		})
	}
	both("the caches to be in step")
	r.next++
	for i, n := range []*nettest.Node{r.two.A, r.two.B} {
		r.must(r.writer(n).Create(flood.UDPFlows(byte(200+i), r.next, r.next+1)))
	}
	both("new flows to arrive")
}

// alive fails unless both daemons are the processes that were started.
func (r *rig) alive() {
	r.Helper()
	for i, d := range []*nettest.Daemon{r.a, r.b} {
		if !d.Running() || d.Proc().PID() != r.pids[i] {
			r.Fatalf("%s has ended: %v", d, d.Proc().Err())
		}
	}
}

// recovered is what must be true at the end of each test.
func (r *rig) recovered() {
	r.Helper()
	r.alive()
	r.inStep()
}

// lines returns the lines of a's log after the first n.
func (r *rig) lines(n int) []string {
	r.Helper()
	all, err := r.a.Messages()
	r.ok(err)
	return all[min(n, len(all)):]
}

// says fails unless the log got so many lines that match, after the first n.
func (r *rig) says(n int, pattern string, least, most int) {
	r.Helper()
	got := 0
	for _, l := range r.lines(n) {
		if regexp.MustCompile(pattern).MatchString(l) {
			got++
		}
	}
	if got < least || got > most {
		r.Errorf("%d lines like %q, want %d to %d; the log:\n%s", got, pattern, least, most, strings.Join(r.lines(n), "\n"))
	}
}

// short fails if the log got more than so many lines after the first n.
func (r *rig) short(n, most int) {
	r.Helper()
	if got := r.lines(n); len(got) > most {
		r.Errorf("%d lines, want at most %d; the log:\n%s", len(got), most, strings.Join(got, "\n"))
	}
}

// usage is what a process holds.
type usage struct{ kib, descriptors int }

func (r *rig) usage() (u usage) {
	r.Helper()
	var err error
	u.kib, err = r.a.Proc().RSS()
	r.ok(err)
	u.descriptors, err = r.a.Proc().Descriptors()
	r.ok(err)
	return u
}

// bounded fails if the daemon holds much more than it did before.
func (r *rig) bounded(before usage, kib, descriptors int) {
	r.Helper()
	now := r.usage()
	if now.kib > before.kib+kib || now.descriptors > before.descriptors+descriptors {
		r.Errorf("%d KiB and %d descriptors, want at most %d more than %d and %d more than %d",
			now.kib, now.descriptors, kib, before.kib, descriptors, before.descriptors)
	}
}

// inBackground runs f; the function returned waits for it.
func inBackground[T any](f func() (T, error)) (wait func() (T, error)) {
	var result T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = f()
	}()
	return func() (T, error) {
		<-done
		return result, err
	}
}

// number finds a counter in a report.
func (r *rig) number(report, pattern string) (n int) {
	r.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(report)
	if m == nil {
		r.Fatalf("no %s in %q", pattern, report)
	}
	_, err := fmt.Sscan(m[1], &n)
	r.ok(err)
	return n
}
