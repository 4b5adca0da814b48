package node

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// hear takes a CT_NEW of the peer.
func hear(n *Node, now time.Duration, f *flow.Flow) {
	r, fresh := n.external.put(&f.Key)
	n.replace(now, n.external, r, fresh, f)
}

// handOut takes everything that a commit hands out; between may do something
// to the node after each batch.
func handOut(n *Node, now time.Duration, size int, between func()) (ports []uint16) {
	n.BeginCommit()
	batch := make([]flow.Flow, size)
	for done := false; !done; {
		var filled int
		filled, done = n.NextCommit(now, batch)
		for i := range filled {
			ports = append(ports, batch[i].Sport)
		}
		if between != nil {
			between()
		}
	}
	return ports
}

func TestCommitOrder(t *testing.T) {
	n := New(simConfig(), 1, [2]uint64{1, 2})
	flowOf := func(port uint16, state uint8, status uint32) *flow.Flow {
		f := tcp(port, state)
		f.Status |= status
		return &f
	}
	// Connections that carry data, one each hour, and at their sides others.
	for i := range uint16(6) {
		at := time.Duration(i) * time.Hour
		hear(n, at, flowOf(10+i, tcpEstablished, flow.StatusAssured))
		hear(n, at, flowOf(20+i, tcpEstablished, 0))
		hear(n, at, flowOf(30+i, 7, flow.StatusAssured)) // TIME_WAIT
	}
	child := flowOf(40, tcpEstablished, flow.StatusAssured)
	child.Has |= flow.HasMaster
	hear(n, 5*time.Hour, child)
	udp := *flowOf(16, 0, flow.StatusAssured)
	udp.Proto, udp.Has = flow.ProtoUDP, udp.Has&^flow.HasState
	hear(n, 6*time.Hour, &udp)

	got := handOut(n, 6*time.Hour, 4, nil)
	want := []uint16{16, 10, 15, 11, 14, 12, 13}
	if !slices.Equal(got[:7], want) {
		t.Errorf("first come %v, want %v", got[:7], want)
	}
	if last := got[len(got)-1]; len(got) != 20 || last != 40 {
		t.Errorf("%d entries, the last is %d, want 20 and 40", len(got), last)
	}
}

// What is there all the time is handed out once, whatever comes and goes.
func TestCommitWhileEntriesComeAndGo(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := New(simConfig(), 1, [2]uint64{1, 2})
		const stay, total = 6000, 12000
		for i := range uint16(total) {
			f := tcp(i, uint8(r.IntN(8)))
			f.Status |= flow.StatusAssured * uint32(r.IntN(2))
			hear(n, time.Duration(r.IntN(100000))*time.Second, &f)
		}
		got := handOut(n, 100000*time.Second, 100, func() {
			for range r.IntN(100) { // the others end, begin, change
				f := tcp(stay+uint16(r.IntN(2*total)), uint8(r.IntN(8)))
				if e := n.external.lookup(&f.Key); e != none && r.IntN(2) == 0 {
					n.gone(e)
				} else {
					f.Status |= flow.StatusAssured * uint32(r.IntN(2))
					hear(n, 100000*time.Second, &f)
				}
			}
			if n.limits[External].full {
				t.Fatal("the cache is full")
			}
		})
		times := map[uint16]int{}
		for _, port := range got {
			times[port]++
		}
		for i := range uint16(stay) {
			if times[i] != 1 {
				t.Fatalf("seed %d: flow %d was handed out %d times", seed, i, times[i])
			}
		}
	}
}

func TestAgeBuckets(t *testing.T) {
	last := -1
	for age := uint32(0); age < 1<<20; age++ {
		b := ageBucket(age)
		if b < last || b > last+1 {
			t.Fatalf("age %d is in bucket %d after %d", age, b, last)
		}
		last = b
	}
	if b := ageBucket(^uint32(0)); b != commitAges-1 {
		t.Errorf("the last bucket is %d, want %d", b, commitAges-1)
	}
}
