package itest_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// withReconcile lets A lose events and never make up for it by itself; with a
// comparison each second, or without.
func withReconcile(on bool) func(a, b *nettest.Config) {
	return func(a, b *nettest.Config) {
		withStartupResync(a, b)
		a.GeneralLines = []string{"NetlinkBufferSize 4096", "NetlinkBufferSizeMaxGrowth 4096", "NetlinkOverrunResync off"}
		if on {
			a.Extra = "Conntrackgo {\n\tReconcile 1\n}\n"
		}
	}
}

// whileStopped does something while a daemon does nothing.
func (r *rig) whileStopped(d *nettest.Daemon, do func()) {
	r.Helper()
	r.ok(d.Proc().Signal(syscall.SIGSTOP))
	defer func() { r.ok(d.Proc().Signal(syscall.SIGCONT)) }()
	do()
}

// driftOf compares A's internal cache with its kernel.
func (r *rig) driftOf(d *nettest.Daemon) error {
	r.Helper()
	internal, err := d.Internal(r.Context())
	if err != nil {
		return err
	}
	kernel, err := d.Node.Kernel()
	if err != nil {
		return err
	}
	return nettest.DiffInternal(kernel, internal).Err()
}

// loseEvents changes A's kernel until its daemon, stopped meanwhile, has missed
// something: flows that began, that changed and that ended.
func (r *rig) loseEvents(w *flood.Writer) {
	r.Helper()
	r.cachesAgree(r.a, r.b, 1000)
	r.whileStopped(r.a, func() {
		r.must(w.Create, load(1000, 5000, 0, 0, nil)) // fills the buffer
		r.must(w.Update, load(0, 500, 0, 7<<20, nil))
		r.must(w.Delete, load(500, 1000, 0, 0, nil))
	})
}

// TestReconcile loses events for good. With a comparison both nodes are right
// again by themselves; without they stay wrong.
func TestReconcile(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]bool{"on": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, nettest.Go)
			r := newRig(t, pairing{nettest.Go, nettest.Go}, withReconcile(on))
			w := r.flood(r.two.A)
			r.must(w.Create, load(0, 1000, 0, 0, nil)) // before the daemon, whose buffer is too small for that
			r.start()
			r.handshake()
			r.loseEvents(w)
			if on {
				r.eventually("the internal cache to be what the kernel has", func() error { return r.driftOf(r.a) })
				r.cachesAgree(r.a, r.b, 4500)
				r.eventually("a line about it", func() error {
					return r.logs(r.a, "the internal cache was not what the kernel has")
				})
				return
			}
			// Four times as long as the other needs, and still.
			for until := time.Now().Add(4 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
				if r.driftOf(r.a) == nil {
					t.Fatal("the control is right by itself: no event was lost, the test shows nothing")
				}
			}
		})
	}
}

// TestReconcileFindsNothing compares amid a load of which no event is lost.
func TestReconcileFindsNothing(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.Go)
	r := newRig(t, pairing{nettest.Go, nettest.Go}, func(a, b *nettest.Config) {
		withStartupResync(a, b)
		a.Extra = "Conntrackgo {\n\tReconcile 1\n}\n"
		a.GeneralLines = []string{"NetlinkBufferSize 16777216", "NetlinkBufferSizeMaxGrowth 16777216"}
	}).start()
	r.handshake()
	w := r.flood(r.two.A)
	r.must(w.Create, load(0, 5000, 0, 0, nil))
	for i := range 5 {
		from, to := 5000+1000*i, 6000+1000*i
		r.must(w.Create, load(from, to, 4000, 0, nil))
		r.must(w.Update, load(from, to, 4000, 1<<20, nil))
		r.must(w.Delete, load(from, to, 4000, 0, nil))
	}
	r.cachesAgree(r.a, r.b, 5000)
	if log := r.log(r.a); strings.Contains(log, "was not what the kernel has") {
		t.Errorf("found what was not lost:\n%s", log)
	}
}

var verifiedPattern = regexp.MustCompile(`commit verified: (\d+) of (\d+) entries`)

