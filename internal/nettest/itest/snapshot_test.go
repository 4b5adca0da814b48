package itest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// snapshotFlows is how many flows the other node of these tests has.
const snapshotFlows = 3000

// withSnapshots gives our daemons a snapshot each, in dir; further lines of the
// section as given.
func withSnapshots(p pairing, dir string, lines ...string) func(a, b *nettest.Config) {
	return func(a, b *nettest.Config) {
		withStartupResync(a, b)
		for i, c := range []*nettest.Config{a, b} {
			if (i == 0 && p.a == nettest.Go) || (i == 1 && p.b == nettest.Go) {
				c.Extra = fmt.Sprintf("Conntrackgo {\n\tSnapshot %s\n\t%s\n}\n", snapshotPath(dir, "ab"[i:i+1]), strings.Join(lines, "\n\t"))
			}
		}
	}
}

func snapshotPath(dir, node string) string { return filepath.Join(dir, node+".state") }

// partition cuts the sync link, both ways.
func (r *rig) partition() {
	r.Helper()
	for _, n := range []*nettest.Node{r.two.A, r.two.B} {
		r.ok(n.NFT(fmt.Sprintf("table inet cut { chain input { type filter hook input priority -310; iifname %q drop; }; }", nettest.SyncIf)))
	}
}

func (r *rig) heal() {
	r.Helper()
	for _, n := range []*nettest.Node{r.two.A, r.two.B} {
		r.ok(n.NFT("delete table inet cut"))
	}
}

// externalHas fails unless the external cache of d has this many entries now.
func (r *rig) externalHas(d *nettest.Daemon, want int) {
	r.Helper()
	external, err := d.External(r.Context())
	r.ok(err)
	if len(external) != want {
		r.Errorf("the external cache of %s has %d entries, want %d\n%s", d, len(external), want, d.Log(10))
	}
}

// forStandby runs a test for both kinds of active node.
func forStandby(t *testing.T, f func(*testing.T, pairing)) {
	t.Parallel()
	for _, a := range []nettest.Kind{nettest.C, nettest.Go} {
		t.Run(string(a), func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, a, nettest.Go)
			f(t, pairing{a, nettest.Go})
		})
	}
}

// TestRestartBeforeSilence restarts the standby while the active node is cut
// off: a commit brings all connections with a snapshot, and none without.
// When the link is back, what happened meanwhile is made up for.
func TestRestartBeforeSilence(t *testing.T) {
	forStandby(t, func(t *testing.T, p pairing) {
		for name, snapshot := range map[string]bool{"snapshot": true, "control": false} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				change := withStartupResync
				if snapshot {
					change = withSnapshots(p, dir)
				}
				r := newRig(t, p, change).start()
				r.handshake()
				w := r.flood(r.two.A)
				r.must(w.Create, load(0, snapshotFlows, 0, 0, nil))
				r.cachesAgree(r.a, r.b, snapshotFlows)
				before, err := r.b.External(r.Context())
				r.ok(err)

				r.partition()
				r.ok(r.b.Stop())
				info, err := os.Stat(snapshotPath(dir, "b"))
				if snapshot && (err != nil || info.Mode() != 0o600 || info.Size() < 40*snapshotFlows) {
					t.Fatalf("the snapshot is %v, %v\n%s", info, err, r.b.Log(5))
				}
				r.ok(r.b.Start(t.Context()))
				if _, err := os.Stat(snapshotPath(dir, "b")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the snapshot is still there: %v", err)
				}
				if !snapshot {
					r.externalHas(r.b, 0)
					r.request(r.b, "-c")
					if got := r.count(r.b); got != 0 {
						t.Errorf("the control commits %d entries", got)
					}
					return
				}
				after, err := r.b.External(r.Context())
				r.ok(err)
				if err := nettest.DiffCaches(before, after).Err(); err != nil {
					t.Errorf("before and after the restart: %v", err)
				}
				r.request(r.b, "-c")
				r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 15, Committer: nettest.Go})

				r.must(w.Delete, load(0, 1000, 0, 0, nil))
				r.must(w.Create, load(snapshotFlows, snapshotFlows+500, 0, 0, nil))
				r.heal()
				if p.a == nettest.Go {
					r.cachesAgree(r.a, r.b, snapshotFlows-1000+500)
					return
				}
				// The C daemon has not heard our RESYNC, and forgets what was not acknowledged
				// when it hears HELLO, the ends of flows too. An unanswered RESYNC is
				// repeated after half a minute; its answer shows what has ended.
				r.ok(nettest.Eventually(r.Context(), time.Minute, "the standby to have what the active node has", r.sameExternal))
			})
		}
	})
}

