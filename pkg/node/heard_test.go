package node

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// forgery is one way to confuse a node about its peer's numbers, with the
// peer's address. It knows what was sent so far, but not how to guess what is
// sent next.
type forgery struct {
	name string
	send func(r *rand.Rand, past [][]byte, hear func([]byte))
}

func forged(flags uint8, seq, from, to uint32) []byte {
	return wire.AppendControl(nil, wire.Header{Flags: flags, Seq: seq, From: from, To: to})
}

// replay repeats from the past whatever keep says, in order.
func replay(keep func(i, n int, h wire.Header) bool) func(*rand.Rand, [][]byte, func([]byte)) {
	return func(_ *rand.Rand, past [][]byte, hear func([]byte)) {
		for i, b := range past {
			if m, _, _ := wire.Next(b); keep(i, len(past), m.Header) {
				hear(b)
			}
		}
	}
}

var forgeries = []forgery{
	{"random bytes", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		for range 1000 {
			b := make([]byte, r.IntN(80))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			hear(b)
		}
	}},
	{"one message anywhere", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		hear(forged(wire.FlagALIVE, r.Uint32(), 0, 0))
	}},
	{"two messages ahead", func(r *rand.Rand, past [][]byte, hear func([]byte)) {
		m, _, _ := wire.Next(past[len(past)-1])
		seq := m.Seq + 10000 + r.Uint32N(1<<30)
		hear(forged(wire.FlagALIVE, seq, 0, 0))
		hear(forged(wire.FlagALIVE, seq+1, 0, 0))
	}},
	{"a life ahead", func(r *rand.Rand, past [][]byte, hear func([]byte)) {
		m, _, _ := wire.Next(past[len(past)-1])
		seq := m.Seq + 10000 + r.Uint32N(1<<30)
		for i := range uint32(1000) {
			hear(forged(wire.FlagALIVE, seq+i, 0, 0))
		}
	}},
	{"messages everywhere", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		for range 1000 {
			hear(forged(wire.FlagALIVE, r.Uint32(), 0, 0))
		}
	}},
	{"a little ahead", func(r *rand.Rand, past [][]byte, hear func([]byte)) {
		m, _, _ := wire.Next(past[len(past)-1])
		hear(forged(wire.FlagALIVE, m.Seq+100+r.Uint32N(1000), 0, 0))
	}},
	{"a HELLO anywhere", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		hear(forged(wire.FlagALIVE|wire.FlagHELLO, r.Uint32(), 0, 0))
	}},
	{"HELLOs everywhere", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		for range 1000 {
			hear(forged(wire.FlagALIVE|wire.FlagHELLO, r.Uint32(), 0, 0))
		}
	}},
	{"a life begun by HELLO", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		seq := r.Uint32()
		hear(forged(wire.FlagALIVE|wire.FlagHELLO, seq, 0, 0))
		for i := range uint32(100) {
			hear(forged(wire.FlagALIVE, seq+1+i, 0, 0))
		}
	}},
	{"acknowledgements of everything", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		for range 100 {
			from := r.Uint32()
			hear(forged(wire.FlagACK, r.Uint32(), from, from+1<<30))
			hear(forged(wire.FlagACK|wire.FlagHELLO, r.Uint32(), 0, r.Uint32()))
		}
	}},
	{"requests for everything", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		for range 100 {
			hear(forged(wire.FlagNACK|wire.FlagHELLO, r.Uint32(), r.Uint32(), r.Uint32()))
			hear(forged(wire.FlagRESYNC|wire.FlagHELLO, r.Uint32(), 0, 0))
		}
	}},
	{"a bad body far ahead", func(r *rand.Rand, _ [][]byte, hear func([]byte)) {
		for range 3 {
			hear(append(forged(wire.FlagALIVE, r.Uint32(), 0, 0)[:4:4], 0x77, 1, 2, 3))
			b := forged(wire.FlagHELLO, r.Uint32(), 0, 0)
			b[0] &^= 0xf // CT_NEW without a body
			hear(b)
		}
	}},
	{"the past", replay(func(int, int, wire.Header) bool { return true })},
	{"some of the past", replay(func(i, _ int, _ wire.Header) bool { return i%7 == 3 })},
	{"the last of the past", replay(func(i, n int, _ wire.Header) bool { return i == n-1 })},
	{"HELLOs of the past", replay(func(_, _ int, h wire.Header) bool { return h.Flags&wire.FlagHELLO != 0 })},
}

// Whatever was sent in the peer's name, two seconds later what the peer said
// after that is here, whether it says much or little.
func TestHeardAgainWithinTwoSeconds(t *testing.T) {
	for _, c := range forgeries {
		for _, pace := range []time.Duration{0, 500 * time.Millisecond, 7 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", c.name, pace), func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(20) {
					heardAgain(t, &c, pace, seed)
				}
			})
		}
	}
}

func heardAgain(t *testing.T, c *forgery, pace time.Duration, seed uint64) {
	s := newScene(t, seed, simConfig())
	a, b := s.sides[0], s.sides[1]
	var past [][]byte
	a.start()
	b.start()
	a.link = sim.NewPipe(s.World, s.faults[0], func(m []byte) {
		past = append(past, m)
		b.receive(m)
	})
	n := uint16(0)
	event := func() uint16 {
		n++
		a.node.Kernel(a.clock(), event1(flow.New, tcp(n, 3)))
		a.pump()
		return n
	}
	var churn func()
	churn = func() {
		event()
		s.After(pace, churn)
	}
	if pace > 0 {
		churn()
	}
	s.Run(3*time.Second + s.Between(0, time.Second))
	c.send(s.Rand(), past, b.receive)
	last := event()
	s.Run(s.Now() + 2*time.Second)
	for i := uint16(1); i <= last; i++ {
		if k := tcp(i, 3).Key; b.node.external.lookup(&k) == none {
			t.Fatalf("seed %d: flow %d of %d is not here", seed, i, last)
		}
	}
	if queued := b.node.Stats().TxQueue; queued != 0 {
		t.Errorf("seed %d: %d messages wait", seed, queued)
	}
}
