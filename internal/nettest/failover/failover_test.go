package failover_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

func TestMain(m *testing.M) {
	code := m.Run()
	nettest.RemoveGoBinary()
	os.Exit(code)
}

const ourScript = "../../../contrib/primary-backup.sh"

// need skips the test without what a rig needs.
func need(t *testing.T, setups ...failover.Setup) {
	t.Helper()
	for _, tool := range []string{"keepalived", "unshare", "mount", "logger", "flock"} {
		if _, err := exec.LookPath(tool); err != nil {
			nettest.SkipUnlessCI(t, "no rig: %v", err)
		}
	}
	for _, s := range setups {
		nettest.Need(t, s.Kind)
		if _, err := os.Stat(s.Script); err != nil {
			nettest.SkipUnlessCI(t, "no script: %v", err)
		}
	}
}

func newRig(t *testing.T, o failover.Options) *failover.Rig {
	t.Helper()
	lab := nettest.Get(t)
	need(t, o.A, o.B)
	o.Busy, o.Idle, o.UDP = 20, 200, 12
	r, err := failover.New(lab, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.Describe())
		}
	})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// causes break A and B in turn, each in every way.
var causes = []*failover.Cause{
	failover.Stop, failover.Crash, failover.LanDown, failover.WanDown,
	failover.Crash, failover.Stop, failover.WanDown, failover.LanDown,
	failover.PowerCut, failover.PowerCut,
}

// stallLimit is far above what is expected (about a second) because the
// machine may be busy with other things, and TCP waits twice as long after each
// segment in vain.
const stallLimit = 15 * time.Second

// half of the idle connections stay silent until the end.
func half(i int) bool { return i%2 == 0 }