// sameExternal compares A's internal with B's external cache.
func (r *rig) sameExternal() error {
	internal, err := r.a.Internal(r.Context())
	if err != nil {
		return err
	}
	external, err := r.b.External(r.Context())
	if err != nil {
		return err
	}
	return nettest.DiffCaches(internal, external).Err()
}

// TestUpgrade restarts first one and then the other of two nodes, as an upgrade
// does, by signal and by -k. Whatever is asked in between, the node that runs
// has all flows of the other one.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.Go)
	p := pairing{nettest.Go, nettest.Go}
	r := newRig(t, p, withSnapshots(p, t.TempDir())).start()
	r.handshake()
	r.must(r.flood(r.two.A).Create, load(0, snapshotFlows, 0, 0, nil))
	r.must(r.flood(r.two.B).Create, load(snapshotFlows, snapshotFlows+500, 0, 0, nil))
	agree := func() {
		t.Helper()
		r.cachesAgree(r.a, r.b, snapshotFlows)
		r.cachesAgree(r.b, r.a, 500)
	}
	agree()
	for _, step := range []struct {
		restarted, other *nettest.Daemon
		has, otherHas    int // in their external caches
		end              func(*nettest.Daemon) error
	}{
		{r.b, r.a, snapshotFlows, 500, (*nettest.Daemon).Stop},
		{r.a, r.b, 500, snapshotFlows, func(d *nettest.Daemon) error { _, err := d.Client(t.Context(), "-k"); return err }},
	} {
		r.ok(step.end(step.restarted))
		r.externalHas(step.other, step.otherHas)
		if step.restarted.Running() {
			<-step.restarted.Proc().Done()
		}
		r.ok(step.restarted.Start(t.Context()))
		// At once, and all the time until both agree that they are in step.
		for until := time.Now().Add(3 * time.Second); time.Now().Before(until) && !t.Failed(); {
			r.externalHas(step.restarted, step.has)
			r.externalHas(step.other, step.otherHas)
		}
		agree()
		if log := r.log(step.restarted); !strings.Contains(log, fmt.Sprintf("restored %d entries", step.has)) {
			t.Errorf("%s does not say what it restored:\n%s", step.restarted, log)
		}
	}
}

// log is all that a daemon has logged.
func (r *rig) log(d *nettest.Daemon) string {
	r.Helper()
	b, err := os.ReadFile(d.Config.LogFile)
	r.ok(err)
	return string(b)
}

