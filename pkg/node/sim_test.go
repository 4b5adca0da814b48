package node

import (
	"flag"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

var (
	simSeeds = flag.Uint64("sim.seeds", 200, "seeds of each simulation")
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed only and print its trace")
)

func simConfig() Config {
	return Config{Mode: FTFW, HashLimit: 1 << 20, PurgeTimeout: time.Minute,
		ResendQueueSize: 4096, ACKWindowSize: 20, ExpectationSync: true}
}

// scene is two whole nodes with a kernel each and a faulty link between them.
type scene struct {
	*sim.World
	t   *testing.T
	cfg Config
	// nameless nodes announce nothing, as if each thought the other to be C.
	nameless bool
	base     uint32 // the clock's seconds when the world began
	faults   [2]*sim.Faults
	sides    [2]*side
	churn    int // kernel events
	bulks    int
	aways    int // times a peer was given up
}

// side is one node and the kernel it runs on.
type side struct {
	*scene
	index int
	node  *Node // nil: down
	life  int
	born  time.Duration
	alarm *sim.Alarm
	link  *sim.Pipe[[]byte]

	kernel  map[flow.Key]flow.Flow
	keys    []flow.Key    // of kernel, for a choice that only depends on the seed
	expects []flow.Expect // in the kernel too
	nextID  uint32
	events  []flow.Event // in the socket's buffer
	awaited []flow.ExpectEvent
	overrun bool

	heard    [][]byte // what came from the other side, for somebody to repeat
	sweeping bool
	waiting  []task // sweeps that wait for their turn

	// What the operator owes at the end: -R and -B after a flush of the internal
	// cache, -n after one of the external cache. Nobody can know of what ended
	// unheard and was flushed; there the peer has to ask.
	flushed bool
	emptied bool
	blind   bool // flushed and not read again since
	lossy   bool // events were lost and are not repaired
	unheard bool
}

type task struct {
	why  Purpose
	then func()
}

func newScene(t *testing.T, seed uint64, cfg Config) *scene {
	s := &scene{World: sim.New(seed), t: t, cfg: cfg}
	if *simSeed != 0 {
		s.Record()
	}
	s.base = s.Rand().Uint32()
	if s.Chance(0.5) {
		s.base = -uint32(s.Rand().IntN(200))
	}
	for i := range s.sides {
		p := &side{scene: s, index: i, kernel: make(map[flow.Key]flow.Flow)}
		p.alarm = sim.NewAlarm(s.World, func() {
			p.node.Tick(p.clock())
			p.pump()
		})
		s.faults[i] = &sim.Faults{Delay: 100 * time.Microsecond}
		p.link = sim.NewPipe(s.World, s.faults[i], func(b []byte) { s.sides[1-i].receive(b) })
		s.sides[i] = p
	}
	return s
}

func (p *side) clock() time.Duration { return p.Now() - p.born }

// later calls f if the node still lives by then.
func (p *side) later(most time.Duration, f func()) {
	life := p.life
	p.After(p.Between(0, most), func() {
		if p.life == life && p.node != nil {
			f()
		}
	})
}

// start gives the side a new node, which reads its kernel's table.
func (p *side) start() {
	p.Logf("%d starts", p.index)
	p.life++
	p.born = p.Now()
	cfg := p.cfg
	if !p.nameless {
		cfg.Name = wire.NodeName{Node: uint64(p.index + 1), Epoch: uint64(p.life)}
	}
	p.node = New(cfg, p.base+uint32(p.Now()/time.Second), [2]uint64{1, 2})
	p.events, p.awaited, p.overrun, p.sweeping, p.waiting = nil, nil, false, false, nil
	p.flushed, p.emptied, p.blind, p.lossy, p.unheard = false, false, false, false, false
	p.sweep(Start, nil)
}

func (p *side) die() {
	p.Logf("%d dies", p.index)
	p.node = nil
	p.alarm.Stop()
	p.After(p.Between(300*time.Millisecond, 8*time.Second), p.start)
}

func (p *side) receive(b []byte) {
	if p.heard = append(p.heard, b); len(p.heard) > 400 {
		p.heard = p.heard[200:]
	}
	p.take(b)
}

func (p *side) take(b []byte) {
	if p.node != nil {
		p.node.Datagram(p.clock(), b)
		p.pump()
	}
}

// strangers sends what is not the other side's, as if it were. Numbers are
// random: whoever knows the next one cannot be told from the peer.
func (p *side) strangers() {
	r := p.Rand()
	control := func(flags uint8) []byte {
		return wire.AppendControl(nil, wire.Header{Flags: flags, Seq: r.Uint32(), From: r.Uint32(), To: r.Uint32()})
	}
	data := func(flags uint8, seq uint32) []byte {
		f := p.newFlow()
		f.Src[0] = 99
		return p.node.wire.AppendFlow(nil, wire.Header{Type: uint8(r.UintN(3)), Flags: flags, Seq: seq}, &f)
	}
	kind := r.IntN(8)
	p.Logf("%d: stranger %d", p.index, kind)
	switch n := len(p.heard); {
	case kind == 0:
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		p.take(b)
	case kind == 1:
		p.take(control(uint8(r.Uint32())))
	case kind == 2:
		for range r.IntN(100) {
			p.take(control(wire.FlagALIVE | wire.FlagHELLO*uint8(r.UintN(2))))
		}
	case kind == 3:
		p.take(data(wire.FlagHELLO*uint8(r.UintN(2)), r.Uint32()))
	case kind == 4: // a life of its own
		for seq := range uint32(r.IntN(10)) {
			p.take(data(0, uint32(p.Now())+seq))
		}
	case n > 0 && kind == 5:
		p.take(p.heard[r.IntN(n)])
	case n > 0:
		for _, b := range p.heard[r.IntN(n):] {
			p.take(b)
		}
	}
}

// pump does what the daemon does after every call.
func (p *side) pump() {
	for {
		b := p.node.Next(p.clock(), nil, 1472)
		if len(b) == 0 {
			break
		}
		p.link.Send(b)
	}
	for !p.node.Expire(64) {
	}
	for x, ok := p.node.NextNotice(); ok; x, ok = p.node.NextNotice() {
		p.Logf("%d: notice %d", p.index, x.Kind)
		switch x.Kind {
		case ResyncRequested:
			p.bulks++
		case PeerAway:
			p.aways++
		}
	}
	p.alarm.Set(p.born + p.node.Deadline())
}

// sweep reads the kernel's table a few entries at a time, while events go on
// and reach the node later than the table they changed.
func (p *side) sweep(why Purpose, then func()) {
	if p.sweeping {
		p.waiting = append(p.waiting, task{why, then})
		return
	}
	p.sweeping = true
	p.Logf("%d: sweep %d", p.index, why)
	blind, lossy := p.blind, p.lossy
	p.blind, p.lossy = false, false
	p.read(why, func() {
		p.unheard = p.unheard || blind && p.lossy || lossy && p.blind
		if then != nil {
			then()
		}
	})
}

func (p *side) read(why Purpose, then func()) {
	p.node.BeginSweep(why)
	rest := slices.Clone(p.keys)
	var next func()
	next = func() {
		if len(rest) == 0 {
			p.endSweep(why, then)
			return
		}
		if p.Chance(0.02) { // torn
			p.read(why, then)
			return
		}
		n := min(len(rest), 8)
		for _, k := range rest[:n] {
			if f, ok := p.kernel[k]; ok {
				p.node.Kernel(p.clock(), event1(flow.Dumped, f))
			}
		}
		rest = rest[n:]
		p.pump()
		p.later(2*time.Millisecond, next)
	}
	next()
}

func (p *side) endSweep(why Purpose, then func()) {
	done := p.node.EndSweep(16)
	if done {
		// Nobody is answered before both tables are read.
		p.node.BeginExpectSweep(why)
	}
	p.pump()
	if !done {
		p.later(time.Millisecond, func() { p.endSweep(why, then) })
		return
	}
	p.later(2*time.Millisecond, func() { p.sweepExpects(slices.Clone(p.expects), then) })
}

// sweepExpects reads the kernel's expectations, which events overtake too.
func (p *side) sweepExpects(all []flow.Expect, then func()) {
	for _, x := range all {
		p.node.Expects(p.clock(), expect1(flow.Dumped, x))
	}
	p.node.EndExpectSweep()
	p.pump()
	p.sweeping = false
	then()
	if len(p.waiting) > 0 {
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.sweep(w.why, w.then)
	}
}

// tell puts an event into the buffer that the node reads soon.
func (p *side) tell(op flow.Op, f flow.Flow) {
	if p.hears() {
		p.events = append(p.events, flow.Event{Op: op, Flow: f})
	}
}

func (p *side) tellExpect(op flow.Op, x flow.Expect) {
	if p.hears() {
		p.awaited = append(p.awaited, flow.ExpectEvent{Op: op, Expect: x})
	}
}

// hears reports whether there is room for an event, and has it read soon.
func (p *side) hears() bool {
	p.churn++
	if p.node == nil {
		return false
	}
	if p.overrun {
		p.lossy = true
		p.unheard = p.unheard || p.blind
		return false
	}
	if len(p.events)+len(p.awaited) == 0 {
		p.later(3*time.Millisecond, func() {
			p.node.Kernel(p.clock(), p.events)
			p.node.Expects(p.clock(), p.awaited)
			p.events, p.awaited = p.events[:0], p.awaited[:0]
			p.pump()
		})
	}
	return true
}

// step does one random thing in the kernel. There are few tuples, so that they
// come again.
func (p *side) step() {
	r := p.Rand()
	if r.IntN(4) == 0 && p.stepExpect() {
		return
	}
	if dice := r.IntN(10); dice < 5 || len(p.keys) == 0 {
		f := p.newFlow()
		if _, ok := p.kernel[f.Key]; !ok {
			if r.IntN(8) == 0 {
				p.announce(f.Key) // before the flow is confirmed
			}
			p.kernel[f.Key] = f
			p.keys = append(p.keys, f.Key)
			p.tell(flow.New, f)
		}
	} else if i := r.IntN(len(p.keys)); dice < 8 {
		f := p.kernel[p.keys[i]]
		f.Mark++
		f.State = uint8(r.UintN(8))
		f.Has |= flow.HasMark | flow.HasState
		p.kernel[f.Key] = f
		p.tell(flow.Update, f)
	} else {
		f := p.kernel[p.keys[i]]
		delete(p.kernel, f.Key)
		p.keys[i] = p.keys[len(p.keys)-1]
		p.keys = p.keys[:len(p.keys)-1]
		p.expects = slices.DeleteFunc(p.expects, func(x flow.Expect) bool {
			if x.Master == f.Key {
				p.tellExpect(flow.Destroy, x)
			}
			return x.Master == f.Key
		})
		p.tell(flow.Destroy, f)
	}
}

// stepExpect does one random thing with an expectation, and reports whether
// there was one to do.
func (p *side) stepExpect() bool {
	r := p.Rand()
	if n := len(p.expects); n > 0 && r.IntN(2) == 0 {
		i := r.IntN(n)
		p.tellExpect(flow.Destroy, p.expects[i]) // fulfilled
		p.expects[i] = p.expects[n-1]
		p.expects = p.expects[:n-1]
		return true
	}
	if len(p.keys) == 0 {
		return false
	}
	p.announce(p.keys[r.IntN(len(p.keys))])
	return true
}

// announce makes an expectation of a master. The kernel does not tell the zone
// of a master, so those in a zone are not found.
func (p *side) announce(master flow.Key) {
	if master.Zone != 0 {
		return
	}
	x := expectation(0, uint16(p.Rand().UintN(3)))
	x.Master, x.Tuple.Family, x.Mask.Family = master, master.Family, master.Family
	p.nextID++
	x.ID, x.Class = p.nextID, p.nextID
	x.Has |= flow.HasID
	same := func(y flow.Expect) bool { return keyOfExpect(&x) == keyOfExpect(&y) }
	if !slices.ContainsFunc(p.expects, same) {
		p.expects = append(p.expects, x)
		p.tellExpect(flow.New, x)
	}
}

// expectSet is what a side expects, for comparison.
func expectSet(all []flow.Expect) []string {
	lines := []string{}
	for i := range all {
		lines = append(lines, string(all[i].AppendText(nil, flow.TextOptions{})))
	}
	slices.Sort(lines)
	return lines
}

func (s *expectStore) all() (all []flow.Expect) {
	s.each(func(id cache.ID) { all = append(all, s.at(id).x) })
	return all
}

func (p *side) newFlow() flow.Flow {
	r := p.Rand()
	family := flow.IPv4
	if r.UintN(3) == 0 {
		family = flow.IPv6
	}
	f := randomFlow(r, family)
	f.Has |= flow.HasStatus | flow.HasID | flow.HasTimeout
	f.Has &^= flow.HasZoneRepl | flow.HasStart | flow.HasStop | flow.HasVtag | flow.HasRole
	f.Zone &= 1
	f.Src = flow.Addr{byte(p.index), 0, 0, byte(r.UintN(8))}
	f.Dst = flow.Addr{}
	f.Sport, f.Dport = uint16(r.UintN(4)), 80
	p.nextID++
	f.ID = p.nextID
	return f
}

// loseEvents lets the socket's buffer overrun for a while.
func (p *side) loseEvents() {
	p.Logf("%d: overrun", p.index)
	p.overrun = true
	p.later(100*time.Millisecond, func() {
		p.overrun = false
		p.later(600*time.Millisecond, func() { p.sweep(Repair, nil) })
	})
}

// primary is what primary-backup.sh orders on the new primary.
func (p *side) primary() {
	p.commit()
	p.flush()
	p.later(20*time.Millisecond, func() {
		p.sweep(Refresh, func() { p.later(20*time.Millisecond, p.sendBulk) })
	})
}

func (p *side) commit() {
	batch := make([]flow.Flow, 8)
	p.node.BeginCommit()
	for done := false; !done; {
		_, done = p.node.NextCommit(p.clock(), batch)
	}
}

func (p *side) flush() {
	p.Logf("%d: flush", p.index)
	p.node.FlushExternal()
	p.node.FlushExpects()
	p.emptied = true
	p.flushInternal()
}

func (p *side) flushInternal() {
	p.Logf("%d: flush the internal cache", p.index)
	p.node.FlushInternal()
	p.flushed, p.blind = true, true
	p.unheard = p.unheard || p.lossy
}

func (p *side) sendBulk() {
	p.bulks++
	p.node.SendBulk()
	p.pump()
}

func (p *side) requestResync() {
	p.emptied = false
	p.node.RequestResync()
	p.pump()
}

// order does one random thing an operator may do.
func (p *side) order() {
	switch p.Rand().IntN(6) {
	case 0:
		p.primary()
	case 1:
		p.flush()
	case 2:
		p.flushInternal()
	case 3:
		p.sweep(Refresh, nil)
	case 4:
		p.sendBulk()
	case 5:
		p.requestResync()
	}
	p.pump()
}

// profile is what goes wrong in a simulation.
type profile struct {
	name   string
	faults func(s *scene, f *sim.Faults)
	// The odds of each with every step.
	restart, overrun, order, outage, hostile, drift float64

	config   func() Config // nil: simConfig
	nameless bool
	// alone: nobody asks for anything in the end, they find out by themselves.
	alone bool
	// asks: in the end each side forgets what it has of the other and asks.
	asks bool
}

var profiles = []profile{
	{name: "clean", overrun: 1. / 50},
	{name: "loss", faults: func(s *scene, f *sim.Faults) { f.Loss = 0.3 * s.Rand().Float64() }, overrun: 1. / 100},
	{name: "orders", faults: func(s *scene, f *sim.Faults) { f.Loss = 0.1 * s.Rand().Float64() }, overrun: 1. / 100, order: 1. / 30},
	{name: "repeats", faults: repeats, order: 1. / 100},
	{name: "all", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100},
	{name: "strangers", hostile: 1. / 20},
	{name: "strangers too", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100, hostile: 1. / 20},
	{name: "alone", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100, alone: true},
	{name: "drift of expectations", drift: 1. / 50, alone: true},
	{name: "NOTRACK drift of expectations", drift: 1. / 50, alone: true, config: notrackConfig},
	{name: "nameless", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100, nameless: true},
	// ALARM is right again after anything, by refresh and expiry.
	{name: "ALARM", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100, config: alarmConfig},
	// NOTRACK is right where nothing is lost, and else when asked.
	{name: "NOTRACK", overrun: 1. / 50, config: notrackConfig},
	{name: "NOTRACK asks", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100, config: notrackConfig, nameless: true, asks: true},
	{name: "NOTRACK alone", faults: repeats, restart: 1. / 60, overrun: 1. / 60, order: 1. / 40, outage: 1. / 100, config: notrackConfig, alone: true},
}

func alarmConfig() Config {
	cfg := simConfig()
	cfg.Mode, cfg.RefreshTime, cfg.CacheTimeout = ALARM, 3*time.Second, 10*time.Second
	return cfg
}

func notrackConfig() Config {
	cfg := simConfig()
	cfg.Mode = NOTRACK
	return cfg
}

func repeats(s *scene, f *sim.Faults) {
	f.Loss = 0.2 * s.Rand().Float64()
	f.Duplicate, f.Reorder = 0.15*s.Rand().Float64(), 0.3*s.Rand().Float64()
	f.Late = s.Between(0, 50*time.Millisecond)
}

// Whatever the link does to datagrams, the kernel to events, the operator and
// sudden death to nodes: once all is well each external cache is the other's
// internal cache, and that is the kernel's table.
func TestTwoNodesConverge(t *testing.T) {
	for _, pr := range profiles {
		t.Run(pr.name, func(t *testing.T) {
			t.Parallel()
			if *simSeed != 0 {
				t.Logf("\n%s", pr.play(t, *simSeed).Trace())
				return
			}
			for seed := range *simSeeds {
				pr.play(t, seed+1)
				if t.Failed() {
					t.Fatalf("repeat with -run '^%s$' -sim.seed %d", t.Name(), seed+1)
				}
			}
		})
	}
}

func (pr *profile) play(t *testing.T, seed uint64) *scene {
	cfg := simConfig()
	if pr.config != nil {
		cfg = pr.config()
	}
	s := newScene(t, seed, cfg)
	s.nameless = pr.nameless
	for i, p := range s.sides {
		if pr.faults != nil {
			pr.faults(s, s.faults[i])
		}
		p.start()
	}
	s.Run(2 * time.Second)
	for range 300 {
		if p := s.sides[s.Rand().IntN(2)]; p.node == nil {
			p.step()
		} else {
			pr.trouble(p)
			p.step()
		}
		s.Run(s.Now() + s.Between(0, 20*time.Millisecond))
	}
	s.Run(s.Now() + 10*time.Second) // the last one that died is up again
	for _, f := range s.faults {
		*f = sim.Faults{Delay: f.Delay}
	}
	s.Run(s.Now() + time.Second)
	s.tidyUp(pr.alone)
	if pr.asks {
		s.Run(s.Now() + time.Second)
		for _, p := range s.sides {
			p.node.FlushExternal()
			p.node.expects.external.clear()
			p.requestResync()
		}
	}
	s.Run(s.Now() + 100*time.Second)
	s.check()
	return s
}

func (pr *profile) trouble(p *side) {
	if p.Chance(pr.overrun) {
		p.loseEvents()
	}
	if p.Chance(pr.order) {
		p.order()
	}
	if p.Chance(pr.outage) {
		f := p.faults[p.index]
		f.Down = true
		p.After(p.Between(0, 3*time.Second), func() { f.Down = false })
	}
	if p.Chance(pr.hostile) {
		p.strangers()
	}
	if p.Chance(pr.drift) {
		p.drift()
	}
	if p.Chance(pr.restart) {
		p.die()
	}
}

// drift takes an expectation out of the external cache, or puts one in, as a
// fault of ours would.
func (p *side) drift() {
	s := p.node.expects.external
	all := s.all()
	p.Logf("%d: drift of %d expectations", p.index, len(all))
	if len(all) > 0 && p.Chance(0.5) {
		p.node.expectGone(s.lookup(&all[p.Rand().IntN(len(all))]))
		return
	}
	toldOf(p.t, p.node, wire.ExpNew, expectation(77, uint16(p.Rand().UintN(3))))
}

// tidyUp is what the operator does after his flushes. Nodes that are left alone
// get nothing but their kernel's table.
func (s *scene) tidyUp(alone bool) {
	for i, p := range s.sides {
		switch {
		case p.flushed && alone:
			p.sweep(Refresh, nil)
		case p.flushed:
			p.sweep(Refresh, p.sendBulk)
		}
		if p.unheard {
			s.sides[1-i].emptied = true
		}
	}
	s.Run(s.Now() + time.Second)
	for _, p := range s.sides {
		if p.emptied && !alone {
			p.requestResync()
		}
	}
}

// check compares everything that must be equal at rest.
func (s *scene) check() {
	s.t.Helper()
	for i, p := range s.sides {
		kernel := make(map[flow.Key]flow.Flow)
		for k, f := range p.kernel {
			kernel[k] = onWire(f)
		}
		internal, external := snapshot(p.node.internal), snapshot(s.sides[1-i].node.external)
		if !maps.Equal(kernel, internal) {
			s.t.Errorf("internal(%d) is not kernel(%d) (-kernel +internal):\n%.3000s", i, i, cmp.Diff(kernel, internal))
		}
		if !maps.Equal(internal, external) {
			s.t.Errorf("external(%d) is not internal(%d) (-internal +external):\n%.3000s", 1-i, i, cmp.Diff(internal, external))
		}
		expected := expectSet(p.expects)
		if diff := cmp.Diff(expected, expectSet(p.node.expects.internal.all())); diff != "" {
			s.t.Errorf("node %d expects other than its kernel (-kernel +internal):\n%.3000s", i, diff)
		}
		if diff := cmp.Diff(expected, expectSet(s.sides[1-i].node.expects.external.all())); diff != "" {
			s.t.Errorf("node %d knows other expectations of its peer (-kernel +external):\n%.3000s", 1-i, diff)
		}
		st := p.node.Stats()
		if c := p.node.peer.compare; c.made && !c.equal {
			s.t.Errorf("node %d finds its external caches other than what it was told", i)
		}
		if dead := st.ExpectInternal.Total - st.ExpectInternal.Active; dead != 0 || len(p.node.expects.orphans) != 0 {
			s.t.Errorf("node %d: %d dead expectations and %d orphans at rest", i, dead, len(p.node.expects.orphans))
		}
		if dead := st.Internal.Total - st.Internal.Active; dead != 0 || st.TxQueue != 0 {
			s.t.Errorf("node %d: %d tombstones and %d messages to send at rest", i, dead, st.TxQueue)
		}
		refreshes := int(st.Engine.Refreshed)
		if most := 40*s.churn + 20*int(s.Now()/time.Second) + 100*s.bulks + refreshes; p.link.Sent > most {
			s.t.Errorf("node %d sent %d datagrams, more than %d", i, p.link.Sent, most)
		}
	}
}
