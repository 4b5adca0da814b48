package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// kernelCounters are the counters of the runtime report that the daemon keeps
// itself; guarded by syncer.mu.
type kernelCounters struct {
	flushes, resyncs uint64
}

// readTable dumps the kernel's table into the internal cache. A comparison takes
// its time, and gives way to whoever knows that something is wrong.
func (d *Daemon) readTable(ctx context.Context, why node.Purpose) error {
	s := d.sync
	s.tableWanted.Add(1)
	s.resync.Lock()
	s.tableWanted.Add(-1)
	defer s.resync.Unlock()
	check := s.checks.take()
	begin := func() {
		check.begin()
		s.assuming.Lock()
		defer s.assuming.Unlock()
		d.enter(func(n *node.Group, _ time.Duration) { n.BeginSweep(why) })
	}
	begin()
	ease := easer{d: d, slow: why == node.Reconcile}
	event := []flow.Event{{Op: flow.Dumped}}
	var dumper kernel.Dumper
	err := dumper.Pages(ctx, func(p *kernel.Page) error {
		entries, gone := 0, 0
		d.beside(func(n *node.Group, now time.Duration) {
			for ; p.Next(&event[0].Flow); entries++ {
				check.see(&event[0].Flow)
				n.Kernel(now, event)
			}
			gone = n.Sweeping()
		})
		return ease.rest(ctx, entries, gone)
	}, begin)
	if err == nil {
		err = ease.settle(ctx)
	}
	if err != nil {
		d.enter(func(n *node.Group, _ time.Duration) { n.AbortSweep() })
		s.checks.giveBack(check)
		return fmt.Errorf("read conntrack table: %w", err)
	}
	for done := false; !done; {
		d.beside(func(n *node.Group, _ time.Duration) { done = n.EndSweep(sweepChunk) })
	}
	d.sayVerified(check)
	return nil
}

// repairCalm is how long no event must have been lost before the repair: a
// dump in the middle of a storm only makes it worse.
const repairCalm = 500 * time.Millisecond

// repair makes up for events that were lost: once the storm is over for a
// moment, and at the latest after NetlinkOverrunResync. Events lost during a
// repair call for another; see takeEvents for when that is known.
func (d *Daemon) repair(ctx context.Context) error {
	overrun, limit := d.sync.overrun, d.cfg.Kernel.OverrunResync
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-overrun:
		}
		d.say(saidOverrun, d.sayOverrun)
		if limit == 0 {
			continue
		}
		if !calm(ctx, overrun, repairCalm, limit) {
			return nil
		}
		d.countResync()
		err := d.makeUp(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		d.log.Errorf("resync with kernel table: %v", err)
		if !calm(ctx, nil, limit, limit) {
			return nil
		}
		notice(overrun)
	}
}

// makeUp makes the internal cache equal to the kernel's table again, and tells
// the peer what is different. Without that cache nobody knows what is: the
// peer gets the whole table, and flows whose end was lost stay with it.
func (d *Daemon) makeUp(ctx context.Context) error {
	if !d.cfg.Node.DisableInternalCache {
		return d.mend(func() error { return d.readTables(ctx, node.Repair) })
	}
	d.enter(func(n *node.Group, _ time.Duration) { n.SendBulk() })
	return nil
}

func (d *Daemon) sayOverrun() {
	const lost = "kernel events were lost (netlink overrun)"
	const hint = "raise NetlinkBufferSize and NetlinkBufferSizeMaxGrowth if this repeats"
	switch bypass := d.cfg.Node.DisableInternalCache; {
	case d.cfg.Kernel.OverrunResync == 0 && bypass:
		d.log.Warn(lost + ": flows are wrong at the other node until -B, as NetlinkOverrunResync is off; " + hint)
	case d.cfg.Kernel.OverrunResync == 0:
		d.log.Warn(lost + ": flows are wrong here until -R, and at the other node until -B, as NetlinkOverrunResync is off; " + hint)
	case bypass:
		d.log.Warn(lost + ", sending the conntrack table; " + hint)
	default:
		d.log.Warn(lost + ", resynchronising with the conntrack table; " + hint)
	}
}

// missed notes that events were lost.
func (s *syncer) missed() {
	s.lost.Add(1)
	notice(s.overrun)
}

// mend notes that what was lost before read is made up for by it.
func (d *Daemon) mend(read func() error) error {
	lost := d.sync.lost.Load()
	err := read()
	if err == nil {
		d.sync.mended.Store(lost)
	}
	return err
}

// outdated reports whether the internal cache may not be what the kernel has:
// events are missing, or never came. Reliable delivery does not tell at once
// of what has to be delivered again.
func (d *Daemon) outdated() bool {
	s := d.sync
	return d.polling() || s.lost.Load() != s.mended.Load() || d.cfg.Kernel.Reliable && s.events.Stats().Lost > 0
}

// refill reads the kernel's table into an internal cache that was full, or is
// that of a new relation.
func (d *Daemon) refill(ctx context.Context) error {
	if d.cfg.Node.DisableInternalCache {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case why := <-d.sync.refill:
			d.countResync()
			err := d.mend(func() error { return d.readTables(ctx, why) })
			if err != nil && ctx.Err() == nil {
				d.log.Errorf("resync with kernel table: %v", err)
			}
		}
	}
}

// calm waits until nothing came from c for quiet, and at most limit. It
// reports false when ctx has ended.
func calm(ctx context.Context, c <-chan struct{}, quiet, limit time.Duration) bool {
	latest := time.NewTimer(limit)
	defer latest.Stop()
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-c:
			silence.Reset(quiet)
		case <-silence.C:
			return true
		case <-latest.C:
			return true
		}
	}
}

// notice wakes the reader of c, which has room for one.
func notice(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (d *Daemon) countResync() {
	d.sync.mu.Lock()
	d.sync.kernel.resyncs++
	d.sync.mu.Unlock()
}

// flushKernel deletes the entries that pass the filter from the kernel's
// table, but for those that spare accepts, if it is not nil. The events are our
// own: the caches follow, the peer is not told.
func (d *Daemon) flushKernel(ctx context.Context, spare func(*flow.Flow) bool) error {
	s := d.sync
	s.mu.Lock()
	s.kernel.flushes++
	s.mu.Unlock()
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	_, err := s.flush.Flush(ctx, kernel.Flushing{
		Filter: func(f *flow.Flow) bool { return d.cfg.Node.Filter.Pass(f) && (spare == nil || !spare(f)) },
		Batch:  s.breadth(),
		Before: func() { s.breathe(ctx) },
	})
	return err
}

// Whoever changes many entries at once causes as many events, and faster than
// they can be read on a busy machine. An overrun would cost a repair, which
// does not know whose changes they were and tells the peer.
const (
	breathPause  = 500 * time.Microsecond // between two looks at the backlog
	breathAtMost = time.Second            // then nobody reads, and waiting does not help
)

// breadth is how many entries may be changed at once: their events take at
// most half of the event socket's buffer.
func (s *syncer) breadth() int {
	return min(max(s.events.Stats().Buffer/2/kernel.EventCost, 16), commitBatch)
}

// breathe waits until the event socket's buffer is at most a quarter full.
func (s *syncer) breathe(ctx context.Context) {
	for waited := time.Duration(0); waited < breathAtMost && ctx.Err() == nil; waited += breathPause {
		used, size, err := s.events.Backlog()
		if err != nil || used <= size/4 {
			return
		}
		time.Sleep(breathPause)
	}
}
