package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/internal/sim/cpeer"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// resumeTable is how many flows a bulk has that is cut in its middle.
const resumeTable = 20000

// A gate is a link that is cut, both ways, when so many objects have come to the
// second node.
type gate struct {
	*sim.World
	objects, at int
	d           time.Duration
	until       time.Duration // 0: not yet
}

// toSecond and toFirst wrap what a direction delivers to.
func (g *gate) toSecond(deliver func([]byte)) func([]byte) {
	return g.toFirst(func(b []byte) {
		g.objects += objectsIn(b)
		if g.at > 0 && g.until == 0 && g.objects >= g.at {
			g.until = g.Now() + g.d
		}
		deliver(b)
	})
}

func (g *gate) toFirst(deliver func([]byte)) func([]byte) {
	return func(b []byte) {
		if g.Now() >= g.until {
			deliver(b)
		}
	}
}

func objectsIn(b []byte) (n int) {
	for len(b) > 0 {
		m, rest, err := wire.Next(b)
		b = rest
		if err == nil && m.Class() == wire.Data {
			n++
		}
	}
	return n
}

// cSide is a model of the C daemon in the place of the second node. It has no
// flows of its own.
type cSide struct {
	*scene
	c     *cpeer.Peer
	alarm *sim.Alarm
	link  *sim.Pipe[[]byte]
}

func newCSide(s *scene, deliver func([]byte)) *cSide {
	p := &cSide{scene: s, link: sim.NewPipe(s.World, s.faults[1], deliver)}
	p.alarm = sim.NewAlarm(s.World, p.run)
	p.c = cpeer.New(cpeer.Config{Window: uint32(s.cfg.ACKWindowSize), ResendQueue: 131072}, 77, s.Now(), nil)
	p.run()
	return p
}

func (p *cSide) run() {
	p.alarm.Set(p.c.Run(p.Now(), func(m cpeer.Message) { p.link.Send(wire.AppendControl(nil, m.Header)) }))
}

func (p *cSide) receive(b []byte) {
	for len(b) > 0 {
		m, rest, err := wire.Next(b)
		b = rest
		var f flow.Flow
		if err != nil || m.Class() == wire.Data && codecOf(p.scene).ParseFlow(m.Body, &f) != nil {
			p.t.Fatalf("C is sent %x: %v", b, err)
		}
		p.c.Receive(cpeer.Message{Header: m.Header, ID: int(f.Src[1])<<16 | int(f.Sport), Version: 1})
	}
	p.run()
}

func codecOf(s *scene) *wire.Options { return &s.sides[0].node.wire }

// resume is a bulk that is cut in its middle.
type resume struct {
	by    string // how it begins
	begin func(s *scene, asks func())
	bulks int // whole ones, at most, where nothing that was sent is dropped
}

// amends is how many whole bulks follow at most when something was.
const amends = 1

var resumes = []resume{
	{by: "-B", begin: func(s *scene, _ func()) { s.sides[0].sendBulk() }, bulks: 1},
	// Only after a bulk without a gap does what it left out leave the cache.
	{by: "-n", begin: func(_ *scene, asks func()) { asks() }, bulks: 2},
}

// TestBulkGoesOnAfterACut: a link that fails in the middle of a bulk costs what
// was under way then, and no new bulk, however small the resend queue is. Where
// changes meanwhile are more than it holds the peer gets everything, once.
func TestBulkGoesOnAfterACut(t *testing.T) {
	for _, peer := range []string{"conntrackgo", "nameless", "C"} {
		for _, queue := range []int{1000, DefaultResendQueueSize} {
			for _, d := range []time.Duration{2 * time.Second, 20 * time.Second} {
				for i := range resumes {
					x := &resumes[i]
					t.Run(fmt.Sprintf("%s/queue %d/%v/%s", peer, queue, d, x.by), func(t *testing.T) {
						t.Parallel()
						for _, changes := range []int{0, 3000} {
							x.play(t, peer, queue, d, changes)
						}
					})
				}
			}
		}
	}
}

func (x *resume) play(t *testing.T, peer string, queue int, d time.Duration, changes int) {
	cfg := simConfig()
	cfg.ExpectationSync = false
	cfg.ResendQueueSize, cfg.ACKWindowSize, cfg.BulkWindow = queue, DefaultACKWindowSize, windowMost
	s := newScene(t, 1, cfg)
	s.nameless = peer == "nameless"
	g := &gate{World: s.World, d: d}
	a, b := s.sides[0], s.sides[1]
	asks, has := s.joinGated(g, peer == "C")
	s.Run(3 * time.Second)
	a.flows(0, resumeTable)
	s.Run(s.Now() + 30*time.Second)
	if has() != resumeTable {
		t.Fatalf("at first: %d flows", has())
	}

	before, began, drops := a.told(), g.objects, a.node.Stats().Engine.ResendOverflow
	g.at = began + resumeTable/2
	x.begin(s, asks)
	for range 1000 {
		if s.Run(s.Now() + time.Millisecond); g.until != 0 {
			break
		}
	}
	if g.until == 0 {
		t.Fatalf("only %d objects have come", g.objects-began)
	}
	a.change(changes)
	s.Run(g.until + time.Minute)
	sent, dropped := int(a.told()-before), a.node.Stats().Engine.ResendOverflow-drops
	t.Logf("%d changes: %d objects sent, %d came, %d dropped", changes, sent, g.objects-began, dropped)
	if has() != resumeTable || peer != "C" && !same(a.node, b.node) {
		t.Errorf("the other node has %d flows, and not all as they are", has())
	}
	if h := a.node.Health(a.clock()); !h.InStep || h.Unacked != 0 {
		t.Errorf("not in step: %+v", h)
	}
	most := x.bulks*resumeTable + windowMost + bulkChunk*int(d/bulkRetry+2) + 2*changes
	switch {
	case changes > queue:
		most += amends * resumeTable
	case dropped > 0:
		t.Errorf("%d were dropped from a queue of %d", dropped, queue)
	}
	if sent > most {
		t.Errorf("%d objects sent, more than %d", sent, most)
	}
}

// joinGated starts both nodes, the second one ours or a model of C, with a gate
// between them.
func (s *scene) joinGated(g *gate, c bool) (asks func(), has func() int) {
	a, b := s.sides[0], s.sides[1]
	a.start()
	if !c {
		a.link = sim.NewPipe(s.World, s.faults[0], g.toSecond(b.receive))
		b.link = sim.NewPipe(s.World, s.faults[1], g.toFirst(a.receive))
		b.start()
		return b.requestResync, func() int { return b.node.external.live() }
	}
	p := newCSide(s, g.toFirst(a.receive))
	a.link = sim.NewPipe(s.World, s.faults[0], g.toSecond(p.receive))
	return func() {
		p.c.RequestResync()
		p.run()
	}, func() int { return len(p.c.External()) }
}

// change changes the first n flows of the kernel.
func (p *side) change(n int) {
	for _, k := range p.keys[:n] {
		f := p.kernel[k]
		f.Has |= flow.HasMark
		f.Mark++
		p.kernel[k] = f
		p.tell(flow.Update, f)
	}
}

// told is how many flows the peer was told of, repetitions included.
func (p *side) told() (n uint64) {
	for _, c := range p.node.stats.Sent {
		n += c
	}
	return n
}
