package daemon

import (
	"context"
	"sync"
	"time"
)

// purge is the flush ordered by -t, PurgeTimeout later.
type purge struct {
	mu   sync.Mutex
	next *purgeRun // nil: none
}

// A purgeRun is one purge, waiting or under way.
type purgeRun struct {
	timer *time.Timer
	abort context.CancelFunc
	done  chan struct{}
}

// schedule runs fn after a while. It reports false when a purge is already
// pending or under way.
func (p *purge) schedule(after time.Duration, fn func(context.Context)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != nil {
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
	})
	return true
}

// cancel returns when no purge is pending and none deletes anything any more:
// what a commit writes next is safe from it.
func (p *purge) cancel() {
	p.mu.Lock()
	run := p.next
	p.next = nil
	p.mu.Unlock()
	if run == nil {
		return
	}
	run.abort()
	if !run.timer.Stop() {
		<-run.done
	}
}
