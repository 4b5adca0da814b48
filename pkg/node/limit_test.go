package node

import (
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// A cache that was full asks for the table when an eighth of it is free, and
// not for less, not twice, not too often.
func TestRefillInternal(t *testing.T) {
	const limit = 80
	cfg := simConfig()
	cfg.HashLimit = limit
	n := New(cfg, 1, [2]uint64{1, 2})
	events := func(op flow.Op, from, to int) {
		for i := from; i < to; i++ {
			n.Kernel(0, event1(op, tcp(uint16(i), 3)))
		}
	}
	events(flow.New, 0, limit)
	events(flow.Destroy, 0, limit/2)
	n.Tick(time.Second)
	if n.SweepWanted() {
		t.Fatal("nothing was refused")
	}
	events(flow.New, 0, limit/2)
	events(flow.New, 1000, 1005)
	n.Tick(2 * time.Second)
	events(flow.Destroy, 0, limit/roomPart-1)
	n.Tick(3 * time.Second)
	if n.SweepWanted() {
		t.Fatal("there is hardly room")
	}
	events(flow.Destroy, 0, limit/roomPart)
	n.Tick(4 * time.Second)
	if !n.SweepWanted() || n.SweepWanted() {
		t.Fatal("wanted once")
	}
	if got := noticeKinds(n); !slices.Equal(got, []NoticeKind{RoomAgain}) {
		t.Errorf("notices: %v", got)
	}
	events(flow.New, 2000, 2000+limit)
	events(flow.Destroy, 2000, 2000+limit)
	n.Tick(5 * time.Second)
	if n.SweepWanted() {
		t.Error("wanted again at once")
	}
	n.Tick(4*time.Second + refillPause)
	if !n.SweepWanted() {
		t.Error("not wanted although it was full again")
	}
}

// An external cache that was full and has room again gets what the peer has,
// without an operator.
func TestRefillExternal(t *testing.T) {
	const limit, many = 16, 40
	small := simConfig()
	small.HashLimit = limit
	p := &pair{a: New(simConfig(), 1000, [2]uint64{1, 2}), b: New(small, 5000, [2]uint64{3, 4})}
	p.rest()
	var kept []uint16
	for i := range uint16(many) {
		p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
		if i >= many-limit/2 {
			kept = append(kept, i)
		}
	}
	p.rest()
	if st := p.b.Stats().External; st.Active != limit || st.NoSpace != many-limit {
		t.Fatalf("%+v, want %d flows and %d refused", st, limit, many-limit)
	}
	for i := range uint16(many - limit/2) {
		p.a.Kernel(p.now, event1(flow.Destroy, tcp(i, 3)))
	}
	p.rest()
	p.rest()
	p.copied(t, kept...)
}

// Who flushes a cache wants it empty: what it refused before is not got for it.
func TestFlushedIsNotRefilled(t *testing.T) {
	cfg := simConfig()
	cfg.HashLimit = 8
	n := New(cfg, 1, [2]uint64{1, 2})
	for i := range cfg.HashLimit + 1 {
		n.Kernel(0, event1(flow.New, tcp(uint16(i), 3)))
	}
	n.FlushInternal()
	n.Tick(time.Second)
	if n.SweepWanted() {
		t.Error("the table is to be read after a flush")
	}
}