// TestSnapshotRefused damages, ages and exchanges a snapshot, and takes away the
// place for it. The daemon says so in one line, starts without and replicates.
func TestSnapshotRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lines []string // of the section
		do    func(r *rig, path string) error
		want  string // in the one line; empty: there is nothing to refuse
	}{
		{name: "cut", want: "cut short", do: func(r *rig, path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Truncate(path, info.Size()/2)
		}},
		{name: "damaged", want: "checksum", do: func(r *rig, path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 4
			return os.WriteFile(path, b, 0o600)
		}},
		{name: "foreign", want: "another node's", do: func(r *rig, path string) error {
			r.a.Config.Port++
			r.b.Config.Port++
			if err := r.a.Stop(); err != nil {
				return err
			}
			return r.a.Start(r.Context())
		}},
		{name: "old", lines: []string{"SnapshotMaxAge 1"}, want: "old, more than 1s", do: func(r *rig, path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			time.Sleep(time.Until(info.ModTime().Add(1500 * time.Millisecond))) // its age is what is tested
			return nil
		}},
		{name: "readable by others", want: "others than its owner", do: func(r *rig, path string) error { return os.Chmod(path, 0o644) }},
		{name: "removed", do: func(r *rig, path string) error { return os.Remove(path) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, nettest.Go)
			p := pairing{nettest.Go, nettest.Go}
			dir := t.TempDir()
			r := newRig(t, p, withSnapshots(p, dir, tt.lines...)).start()
			r.handshake()
			r.must(r.flood(r.two.A).Create, load(0, 200, 0, 0, nil))
			r.cachesAgree(r.a, r.b, 200)
			r.ok(r.b.Stop())
			r.ok(tt.do(r, snapshotPath(dir, "b")))
			r.ok(r.b.Start(t.Context()))
			refusals := strings.Count(r.log(r.b), "is not used: ")
			if tt.want == "" {
				if refusals != 0 {
					t.Errorf("refused what is not there:\n%s", r.log(r.b))
				}
			} else if refusals != 1 || !strings.Contains(r.log(r.b), tt.want) {
				t.Errorf("want one line with %q:\n%s", tt.want, r.log(r.b))
			}
			r.cachesAgree(r.a, r.b, 200)
		})
	}
}

// TestSnapshotNowhere ends a daemon whose snapshot cannot be written: one line,
// and a good end.
func TestSnapshotNowhere(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.Go)
	p := pairing{nettest.Go, nettest.Go}
	dir := filepath.Join(t.TempDir(), "gone")
	r := newRig(t, p, withSnapshots(p, dir)).start()
	r.handshake()
	r.ok(r.b.Stop())
	for _, text := range []string{".state will not be written: ", "write snapshot: "} {
		if n := strings.Count(r.log(r.b), text); n != 1 {
			t.Errorf("%d lines with %q:\n%s", n, text, r.log(r.b))
		}
	}
	r.ok(r.b.Start(t.Context()))
}

var snapshotTook = regexp.MustCompile(`wrote a snapshot of (\d+) bytes to \S+ in ([0-9.]+) seconds`)

// TestSnapshotIsQuick measures what it costs to end and to start with many
// entries. SNAPSHOT_FLOWS says how many.
func TestSnapshotIsQuick(t *testing.T) {
	flows := 20000
	if n, err := strconv.Atoi(os.Getenv("SNAPSHOT_FLOWS")); err == nil {
		flows = n
	} else {
		t.Parallel()
	}
	nettest.Need(t, nettest.Go)
	p := pairing{nettest.Go, nettest.Go}
	r := newRig(t, p, func(a, b *nettest.Config) {
		withSnapshots(p, t.TempDir())(a, b)
		a.HashLimit, b.HashLimit = 2*flows, 2*flows
	}).start()
	r.handshake()
	r.must(r.flood(r.two.A).Create, load(0, flows, 0, 0, nil))
	r.eventually("the flows to arrive", func() error {
		if s := r.request(r.b, "-s"); !strings.Contains(s, fmt.Sprintf("cache external:\ncurrent active connections:\t%12d", flows)) {
			return errors.New(s)
		}
		return nil
	})
	r.partition()
	begin := time.Now()
	r.ok(r.b.Stop())
	ended := time.Now()
	m := snapshotTook.FindStringSubmatch(r.log(r.b))
	if m == nil {
		t.Fatalf("no word of the snapshot:\n%s", r.log(r.b))
	}
	r.ok(r.b.Start(t.Context()))
	t.Logf("%d flows: %s bytes in %s s; the end took %v, the start until it answers %v", flows, m[1], m[2], ended.Sub(begin), time.Since(ended))
	if took, err := strconv.ParseFloat(m[2], 64); err != nil || took > 10 {
		t.Errorf("the snapshot took %s s", m[2])
	}
	if s := r.request(r.b, "-s"); !strings.Contains(s, fmt.Sprintf("cache external:\ncurrent active connections:\t%12d", flows)) {
		t.Errorf("after the start:\n%s", s)
	}
}
