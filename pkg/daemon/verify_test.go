package daemon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

func checkedFlow(sport uint16) *flow.Flow {
	f := &flow.Flow{Key: flow.Key{Family: flow.IPv4, Proto: flow.ProtoTCP, Sport: sport, Dport: 80},
		Has: flow.HasAddr | flow.HasProto | flow.HasPorts}
	copy(f.Src[:], []byte{10, 0, 0, 1})
	copy(f.Dst[:], []byte{10, 0, 0, 2})
	return f
}

// TestCheck looks for a commit in tables: whole, in part, with entries that are
// like those committed and not the same.
func TestCheck(t *testing.T) {
	d := &Daemon{cfg: &confparse.Config{CommitVerify: true}}
	c := d.newCheck()
	const flows = 200
	for i := range uint16(flows) {
		f := checkedFlow(i)
		if i == 7 {
			f.Has |= flow.HasSNAT
			copy(f.NAT.Src[:], []byte{192, 0, 2, 1})
		}
		c.add(f)
		c.add(f) // a commit tries again
	}
	translated := checkedFlow(7)
	translated.Has |= flow.HasSNAT | flow.HasReply
	copy(translated.NAT.Src[:], []byte{192, 0, 2, 1})
	elsewhere := checkedFlow(7)
	elsewhere.Has |= flow.HasSNAT
	copy(elsewhere.NAT.Src[:], []byte{192, 0, 2, 2})
	zoned := checkedFlow(8)
	zoned.Zone = 3
	others := []*flow.Flow{elsewhere, zoned, checkedFlow(5000)}

	all := func(skip ...uint16) (list []*flow.Flow) {
	next:
		for i := range uint16(flows) {
			for _, s := range skip {
				if i == s {
					continue next
				}
			}
			if i == 7 {
				list = append(list, translated)
				continue
			}
			f := checkedFlow(i)
			f.Has |= flow.HasReply | flow.HasTimeout
			f.Timeout = 77
			list = append(list, f)
		}
		return list
	}
	for _, tt := range []struct {
		name  string
		table []*flow.Flow
		want  int
	}{
		{"all", all(), flows},
		{"all, some twice", append(all(), all(1, 2, 3)...), flows},
		{"others", others, 0},
		{"some are missing, others there", append(all(7, 8, 63, 64), others...), flows - 4},
		{"nothing", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.begin()
			c.see(checkedFlow(1)) // of an attempt that was torn
			c.begin()
			for _, f := range tt.table {
				c.see(f)
			}
			if held, of := c.result(); held != tt.want || of != flows {
				t.Errorf("%d of %d, want %d of %d", held, of, tt.want, flows)
			}
		})
	}
}

// TestNoCheck: with CommitVerify off nothing is noted, and nobody minds.
func TestNoCheck(t *testing.T) {
	d := &Daemon{cfg: &confparse.Config{}}
	c := d.newCheck()
	if c != nil {
		t.Fatal("there is one")
	}
	c.add(checkedFlow(1))
	c.begin()
	c.see(checkedFlow(1))
	s := newChecks()
	s.put(c)
	if s.pending() || len(s.due) != 0 {
		t.Error("nothing is due")
	}
	d.sayVerified(s.take())
}

// TestChecks hands a check around: the newest counts, and it comes back from a
// reading that failed unless there is a newer one.
func TestChecks(t *testing.T) {
	d := &Daemon{cfg: &confparse.Config{CommitVerify: true}}
	one, two, empty := d.newCheck(), d.newCheck(), d.newCheck()
	one.add(checkedFlow(1))
	two.add(checkedFlow(2))
	s := newChecks()
	s.put(empty)
	if s.pending() {
		t.Error("a commit of nothing is looked for")
	}
	s.put(one)
	if got := s.take(); got != one || s.pending() || len(s.due) != 1 {
		t.Errorf("took %p, want %p; %d due", got, one, len(s.due))
	}
	s.giveBack(one)
	if got := s.take(); got != one {
		t.Error("it did not come back")
	}
	s.put(two)
	s.giveBack(one)
	if got := s.take(); got != two {
		t.Error("an older one took its place")
	}
}

// TestEaser: who is in a hurry does not rest; who is not rests after each piece,
// gives way, and ends with its context.
func TestEaser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &Daemon{cfg: &confparse.Config{}, sync: &syncer{}}
		d.cfg.Node.HashLimit = 1 << 20
		ctx, cancel := context.WithCancel(context.Background())
		hurried := easer{d: d}
		begin := time.Now()
		for range 1000 {
			if err := hurried.rest(ctx, comparePiece, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := hurried.settle(ctx); err != nil || time.Since(begin) != 0 {
			t.Errorf("in a hurry: %v, %v", time.Since(begin), err)
		}

		slow := easer{d: d, slow: true}
		begin = time.Now()
		for range 10 {
			if err := slow.rest(ctx, comparePiece/2, 0); err != nil {
				t.Fatal(err)
			}
		}
		if got, least := time.Since(begin), 5*comparePiece*time.Second/compareRate; got < least {
			t.Errorf("rested %v, want %v", got, least)
		}
		begin = time.Now()
		for range 10000 {
			if err := slow.rest(ctx, comparePiece, compareGone+1); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(begin); got != 0 {
			t.Errorf("made no haste: %v", got)
		}

		d.sync.tableWanted.Add(1)
		if err := slow.rest(ctx, 1, 0); !errors.Is(err, errGaveWay) {
			t.Errorf("somebody waits: %v", err)
		}
		d.sync.tableWanted.Add(-1)
		cancel()
		if err := slow.rest(ctx, comparePiece, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("the daemon ends: %v", err)
		}
		if err := slow.settle(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the daemon ends: %v", err)
		}
	})
}

// TestCompareRate: a comparison takes half of its interval at most.
func TestCompareRate(t *testing.T) {
	for _, tt := range []struct {
		every time.Duration
		limit int
		want  int
	}{
		{0, 1 << 30, compareRate},
		{5 * time.Minute, 1 << 20, compareRate},
		{10 * time.Second, 1 << 20, 1 << 20 / 5},
		{time.Second, 100, compareRate},
	} {
		d := &Daemon{cfg: &confparse.Config{Reconcile: tt.every}}
		d.cfg.Node.HashLimit = tt.limit
		if got := (&easer{d: d}).rate(); got != tt.want {
			t.Errorf("every %v, %d entries: %d a second, want %d", tt.every, tt.limit, got, tt.want)
		}
	}
}

func TestAppendComparison(t *testing.T) {
	c := Comparison{Runs: 3, Failed: 1, Last: 10 * time.Second, Checked: 500, Held: 499}
	const want = "kernel-comparisons: 3\nkernel-comparisons-failed: 1\nkernel-comparison-age-seconds: 2.5\n" +
		"kernel-missing: 4\nkernel-different: 5\nkernel-superfluous: 6\ncommitted: 500\ncommitted-and-held: 499\n"
	if got := string(appendComparison(nil, &c, node.Drift{Missing: 4, Different: 5, Superfluous: 6}, 12500*time.Millisecond)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
