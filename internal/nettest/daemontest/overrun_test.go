package daemontest_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// newOverrunRig has a receive buffer for events that holds a few of them.
func newOverrunRig(t *testing.T, lines ...string) *rig {
	r := newRig(t, func(a, _ *nettest.Config) {
		a.GeneralLines = append([]string{"NetlinkBufferSize 16384", "NetlinkBufferSizeMaxGrowth 65536"}, lines...)
	})
	return r.start()
}

// overrun stops the daemon while flows come and go.
func (r *rig) overrun(from, to int) {
	r.Helper()
	w := r.Writer(r.Two.A)
	before := r.counter(r.A, "netlink overrun")
	r.OK(r.A.Proc().Signal(syscall.SIGSTOP))
	r.Must(w.Create(flows(1, from, to)))
	r.Must(w.Delete(flows(1, from, (from+to)/2)))
	r.OK(r.A.Proc().Signal(syscall.SIGCONT))
	r.Eventually("an overrun", func() error {
		if r.counter(r.A, "netlink overrun") == before {
			return errors.New("none counted")
		}
		return nil
	})
}

// inStep compares kernel, internal cache and the other node's external cache.
func (r *rig) inStep() error { return nettest.InStep(r.Context(), r.A, r.B) }

// TestOverrun loses events again and again: each time everything is in step
// again by itself.
func TestOverrun(t *testing.T) {
	r := newOverrunRig(t)
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, 1000)))
	r.Eventually("the start", r.inStep)
	const churn = 20000
	for i := range 3 {
		r.overrun(1000+i*churn, 1000+(i+1)*churn)
		// What was there from the start goes unseen, too.
		r.Must(r.Writer(r.Two.A).Delete(flows(1, i*100, i*100+100)))
		r.Eventually("the repair", r.inStep)
		if n := r.counter(r.A, "resync with kernel table"); n < i+1 {
			t.Errorf("%d resyncs counted after %d overruns", n, i+1)
		}
	}
	if size := r.counter(r.A, "current buffer size (in bytes)"); size != 65536 {
		t.Errorf("the buffer has %d bytes, want the limit", size)
	}
	for _, line := range []string{
		"[notice] netlink event socket buffer size has been set to 16384 bytes",
		"[notice] netlink event socket buffer size has been doubled to 32768 bytes",
		"[notice] netlink event socket buffer size has been doubled to 65536 bytes",
	} {
		if n := r.logged(r.A, line); n != 1 {
			t.Errorf("%d times in the log: %s", n, line)
		}
	}
	if failed, overruns := r.counter(r.A, "catch event failed"), r.counter(r.A, "netlink overrun"); failed < overruns {
		t.Errorf("%d failures counted, but %d overruns", failed, overruns)
	}
}

// TestOverrunWhileStarved gives the daemon so little of the processor that it
// takes long to read what was queued: all the while the kernel drops what
// comes, and says so only once.
func TestOverrunWhileStarved(t *testing.T) {
	r := newRig(t, func(a, _ *nettest.Config) { a.GeneralLines = []string{"NetlinkBufferSize 67108864"} })
	r.start()
	const many, pulses = 120000, 40
	w := r.Writer(r.Two.A)
	proc := r.A.Proc()
	r.OK(proc.Signal(syscall.SIGSTOP))
	r.Must(w.Create(flows(1, 0, many)))
	for i := range pulses {
		r.OK(proc.Signal(syscall.SIGCONT))
		time.Sleep(3 * time.Millisecond)
		r.OK(proc.Signal(syscall.SIGSTOP))
		time.Sleep(40 * time.Millisecond)
		r.Must(w.Create(flows(2, i*100, i*100+100)))
		r.Must(w.Delete(flows(1, i*100, i*100+100)))
	}
	r.OK(proc.Signal(syscall.SIGCONT))
	r.Eventually("the repair", func() error {
		kernel := r.count(r.A)
		internal, _, err := r.A.Sizes(t.Context())
		if err != nil {
			return err
		}
		_, external, err := r.B.Sizes(t.Context())
		if internal != kernel || external != kernel {
			return fmt.Errorf("%d entries in the kernel, %d in the internal cache, %d at the other node (%v)", kernel, internal, external, err)
		}
		return nil
	})
	if r.counter(r.A, "netlink overrun") == 0 {
		t.Error("no overrun: the test shows nothing")
	}
}

// TestOverrunUnrepaired has the repair turned off: the cache stays as it is
// until -R.
func TestOverrunUnrepaired(t *testing.T) {
	r := newOverrunRig(t, "NetlinkOverrunResync off")
	r.overrun(0, 20000)
	r.OK(nettest.Throughout(t.Context(), 1500*time.Millisecond, func() error {
		if n := r.counter(r.A, "resync with kernel table"); n != 0 {
			return fmt.Errorf("%d resyncs counted", n)
		}
		return nil
	}))
	r.Eventually("a line that says so", func() error {
		return r.reports(r.A, "[warning] kernel events were lost (netlink overrun): flows are wrong here until -R", 1)
	})
	if internal, _, err := r.A.Sizes(t.Context()); err != nil || internal == r.count(r.A) {
		t.Errorf("the internal cache is in step (%d entries, %v): the test shows nothing", internal, err)
	}
	r.Request(r.A, "-R")
	r.cached(r.A, r.count(r.A), -1)
}

