package node

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Whoever can send from the peer's address can make us send. It must cost him
// more than a few bytes: ten seconds of a thousand messages each are answered
// with a bulk per second, not with ten thousand, and little is remembered.
func TestFloodIsNotAmplified(t *testing.T) {
	const flows, seconds, rate = 500, 10, 1000
	for _, tt := range []struct {
		name  string
		forge func(r *rand.Rand, h *wire.Header)
	}{
		{"HELLO anywhere", func(r *rand.Rand, h *wire.Header) { h.Flags, h.Seq = wire.FlagALIVE|wire.FlagHELLO, r.Uint32() }},
		{"RESYNC in order", func(_ *rand.Rand, h *wire.Header) { h.Flags, h.Seq = wire.FlagRESYNC, h.Seq+1 }},
		{"RESYNC and HELLO", func(r *rand.Rand, h *wire.Header) { h.Flags, h.Seq = wire.FlagRESYNC|wire.FlagHELLO, r.Uint32() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := established(t)
			for i := range uint16(flows) {
				p.a.Kernel(p.now, event1(flow.New, tcp(i, 3)))
			}
			p.rest()
			r := rand.New(rand.NewPCG(1, 2))
			before := p.a.Stats().Engine.Sent
			h := wire.Header{Type: wire.Control, Seq: r.Uint32()}
			notices := 0
			for range seconds * rate {
				p.now += time.Second / rate
				tt.forge(r, &h)
				p.a.Datagram(p.now, wire.AppendControl(nil, h))
				p.a.Tick(p.now)
				for b := p.a.Next(p.now, nil, 1472); len(b) > 0; b = p.a.Next(p.now, b, 1472) {
				}
				for _, ok := p.a.NextNotice(); ok; _, ok = p.a.NextNotice() {
					notices++
				}
			}
			sent := int(p.a.Stats().Engine.Sent - before)
			if most := 2*(seconds+5)*flows + 4*seconds*rate; sent > most {
				t.Errorf("%d messages sent for %d, want at most %d", sent, seconds*rate, most)
			}
			if most := 3 * (seconds + 5); notices > most || notices == 0 {
				t.Errorf("%d notices, want 1 to %d", notices, most)
			}
			// The true peer is heard and gets everything as soon as it is over.
			p.b = New(simConfig(), 77, [2]uint64{3, 4})
			for range 20 {
				p.rest()
			}
			if live := p.b.external.live(); live != flows {
				t.Errorf("afterwards the peer has %d flows of %d", live, flows)
			}
		})
	}
}
