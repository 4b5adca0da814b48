package itest_test

import (
	"os"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// In the crash tests flows [0, kept) live on, [kept, ended) end and
// [ended, created) begin while a daemon is down.
const (
	kept    = 2000
	ended   = 4000
	created = 6000
)

// crash kills a daemon in the middle of a load on A, lets the kernel change
// while it is down, and starts it again over the lock and the socket it left.
func (r *rig) crash(victim *nettest.Daemon) {
	r.Helper()
	w := r.flood(r.two.A)
	r.must(w.Create, load(0, ended, 0, 0, nil))
	r.cachesAgree(r.a, r.b, ended)

	under := inBackground(func() error {
		_, err := w.Update(load(0, kept, 10000, 1<<20, nil))
		return err
	})
	victim.Kill9()
	r.ok(under())
	r.must(w.Delete, load(kept, ended, 0, 0, nil))
	r.must(w.Create, load(ended, created, 0, 0, nil))

	r.restart(victim)
	// The load goes on while they find each other again.
	r.must(w.Update, load(0, kept, 10000, 2<<20, nil))
	r.handshake()
}

// restart starts a killed daemon. Ours must cope with the stale lock and
// socket; for C somebody removes the lock, as the stock script does.
func (r *rig) restart(d *nettest.Daemon) {
	r.Helper()
	for _, path := range []string{d.Config.Lock, d.Config.Socket} {
		if _, err := os.Lstat(path); err != nil {
			r.Fatalf("no stale file, the test shows nothing: %v", err)
		}
	}
	if d.Kind == nettest.C {
		r.ok(d.RemoveLock())
	}
	r.ok(d.Start(r.Context()))
}

// TestStandbyCrash kills the standby. With StartupResync it asks for
// everything, and as its external cache begins empty, nothing stale can stay:
// it must equal the active node's internal cache for every pairing.
func TestStandbyCrash(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRig(t, p, withStartupResync).start()
		r.handshake()
		r.crash(r.b)
		r.cachesAgree(r.a, r.b, created-(ended-kept))
		r.internalEqualsKernel(r.a)
	})
}

// TestActiveCrash kills the active node. The flows that ended while it was
// down never had a destroy message. Between two of our own daemons the
// standby's external cache must equal the internal cache again nevertheless.
// A C daemon on either side can't do better than a superset: as the restarted
// one it says nothing about the ended flows, as the surviving one it forgets
// nothing of its own accord (a bulk transfer has no end mark).
func TestActiveCrash(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRig(t, p, withStartupResync).start()
		r.handshake()
		r.crash(r.a)
		r.internalEqualsKernel(r.a)
		r.request(r.b, "-n")
		if p.a == nettest.Go && p.b == nettest.Go {
			r.cachesAgree(r.a, r.b, created-(ended-kept))
			return
		}
		stale := r.externalCovers(r.a, r.b)
		t.Logf("%d flows that ended while A was down are left in B's external cache", stale)
		if p.a == nettest.C && p.b == nettest.C && stale != ended-kept {
			t.Errorf("the control has %d stale flows, want the %d that ended unseen", stale, ended-kept)
		}
	})
}

// externalCovers waits until every entry of an internal cache is equal in the
// other's external cache, and returns how many more that one has.
func (r *rig) externalCovers(from, to *nettest.Daemon) (more int) {
	r.Helper()
	r.eventually("the external cache to cover the internal one", func() error {
		internal, err := from.Internal(r.Context())
		if err != nil {
			return err
		}
		external, err := to.External(r.Context())
		if err != nil {
			return err
		}
		more = len(external)
		common := external.Only(func(e *nettest.Entry) bool { return internal[e.Key] != nil })
		more -= len(common)
		return nettest.DiffCaches(internal, common).Err()
	})
	return more
}

// TestSecondDaemon starts a second daemon with the first one's lock and socket.
// It must refuse, and the first must go on answering on its socket.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, kind)
			r := newRig(t, pairing{kind, kind}, nil).start()
			cfg := r.b.Config
			cfg.Port++
			cfg.Lock, cfg.Socket = r.a.Config.Lock, r.a.Config.Socket
			node, err := r.lab.NewNode("second")
			r.ok(err)
			r.ok(r.lab.Connect(node, nettest.SyncIf, r.two.A, "spare"))
			r.ok(node.AddAddr(nettest.SyncIf, cfg.Local.String()+"/30"))
			second, err := r.lab.NewDaemon(node, kind, cfg)
			r.ok(err)
			// The first daemon answers on the socket they share, so what Start
			// returns says nothing; the second process has to end.
			startErr := second.Start(t.Context())
			select {
			case <-second.Proc().Done():
				if second.Proc().Err() == nil {
					t.Error("the second daemon ended with exit code 0")
				}
			case <-time.After(convergence):
				t.Errorf("a second daemon runs with the same lock (start: %v)", startErr)
			}
			r.must(r.flood(r.two.A).Create, load(0, 10, 0, 0, nil))
			r.cachesAgree(r.a, r.b, 10)
		})
	}
}

// withStartupResync makes both daemons ask for everything when they start.
func withStartupResync(a, b *nettest.Config) {
	a.StartupResync, b.StartupResync = true, true
}
