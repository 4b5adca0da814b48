package daemon

import (
	"context"
	"fmt"
	"sync"
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

// readTable dumps the kernel's table into the internal cache.
func (d *Daemon) readTable(ctx context.Context, why node.Purpose) error {
	s := d.sync
	s.resync.Lock()
	defer s.resync.Unlock()
	begin := func() {
		d.enter(func(n *node.Node, _ time.Duration) { n.BeginSweep(why) })
	}
	batch := make([]flow.Event, 0, eventBatch)
	feed := func() {
		d.enter(func(n *node.Node, now time.Duration) { n.Kernel(now, batch) })
		batch = batch[:0]
	}
	begin()
	var dumper kernel.Dumper
	err := dumper.Dump(ctx, func(f *flow.Flow) error {
		batch = append(batch, flow.Event{Op: flow.Dumped, Flow: *f})
		if len(batch) == cap(batch) {
			feed()
		}
		return nil
	}, func() {
		batch = batch[:0]
		begin()
	})
	if err != nil {
		d.enter(func(n *node.Node, _ time.Duration) { n.AbortSweep() })
		return fmt.Errorf("read conntrack table: %w", err)
	}
	feed()
	for done := false; !done; {
		d.enter(func(n *node.Node, _ time.Duration) { done = n.EndSweep(sweepChunk) })
	}
	return nil
}

// A repairer makes the internal cache equal to the kernel's table again after
// an overrun: once the storm is over for a moment, and at the latest after
// NetlinkOverrunResync.
type repairer struct {
	d     *Daemon
	mu    sync.Mutex
	timer *time.Timer
	first time.Time // of the overruns not yet repaired; zero: none
}

// repairCalm is how long no event must have been lost before the repair: a
// dump in the middle of a storm only makes it worse.
const repairCalm = 500 * time.Millisecond

func newRepairer(d *Daemon) *repairer { return &repairer{d: d} }

// schedule is called at each overrun.
func (r *repairer) schedule(ctx context.Context) {
	limit := r.d.cfg.Kernel.OverrunResync
	if limit == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.first.IsZero() {
		r.first = now
		r.d.log.Warn("kernel events were lost (netlink overrun), resynchronising with the conntrack table; raise NetlinkBufferSize and NetlinkBufferSizeMaxGrowth if this repeats")
	}
	wait := min(repairCalm, max(limit-now.Sub(r.first), 0))
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, func() { r.run(ctx) })
		return
	}
	r.timer.Reset(wait)
}

func (r *repairer) run(ctx context.Context) {
	r.mu.Lock()
	r.first = time.Time{}
	r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	r.d.countResync()
	if err := r.d.readTable(ctx, node.Repair); err != nil {
		r.d.log.Errorf("resync with kernel table: %v", err)
		r.schedule(ctx)
	}
}

func (r *repairer) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

func (d *Daemon) countResync() {
	d.sync.mu.Lock()
	d.sync.kernel.resyncs++
	d.sync.mu.Unlock()
}

// flushKernel deletes the entries that pass the filter from the kernel's
// table. The events are our own: the caches follow, the peer is not told.
func (d *Daemon) flushKernel(ctx context.Context) error {
	s := d.sync
	s.mu.Lock()
	s.kernel.flushes++
	s.mu.Unlock()
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	_, err := s.flush.Flush(ctx, func(f *flow.Flow) bool { return d.cfg.Node.Filter.Pass(f) })
	return err
}

// purge is the flush ordered by -t, PurgeTimeout later.
type purge struct {
	mu    sync.Mutex
	timer *time.Timer
}

// schedule reports false when a purge is already pending.
func (p *purge) schedule(after time.Duration, fn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		return false
	}
	p.timer = time.AfterFunc(after, func() {
		p.mu.Lock()
		p.timer = nil
		p.mu.Unlock()
		fn()
	})
	return true
}

func (p *purge) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}
