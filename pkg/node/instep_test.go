package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// TestDigestAfterTheEndOfAResync: the acknowledgement that ends a resync comes in
// one datagram with the digest. What the peer no longer has goes before the two
// are compared, though the marks of the bulk were not understood.
func TestDigestAfterTheEndOfAResync(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 100)
	p.run(t, 6*time.Second, nil)
	stale := numbered(5000)
	r, _ := p.b.external.put(&stale.Key)
	p.b.external.save(r, &stale)
	p.b.external.count(r, p.b.external.common(r))
	before := p.b.stats.Extensions
	p.b.RequestResync()
	p.run(t, 300*time.Millisecond, func(*Node, []byte) bool {
		p.b.hear.open = false
		return false
	})
	h, got := p.b.Health(p.now), p.b.stats.Extensions
	if got.Received == before.Received || got.Different != before.Different || !h.InStep || h.Known != 100 {
		t.Errorf("%+v, before %+v, %+v", got, before, h)
	}
}

// TestWholeTableAfterADifference: what was different before the whole table came
// says nothing any more.
func TestWholeTableAfterADifference(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 100)
	p.run(t, 6*time.Second, nil)
	p.b.peer.compare = compare{made: true, at: p.now}
	if h := p.b.Health(p.now); h.InStep {
		t.Errorf("different, and %+v", h)
	}
	p.b.RequestResync()
	p.run(t, 300*time.Millisecond, nil)
	if h := p.b.Health(p.now); !h.InStep || h.TableAge > 300*time.Millisecond {
		t.Errorf("%+v", h)
	}
}

// TestEqualAsAResyncIsDue: a resync in which something was missed is repeated ever
// later. Once the digest shows that nothing is missing, who waits for that is in
// step.
func TestEqualAsAResyncIsDue(t *testing.T) {
	p := grouped(t, nil)
	p.churn(p.a, 0, 0, 100)
	p.run(t, 6*time.Second, nil)
	p.b.expiry.gaps = 5
	p.b.gapped(p.now)
	if h := p.b.Health(p.now); h.InStep || !h.Resyncing {
		t.Errorf("at first: %+v", h)
	}
	p.run(t, 6*time.Second, nil)
	if h := p.b.Health(p.now); !h.InStep || !h.Resyncing || h.ComparedAge > 6*time.Second {
		t.Errorf("after a digest: %+v", h)
	}
	p.b.RequestResync()
	p.b.Next(p.now, nil, 1472) // lost
	if h := p.b.Health(p.now); h.InStep {
		t.Errorf("asked for everything, and %+v", h)
	}
	p.run(t, 3*time.Second, nil)
	if h := p.b.Health(p.now); !h.InStep || h.Resyncing {
		t.Errorf("in the end: %+v", h)
	}
}

// TestLagOfAHighNumber: what has just been sent has no lag, though numbers are so
// high that the first is after zero.
func TestLagOfAHighNumber(t *testing.T) {
	for _, first := range []uint32{1 << 30, 3 << 30, 0} {
		n := New(Config{Mode: FTFW, HashLimit: 10, PurgeTimeout: time.Minute, ResendQueueSize: 10, ACKWindowSize: 5,
			Name: wire.NodeName{Node: 1, Epoch: 1}}, first, [2]uint64{1, 2})
		for now := range 20 * time.Second / time.Second {
			n.Tick(now * time.Second)
		}
		n.Kernel(20*time.Second, event1(flow.New, numbered(1)))
		n.Next(20*time.Second, nil, 1472)
		if h := n.Health(20 * time.Second); h.Unacked != 1 || h.Lag != 0 {
			t.Errorf("first number %d: %d unacknowledged, lag %v", first, h.Unacked, h.Lag)
		}
	}
}
