package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// TestHealth follows a pair from its start through an outage to the end of one
// node.
func TestHealth(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		p.a, p.b = nil, newNamed(p.cfg, 2, 2)
		b := p.b
		p.now = 0
		p.run(t, 10*time.Second, nil)
		if h := p.b.Health(p.now); h.Ready || h.InStep || h.Contact || h.Heard || h.Complete {
			t.Fatalf("alone: %+v", h)
		}
		p.a = newNamed(p.cfg, 1, 2)
		flowsOf(p, p.a, 0, 100)
		p.run(t, 15*time.Second, nil)
		for _, n := range []*Node{p.a, b} {
			h := n.Health(p.now)
			if !h.Ready || !h.InStep || !h.Contact || !h.HearsUs || h.Software != "conntrackgo test" || !h.Equal ||
				h.Unacked != 0 || h.Lag != 0 || h.Others || h.SettingsDiffer || h.HeardAge > 2*time.Second {
				t.Errorf("together: %+v", h)
			}
		}
		if h := b.Health(p.now); h.Known != 100 || p.a.Health(p.now).Told != 100 {
			t.Errorf("flows: %+v", h)
		}

		// b hears nothing, and acknowledges nothing.
		flowsOf(p, p.a, 100, 200)
		p.run(t, 10*time.Second, deafTo(p.a))
		h := p.a.Health(p.now)
		if mode == FTFW && (h.Unacked != 100 || h.Lag < 8*time.Second || h.Lag > 11*time.Second || h.InStep) {
			t.Errorf("unheard: %+v", h)
		}
		if h := b.Health(p.now); !h.Ready || h.InStep || h.HeardAge < 9*time.Second {
			t.Errorf("deaf: %+v", h)
		}
		p.run(t, 30*time.Second, nil)
		if h := b.Health(p.now); !h.InStep || h.Gaps == 0 || h.Known != 200 {
			t.Errorf("again: %+v", h)
		}

		// a is gone for good. Its flows stay, and show their age.
		p.a = nil
		p.run(t, 10*time.Minute, nil)
		if h := b.Health(p.now); !h.Ready || h.InStep || h.TableAge < 9*time.Minute || h.Known != 200 {
			t.Errorf("left alone: %+v", h)
		}
		batch := make([]flow.Flow, 256)
		b.BeginCommit()
		if n, _ := b.NextCommit(p.now, batch); n != 200 {
			t.Errorf("%d flows to commit", n)
		}
	})
}

// In ALARM nobody answers or asks: a table is complete after one round of
// refreshes.
func TestAlarmIsReadyAfterARound(t *testing.T) {
	cfg := alarmConfig()
	p := &pair{cfg: cfg, a: newNamed(cfg, 1, 1), b: newNamed(cfg, 2, 1)}
	flowsOf(p, p.a, 0, 20)
	p.run(t, time.Second, nil)
	if p.b.Ready() {
		t.Error("ready at once")
	}
	p.run(t, cfg.RefreshTime+3*time.Second, nil)
	if h := p.b.Health(p.now); !h.Ready || !h.InStep {
		t.Errorf("%+v", h)
	}
	if p.a.Ready() {
		t.Error("ready of a peer that has nothing to say")
	}
}

// A C peer in NOTRACK never says that all of its table has come: it counts as
// complete when nothing was lost for a while.
func TestSilentPeerIsReadyAfterAWhile(t *testing.T) {
	p := newPairOf(t, func(c *Config) { c.Mode = NOTRACK })
	p.a = New(p.cfg, 9000, [2]uint64{5, 6})
	p.b = newNamed(p.cfg, 2, 2)
	flowsOf(p, p.a, 0, 20)
	p.run(t, 2*time.Second, nil)
	if p.b.Ready() {
		t.Error("ready at once")
	}
	p.run(t, 20*time.Second, nil)
	if h := p.b.Health(p.now); !h.Ready || h.Known != 20 {
		t.Errorf("%+v", h)
	}
}
