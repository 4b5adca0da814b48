package itest_test

import (
	"errors"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestCommitUnderLoad commits on B again and again while A goes on creating,
// updating and ending flows. Every commit must bring what the external cache
// held when it began and A has not ended since; replication must not suffer;
// nothing may be echoed to A; and a last commit after the load makes the
// kernels equal.
func TestCommitUnderLoad(t *testing.T) {
	// The first thousand flows stay as they are, the next are updated all the
	// time, the next end, and the rest are new.
	const still, updated, ended, all, rate = 1000, 2000, 3000, 12000, 4000
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRig(t, p, nil).start()
		r.handshake()
		w := r.flood(r.two.A)
		r.must(w.Create, load(0, ended, 0, 0, nil))
		r.cachesAgree(r.a, r.b, ended)

		wait := inBackground(func() error {
			for mark := uint32(1); mark <= 3; mark++ {
				if _, err := w.Update(load(still, updated, rate, mark<<20, nil)); err != nil {
					return err
				}
				from := ended + int(mark-1)*(all-ended)/3
				if _, err := w.Create(load(from, from+(all-ended)/3, rate, 0, nil)); err != nil {
					return err
				}
			}
			_, err := w.Delete(load(updated, ended, rate, 0, nil))
			return err
		})
		for range 4 {
			r.commitBringsExternal(func(i int) bool { return i < updated })
		}
		r.ok(wait())

		r.cachesAgree(r.a, r.b, all-(ended-updated))
		r.request(r.b, "-c")
		standby := r.kernel(r.two.B)
		for i := updated; i < ended; i++ {
			delete(standby, key(loadFlow(i, 0))) // ended on A after they were committed
		}
		if err := (nettest.KernelDiff{Tolerance: 10, Committer: p.b}).Tables(r.kernel(r.two.A), standby).Err(); err != nil {
			t.Errorf("kernel tables: %v", err)
		}
		echo, err := r.a.External(r.Context())
		r.ok(err)
		if len(echo) > 0 {
			t.Errorf("%d committed flows were echoed to the peer", len(echo))
		}
	})
}

// commitBringsExternal reads B's external cache, commits, and fails unless
// the kernel then has the flows of it that stays accepts (those A never ends).
func (r *rig) commitBringsExternal(stays func(i int) bool) {
	r.Helper()
	external, err := r.b.External(r.Context())
	r.ok(err)
	r.request(r.b, "-c")
	kernel := r.kernel(r.two.B)
	missing := 0
	for i := 0; stays(i); i++ {
		k := key(loadFlow(i, 0))
		if external[k] == nil {
			r.Fatal(errors.New("a flow left the external cache although it lives"), k)
		}
		if kernel[k] == nil {
			missing++
		}
	}
	if missing > 0 {
		r.Errorf("%d flows are not in the kernel after the commit", missing)
	}
}
