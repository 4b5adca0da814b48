package daemon

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// injector writes what the peer says to the kernel at once, for a node without
// an external cache. Whoever reads the link hands over what a read brought; if
// it is much a goroutine writes it, all that has come since it last looked, with
// a few system calls. If the kernel is slower than the peer, changes of one flow
// fold into one: the backlog has a flow once, whatever happens to it.
type injector struct {
	writer flowWriter
	limit  int // flows in the backlog
	refuse func(what string, f *flow.Flow, why error)
	lost   func([]flow.Flow) // takes what was to be renewed and is not there

	spare []flow.Event // belongs to whoever is inside the node

	lacking lacking
	short   atomic.Bool // the kernel had no room for an entry

	wake    chan struct{}
	writing sync.Mutex // guards writer and idle; taken before mu
	idle    *backlog   // empty
	mu      sync.Mutex // guards what follows
	next    *backlog
	stats   InjectStats
	// expectStats are those of expectations.
	expectStats InjectStats
}

// flowWriter is what the injector needs of a kernel.Writer.
type flowWriter interface {
	Commit([]flow.Flow, []kernel.Result) error
	Update([]flow.Flow, []kernel.Result) error
	Delete([]flow.Flow, []kernel.Result) error
	Renew([]flow.Flow, []kernel.Result) error
	CreateExpect(*flow.Expect) error
	DeleteExpect(*flow.Expect) error
}

func newInjector(w flowWriter, limit int, refuse func(string, *flow.Flow, error)) *injector {
	return &injector{writer: w, limit: limit, refuse: refuse, wake: make(chan struct{}, 1), next: newBacklog(), idle: newBacklog()}
}

// take hands over what the node has collected and reports whether that is
// anything. The caller is inside the node.
func (j *injector) take(n *node.Node) bool {
	events, expects := n.Injections(j.spare), n.ExpectInjections()
	j.spare = events[:0]
	if len(events)+len(expects) == 0 {
		return false
	}
	j.put(events, expects)
	return true
}

func (j *injector) put(events []flow.Event, expects []flow.ExpectEvent) {
	j.mu.Lock()
	for i := range events {
		if !j.next.add(&events[i], j.limit) {
			j.stats.CreateFailed++
		}
	}
	if len(j.next.expects) < j.limit {
		j.next.expects = append(j.next.expects, expects...)
	}
	j.mu.Unlock()
}

// flush sees to it that what was taken is written: little at once by the
// caller, which is not inside the node, for to wake somebody else takes longer;
// much by the goroutine.
func (j *injector) flush() {
	j.mu.Lock()
	waiting := len(j.next.flows) + len(j.next.expects)
	j.mu.Unlock()
	switch {
	case waiting == 0:
	case waiting <= injectAtOnce && j.writing.TryLock():
		j.work()
		j.writing.Unlock()
	default:
		notice(j.wake)
	}
}

// injectAtOnce is how much holds up the reader for less than a millisecond.
const injectAtOnce = 64

// run writes until ctx ends.
func (j *injector) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		}
		j.writing.Lock()
		j.work()
		j.writing.Unlock()
	}
}

// work writes what has come. The caller holds writing.
func (j *injector) work() {
	j.mu.Lock()
	work := j.next
	j.next = j.idle
	j.mu.Unlock()
	done := j.write(work)
	if len(work.lost) > 0 {
		j.lost(work.lost)
	}
	work.reset()
	j.idle = work
	j.mu.Lock()
	j.stats.add(&done)
	j.mu.Unlock()
}

// Stats returns a copy of the counters.
func (j *injector) Stats() InjectStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats
}

// ExpectStats is Stats of expectations.
func (j *injector) ExpectStats() InjectStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.expectStats
}

// write brings the kernel up to date. Ends come first, so that they are out of
// the way of what begins, and masters before the flows that need them.
func (j *injector) write(b *backlog) (s InjectStats) {
	b.sort()
	j.batch(b, &b.ended, "inject-del", j.writer.Delete, func(o kernel.Outcome) { s.destroyed(o) })
	j.renew(b)
	for i := range b.lives {
		l := &b.lives[i]
		j.batch(b, &l.changed, "inject-upd", j.writer.Update, func(o kernel.Outcome) { s.updated(o) })
		j.batch(b, &l.begun, "inject-add", j.writer.Commit, func(o kernel.Outcome) { s.created(o) })
	}
	for i := range b.expects {
		j.expect(&b.expects[i])
	}
	return s
}

// renew sets timeouts. It is no message of the peer, and counts as none.
func (j *injector) renew(b *backlog) {
	i := 0
	j.batch(b, &b.renewed, "hold-renew", j.writer.Renew, func(o kernel.Outcome) {
		if o == kernel.Absent {
			b.lost = append(b.lost, b.renewed[i])
		}
		i++
	})
}

func (j *injector) expect(ev *flow.ExpectEvent) {
	s := &j.expectStats
	write, good, bad := j.writer.CreateExpect, &s.Created, &s.CreateFailed
	if ev.Op == flow.Destroy {
		write, good, bad = j.writer.DeleteExpect, &s.Destroyed, &s.DestroyFailed
	}
	err := write(&ev.Expect)
	if err != nil {
		j.refuse("inject-expect", nil, err)
		good = bad
	}
	j.mu.Lock()
	*good++
	j.mu.Unlock()
}

func (j *injector) batch(b *backlog, flows *[]flow.Flow, what string, write func([]flow.Flow, []kernel.Result) error, count func(kernel.Outcome)) {
	if len(*flows) == 0 {
		return
	}
	for len(b.results) < len(*flows) {
		b.results = append(b.results, kernel.Result{})
	}
	err := write(*flows, b.results)
	for i := range *flows {
		r := &b.results[i]
		count(r.Outcome)
		j.lacking.add(r.Without)
		if r.Outcome != kernel.Failed {
			continue
		}
		if r.Errno == unix.ENOMEM {
			j.short.Store(true)
		}
		why := r.Err()
		if err != nil && r.Errno == 0 {
			why = err
		}
		j.refuse(what, &(*flows)[i], why)
	}
}

func (s *InjectStats) created(o kernel.Outcome) { tally(o, &s.Created, &s.CreateFailed) }

// updated: one that did not exist was created, which is what the report says.
func (s *InjectStats) updated(o kernel.Outcome) {
	if o == kernel.Created {
		s.Created++
		return
	}
	tally(o, &s.Updated, &s.UpdateFailed)
}

// destroyed: one that did not exist is neither a success nor a failure.
func (s *InjectStats) destroyed(o kernel.Outcome) {
	if o != kernel.Absent {
		tally(o, &s.Destroyed, &s.DestroyFailed)
	}
}

func tally(o kernel.Outcome, done, failed *uint64) {
	if o == kernel.Failed {
		*failed++
	} else {
		*done++
	}
}

func (s *InjectStats) add(t *InjectStats) {
	s.Created += t.Created
	s.Updated += t.Updated
	s.Destroyed += t.Destroyed
	s.CreateFailed += t.CreateFailed
	s.UpdateFailed += t.UpdateFailed
	s.DestroyFailed += t.DestroyFailed
}
