package ftfw

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

var (
	simSeeds = flag.Int("seeds", 600, "seeds of each simulation")
	simSeed  = flag.Uint64("seed", 0, "run this seed only and print its trace")
)

// message is what travels: a header, and for data the flow it is about.
type message struct {
	wire.Header
	id      int
	version int // 0: destroyed
}

// flows is a table of flows by number, with the version of each.
type flows map[int]int

// A peer is one node of the simulation: the engine or the C model, with
// caches around it. Its kernel lives on when it dies.
type peer interface {
	start(firstSeq uint32)
	changed(id int) // the kernel's flow id was created, updated or destroyed
	receive(m message)
	wake() // the alarm went off or there is something to send
	external() flows
	alive() bool
	die()
}

// station is what both kinds of peer have.
type station struct {
	w       *sim.World
	name    string
	kernel  flows // the truth about the flows of this side
	up      bool
	send    func(message)
	alarm   *sim.Alarm
	frames  int
	nextSeq uint32
	started bool
}

func (s *station) alive() bool { return s.up }

// transmit checks that numbers go up by one and sends.
func (s *station) transmit(t *testing.T, m message) {
	if s.started && m.Seq != s.nextSeq {
		t.Fatalf("%s sent number %d after %d", s.name, m.Seq, s.nextSeq-1)
	}
	s.started, s.nextSeq = true, m.Seq+1
	if s.frames++; s.frames > simStorm {
		if *simSeed != 0 {
			t.Logf("\n%s", s.w.Trace())
		}
		t.Fatalf("%s does not stop sending", s.name)
	}
	s.w.Logf("%s sends %v", s.name, m)
	s.send(m)
}

func (m message) String() string {
	if m.Type == wire.Control {
		return frameText(Frame{Header: m.Header})
	}
	return strings.TrimSpace(fmt.Sprintf("flow %d.%d seq %d %s", m.id, m.version, m.Seq, helloText(m.Flags)))
}

// goPeer is a node around the engine, with the owner's duties done as the
// package asks.
type goPeer struct {
	station
	t        *testing.T
	resync   bool // StartupResync
	limit    int
	window   int
	e        *Engine
	objects  []object // by Ref; internal cache
	byID     map[int]Ref
	free     []Ref
	ext      map[int]entry
	gen      int
	bulkAt   int           // next Ref of the bulk under way, -1 for none
	bulkFrom time.Duration // when it begins, or began
	bulks    int
	resyncIn time.Duration // 0: none wanted
	born     time.Duration
}

type object struct {
	id     int
	dead   bool
	pinned bool
}

type entry struct{ version, gen int }

func (p *goPeer) start(firstSeq uint32) {
	p.e = New(Config{
		FirstSeq: firstSeq, ACKWindow: p.window, ResendQueue: p.limit,
		StartupResync: p.resync, HelloHold: 3 * time.Second,
	}, p.w.Now())
	p.up, p.started, p.born = true, false, p.w.Now()
	p.objects, p.byID, p.free = nil, map[int]Ref{}, nil
	p.ext = map[int]entry{}
	p.bulkAt, p.bulkFrom, p.resyncIn = -1, -time.Hour, 0
	for _, id := range slices.Sorted(maps.Keys(p.kernel)) {
		p.add(id)
	}
	p.w.Logf("%s starts at %d", p.name, firstSeq)
	p.wake()
}

func (p *goPeer) die() {
	p.w.Logf("%s dies", p.name)
	p.up = false
	p.alarm.Stop()
}

func (p *goPeer) add(id int) Ref {
	r := Ref(len(p.objects))
	if n := len(p.free); n > 0 {
		r, p.free = p.free[n-1], p.free[:n-1]
	} else {
		p.objects = append(p.objects, object{})
	}
	p.objects[r] = object{id: id}
	p.byID[id] = r
	return r
}

func (p *goPeer) changed(id int) {
	r, known := p.byID[id]
	if !known {
		r = p.add(id)
	}
	if p.kernel[id] == 0 {
		p.objects[r].dead = true
	} else {
		p.objects[r].dead = false // the new flow takes over a dead one's place
	}
	p.enqueue(r)
	p.nap()
}

