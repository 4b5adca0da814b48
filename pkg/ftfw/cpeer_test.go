package ftfw

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/internal/sim/cpeer"
)

// cPeer is the model of the C daemon as a peer of the simulation.
type cPeer struct {
	station
	t   *testing.T
	cfg cpeer.Config
	c   *cpeer.Peer
}

func (p *cPeer) start(firstSeq uint32) {
	p.up, p.started = true, false
	p.c = cpeer.New(p.cfg, firstSeq, p.w.Now(), p.kernel)
	p.w.Logf("%s starts at %d", p.name, firstSeq)
	p.nap()
}

func (p *cPeer) die() {
	p.w.Logf("%s dies", p.name)
	p.up = false
	p.alarm.Stop()
}

func (p *cPeer) external() flows { return p.c.External() }

func (p *cPeer) nap() { p.alarm.Set(p.w.Now() + p.w.Between(0, 3*time.Millisecond)) }

func (p *cPeer) changed(id int) {
	p.c.Changed(id, p.kernel[id])
	p.nap()
}

func (p *cPeer) receive(m message) {
	p.c.Receive(cpeer.Message{Header: m.Header, ID: m.id, Version: m.version})
	p.nap()
}

func (p *cPeer) wake() {
	if p.up {
		p.alarm.Set(p.c.Run(p.w.Now(), func(m cpeer.Message) {
			p.transmit(p.t, message{Header: m.Header, id: m.ID, version: m.Version})
		}))
	}
}

func (s *scene) cPeer(i int) *cPeer {
	c := &cPeer{t: s.t, cfg: cpeer.Config{StartupResync: s.w.Chance(0.5), ResendQueue: 131072, Window: 2 + s.w.Rand().Uint32N(30)}}
	c.station = station{w: s.w, name: "c" + string(rune('A'+i)), kernel: s.kernels[i]}
	c.alarm = sim.NewAlarm(s.w, c.wake)
	return c
}

// TestSimulateGoC: the engine and a C daemon. Nobody can make C forget what
// was destroyed before its peer's last start, or survive HELLOs the network
// repeats, so these are left out, and so is an overflow of our resend queue,
// which loses the news of what died.
func TestSimulateGoC(t *testing.T) {
	t.Parallel()
	forSeeds(t, func(t *testing.T, seed uint64) *scene {
		s := newScene(t, seed)
		faults := []*sim.Faults{s.randomFaults(false), s.randomFaults(false)}
		s.peers[0] = s.goPeer(0, true, false)
		c := s.cPeer(1)
		s.peers[1] = c
		s.join(faults)
		s.play(faults, [2]int{s.w.Rand().IntN(3), s.w.Rand().IntN(3)})
		for i := range 2 {
			if d := s.differ(i, i == 0); d != "" {
				t.Errorf("not in step: %s", d)
			}
			s.checkFrames(i)
		}
		if c.c.Malformed > 0 {
			t.Errorf("the engine sent C %d malformed messages", c.c.Malformed)
		}
		return s
	})
}
