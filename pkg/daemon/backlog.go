package daemon

import (
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
)

// backlog is what the kernel is yet to be told: each flow once.
type backlog struct {
	index map[flow.Key]int32
	flows []waiting
	// Expectations are few and each is written, after the flows.
	expects []flow.ExpectEvent

	// The same in the order of writing; see sort.
	ended   []flow.Flow
	renewed []flow.Flow
	lives   [2]lives // without a master, with one
	results []kernel.Result

	lost []flow.Flow // of those renewed, what was not there
}

type waiting struct {
	flow.Event
	anew bool // delete what is there first: it was another flow
}

type lives struct{ changed, begun []flow.Flow }

// backlogKept is how many flows' memory is kept after a storm.
const backlogKept = 4096

func newBacklog() *backlog { return &backlog{index: make(map[flow.Key]int32)} }

// add folds an event in. It reports false when the backlog is full.
func (b *backlog) add(ev *flow.Event, limit int) bool {
	i, known := b.index[ev.Flow.Key]
	if !known {
		if len(b.flows) >= limit {
			return false
		}
		b.index[ev.Flow.Key] = int32(len(b.flows))
		b.flows = append(b.flows, waiting{Event: *ev})
		return true
	}
	w := &b.flows[i]
	switch {
	case w.Op == flow.Renew:
		*w = waiting{Event: *ev}
	case ev.Op == flow.Renew: // what waits sets the timeout too
	case ev.Op == flow.Destroy:
		*w = waiting{Event: *ev}
	case w.Op == flow.Destroy:
		*w = waiting{Event: *ev, anew: true}
		w.Op = flow.New
	case ev.Op == flow.New:
		*w = waiting{Event: *ev, anew: w.anew}
	default:
		w.Flow.Merge(&ev.Flow) // and a new one stays new
	}
	return true
}

// sort makes batches of it.
func (b *backlog) sort() {
	for i := range b.flows {
		w := &b.flows[i]
		if w.anew || w.Op == flow.Destroy {
			b.ended = append(b.ended, w.Flow)
		}
		l := &b.lives[0]
		if w.Flow.Has.Has(flow.HasMaster) {
			l = &b.lives[1]
		}
		switch w.Op {
		case flow.Renew:
			b.renewed = append(b.renewed, w.Flow)
		case flow.New:
			l.begun = append(l.begun, w.Flow)
		case flow.Update:
			l.changed = append(l.changed, w.Flow)
		}
	}
}

// reset makes it empty.
func (b *backlog) reset() {
	if len(b.flows)+len(b.expects) > backlogKept {
		*b = *newBacklog()
		return
	}
	clear(b.index)
	b.expects = b.expects[:0]
	b.flows, b.ended, b.renewed, b.lost = b.flows[:0], b.ended[:0], b.renewed[:0], b.lost[:0]
	for i := range b.lives {
		l := &b.lives[i]
		l.changed, l.begun = l.changed[:0], l.begun[:0]
	}
}