// nap wakes the node up soon; events until then collapse.
func (p *goPeer) nap() { p.alarm.Set(p.w.Now() + p.w.Between(0, 3*time.Millisecond)) }

func (p *goPeer) enqueue(r Ref) {
	pinned := p.e.Enqueue(r)
	if pinned == p.objects[r].pinned {
		p.t.Fatalf("%s: Enqueue said pinned=%v of an object whose pin is %v", p.name, pinned, p.objects[r].pinned)
	}
	p.objects[r].pinned = true
}

func (p *goPeer) receive(m message) {
	if p.e.Receive(p.w.Now(), m.Header) == Deliver {
		if m.version == 0 {
			delete(p.ext, m.id)
		} else {
			p.ext[m.id] = entry{m.version, p.gen}
		}
	}
	p.settle()
	p.nap()
}

func (p *goPeer) settle() {
	p.e.Released(func(r Ref) {
		o := &p.objects[r]
		if !o.pinned {
			p.t.Fatalf("%s: released an object that was not pinned", p.name)
		}
		o.pinned = false
		if o.dead {
			delete(p.byID, o.id)
			p.free = append(p.free, r)
			*o = object{dead: true}
		}
	})
	for ev, ok := p.e.NextEvent(); ok; ev, ok = p.e.NextEvent() {
		p.event(ev)
	}
	if _, resend := p.e.Pending(); resend > p.limit {
		p.t.Fatalf("%s: resend queue of %d, limit %d", p.name, resend, p.limit)
	}
	pinned := 0
	for r := range p.objects {
		if p.objects[r].pinned != p.e.Queued(Ref(r)) {
			p.t.Fatalf("%s: object %d pinned %v, queued %v", p.name, r, p.objects[r].pinned, p.e.Queued(Ref(r)))
		}
		if p.objects[r].pinned {
			pinned++
		}
	}
	if tx, resend := p.e.Pending(); pinned > tx+resend {
		p.t.Fatalf("%s: %d pinned of %d queued", p.name, pinned, tx+resend)
	}
}

func (p *goPeer) event(ev Event) {
	p.w.Logf("%s: %s clean=%v", p.name, eventNames[ev.Kind], ev.Clean)
	switch ev.Kind {
	case BulkWanted:
		if p.bulkAt < 0 {
			p.bulkFrom = max(p.w.Now(), p.bulkFrom+time.Second)
		}
		p.bulkAt = 0
		p.bulks++
	case PeerRestarted:
		p.e.RequestResync()
	case ResyncStarted:
		p.gen++
		p.resyncIn = 0
	case ResyncComplete:
		if !ev.Clean {
			p.resyncIn = p.w.Now() + 5*time.Second
			return
		}
		for id, e := range p.ext {
			if e.gen < p.gen {
				delete(p.ext, id)
			}
		}
	}
}

func (p *goPeer) wake() {
	if !p.up {
		return
	}
	now := p.w.Now()
	if p.resyncIn != 0 && now >= p.resyncIn {
		p.resyncIn = 0
		p.e.RequestResync()
	}
	p.e.Tick(now)
	p.feedBulk()
	sent := false
	for f, ok := p.e.Pop(now); ok; f, ok = p.e.Pop(now) {
		m := message{Header: f.Header}
		if f.Object {
			m.id = p.objects[f.Ref].id
			m.Type = wire.CTUpd
			if p.objects[f.Ref].dead {
				m.Type = wire.CTDel
			} else {
				m.version = p.kernel[m.id]
			}
		}
		p.transmit(p.t, m)
		sent = true
	}
	if sent {
		p.e.Flushed(now)
	}
	p.settle()
	next := p.e.Deadline()
	if p.resyncIn != 0 {
		next = min(next, p.resyncIn)
	}
	if p.bulkAt >= 0 {
		next = min(next, max(p.bulkFrom, now+time.Millisecond))
	}
	p.alarm.Set(next)
}