// TestFailover breaks the master ten times. Every connection must live on
// with the same translation and without losing or repeating data.
func TestFailover(t *testing.T) {
	stock := func(k nettest.Kind) failover.Setup { return failover.Setup{Kind: k, Script: failover.StockScript} }
	ours := func(k nettest.Kind) failover.Setup { return failover.Setup{Kind: k, Script: ourScript} }
	for _, test := range []struct {
		name string
		a, b failover.Setup
	}{
		{"Go_Go", ours(nettest.Go), ours(nettest.Go)},
		{"Go_C_stock_script", stock(nettest.Go), stock(nettest.C)},
		{"C_Go", ours(nettest.C), ours(nettest.Go)},
		{"Go_stock_Go_ours", stock(nettest.Go), ours(nettest.Go)},
		{"C_C_stock_script", stock(nettest.C), stock(nettest.C)},
	} {
		t.Run(test.name, func(t *testing.T) {
			begin := time.Now()
			r := newRig(t, failover.Options{A: test.a, B: test.b})
			t.Logf("ready after %v", time.Since(begin).Round(time.Millisecond))
			checkDaemons(t, r)
			for _, cause := range causes {
				result, err := r.Failover(t.Context(), cause, half)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(result)
				check(t, r, result)
				if err := r.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			asked, failed := r.Traffic.Probe(20*time.Second, failover.Everyone)
			for flow, err := range failed {
				t.Errorf("at the end: %s: %v", flow, err)
			}
			checkDaemons(t, r)
			t.Logf("at the end %d of %d idle connections work, %v in all", asked-len(failed), asked, time.Since(begin).Round(time.Millisecond))
		})
	}
}

// checkDaemons makes sure that the daemons are those the test is about, and
// that nothing went wrong in our own.
func checkDaemons(t *testing.T, r *failover.Rig) {
	t.Helper()
	for _, f := range []*failover.Firewall{r.A, r.B} {
		// A C daemon that purges is two for a moment.
		if err := nettest.Eventually(t.Context(), 10*time.Second, "one daemon on "+f.Name(), func() error {
			pids, err := f.DaemonPIDs()
			if err == nil && len(pids) != 1 {
				err = fmt.Errorf("%s daemons %v", f.Setup.Kind, pids)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		log, err := os.ReadFile(f.Daemon.Config.LogFile)
		if err != nil {
			t.Error(err)
		}
		if f.Setup.Kind == nettest.Go && bytes.Contains(log, []byte("can't be committed")) {
			t.Errorf("firewall %s could not commit everything:\n%s", f.Name(), log)
		}
		runs, err := f.Runs()
		for _, run := range runs {
			if run.Exit != 0 {
				t.Errorf("firewall %s: script %s: exit code %d", f.Name(), run.State, run.Exit)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func check(t *testing.T, r *failover.Rig, result *failover.Result) {
	t.Helper()
	for _, err := range result.Dead {
		t.Errorf("after %s on %s: dead: %v", result.Cause, result.From, err)
	}
	if total := result.Total(); total.Asked != 20+100+12 {
		t.Errorf("%d flows were asked", total.Asked)
	}
	if result.Before != 220 || result.Held != 220 {
		t.Errorf("%d TCP connections in the old master's table, %d in the new one's, want 220 in both", result.Before, result.Held)
	}
	if stall := result.Max(failover.Busy); stall <= 0 || stall > stallLimit {
		t.Errorf("after %s on %s: a TCP connection stalled for %v", result.Cause, result.From, stall)
	}
	if err := errors.Join(r.CheckTranslations(), r.Complaints()); err != nil {
		t.Errorf("after %s on %s: %v", result.Cause, result.From, err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// TestHeldFailover has UDP flows that are older than their kernel timeout on
// the backup, which is told of a failover by the script as always. With
// HoldInjected they live on, and TCP without any commit, there and back again.
// In the control runs, which are conntrackd's way, not one does, and TCP is lost
// too: the purge that the script orders on a backup takes what is injected.
func TestHeldFailover(t *testing.T) {
	const called, udpTimeout, hold = 12, 5, 6
	for _, test := range []struct {
		name string
		kind nettest.Kind
		hold int
	}{{"Go_held", nettest.Go, hold}, {"Go", nettest.Go, 0}, {"C", nettest.C, 0}} {
		t.Run(test.name, func(t *testing.T) {
			setup := failover.Setup{Kind: test.kind, Script: ourScript}
			r := newRig(t, failover.Options{A: setup, B: setup, Called: called, Entries: 20_000,
				Inject: true, Hold: test.hold, UDPTimeout: udpTimeout, Settle: 5 * time.Second})
			causes := []*failover.Cause{failover.Stop}
			if test.hold != 0 {
				causes = append(causes, failover.Crash, failover.LanDown)
			}
			for _, cause := range causes {
				age := time.Now().Add((2*udpTimeout + hold) * time.Second)
				if err := nettest.Throughout(t.Context(), time.Until(age), func() error { return nil }); err != nil {
					t.Fatal(err)
				}
				result, err := r.Failover(t.Context(), cause, half)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(result)
				want := failover.Count{Asked: called}
				if test.hold != 0 {
					want.Alive = called
				}
				if got := result.Count[failover.Called]; got != want {
					t.Errorf("after %s: of the UDP flows that are called %+v, want %+v: %v", cause, got, want, errors.Join(result.Dead...))
				}
				if t.Failed() || test.hold == 0 {
					return
				}
				for _, role := range []failover.Role{failover.Busy, failover.Idle} {
					if c := result.Count[role]; c.Alive != c.Asked || c.Asked == 0 {
						t.Fatalf("after %s: %d of %d %s connections live: %v", cause, c.Alive, c.Asked, role, errors.Join(result.Dead...))
					}
				}
				if stall := result.Max(failover.Busy); stall > stallLimit {
					t.Errorf("after %s: a TCP connection stalled for %v", cause, stall)
				}
				if err := r.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestNoSegmentIsLost: what is in the backup's kernel needs no commit, so with
// kernels that take the segments of a connection as they come a failover costs
// no segment, with ours as with C, although the server is late to hear of it.
// The control is a kernel as it is by default: the old master drops what comes
// back through it. One failover of several is enough: a busy machine is late, too.
func TestNoSegmentIsLost(t *testing.T) {
	for _, test := range []struct {
		name    string
		kind    nettest.Kind
		liberal bool
	}{{"Go", nettest.Go, true}, {"C", nettest.C, true}, {"Go_strict", nettest.Go, false}} {
		t.Run(test.name, func(t *testing.T) {
			setup := failover.Setup{Kind: test.kind, Script: ourScript}
			r := newRig(t, failover.Options{A: setup, B: setup, Inject: true, Hold: 60, Liberal: test.liberal,
				Late: 2 * time.Second, PurgeTimeout: 600})
			for range 6 {
				result, err := r.Failover(t.Context(), failover.Stop, half)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(result)
				if len(result.Dead) > 0 {
					t.Fatalf("dead: %v", errors.Join(result.Dead...))
				}
				if none := result.Resent == 0; none == test.liberal {
					return
				}
				if err := r.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			t.Errorf("segments were sent again: %v, want %v", test.liberal, !test.liberal)
		})
	}
}

// TestWithoutDaemon is the control: the same rig without a daemon loses every
// TCP connection, so the daemons are what keeps them in TestFailover.
func TestWithoutDaemon(t *testing.T) {
	r := newRig(t, failover.Options{NoDaemon: true, Settle: 4 * time.Second,
		A: failover.Setup{Kind: nettest.C, Script: ourScript}, B: failover.Setup{Kind: nettest.C, Script: ourScript}})
	result, err := r.Failover(t.Context(), failover.Stop, failover.Everyone)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(result)
	if result.Before != 220 || result.Held != 0 {
		t.Errorf("%d TCP connections in the old master's table, %d in the new one's, want 220 and 0", result.Before, result.Held)
	}
	for _, role := range []failover.Role{failover.Busy, failover.Idle} {
		if c := result.Count[role]; c.Alive != 0 || c.Asked == 0 {
			t.Errorf("%d of %d %s connections live without a daemon: the rig shows nothing", c.Alive, c.Asked, role)
		}
	}
}
