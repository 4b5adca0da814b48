package node

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// takeSnapshot takes all records of a node, a few entries at a time.
func takeSnapshot(n *Node, now time.Duration, limit int) (records [][]byte) {
	var c SnapshotCursor
	for {
		b := n.Snapshot(nil, now, &c, limit)
		if len(b) == 0 {
			return records
		}
		records = append(records, b)
	}
}

// reborn makes a node of the settings of another, away later, from its records.
func reborn(t testing.TB, cfg Config, away time.Duration, records [][]byte) *Node {
	t.Helper()
	n := New(cfg, 9000, [2]uint64{5, 6})
	for _, b := range records {
		if _, err := n.Restore(0, away, b); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// externalFlows is the external cache by key.
func externalFlows(n *Node) map[flow.Key]flow.Flow {
	m := map[flow.Key]flow.Flow{}
	for c := (cursor{}); !c.done; {
		n.external.scan(&c, 100, func(r ref) {
			var f flow.Flow
			n.external.load(r, &f)
			m[f.Key] = f
		})
	}
	return m
}

// TestSnapshotKeepsEverything takes random flows the way of the peer's
// messages, then that of a snapshot: they must be the same, and so what a
// commit makes of them.
func TestSnapshotKeepsEverything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	cfg := simConfig()
	cfg.ExpectationSync, cfg.HashLimit = true, 1<<20
	n := New(cfg, 1, [2]uint64{1, 2})
	o := wire.Options{WindowScale: true}
	for i := range 3000 {
		f := randomFlow(r, []uint8{flow.IPv4, flow.IPv6}[i%2])
		f.Has |= flow.HasStatus
		m, _, err := wire.Next(o.AppendFlow(nil, wire.Header{Type: wire.CTNew}, &f))
		if err != nil {
			t.Fatal(err)
		}
		n.deliver(10*time.Second, &m, n.read(&m))
	}
	for i := range uint16(50) {
		x := expectation(i, 1000+i)
		m, _, err := wire.Next(o.AppendExpect(nil, wire.Header{Type: wire.ExpNew}, &x))
		if err != nil {
			t.Fatal(err)
		}
		n.deliver(10*time.Second, &m, n.read(&m))
	}
	want := externalFlows(n)
	if len(want) < 2900 || n.expects.external.table.Len() != 50 {
		t.Fatalf("%d flows, %d expectations", len(want), n.expects.external.table.Len())
	}
	b := reborn(t, cfg, 5*time.Second, takeSnapshot(n, 70*time.Second, 100))
	if d := cmp.Diff(want, externalFlows(b)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(n.expects.external.all(), b.expects.external.all()); d != "" {
		t.Error(d)
	}
	// 60 seconds until the snapshot, 5 away.
	for c := (cursor{}); !c.done; {
		b.external.scan(&c, 100, func(r ref) {
			e := b.external.common(r)
			if got := seconds(2*time.Second) - e.seen; got != 67 || e.born != e.seen {
				t.Fatalf("the age is %d s, want 67", got)
			}
		})
	}
	wantBatch, gotBatch := commitAll(n, 77*time.Second), commitAll(b, 2*time.Second)
	if d := cmp.Diff(wantBatch, gotBatch); d != "" {
		t.Errorf("commit: %s", d)
	}
	if st := b.Stats(); st.External.Active != len(want) || st.External.Created != uint64(len(want)) {
		t.Errorf("counters: %+v", st.External)
	}
}

// commitAll is what a commit hands out, by key.
func commitAll(n *Node, now time.Duration) map[flow.Key]flow.Flow {
	m := map[flow.Key]flow.Flow{}
	n.BeginCommit()
	batch := make([]flow.Flow, 100)
	for {
		filled, done := n.NextCommit(now, batch)
		for _, f := range batch[:filled] {
			m[f.Key] = f
		}
		if done {
			return m
		}
	}
}

// TestRestoreThenResync restarts a standby while the other node's flows
// change. It has them at once; after the resync it has what the other has.
func TestRestoreThenResync(t *testing.T) {
	p := newPair(t)
	for i := range uint16(1000) {
		p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
	}
	p.exchange()
	records := takeSnapshot(p.b, p.now, 64)

	for i := range uint16(500) { // nobody hears of it
		p.a.Kernel(p.now, event1(flow.Destroy, tcp(i, 7)))
	}
	p.a.Kernel(p.now, event1(flow.New, tcp(2000, 3)))
	for len(p.a.Next(p.now, nil, 1472)) > 0 {
		continue
	}

	p.b = reborn(t, p.b.cfg, 3*time.Second, records)
	if p.now = 0; p.b.Stats().External.Active != 1000 {
		t.Fatalf("%d entries are restored", p.b.Stats().External.Active)
	}
	if got := len(commitAll(p.b, 0)); got != 1000 {
		t.Errorf("a commit before the other node is heard: %d entries", got)
	}
	p.now = 10 * time.Second
	for range 10 {
		p.later(1)
		for !p.b.Expire(100) {
			continue
		}
	}
	want, got := map[flow.Key]bool{}, externalFlows(p.b)
	for i := uint16(500); i < 1000; i++ {
		want[tcp(i, 0).Key] = true
	}
	want[tcp(2000, 0).Key] = true
	for k := range got {
		if !want[k] {
			t.Errorf("%v has ended", k)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}

// TestRestoreYields keeps what is newer than the snapshot.
func TestRestoreYields(t *testing.T) {
	p := newPair(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.a.Kernel(p.now, event1(flow.New, tcp(2, 3)))
	p.exchange()
	records := takeSnapshot(p.b, p.now, 64)
	n := New(p.b.cfg, 9000, [2]uint64{5, 6})
	newer := tcp(1, 5)
	receive(n, time.Second, wire.CTNew, &newer)
	taken, err := n.Restore(time.Second, 0, records[0])
	if taken != 1 || err != nil {
		t.Errorf("%d taken, %v", taken, err)
	}
	if got := externalFlows(n)[newer.Key].State; got != 5 {
		t.Errorf("state %d", got)
	}
	n.DropRestored()
	if st := n.Stats(); st.External.Active != 0 || st.ExpectExternal.Active != 0 {
		t.Errorf("left: %+v", st.External)
	}
}

// TestRestoreInOtherModes shows what ends restored entries that the peer does
// not know any more, where no bulk is known to be complete.
func TestRestoreInOtherModes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cfg    Config
		within time.Duration
	}{
		{"NOTRACK", notrackConfig(), restoredPatience + time.Second},
		{"ALARM", alarmConfig(), alarmConfig().CacheTimeout + 5*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := New(tt.cfg, 1, [2]uint64{1, 2})
			for i := range uint16(20) {
				f := tcp(i, 3)
				receive(old, 0, wire.CTNew, &f)
			}
			n := reborn(t, tt.cfg, time.Second, takeSnapshot(old, 0, 64))
			now := time.Duration(0)
			until := func(d time.Duration) {
				for end := now + d; now < end; now += time.Second {
					n.Tick(now)
					n.Expire(1000)
				}
			}
			if until(5 * time.Second); n.Stats().External.Active != 20 {
				t.Fatalf("%d entries before anybody spoke", n.Stats().External.Active)
			}
			var o wire.Options
			alive := tcp(7, 3)
			n.Datagram(now, o.AppendFlow(nil, wire.Header{Type: wire.CTUpd, Seq: 77}, &alive))
			half := now + tt.within/2
			for now < half {
				until(time.Second)
			}
			n.Datagram(now, o.AppendFlow(nil, wire.Header{Type: wire.CTUpd, Seq: 78}, &alive))
			until(tt.within/2 + 2*time.Second)
			if got := externalFlows(n); len(got) != 1 || got[alive.Key].State != 3 {
				t.Errorf("%d entries remain, want the one that was named", len(got))
			}
		})
	}
}

// TestSilentPeerStays: nobody speaks, so everything is kept for a takeover.
func TestSilentPeerStays(t *testing.T) {
	for _, cfg := range []Config{simConfig(), notrackConfig()} {
		old := New(cfg, 1, [2]uint64{1, 2})
		f := tcp(1, 3)
		receive(old, 0, wire.CTNew, &f)
		n := reborn(t, cfg, time.Second, takeSnapshot(old, 0, 64))
		for now := time.Duration(0); now < 10*time.Minute; now += time.Second {
			n.Tick(now)
			for len(n.Next(now, nil, 1472)) > 0 {
				continue
			}
			n.Expire(1000)
		}
		if got := len(externalFlows(n)); got != 1 {
			t.Errorf("%s: %d entries after ten minutes", cfg.Mode, got)
		}
	}
}

// TestSnapshotEndsExpiry: what is on its way out does not come back.
func TestSnapshotEndsExpiry(t *testing.T) {
	n := New(simConfig(), 1, [2]uint64{1, 2})
	f, g := tcp(1, 3), tcp(2, 3)
	receive(n, 0, wire.CTNew, &f)
	n.beginExpiry()
	receive(n, 0, wire.CTNew, &g)
	n.endExpiry(0, true)
	b := reborn(t, n.cfg, 0, takeSnapshot(n, 0, 64))
	if got := externalFlows(b); len(got) != 1 || got[g.Key].Sport != 2 {
		t.Errorf("restored %d entries", len(got))
	}
}

// FuzzRestore feeds records: no panic, and what is accepted comes back.
func FuzzRestore(f *testing.F) {
	n := New(simConfig(), 1, [2]uint64{1, 2})
	for i := range uint16(3) {
		g := tcp(i, 3)
		receive(n, 0, wire.CTNew, &g)
	}
	for _, b := range takeSnapshot(n, 0, 64) {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(simConfig(), 1, [2]uint64{1, 2})
		taken, err := n.Restore(time.Second, time.Hour, b)
		if st := n.Stats(); taken != st.External.Active+st.ExpectExternal.Active {
			t.Fatalf("%d taken, %+v", taken, st.External)
		}
		if err != nil {
			return
		}
		// What no sender would say is left out by the first of these.
		second := reborn(t, n.cfg, 0, takeSnapshot(n, time.Second, 7))
		third := reborn(t, n.cfg, 0, takeSnapshot(second, time.Second, 7))
		if d := cmp.Diff(externalFlows(second), externalFlows(third)); d != "" || len(externalFlows(n)) != len(externalFlows(third)) {
			t.Errorf("%d entries, then %d: %s", len(externalFlows(n)), len(externalFlows(third)), d)
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	cfg := simConfig()
	cfg.HashLimit = 1 << 20
	n := New(cfg, 1, [2]uint64{1, 2})
	const entries = 100000
	for i := range entries {
		f := tcp(uint16(i), 3)
		f.Dport = uint16(i >> 16)
		receive(n, 0, wire.CTNew, &f)
	}
	b.Run("make", func(b *testing.B) {
		var buf []byte
		for range b.N {
			var c SnapshotCursor
			for {
				if buf = n.Snapshot(buf[:0], 0, &c, 512); len(buf) == 0 {
					break
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*entries), "ns/entry")
	})
	records := takeSnapshot(n, 0, 512)
	b.Run("restore", func(b *testing.B) {
		for range b.N {
			reborn(b, cfg, 0, records)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*entries), "ns/entry")
	})
}
