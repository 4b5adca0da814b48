package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// A holdWorld is two firewalls with hold, one of which has the traffic. Each
// open connection has a packet a second there, of which no event tells; the
// other's kernel hears of it by its daemon only.
type holdWorld struct {
	t      *testing.T
	now    time.Duration
	rand   *rand.Rand
	nodes  [2]*holdNode
	active int
	cut    bool
	open   map[flow.Key]flow.Flow
	next   int
	trace  []string
}

type holdNode struct {
	*Node
	name  string
	born  time.Duration
	table map[flow.Key]time.Duration // when the kernel lets it go
	purge time.Duration              // when -t strikes; 0: not pending
}

func (n *holdNode) clock(w *holdWorld) time.Duration { return w.now - n.born }

func (w *holdWorld) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8v  ", w.now)+fmt.Sprintf(format, args...))
}

func (w *holdWorld) start(n *holdNode) {
	cfg := simConfig()
	cfg.Mode = FTFW
	holdConfig(&cfg)
	cfg.ResendQueueSize, cfg.ACKWindowSize = DefaultResendQueueSize, DefaultACKWindowSize
	n.born = w.now
	n.Node = New(cfg, w.rand.Uint32(), [2]uint64{w.rand.Uint64(), w.rand.Uint64()})
	n.SetTimeouts(flow.Timeouts{UDP: udpNormal, UDPStream: udpNormal})
	n.read(w, Start)
}

// read feeds the kernel's table.
func (n *holdNode) read(w *holdWorld, why Purpose) {
	n.BeginSweep(why)
	for _, key := range sorted(n.table) {
		f := w.flow(key)
		f.Timeout = uint32((n.table[key] - w.now) / time.Second)
		n.Kernel(n.clock(w), event1(flow.Dumped, f))
	}
	for !n.EndSweep(1000) {
	}
}

func (w *holdWorld) flow(key flow.Key) flow.Flow {
	f := udp(int(key.Sport))
	f.Timeout = udpNormal
	return f
}

// write does in the kernel what the daemon wants.
func (n *holdNode) write(w *holdWorld) {
	var lost []flow.Flow
	events := n.Injections(nil)
	for i := range events {
		f := &events[i].Flow
		_, there := n.table[f.Key]
		switch events[i].Op {
		case flow.Destroy:
			delete(n.table, f.Key)
			continue
		case flow.Renew:
			if !there {
				lost = append(lost, *f)
				continue
			}
		}
		n.table[f.Key] = w.now + time.Duration(f.Timeout)*time.Second
	}
	if len(lost) > 0 {
		n.Lost(lost)
		n.write(w)
	}
}

// step lets a quarter of a second pass.
func (w *holdWorld) step() {
	w.now += 250 * time.Millisecond
	if w.now%time.Second == 0 {
		w.packets()
	}
	for _, n := range w.nodes {
		for _, key := range sorted(n.table) {
			if n.table[key] <= w.now {
				delete(n.table, key)
				n.Kernel(n.clock(w), event1(flow.Destroy, w.flow(key)))
			}
		}
		if n.purge != 0 && w.now >= n.purge {
			w.purge(n)
		}
		n.Tick(n.clock(w))
		for !n.Expire(1000) {
		}
	}
	for sent := true; sent; {
		sent = false
		for i, n := range w.nodes {
			peer := w.nodes[1-i]
			for b := n.Next(n.clock(w), nil, 1472); len(b) > 0; b = n.Next(n.clock(w), nil, 1472) {
				sent = true
				if !w.cut {
					peer.Datagram(peer.clock(w), b)
				}
			}
		}
	}
	for _, n := range w.nodes {
		n.write(w)
	}
}

// packets refresh what is open. A connection whose entry is missing is dead:
// the rules let nothing in that is not known.
func (w *holdWorld) packets() {
	n := w.nodes[w.active]
	for _, key := range sorted(w.open) {
		if _, ok := n.table[key]; !ok {
			w.fail("connection %d is dead on %s", key.Sport, n.name)
		}
		n.table[key] = w.now + testNormal
	}
}

func (w *holdWorld) fail(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.trace {
		w.t.Log(line)
	}
	for _, n := range w.nodes {
		w.t.Logf("%s: role %d, listening %v, internal %d, external %d, kernel %d, sent %v", n.name, n.hold.role, n.hold.listen.on, n.internal.live(), n.external.live(), len(n.table), n.stats.Sent)
	}
	w.t.Fatalf("%v: "+format, append([]any{w.now}, args...)...)
}

func (w *holdWorld) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.step()
	}
}

func (w *holdWorld) begin() {
	w.next++
	f := udp(w.next)
	f.Timeout = udpNormal
	w.open[f.Key] = f
	n := w.nodes[w.active]
	n.table[f.Key] = w.now + testNormal
	n.Kernel(n.clock(w), event1(flow.New, f))
}

// sorted are the keys of a table, so that a seed is always the same story.
func sorted[V any](table map[flow.Key]V) []flow.Key {
	return slices.SortedFunc(maps.Keys(table), func(a, b flow.Key) int { return int(a.Sport) - int(b.Sport) })
}

