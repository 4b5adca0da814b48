package ftfw

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

var (
	simSeeds = flag.Int("sim.seeds", 200, "seeds of each simulation")
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed only and print its trace")
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
	s.bury(i)
	if s.peers[i].alive() {
		s.w.Logf("kernel %d: flow %d.%d", i, id, s.kernels[i][id])
		s.peers[i].changed(id)
	}
	s.w.After(s.w.Between(0, 2*pace), func() { s.churn(i, pace, until) })
}

// start starts side i. What was destroyed before it did has no messenger.
func (s *scene) start(i int) {
	s.starts++
	s.buryAll(i)
	s.peers[i].start(s.firstSeq())
}

func (s *scene) buryAll(i int) {
	for id := range simFlows {
		if s.kernels[i][id] == 0 {
			s.buried[i][id] = true
		}
	}
}

// bury does the same for a side that has left its peer: what is destroyed until
// that answers.
func (s *scene) bury(i int) {
	if p, ok := s.peers[i].(*goPeer); ok && p.away {
		s.buryAll(i)
	}
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
	s.base = s.w.Rand().Uint32()
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
			t.Fatalf("repeat with -run '^%s$' -sim.seed %d", t.Name(), seed+1)
		}
	}
}

// TestSimulateGoGo: whatever happened, in the end each node's model of the
// other is exact.
func TestSimulateGoGo(t *testing.T) {
	t.Parallel()
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
