package ftfw

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
)

// groupPeer is a node of a group: it leaves a silent peer, and now and then one
// that is not silent at all.
func (s *scene) groupPeer(i int) *goPeer {
	p := s.goPeer(i, true, false)
	p.group, p.stoic = true, s.w.Chance(0.3)
	for range s.w.Rand().IntN(4) {
		s.w.At(s.w.Between(2*time.Second, 30*time.Second), p.leaveAtRandom)
	}
	return p
}

// outages are long enough to be left for.
func (s *scene) outages(faults []*sim.Faults) {
	for range 1 + s.w.Rand().IntN(2) {
		begin := s.w.Between(0, 20*time.Second)
		down := faults[:1+s.w.Rand().IntN(2)]
		if s.w.Chance(0.3) {
			down = faults[1:]
		}
		s.w.At(begin, func() {
			for _, f := range down {
				f.Down = true
			}
		})
		s.w.At(begin+s.w.Between(time.Second, 20*time.Second), func() {
			for _, f := range down {
				f.Down = false
			}
		})
	}
}

// TestSimulateLeaving: whoever left whom, how often and for how long, in the end
// each node's model of the other is exact.
func TestSimulateLeaving(t *testing.T) {
	t.Parallel()
	left := 0
	forSeeds(t, func(t *testing.T, seed uint64) *scene {
		s := newScene(t, seed)
		faults := []*sim.Faults{s.randomFaults(true), s.randomFaults(true)}
		a := s.groupPeer(0)
		b := s.goPeer(1, s.w.Chance(0.5), true)
		if s.w.Chance(0.7) {
			b = s.groupPeer(1)
		}
		s.peers = [2]peer{a, b}
		s.join(faults)
		s.outages(faults)
		s.play(faults, [2]int{s.w.Rand().IntN(2), s.w.Rand().IntN(2)})
		for i := range 2 {
			if d := s.differ(i, false); d != "" {
				t.Errorf("not in step: %s", d)
			}
			s.checkFrames(i)
		}
		left += a.leaves + b.leaves
		return s
	})
	if *simSeed == 0 && left < *simSeeds {
		t.Errorf("%d times left in %d runs", left, *simSeeds)
	}
}

// TestSimulateLeavingC: the same of a C daemon, which cannot learn of what was
// destroyed here while it was away.
func TestSimulateLeavingC(t *testing.T) {
	t.Parallel()
	forSeeds(t, func(t *testing.T, seed uint64) *scene {
		s := newScene(t, seed)
		faults := []*sim.Faults{s.randomFaults(false), s.randomFaults(false)}
		s.peers = [2]peer{s.groupPeer(0), s.cPeer(1)}
		s.join(faults)
		s.outages(faults)
		s.play(faults, [2]int{s.w.Rand().IntN(2), s.w.Rand().IntN(2)})
		for i := range 2 {
			if d := s.differ(i, i == 0); d != "" {
				t.Errorf("not in step: %s", d)
			}
			s.checkFrames(i)
		}
		return s
	})
}
