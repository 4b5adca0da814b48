package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// soon is how long two nodes may take to be in step when they hear each other
// again: as a rule it takes a round trip and two bulks, but what the kernel has
// kept for a neighbour may be lost once more.
const soon = 3 * time.Second

// TestInStepSoonAfterAnOutage: two nodes of a group that were cut off for so long
// that both have given up the other, while flows came on any of them, are in step
// as soon as they hear each other again, whichever of the two is heard first.
func TestInStepSoonAfterAnOutage(t *testing.T) {
	for seed := range *simSeeds {
		if *simSeed != 0 {
			seed = *simSeed - 1
		}
		s := newScene(t, seed+1, simConfig())
		s.playOutage()
		if *simSeed != 0 {
			t.Logf("\n%s", s.Trace())
			return
		}
		if t.Failed() {
			t.Fatalf("repeat with -run '^%s$' -sim.seed %d", t.Name(), seed+1)
		}
	}
}

func (s *scene) playOutage() {
	s.cfg.Group, s.cfg.ExpectationSync = true, false
	if s.Chance(0.5) {
		s.cfg.ACKWindowSize = 300
	}
	for _, p := range s.sides {
		p.flows(0, s.Rand().IntN(1500))
		p.After(s.Between(0, time.Second), p.start)
	}
	s.Run(s.Between(4*time.Second, 8*time.Second))
	up := s.Now() + s.Between(11*time.Second, 20*time.Second)
	for i, p := range s.sides {
		s.faults[i].Down, s.faults[i].Neighbour = true, s.Chance(0.5)
		if s.Chance(0.5) {
			p.After(s.Between(0, 9*time.Second), func() { p.flows(2000, 300) })
		}
		if s.Chance(0.5) {
			s.At(up-s.Between(0, 4*time.Second), func() { p.flows(3000, 200) })
		}
	}
	s.Run(up)
	first := s.Rand().IntN(2)
	s.faults[first].Down = false
	if s.Chance(0.5) {
		s.Run(up + s.Between(0, 1200*time.Millisecond))
	}
	s.faults[1-first].Down = false
	s.Run(s.Now() + soon)
	for _, p := range s.sides {
		if h := p.node.Health(p.clock()); !h.InStep {
			s.t.Errorf("node %d is not in step: %+v", p.index, h)
		}
	}
	s.Run(s.Now() + 10*time.Second)
	s.check()
}

// flows makes n flows of the kernel from a number on.
func (p *side) flows(from, n int) {
	for i := range n {
		f := numbered(from + i)
		f.Src[2] = byte(100 + p.index)
		p.kernel[f.Key] = f
		p.keys = append(p.keys, f.Key)
		p.tell(flow.New, f)
	}
}