func (w *holdWorld) any() (key flow.Key, ok bool) {
	if len(w.open) == 0 {
		return key, false
	}
	return sorted(w.open)[w.rand.IntN(len(w.open))], true
}

// end closes a connection: its entry goes at once, or is left to expire.
func (w *holdWorld) end() {
	key, ok := w.any()
	if !ok {
		return
	}
	delete(w.open, key)
	if w.rand.IntN(2) == 0 {
		n := w.nodes[w.active]
		delete(n.table, key)
		n.Kernel(n.clock(w), event1(flow.Destroy, w.flow(key)))
	}
}

func (w *holdWorld) update() {
	if key, ok := w.any(); ok {
		n := w.nodes[w.active]
		n.Kernel(n.clock(w), event1(flow.Update, w.flow(key)))
	}
}

// vanish deletes an entry of the standby's kernel.
func (w *holdWorld) vanish() {
	n := w.nodes[1-w.active]
	if key, ok := w.any(); ok {
		if _, ok = n.table[key]; ok {
			w.note("%d vanishes from the kernel of %s, the standby", key.Sport, n.name)
			delete(n.table, key)
			n.Kernel(n.clock(w), event1(flow.Destroy, w.flow(key)))
		}
	}
}

func (w *holdWorld) purge(n *holdNode) {
	n.purge = 0
	for _, key := range sorted(n.table) {
		if f := w.flow(key); !n.Holds(&f) {
			delete(n.table, key)
			ev := event1(flow.Destroy, f)
			ev[0].Origin = flow.Self
			n.Kernel(n.clock(w), ev)
		}
	}
	n.FlushInternal()
}

// settled waits until the standby has what is open, and nothing else.
func (w *holdWorld) settled() {
	w.t.Helper()
	w.cut = false
	w.run(listenMost) // above all resyncs, and above what a flow without packets lives
	n := w.nodes[1-w.active]
	for key := range w.open {
		if until, ok := n.table[key]; !ok {
			w.fail("connection %d is not in the kernel of %s, the standby", key.Sport, n.name)
		} else if until-w.now < testNormal {
			w.fail("connection %d has %v in the kernel of %s, the standby", key.Sport, until-w.now, n.name)
		}
	}
	if len(n.table) != len(w.open) || n.external.live() != len(w.open) {
		w.fail("%d connections are open; %s has %d in its kernel and holds %d", len(w.open), n.name, len(n.table), n.external.live())
	}
}

// failover moves the traffic and runs the script on both.
func (w *holdWorld) failover() {
	w.settled()
	w.cut = w.rand.IntN(2) == 0 // as when the old one has crashed
	w.active = 1 - w.active
	n, old := w.nodes[w.active], w.nodes[1-w.active]
	w.note("failover to %s, link cut %v", n.name, w.cut)
	w.run(time.Duration(w.rand.IntN(5)) * time.Second)
	n.purge = 0
	n.TakeOver(n.clock(w))
	n.FlushExternal()
	n.FlushInternal()
	n.read(w, Refresh)
	n.SendBulk()
	w.run(time.Duration(w.rand.IntN(20)) * 250 * time.Millisecond)
	w.cut = false
	if w.rand.IntN(3) == 0 {
		w.note("%s is started again", old.name)
		w.start(old)
	}
	old.StandBy(old.clock(w))
	old.purge = w.now + time.Duration(w.rand.IntN(40)+5)*time.Second
	old.RequestResync()
}

// TestHoldInAllWeathers does at random what happens to a pair. No open
// connection may ever die, and when it is calm the standby has what is open and
// nothing else.
func TestHoldInAllWeathers(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		w := &holdWorld{t: t, rand: rand.New(rand.NewPCG(seed, 7)), open: map[flow.Key]flow.Flow{}}
		w.note("seed %d", seed)
		for i := range w.nodes {
			w.nodes[i] = &holdNode{name: string(rune('a' + i)), table: map[flow.Key]time.Duration{}}
			w.start(w.nodes[i])
			w.nodes[i].StandBy(0)
		}
		w.nodes[0].TakeOver(0)
		w.run(5 * time.Second)
		for range 40 {
			w.happen()
		}
		w.settled()
	}
}

// happen is one thing and a while.
func (w *holdWorld) happen() {
	for range w.rand.IntN(5) {
		w.begin()
	}
	switch w.rand.IntN(12) {
	case 0:
		w.failover()
	case 1:
		n := w.nodes[1-w.active]
		w.note("%s, the standby, is started again", n.name)
		w.start(n)
	case 2:
		n := w.nodes[w.active]
		w.note("%s, the primary, is started again", n.name)
		w.start(n)
	case 3:
		w.cut = !w.cut
		w.note("link cut: %v", w.cut)
	case 4, 5, 6:
		w.end()
	case 7:
		w.update()
	case 8:
		w.vanish()
	case 9:
		w.nodes[1-w.active].RequestResync()
	}
	w.run(time.Duration(w.rand.IntN(40)) * 250 * time.Millisecond)
}
