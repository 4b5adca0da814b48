package daemon

import (
	"context"
	"slices"
	"sync"
	"time"
)

// purge is the flush ordered by -t, PurgeTimeout later.
type purge struct {
	mu      sync.Mutex
	next    *purgeRun   // nil: none
	aborted []*purgeRun // those that may still delete something
	ended   bool        // none is scheduled any more
}

// A purgeRun is one purge, waiting or under way.
type purgeRun struct {
	timer *time.Timer
	abort context.CancelFunc
	done  chan struct{}
}

// schedule runs fn after a while. It reports false when a purge is already
// pending or under way, or the daemon ends.
func (p *purge) schedule(after time.Duration, fn func(context.Context)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != nil || p.ended {
		return false
	}
	ctx, abort := context.WithCancel(context.Background())
	run := &purgeRun{abort: abort, done: make(chan struct{})}
	p.next = run
	run.timer = time.AfterFunc(after, func() {
		defer close(run.done)
		defer abort()
		fn(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.next == run {
			p.next = nil
		}
		p.aborted = slices.DeleteFunc(p.aborted, func(r *purgeRun) bool { return r == run })
	})
	return true
}

// cancel returns when no purge is pending and none deletes anything any more,
// whoever has aborted it: what a commit writes next is safe from it.
func (p *purge) cancel() {
	p.mu.Lock()
	if run := p.next; run != nil {
		p.next = nil
		run.abort()
		if !run.timer.Stop() {
			p.aborted = append(p.aborted, run)
		}
	}
	aborted := slices.Clone(p.aborted)
	p.mu.Unlock()
	for _, run := range aborted {
		<-run.done
	}
}

// end is the last cancel.
func (p *purge) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.cancel()
}
