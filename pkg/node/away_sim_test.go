package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
)

// cut is which directions of the link fail for so long that nodes are given up.
type cut struct {
	name string
	down func(s *scene) []*sim.Faults
}

var cuts = []cut{
	{"both", func(s *scene) []*sim.Faults { return s.faults[:] }},
	{"one", func(s *scene) []*sim.Faults { return s.faults[s.Rand().IntN(2):][:1] }},
	{"any", func(s *scene) []*sim.Faults {
		i := s.Rand().IntN(2)
		return s.faults[i:][:1+s.Rand().IntN(2-i)]
	}},
}

// TestCutOffNodesConverge: a link that fails for up to a minute, with changes,
// ends, lost events and restarts meanwhile, leaves nothing behind. Once all is
// well each external cache is the other's internal cache, and that is the
// kernel's table.
func TestCutOffNodesConverge(t *testing.T) {
	for _, c := range cuts {
		for _, nameless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, nameless %v", c.name, nameless), func(t *testing.T) {
				t.Parallel()
				if *simSeed != 0 {
					t.Logf("\n%s", c.play(t, *simSeed, nameless).Trace())
					return
				}
				away := 0
				for seed := range *simSeeds / 2 {
					away += c.play(t, seed+1, nameless).aways
					if t.Failed() {
						t.Fatalf("repeat with -run '^%s$' -sim.seed %d", t.Name(), seed+1)
					}
				}
				if away < int(*simSeeds)/2 {
					t.Errorf("%d times away in %d runs", away, *simSeeds/2)
				}
			})
		}
	}
}

func (c *cut) play(t *testing.T, seed uint64, nameless bool) *scene {
	cfg := simConfig()
	cfg.Group = true
	s := newScene(t, seed, cfg)
	s.nameless = nameless
	for i, p := range s.sides {
		if s.Chance(0.5) {
			repeats(s, s.faults[i])
		}
		p.start()
	}
	s.Run(2 * time.Second)
	pr := profile{overrun: 1. / 60, restart: 1. / 300}
	for range 1 + s.Rand().IntN(3) {
		s.steps(&pr, 20, 20*time.Millisecond)
		down := c.down(s)
		for _, f := range down {
			f.Down = true
		}
		s.steps(&pr, 60, s.Between(100*time.Millisecond, time.Second))
		for _, f := range down {
			f.Down = false
		}
		s.Run(s.Now() + s.Between(0, 20*time.Second))
	}
	s.Run(s.Now() + 10*time.Second)
	for _, f := range s.faults {
		*f = sim.Faults{Delay: f.Delay}
	}
	s.tidyUp(true)
	s.Run(s.Now() + 100*time.Second)
	s.check()
	return s
}

// steps lets things happen, pace apart on the average.
func (s *scene) steps(pr *profile, n int, pace time.Duration) {
	for range n {
		p := s.sides[s.Rand().IntN(2)]
		if p.node != nil {
			pr.trouble(p)
		}
		p.step()
		s.Run(s.Now() + s.Between(0, 2*pace))
	}
}
