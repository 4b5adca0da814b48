package node

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// faults are the odds, in percent, of what may befall a datagram.
type faults struct{ loss, dup, reorder uint }

// world is two whole nodes with a fake kernel each, a faulty link between
// them, and a virtual clock. One heap pop is one call into a node.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Duration
	faults faults
	peers  [2]*peer
	queue  events
	order  int
	sent   int // datagrams
	churn  int // kernel events told to nodes
}

// peer is one node and its kernel's table.
type peer struct {
	w      *world
	index  int
	node   *Node
	born   time.Duration // when this life of the node began
	first  uint32
	kernel map[flow.Key]flow.Flow
	keys   []flow.Key // of kernel, for a choice that only depends on the seed
	nextID uint32
	down   bool
	buf    []byte
}

type event struct {
	at    time.Duration
	order int
	run   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func newWorld(t *testing.T, seed uint64, f faults) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), faults: f}
	for i := range w.peers {
		w.peers[i] = &peer{w: w, index: i, kernel: make(map[flow.Key]flow.Flow)}
		w.peers[i].first = 1_700_000_000 + w.rng.Uint32N(1000)
		if seed%2 == 0 {
			w.peers[i].first = ^uint32(0) - w.rng.Uint32N(200)
		}
		w.peers[i].start()
	}
	return w
}

func simConfig() Config {
	return Config{Mode: FTFW, HashLimit: 1 << 20, PurgeTimeout: time.Minute,
		ResendQueueSize: 4096, ACKWindowSize: 20}
}

// start gives the peer a new node that reads its kernel's table.
func (p *peer) start() {
	p.down = false
	p.born = p.w.now
	p.node = New(simConfig(), p.first, [2]uint64{1, 2})
	p.first += 5 + uint32(p.w.rng.UintN(100))
	p.node.BeginSweep(Start)
	for _, k := range p.keys {
		f := p.kernel[k]
		p.node.Kernel(p.clock(), []flow.Event{{Op: flow.Dumped, Flow: f}})
	}
	for !p.node.EndSweep(64) {
	}
	p.pump()
}

func (p *peer) clock() time.Duration { return p.w.now - p.born }

func (w *world) at(d time.Duration, run func()) {
	w.order++
	heap.Push(&w.queue, event{w.now + d, w.order, run})
}

// pump sends what the node has over the faulty link.
func (p *peer) pump() {
	for !p.down {
		p.buf = p.node.Next(p.clock(), p.buf, 1472)
		if len(p.buf) == 0 {
			break
		}
		p.w.transmit(p, p.buf)
	}
	for !p.node.Expire(64) {
	}
}

func (w *world) transmit(from *peer, b []byte) {
	w.sent++
	copies := 1
	switch dice := w.rng.UintN(100); {
	case dice < w.faults.loss:
		copies = 0
	case dice < w.faults.loss+w.faults.dup:
		copies = 2
	}
	for range copies {
		delay := 100 * time.Microsecond
		if w.rng.UintN(100) < w.faults.reorder {
			delay = time.Duration(w.rng.UintN(5000)) * time.Microsecond
		}
		data := append([]byte(nil), b...)
		w.at(delay, func() {
			to := w.peers[1-from.index]
			if to.down {
				return
			}
			to.node.Datagram(to.clock(), data)
			to.pump()
		})
	}
}

// run lets the world go on for d.
func (w *world) run(d time.Duration) {
	end := w.now + d
	for {
		next, who := end, (*peer)(nil)
		for _, p := range w.peers {
			if p.down {
				continue
			}
			if at := p.born + p.node.Deadline(); at <= next {
				next, who = max(at, w.now), p
			}
		}
		if len(w.queue) > 0 && w.queue[0].at <= next {
			ev := heap.Pop(&w.queue).(event)
			w.now = ev.at
			ev.run()
			continue
		}
		if who == nil || next >= end {
			w.now = end
			return
		}
		w.now = next
		who.node.Tick(who.clock())
		who.pump()
	}
}

// tell hands a kernel event to the node, if it lives.
func (p *peer) tell(op flow.Op, f *flow.Flow) {
	if p.down {
		return
	}
	p.w.churn++
	p.node.Kernel(p.clock(), []flow.Event{{Op: op, Flow: *f}})
	if p.w.rng.UintN(3) > 0 { // the others wait for the next batch
		p.pump()
	}
}