// verified waits for the n-th word about a commit.
func (r *rig) verified(d *nettest.Daemon, n int) (held, of int) {
	r.Helper()
	var all [][]string
	r.eventually("the commit to be verified", func() error {
		if all = verifiedPattern.FindAllStringSubmatch(r.log(d), -1); len(all) < n {
			return errors.New(d.Log(5))
		}
		return nil
	})
	held, _ = strconv.Atoi(all[n-1][1])
	of, _ = strconv.Atoi(all[n-1][2])
	return held, of
}

// TestCommitVerified commits in each combination of caches that has a commit,
// and looks at what is said of it: all are there; some are gone again; the
// script's requests follow at once.
func TestCommitVerified(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{"caches": nil, "no internal cache": {"DisableInternalCache on"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, nettest.Go)
			const flows = 3000
			r := newRig(t, pairing{nettest.Go, nettest.Go}, func(a, b *nettest.Config) {
				withStartupResync(a, b)
				if lines != nil {
					for _, c := range []*nettest.Config{a, b} {
						c.Mode, c.ModeLines = "NOTRACK", lines
					}
				}
			}).start()
			r.handshake()
			r.must(r.flood(r.two.A).Create, load(0, flows, 0, 0, nil))
			r.eventually("the flows to arrive", func() error {
				if s := r.request(r.b, "-s"); !strings.Contains(s, fmt.Sprintf("cache external:\ncurrent active connections:\t%12d", flows)) {
					return errors.New(s)
				}
				return nil
			})
			begin := time.Now()
			r.request(r.b, "-c")
			answered := time.Since(begin)
			if held, of := r.verified(r.b, 1); held != flows || of != flows {
				t.Errorf("%d of %d, want %d", held, of, flows)
			}
			if total := time.Since(begin); answered > total/2 {
				t.Errorf("the client waited %v of %v", answered, total)
			}

			r.request(r.b, "-c")
			r.must(r.flood(r.two.B).Delete, load(0, 100, 0, 0, nil))
			if held, of := r.verified(r.b, 2); held != flows-100 || of != flows {
				t.Errorf("%d of %d after 100 were taken out", held, of)
			}
			if lines != nil {
				return
			}
			for _, request := range []string{"-c", "-f", "-R", "-B"} {
				r.request(r.b, request)
			}
			// -R has read the table: there is nothing to wait for.
			all := verifiedPattern.FindAllStringSubmatch(r.log(r.b), -1)
			if len(all) != 3 || all[2][1] != strconv.Itoa(flows) || all[2][2] != all[2][1] {
				t.Errorf("after the script: %v", all)
			}
		})
	}
}

// TestReconcileCost measures a comparison of a large table. RECONCILE_FLOWS says
// how large.
func TestReconcileCost(t *testing.T) {
	flows, err := strconv.Atoi(os.Getenv("RECONCILE_FLOWS"))
	if err != nil {
		t.Skip("RECONCILE_FLOWS is not set")
	}
	nettest.Need(t, nettest.Go)
	const every = 15
	r := newRig(t, pairing{nettest.Go, nettest.Go}, func(a, b *nettest.Config) {
		a.Extra = fmt.Sprintf("Conntrackgo {\n\tReconcile %d\n}\n", every)
		a.HashLimit = 2 * flows
		a.GeneralLines = []string{"NetlinkBufferSize 67108864", "NetlinkBufferSizeMaxGrowth 67108864"}
	})
	r.ok(r.a.Start(t.Context()))
	r.must(r.flood(r.two.A).Create, load(0, flows, 0, 0, nil))
	r.eventually("the flows to arrive", func() error {
		if s := r.request(r.a, "-s"); !strings.Contains(s, fmt.Sprintf("connections:\t%12d", flows)) {
			return errors.New(s)
		}
		return nil
	})
	used := func() (seconds float64) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.a.Proc().PID()))
		r.ok(err)
		_, text, _ := strings.Cut(string(b), ") ")
		for _, ticks := range strings.Fields(text)[11:13] { // user and system, of 10 ms
			n, err := strconv.Atoi(ticks)
			r.ok(err)
			seconds += float64(n) / 100
		}
		return seconds
	}
	for range 4 {
		begin := used()
		time.Sleep(every * time.Second)
		t.Logf("%d flows: %.2f CPU s in %d s", flows, used()-begin, every)
	}
}
