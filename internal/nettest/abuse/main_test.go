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
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
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

// rig is two nodes with a daemon each. What is done to them is done to a,
// unless a test says otherwise.
type rig struct {
	*duo.Rig
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
	return &rig{Rig: duo.New(t, nettest.Go, peer, change)}
}

// start starts both and waits until flows go both ways.
func (r *rig) start() *rig {
	r.Helper()
	r.Start()
	r.pids = [2]int{r.A.Proc().PID(), r.B.Proc().PID()}
	r.Must(r.Writer(r.Two.A).Create(flood.UDPFlows(1, 0, 50)))
	r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(2, 0, 50)))
	r.inStep()
	return r
}

// startA starts a, with b running, and waits for nothing but its answer.
func (r *rig) startA() {
	r.Helper()
	r.OK(r.A.Start(r.Context()))
	r.pids = [2]int{r.A.Proc().PID(), r.B.Proc().PID()}
}

// inStep waits until kernels and caches are equal, in both directions, and so
// they are after new flows: what was there before may hide that nothing
// arrives any more.
func (r *rig) inStep() {
	r.Helper()
	both := func(what string) {
		r.Helper()
		r.Eventually(what, func() error {
			if err := nettest.InStep(r.Context(), r.A, r.B); err != nil {
				return err
			}
			return nettest.InStep(r.Context(), r.B, r.A)
		})
	}
	both("the caches to be in step")
	r.next++
	for i, n := range []*nettest.Node{r.Two.A, r.Two.B} {
		r.Must(r.Writer(n).Create(flood.UDPFlows(byte(200+i), r.next, r.next+1)))
	}
	both("new flows to arrive")
}

// alive fails unless both daemons are the processes that were started.
func (r *rig) alive() {
	r.Helper()
	for i, d := range []*nettest.Daemon{r.A, r.B} {
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
	all := r.Messages(r.A)
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

// saysOnce is says of a line that comes when something begins to go wrong and,
// as long as that goes on, once a minute. since is not after it began.
func (r *rig) saysOnce(n int, pattern string, since time.Time) {
	r.Helper()
	r.says(n, pattern, 1, 1+int(time.Since(since)/time.Minute))
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
	u.kib, err = r.A.Proc().RSS()
	r.OK(err)
	u.descriptors, err = r.A.Proc().Descriptors()
	r.OK(err)
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
