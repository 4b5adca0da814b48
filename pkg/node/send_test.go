package node

import (
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestWindow(t *testing.T) {
	w := newWindow(1<<20, 300)
	grow := func(messages int) {
		for ; messages > 0; messages -= bulkChunk {
			w.feed()
		}
	}
	if grow(2*windowFirst - bulkChunk); w.size != windowFirst {
		t.Errorf("%d before a window has arrived", w.size)
	}
	if grow(bulkChunk); w.size != 2*windowFirst {
		t.Errorf("%d after one window has arrived, want twice %d", w.size, windowFirst)
	}
	if grow(1 << 20); w.size != windowMost {
		t.Errorf("%d at last, want %d", w.size, windowMost)
	}
	if w.heed(0); w.size != windowMost {
		t.Errorf("%d without a NACK", w.size)
	}
	w.heed(3)
	if w.heed(3); w.size != windowMost/2 {
		t.Errorf("%d after NACKs, want half of %d", w.size, windowMost)
	}
	if grow(1 << 20); w.size != windowMost*3/4 {
		t.Errorf("%d is where the peer missed something", w.size)
	}
	w.renew()
	if grow(1 << 20); w.size != windowMost {
		t.Errorf("%d for another peer, want %d", w.size, windowMost)
	}
	for i := range uint64(20) {
		w.heed(4 + i)
	}
	if w.size != windowFirst {
		t.Errorf("%d after many NACKs, want %d", w.size, windowFirst)
	}
	if w = newWindow(0, 300); w.most != windowFirst {
		t.Errorf("it grows to %d for a default buffer", w.most)
	}
	if w = newWindow(0, 1000); w.size <= 1000 {
		t.Errorf("%d, and the peer acknowledges after 1000", w.size)
	}
}

// TestBulkKeepsItsWindow sends a bulk to a peer that loses a datagram now and
// then: never is more under way than the window, and everything arrives.
func TestBulkKeepsItsWindow(t *testing.T) {
	p := newPair(t)
	p.a.window = newWindow(windowMost, 300)
	const many = 20000
	for i := range many {
		f := tcp(uint16(i), 3)
		f.Src[1], f.ID = byte(i>>16), uint32(i)
		p.a.Kernel(p.now, event1(flow.New, f))
	}
	p.exchange()
	if !p.b.FlushExternal() {
		t.Fatal("not flushed")
	}
	p.a.SendBulk()
	n, lost, least, most := 0, 0, windowMost, 0
	for p.a.bulk.active {
		window := p.a.window.size
		for {
			p.bufs[0] = p.a.Next(p.now, p.bufs[0], 1472)
			if len(p.bufs[0]) == 0 {
				break
			}
			if n++; n%700 == 0 {
				lost++
				continue
			}
			p.b.Datagram(p.now, p.bufs[0])
		}
		_, unacked := p.a.engine.Pending()
		if unacked > 2*window+bulkChunk+DefaultACKWindowSize {
			t.Fatalf("%d messages under way with a window of %d", unacked, window)
		}
		least, most = min(least, p.a.window.size), max(most, p.a.window.size)
		for {
			p.bufs[1] = p.b.Next(p.now, p.bufs[1], 1472)
			if len(p.bufs[1]) == 0 {
				break
			}
			p.a.Datagram(p.now, p.bufs[1])
		}
		p.now += bulkRetry / 100
		p.a.Tick(p.now)
		p.b.Tick(p.now)
	}
	p.rest()
	if got := p.b.Stats().External.Active; got != many {
		t.Errorf("%d of %d arrived", got, many)
	}
	if lost == 0 || least >= most {
		t.Errorf("%d datagrams lost, window %d to %d", lost, least, most)
	}
}