// step does one random thing in the peer's kernel.
func (p *peer) step() {
	r := p.w.rng
	var i int
	var known flow.Key
	if len(p.keys) > 0 {
		i = r.IntN(len(p.keys))
		known = p.keys[i]
	}
	switch dice := r.UintN(10); {
	case dice < 5 || len(p.kernel) == 0:
		family := flow.IPv4
		if r.UintN(3) == 0 {
			family = flow.IPv6
		}
		f := randomFlow(r, family)
		f.Has |= flow.HasStatus | flow.HasID | flow.HasTimeout
		f.Has &^= flow.HasZoneRepl | flow.HasStart | flow.HasStop | flow.HasVtag | flow.HasRole
		f.Zone = f.Zone & 1
		f.Src[0], f.Src[1], f.Src[2] = byte(p.index), 0, 0 // few tuples, so they come again
		f.Src[3] = byte(r.UintN(8))
		f.Sport, f.Dport = uint16(r.UintN(4)), 80
		for i := range f.Dst {
			f.Dst[i] = 0
		}
		for i := 4; i < 16; i++ {
			f.Src[i] = 0
		}
		if _, ok := p.kernel[f.Key]; ok {
			return
		}
		p.nextID++
		f.ID = p.nextID
		p.kernel[f.Key] = f
		p.keys = append(p.keys, f.Key)
		p.tell(flow.New, &f)
	case dice < 8:
		f := p.kernel[known]
		f.Mark++
		f.Has |= flow.HasMark
		f.State = uint8(r.UintN(8))
		f.Has |= flow.HasState
		p.kernel[known] = f
		p.tell(flow.Update, &f)
	default:
		f := p.kernel[known]
		delete(p.kernel, known)
		p.keys[i] = p.keys[len(p.keys)-1]
		p.keys = p.keys[:len(p.keys)-1]
		p.tell(flow.Destroy, &f)
	}
}

// snapshot is what a store holds as far as it travels.
func snapshot(s *store) map[flow.Key]flow.Flow {
	m := make(map[flow.Key]flow.Flow)
	var c cursor
	for !c.done {
		s.scan(&c, 100, func(r ref) {
			var f flow.Flow
			s.load(r, &f)
			m[f.Key] = onWire(f)
		})
	}
	return m
}

// onWire reduces a flow to what a message about it carries.
func onWire(f flow.Flow) flow.Flow {
	n := Node{}
	b := n.wire.AppendFlow(nil, wire.Header{Type: wire.CTUpd}, &f)
	var g flow.Flow
	if err := n.wire.ParseFlow(b[8:], &g); err != nil {
		panic(fmt.Sprintf("own message refused: %v", err))
	}
	return g
}

// check compares everything that must be equal at rest.
func (w *world) check() {
	w.t.Helper()
	for i, p := range w.peers {
		q := w.peers[1-i]
		internal, external := snapshot(p.node.internal), snapshot(q.node.external)
		if len(internal) != len(p.kernel) {
			w.t.Errorf("node %d: %d in the internal cache, %d in the kernel", i, len(internal), len(p.kernel))
		}
		if diff := cmp.Diff(internal, external); diff != "" {
			w.t.Errorf("external(%d) is not internal(%d) (-internal +external):\n%.3000s", 1-i, i, diff)
		}
		st := p.node.Stats()
		if st.Internal.Total != st.Internal.Active {
			w.t.Errorf("node %d: %d tombstones left at rest", i, st.Internal.Total-st.Internal.Active)
		}
		if st.TxQueue != 0 {
			w.t.Errorf("node %d: %d left in the tx queue at rest", i, st.TxQueue)
		}
	}
}

var simSeeds = flag.Uint64("sim.seeds", 500, "random schedules per fault profile")
var simSeed = flag.Uint64("sim.seed", 0, "run only this schedule")

// Whatever the link does to datagrams and whenever nodes die, once the link
// behaves each external cache is the other's internal cache.
func TestTwoNodesConverge(t *testing.T) {
	profiles := []struct {
		name     string
		faults   faults
		restarts bool
	}{
		{"clean", faults{}, false},
		{"loss", faults{loss: 20}, false},
		{"dup-reorder", faults{dup: 15, reorder: 30}, false},
		{"all", faults{loss: 10, dup: 10, reorder: 20}, true},
	}
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= *simSeeds; seed++ {
				if *simSeed != 0 && seed != *simSeed {
					continue
				}
				simulate(t, seed, p.faults, p.restarts)
				if t.Failed() {
					t.Fatalf("seed %d failed; run it alone with -sim.seed=%d", seed, seed)
				}
			}
		})
	}
}

func simulate(t *testing.T, seed uint64, f faults, restarts bool) {
	w := newWorld(t, seed, f)
	w.run(2 * time.Second)
	for range 300 {
		p := w.peers[w.rng.UintN(2)]
		p.step()
		if restarts && w.rng.UintN(60) == 0 {
			p.down = !p.down
			if !p.down {
				p.start()
			}
		}
		w.run(time.Duration(w.rng.UintN(20)) * time.Millisecond)
	}
	w.faults = faults{}
	for _, p := range w.peers {
		if p.down {
			p.start()
		}
		p.pump()
	}
	w.run(60 * time.Second)
	w.check()
	if limit := 40*w.churn + 2000; w.sent > limit {
		t.Errorf("%d datagrams for %d events", w.sent, w.churn)
	}
}