// TestOverrunWithoutInternalCache: nobody knows which events were lost, so the
// other node gets the whole table.
func TestOverrunWithoutInternalCache(t *testing.T) {
	for _, repaired := range []bool{true, false} {
		t.Run(fmt.Sprint(repaired), func(t *testing.T) {
			r := newRig(t, func(a, b *nettest.Config) {
				a.Mode, b.Mode = "NOTRACK", "NOTRACK"
				a.ModeLines = []string{"DisableInternalCache on"}
				a.GeneralLines = []string{"NetlinkBufferSize 16384", "NetlinkBufferSizeMaxGrowth 65536"}
				if !repaired {
					a.GeneralLines = append(a.GeneralLines, "NetlinkOverrunResync off")
				}
			}).start()
			const many = 10000
			r.OK(r.A.Proc().Signal(syscall.SIGSTOP))
			r.Must(r.Writer(r.Two.A).Create(flows(1, 0, many)))
			r.OK(r.A.Proc().Signal(syscall.SIGCONT))
			if repaired {
				r.cached(r.B, -1, many)
				r.Eventually("a line that says so", func() error {
					return r.reports(r.A, "[warning] kernel events were lost (netlink overrun), sending the conntrack table", 1)
				})
				// What B asked for at the start may bring the entries before the
				// repair does.
				r.Eventually("the repair", func() error {
					if r.counter(r.A, "resync with kernel table") == 0 {
						return errors.New("no resync counted")
					}
					return nil
				})
				return
			}
			r.Eventually("a line that says so", func() error {
				return r.reports(r.A, "[warning] kernel events were lost (netlink overrun): flows are wrong at the other node until -B", 1)
			})
			r.OK(nettest.Throughout(t.Context(), 1500*time.Millisecond, func() error {
				if n := r.counter(r.A, "resync with kernel table"); n != 0 {
					return fmt.Errorf("%d resyncs counted", n)
				}
				return nil
			}))
			r.Request(r.A, "-B")
			r.cached(r.B, -1, many)
		})
	}
}

// TestCommitAgainstStaleCache commits entries of which the internal cache
// wrongly believes that the kernel has them: because the events of their ends
// were lost, or because there are no events at all. They must be written.
func TestCommitAgainstStaleCache(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
	}{
		{"events lost", []string{"NetlinkBufferSize 16384", "NetlinkBufferSizeMaxGrowth 65536", "NetlinkOverrunResync off"}},
		{"no events", []string{"PollSecs 3600"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, func(a, _ *nettest.Config) { a.GeneralLines = test.lines }).start()
			const many = 3000
			r.Must(r.Writer(r.Two.B).Create(flows(1, 0, many)))
			r.cached(r.A, -1, many)
			r.Request(r.A, "-c")
			r.Request(r.A, "-R")
			r.cached(r.A, many, many)
			r.OK(r.A.Proc().Signal(syscall.SIGSTOP))
			r.Must(r.Writer(r.Two.A).Delete(flows(1, 0, many)))
			r.OK(r.A.Proc().Signal(syscall.SIGCONT))
			r.Eventually("the loss to be known", func() error {
				if r.counter(r.A, "netlink overrun") == 0 && test.name == "events lost" {
					return errors.New("no overrun")
				}
				return nil
			})
			if internal, _, err := r.A.Sizes(t.Context()); err != nil || internal == 0 {
				t.Errorf("the internal cache is right (%v): the test shows nothing", err)
			}
			r.Request(r.A, "-c")
			if n := r.count(r.A); n != many {
				t.Errorf("%d entries in the kernel after the commit, want %d", n, many)
			}
		})
	}
}

// TestReliable loses no ends of flows however small the buffer is: the kernel
// delivers them again, and no overrun is said or repaired.
func TestReliable(t *testing.T) {
	r := newRig(t, func(a, _ *nettest.Config) {
		a.GeneralLines = []string{"NetlinkBufferSize 65536", "NetlinkBufferSizeMaxGrowth 65536", "NetlinkEventsReliable on"}
	}).start()
	const many = 1000
	w := r.Writer(r.Two.A)
	for from := 0; from < many; from += 20 { // slowly: only ends are delivered again by themselves
		r.Must(w.Create(flows(1, from, from+20)))
		r.cached(r.A, from+20, -1)
	}
	r.cached(r.B, -1, many)
	r.OK(r.A.Proc().Signal(syscall.SIGSTOP))
	r.Must(w.Delete(flows(1, 0, many)))
	r.OK(r.A.Proc().Signal(syscall.SIGCONT))
	r.cached(r.A, 0, -1)
	r.cached(r.B, -1, 0)
	for _, name := range []string{"netlink overrun", "resync with kernel table", "catch event failed"} {
		if n := r.counter(r.A, name); n != 0 {
			t.Errorf("%s: %d", name, n)
		}
	}
	if n := r.logged(r.A, "reliable ctnetlink event delivery is ENABLED."); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
}
