package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// rest lets some seconds pass on a link that works.
func (p *pair) rest() {
	for range 5 {
		p.now += time.Second
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		p.exchange()
		for _, n := range []*Node{p.a, p.b} {
			for !n.Expire(100) {
			}
		}
	}
}

// copied checks what b holds of a.
func (p *pair) copied(t *testing.T, sports ...uint16) {
	t.Helper()
	got := snapshot(p.b.external)
	for _, sport := range sports {
		if _, ok := got[tcp(sport, 0).Key]; !ok {
			t.Errorf("the peer has no flow %d", sport)
		}
	}
	if len(got) != len(sports) {
		t.Errorf("the peer has %d flows, want %d", len(got), len(sports))
	}
}

// A flush says nothing to the peer; the news of what ended before or ends
// after it must not be lost for that.
func TestFlushKeepsTheNewsOfTheDead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events func(n *Node, now time.Duration)
		want   []uint16
	}{
		{"ended before, not sent yet", func(n *Node, now time.Duration) {
			n.Kernel(now, event1(flow.Destroy, tcp(1, 7)))
			n.FlushInternal()
		}, []uint16{2}},
		{"ended before, lost on the way", func(n *Node, now time.Duration) {
			n.Kernel(now, event1(flow.Destroy, tcp(1, 7)))
			sentTypes(n, now)
			n.FlushInternal()
		}, []uint16{2}},
		{"ends after", func(n *Node, now time.Duration) {
			n.FlushInternal()
			n.Kernel(now, event1(flow.Destroy, tcp(1, 7)))
		}, []uint16{2}},
		{"comes again after, and ends at once", func(n *Node, now time.Duration) {
			n.FlushInternal()
			n.Kernel(now, event1(flow.New, tcp(1, 1)))
			n.Kernel(now, event1(flow.Destroy, tcp(1, 7)))
		}, []uint16{2}},
		{"ends again after", func(n *Node, now time.Duration) {
			n.Kernel(now, event1(flow.Destroy, tcp(1, 7)))
			n.FlushInternal()
			n.Kernel(now, event1(flow.Destroy, tcp(1, 7)))
		}, []uint16{2}},
		{"nothing ended", func(n *Node, now time.Duration) {
			n.FlushInternal()
		}, []uint16{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := established(t)
			p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
			p.a.Kernel(p.now, event1(flow.New, tcp(2, 3)))
			p.rest()
			p.copied(t, 1, 2)
			tt.events(p.a, p.now)
			if live := p.a.internal.live(); live != 0 {
				t.Errorf("%d entries left", live)
			}
			p.rest()
			p.copied(t, tt.want...)
			if st := p.a.Stats().Internal; st.Total != 0 {
				t.Errorf("%d tombstones left", st.Total)
			}
		})
	}
}

// A C peer merges a CT_UPD into what it has. After a flush we no longer know
// what that is.
func TestFlowAfterFlushIsNew(t *testing.T) {
	p := established(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.rest()
	p.a.FlushInternal()
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 1)))
	p.a.Kernel(p.now, event1(flow.Update, tcp(1, 3)))
	if got := sentTypes(p.a, p.now); got != [6]int{wire.CTNew: 1} {
		t.Errorf("sent %v, want one CT_NEW", got)
	}
}

// What primary-backup.sh orders on the new primary, while the new backup asks
// for everything: the answer must not end before the table is read again, or
// the backup takes what was not read yet for gone.
func TestResyncAnswerWaitsForTheTable(t *testing.T) {
	p := established(t)
	var all []uint16
	for i := range uint16(200) {
		p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
		all = append(all, i)
	}
	p.rest()
	ask := func() {
		p.b.RequestResync()
		for b := p.b.Next(p.now, nil, 1472); len(b) > 0; b = p.b.Next(p.now, nil, 1472) {
			p.a.Datagram(p.now, b)
		}
	}
	t.Run("asked during the reading", func(t *testing.T) {
		p.a.FlushInternal()
		p.a.BeginSweep(Refresh)
		ask()
		p.rest()
		if d := p.a.Deadline(); d <= p.now {
			t.Errorf("the timer of the waiting bulk fires without end: %v at %v", d, p.now)
		}
		p.refill(all)
		p.copied(t, all...)
	})
	t.Run("asked before the flush", func(t *testing.T) {
		ask()
		p.a.Next(p.now, nil, 1472)
		p.a.FlushInternal()
		p.a.BeginSweep(Refresh)
		p.refill(all)
		p.copied(t, all...)
	})
	t.Run("read in the middle", func(t *testing.T) {
		for _, i := range all[:100] { // places for the others, before the bulk's
			f := tcp(i, 3)
			p.a.drop(p.a.internal.lookup(&f.Key))
		}
		ask()
		p.a.Next(p.now, nil, 1472)
		if !p.a.bulk.active {
			t.Fatal("the bulk is over too soon for this test")
		}
		p.a.BeginSweep(Refresh)
		p.refill(all)
		p.copied(t, all...)
	})
}

// refill lets a's sweep find the flows, and the peer hear of it.
func (p *pair) refill(sports []uint16) {
	for _, i := range sports {
		p.a.Kernel(p.now, event1(flow.Dumped, tcp(i, 3)))
	}
	for !p.a.EndSweep(64) {
	}
	p.rest()
}

// Without an external cache the peer's flows are in our kernel and not in our
// cache. That they end here, where no packet refreshes them, is nothing to tell
// the peer, whatever was flushed.
func TestFlushInternalThenInjectedFlowExpires(t *testing.T) {
	p := newPairOf(t, func(c *Config) { c.DisableExternalCache = true })
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.exchange()
	p.b.FlushInternal() // as a purge does
	p.b.Kernel(p.now, event1(flow.Destroy, tcp(1, 3)))
	if got := sentTypes(p.b, p.now); got != [6]int{} {
		t.Errorf("told the peer: %v", got)
	}
}