// feedBulk queues a few objects at a time; bulks begin a second apart.
func (p *goPeer) feedBulk() {
	if p.bulkAt < 0 || p.w.Now() < p.bulkFrom {
		return
	}
	for n := 0; n < 8 && p.bulkAt < len(p.objects); p.bulkAt++ {
		if !p.objects[p.bulkAt].dead {
			p.enqueue(Ref(p.bulkAt))
			n++
		}
	}
	if p.bulkAt == len(p.objects) {
		p.bulkAt = -1
		p.e.BulkDone()
	}
}

func (p *goPeer) external() flows {
	x := flows{}
	for id, e := range p.ext {
		x[id] = e.version
	}
	return x
}

// scene is two peers, what joins them and what happens to them.
type scene struct {
	t       *testing.T
	w       *sim.World
	peers   [2]peer
	kernels [2]flows
	buried  [2]map[int]bool // destroyed before the side's last start
	base    uint32          // the clock's seconds when the world began
	version int
	updates int
	starts  int
}

const (
	simFlows = 40
	simQuiet = 150 * time.Second
	simStorm = 100_000 // messages, ten times more than any run needs
)

func (s *scene) firstSeq() uint32 { return s.base + uint32(s.w.Now()/time.Second) }

// churn changes a flow of side i now and again until the end.
func (s *scene) churn(i int, pace, until time.Duration) {
	if s.w.Now() >= until {
		return
	}
	id := s.w.Rand().IntN(simFlows)
	s.version++
	s.updates++
	switch k := s.kernels[i]; {
	case k[id] != 0 && s.w.Chance(0.3):
		delete(k, id)
	default:
		k[id] = s.version
		delete(s.buried[i], id)
	}
	if s.peers[i].alive() {
		s.w.Logf("kernel %d: flow %d.%d", i, id, s.kernels[i][id])
		s.peers[i].changed(id)
	}
	s.w.After(s.w.Between(0, 2*pace), func() { s.churn(i, pace, until) })
}

// start starts side i. What was destroyed before it did has no messenger.
func (s *scene) start(i int) {
	s.starts++
	for id := range simFlows {
		if s.kernels[i][id] == 0 {
			s.buried[i][id] = true
		}
	}
	s.peers[i].start(s.firstSeq())
}

// restart kills side i and starts it again after a while.
func (s *scene) restart(i int) {
	if !s.peers[i].alive() {
		return
	}
	s.peers[i].die()
	down := s.w.Between(300*time.Millisecond, 8*time.Second)
	s.w.After(down, func() { s.start(i) })
}

// play runs the scene: half a minute of faults and restarts, then quiet.
func (s *scene) play(faults []*sim.Faults, restarts [2]int) {
	const trouble = 30 * time.Second
	s.base = uint32(s.w.Rand().Uint32())
	if s.w.Chance(0.5) {
		s.base = -uint32(s.w.Rand().IntN(200))
	}
	for i := range 2 {
		s.buried[i] = map[int]bool{}
		for id := range simFlows / 2 {
			s.version++
			s.kernels[i][id] = s.version
		}
		s.w.After(s.w.Between(0, 5*time.Second), func() {
			s.start(i)
			s.churn(i, s.w.Between(time.Millisecond, 200*time.Millisecond), trouble)
		})
		for range restarts[i] {
			s.w.At(s.w.Between(5*time.Second, trouble), func() { s.restart(i) })
		}
	}
	if s.w.Chance(0.3) {
		s.outage(faults[s.w.Rand().IntN(2)], trouble)
	}
	if s.w.Chance(0.2) {
		s.outage(faults[s.w.Rand().IntN(2)], trouble)
	}
	s.w.Run(trouble + 8*time.Second)
	for _, f := range faults {
		f.Loss, f.Duplicate, f.Reorder, f.Down = 0, 0, 0, false
	}
	s.w.Run(trouble + simQuiet)
}

// outage takes one direction of the link down for a while.
func (s *scene) outage(f *sim.Faults, trouble time.Duration) {
	begin := s.w.Between(0, trouble)
	s.w.At(begin, func() { f.Down = true })
	s.w.At(begin+s.w.Between(100*time.Millisecond, 15*time.Second), func() { f.Down = false })
}

