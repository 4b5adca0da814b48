package cluster

import (
	"fmt"
	"strings"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// strangers sends a host what nobody of the group sent, with the address of
// one of them. Their numbers are random: whoever knows the next one cannot be
// told from the peer.
func (h *host) strangers() {
	r := h.Rand()
	kind := stranger(r.IntN(int(strangerKinds)))
	from := h.links[r.IntN(len(h.links))].to
	all := h.profile.Found && r.IntN(4) == 0
	take := func(b []byte) { h.take(packet{from, all, b}) }
	h.Logf("%v: stranger %d", h, kind)
	switch kind {
	case randomBytes:
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		take(b)
	case anyControl:
		take(h.forged(uint8(r.Uint32()), r.Uint32()))
	case flood:
		for range r.IntN(100) {
			take(h.forged(wire.FlagALIVE|wire.FlagHELLO*uint8(r.UintN(2)), r.Uint32()))
		}
	case anyFlow:
		take(h.flowOfNobody(wire.FlagHELLO*uint8(r.UintN(2)), r.Uint32()))
	case lifeOfItsOwn:
		seq := r.Uint32()
		for i := range r.Uint32N(10) {
			take(h.flowOfNobody(0, seq+i))
		}
	case unreadable:
		b := h.forged(wire.FlagHELLO*uint8(r.UintN(2)), r.Uint32())
		b[0] &^= 0xf // CT_NEW without a body
		take(b)
	case replayOne:
		if n := len(h.past); n > 0 {
			h.take(h.past[r.IntN(n)])
		}
	case replayMany:
		if n := len(h.past); n > 0 {
			for _, p := range h.past[r.IntN(n):] {
				h.take(p)
			}
		}
	}
}

type stranger int

const (
	randomBytes stranger = iota
	anyControl
	flood
	anyFlow
	lifeOfItsOwn
	unreadable
	replayOne
	replayMany
	strangerKinds
)

func (h *host) forged(flags uint8, seq uint32) []byte {
	return wire.AppendControl(nil, wire.Header{Flags: flags, Seq: seq, From: h.Rand().Uint32(), To: h.Rand().Uint32()})
}

// flowOfNobody is about a flow that no kernel has.
func (h *host) flowOfNobody(flags uint8, seq uint32) []byte {
	f := flowOf(99, h.Rand().IntN(flowCount), 1)
	return codec.AppendFlow(nil, wire.Header{Type: wire.CTNew, Flags: flags, Seq: seq}, &f)
}

// text names the messages of a datagram as the scenes in pkg/ftfw/testdata do,
// so that what one node heard can become one.
type text []byte

func (b text) String() string {
	var words []string
	for len(b) > 0 {
		m, rest, err := wire.Next(b)
		b = rest
		if err != nil {
			words = append(words, err.Error())
			continue
		}
		words = append(words, messageText(&m))
	}
	return strings.Join(words, "; ")
}

func messageText(m *wire.Message) string {
	c := m.Class()
	text := fmt.Sprintf("%v %d", c, m.Seq)
	if c == wire.ACK || c == wire.NACK {
		text += fmt.Sprintf(" %d..%d", m.From, m.To)
	}
	if m.Flags&wire.FlagHELLO != 0 {
		text += " HELLO"
	}
	if m.Flags&wire.FlagHELLOBack != 0 {
		text += " HELLO_BACK"
	}
	if c == wire.Data {
		text += " (" + wire.TypeName(m.Type) + dataText(m.Body) + ")"
	}
	return text
}

func dataText(body []byte) string {
	var f flow.Flow
	if err := codec.ParseFlow(body, &f); err != nil {
		return ": " + err.Error()
	}
	return fmt.Sprintf(" host %d flow %d.%d", f.Src[1], f.Sport, f.Mark)
}
