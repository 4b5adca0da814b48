package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// Comparison counts what comparing with the kernel's table showed.
type Comparison struct {
	// Runs are the comparisons that were finished, Failed those that were not.
	Runs, Failed uint64
	// Last is when the last one was finished, by the node's clock. What they
	// found is node.Stats.Drift.
	Last time.Duration
	// Checked are the entries of the last commit that was verified, and Held how
	// many of them the kernel had.
	Checked, Held uint64
}

// appendComparison appends the lines about the kernel's table to -s health.
func appendComparison(dst []byte, c *Comparison, drift node.Drift, now time.Duration) []byte {
	for _, l := range []struct {
		name  string
		value any
	}{
		{"kernel-comparisons", c.Runs},
		{"kernel-comparisons-failed", c.Failed},
		{"kernel-comparison-age-seconds", ago(c.Runs > 0, now-c.Last)},
		{"kernel-missing", drift.Missing},
		{"kernel-different", drift.Different},
		{"kernel-superfluous", drift.Superfluous},
		{"committed", c.Checked},
		{"committed-and-held", c.Held},
	} {
		dst = fmt.Appendf(dst, "%s: %v\n", l.name, l.value)
	}
	return dst
}

const (
	// compareRate is how many entries a second a comparison looks at, at least:
	// it takes some 15 % of a processor.
	compareRate = 50000
	// comparePiece is how many it looks at between two rests.
	comparePiece = 512
	// compareGone is how many flows may end meanwhile before it makes haste: each
	// is remembered until it is over, which takes some 100 bytes.
	compareGone = 1 << 16
	// compareSettle is what events that are on the way need at most.
	compareSettle = 200 * time.Millisecond
	// checkAfter is how long a commit waits for somebody else to read the table.
	checkAfter = 5 * time.Second
)

// compare compares the internal cache with the kernel's table at each interval,
// and after a commit.
func (d *Daemon) compare(ctx context.Context) error {
	var tick <-chan time.Time
	if d.cfg.Reconcile > 0 {
		t := time.NewTicker(d.cfg.Reconcile)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
			d.reconcile(ctx)
		case <-d.sync.checks.due:
			if !calm(ctx, d.sync.checks.due, checkAfter, 2*checkAfter) {
				return nil
			}
			if d.sync.checks.pending() {
				d.verify(ctx)
			}
		}
	}
}

// reconcile compares and says what was wrong.
func (d *Daemon) reconcile(ctx context.Context) {
	before := d.nodeStats().Drift
	err := d.mend(func() error { return d.readTables(ctx, node.Reconcile) })
	drift := d.nodeStats().Drift.Since(before)
	d.sync.mu.Lock()
	c := &d.sync.compared
	if err != nil {
		c.Failed++
	} else {
		c.Runs++
		c.Last = d.now()
	}
	d.sync.mu.Unlock()
	if drift.Sum() > 0 {
		d.say(saidDrift, func() {
			d.log.Warnf("the internal cache was not what the kernel has: %d entries missing, %d different, %d superfluous; repaired, and the other node is told",
				drift.Missing, drift.Different, drift.Superfluous)
		})
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errGaveWay) && !errors.Is(err, kernel.ErrTorn) {
		d.say(saidCompare, func() { d.log.Errorf("compare with the conntrack table: %v", err) })
	}
}

// errGaveWay ends a comparison that somebody waits for.
var errGaveWay = errors.New("another reading is more urgent")

// An easer spreads the reading of a table, if it is to be slow.
type easer struct {
	d       *Daemon
	slow    bool
	entries int // since the last rest
	read    int // in all
}

// rest is called after each page. gone is how many flows have ended since the
// beginning.
func (e *easer) rest(ctx context.Context, entries, gone int) error {
	if !e.slow {
		return nil
	}
	if e.d.sync.tableWanted.Load() > 0 {
		return errGaveWay
	}
	e.read += entries
	if e.entries += entries; e.entries < comparePiece || gone > compareGone {
		return nil
	}
	due := time.Duration(e.entries) * time.Second / time.Duration(e.rate())
	e.entries = 0
	return pause(ctx, due)
}

// rate is the number of entries a second: a large table may take half of the
// interval.
func (e *easer) rate() int {
	half := max(int(e.d.cfg.Reconcile/time.Second)/2, 1)
	if e.d.cfg.Reconcile == 0 {
		return compareRate
	}
	return max(compareRate, e.d.cfg.Node.HashLimit/half)
}

// settle waits for the events of what has ended while it was read.
func (e *easer) settle(ctx context.Context) error {
	if !e.slow {
		return nil
	}
	return pause(ctx, compareSettle)
}