// differ returns how got, the model side i+1 has of side i, is wrong.
// lenient passes over what was destroyed before side i's last start: C has
// no way to learn of it.
func (s *scene) differ(i int, lenient bool) string {
	got, want := s.peers[1-i].external(), s.kernels[i]
	for id := range simFlows {
		if got[id] == want[id] || lenient && want[id] == 0 && s.buried[i][id] {
			continue
		}
		return fmt.Sprintf("flow %d of side %d: %d, the other side has %d", id, i, want[id], got[id])
	}
	return ""
}

func newScene(t *testing.T, seed uint64) *scene {
	s := &scene{t: t, w: sim.New(seed), kernels: [2]flows{{}, {}}}
	if *simSeed != 0 {
		s.w.Record()
	}
	return s
}

func (s *scene) randomFaults(repeats bool) *sim.Faults {
	w := s.w
	f := &sim.Faults{Delay: 100 * time.Microsecond, Jitter: w.Between(0, 2*time.Millisecond)}
	if w.Chance(0.7) {
		f.Loss = 0.3 * w.Rand().Float64()
	}
	if repeats && w.Chance(0.5) {
		f.Duplicate, f.Reorder = 0.05*w.Rand().Float64(), 0.05*w.Rand().Float64()
		f.Late = w.Between(0, 500*time.Millisecond)
	}
	return f
}

func (s *scene) goPeer(i int, resync, small bool) *goPeer {
	p := &goPeer{t: s.t, resync: resync, limit: 131072, window: 1 + s.w.Rand().IntN(30)}
	if small && s.w.Chance(0.2) {
		p.limit = 10 + s.w.Rand().IntN(50)
	}
	p.station = station{w: s.w, name: "go" + string(rune('A'+i)), kernel: s.kernels[i]}
	p.alarm = sim.NewAlarm(s.w, p.wake)
	return p
}

// join connects the peers.
func (s *scene) join(faults []*sim.Faults) {
	for i := range 2 {
		pipe := sim.NewPipe(s.w, faults[i], func(m message) {
			if to := s.peers[1-i]; to.alive() {
				to.receive(m)
			}
		})
		*sendOf(s.peers[i]) = pipe.Send
	}
}

func sendOf(p peer) *func(message) {
	switch p := p.(type) {
	case *goPeer:
		return &p.send
	case *cPeer:
		return &p.send
	}
	panic("unknown peer")
}

// forSeeds runs one simulation for each seed, or for the one asked for.
func forSeeds(t *testing.T, run func(t *testing.T, seed uint64) *scene) {
	if *simSeed != 0 {
		t.Logf("\n%s", run(t, *simSeed).w.Trace())
		return
	}
	for seed := range uint64(*simSeeds) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { run(t, seed+1) })
		if t.Failed() {
			t.Fatalf("repeat with -run '^%s$' -seed %d", t.Name(), seed+1)
		}
	}
}

// TestSimulateGoGo: whatever happened, in the end each node's model of the
// other is exact.
func TestSimulateGoGo(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) *scene {
		s := newScene(t, seed)
		faults := []*sim.Faults{s.randomFaults(true), s.randomFaults(true)}
		for i := range 2 {
			s.peers[i] = s.goPeer(i, s.w.Chance(0.5), true)
		}
		s.join(faults)
		s.play(faults, [2]int{s.w.Rand().IntN(3), s.w.Rand().IntN(3)})
		for i := range 2 {
			if d := s.differ(i, false); d != "" {
				t.Errorf("not in step: %s", d)
			}
			s.checkFrames(i)
		}
		return s
	})
}

// checkFrames bounds what side i sent: a few messages for each update, each
// second and each object of each bulk.
func (s *scene) checkFrames(i int) {
	p, ok := s.peers[i].(*goPeer)
	if !ok {
		return
	}
	seconds := int(s.w.Now() / time.Second)
	if most := 10*s.updates + 10*seconds + 3*p.bulks*simFlows; p.frames > most {
		s.t.Errorf("%s sent %d messages, more than %d", p.name, p.frames, most)
	}
}
