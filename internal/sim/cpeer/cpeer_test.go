package cpeer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

func text(m Message) string {
	hello := ""
	if m.Flags&wire.FlagHELLO != 0 {
		hello += " HELLO"
	}
	if m.Flags&wire.FlagHELLOBack != 0 {
		hello += " HELLO_BACK"
	}
	switch c := m.Class(); c {
	case wire.Data:
		return fmt.Sprintf("%s %d of flow %d.%d%s", wire.TypeName(m.Type), m.Seq, m.ID, m.Version, hello)
	case wire.ACK, wire.NACK:
		return fmt.Sprintf("%s %d of %d..%d%s", c, m.Seq, m.From, m.To, hello)
	default:
		return fmt.Sprintf("%s %d%s", c, m.Seq, hello)
	}
}

// The model shows what docs/protocol.md says about C alone, so that a
// simulation with it means something.
func TestModel(t *testing.T) {
	now := time.Duration(0)
	c := New(Config{Window: 5, ResendQueue: 10}, 1, 0, map[int]int{1: 1, 2: 1})
	data := func(seq uint32, flags uint8) func() {
		return func() { c.Receive(Message{Header: wire.Header{Seq: seq, Flags: flags}, ID: 9, Version: int(seq)}) }
	}
	control := func(flag uint8, seq, from, to uint32) func() {
		return func() {
			c.Receive(Message{Header: wire.Header{Type: wire.Control, Flags: flag, Seq: seq, From: from, To: to}})
		}
	}
	for _, step := range []struct {
		what string
		do   func()
		want []string
	}{
		{"data 100 ends the hello", data(100, wire.FlagHELLOBack), nil},
		{"an event", func() { c.Changed(1, 2) }, []string{"CT_UPD 1 of flow 1.2 HELLO"}},
		{"data 103", func() {
			data(101, wire.FlagHELLOBack)()
			data(104, 0)()
		}, []string{"ACK 2 of 100..101", "NACK 3 of 102..103"}},
		{"NACK of all", control(wire.FlagNACK, 105, 1, 3), []string{"CT_UPD 4 of flow 1.2", "ACK 5 of 100..101", "NACK 6 of 102..103"}},
		{"window", func() {
			data(106, 0)()
			data(107, 0)()
		}, nil},
		{"window used up", data(108, 0), []string{"ACK 7 of 104..108"}},
		{"late", data(90, 0), nil},
		{"ACK that ends before it begins", control(wire.FlagACK, 109, 3, 1), nil},
		{"a hello empties the resend queue", data(50, wire.FlagHELLO), nil},
		{"so nothing is resent", control(wire.FlagNACK, 51, 1, 7), nil},
		{"destroyed", func() { c.Changed(2, 0) }, []string{"CT_DEL 8 of flow 2.0 HELLO_BACK"}},
		{"RESYNC", control(wire.FlagRESYNC, 52, 0, 0), []string{"CT_DEL 10 of flow 2.0", "CT_UPD 9 of flow 1.2"}},
		{"timer", func() { now += time.Second }, []string{"ACK 11 of 50..52"}},
		{"timer again", func() { now += time.Second }, []string{"ALIVE 12"}},
		{"events were lost", func() { c.Refresh(map[int]int{3: 4}) }, []string{"CT_DEL 13 of flow 1.0", "CT_NEW 14 of flow 3.4"}},
		{"deaf to a lower number", data(20, 0), nil},
	} {
		step.do()
		var sent []string
		c.Run(now, func(m Message) { sent = append(sent, text(m)) })
		slices.Sort(sent)
		slices.Sort(step.want)
		if !slices.Equal(sent, step.want) {
			t.Errorf("%s: C sends %q, want %q", step.what, sent, step.want)
		}
	}
	if c.External()[9] != 50 {
		t.Errorf("external %v", c.External())
	}
	if got := c.Internal(); len(got) != 1 || got[3] != 4 {
		t.Errorf("internal %v", got)
	}
	if c.Malformed != 1 || c.Dropped != 0 {
		t.Errorf("%d malformed, %d dropped", c.Malformed, c.Dropped)
	}
}

func TestResendQueueIsBounded(t *testing.T) {
	c := New(Config{Window: 5, ResendQueue: 3}, 1, 0, nil)
	for id := range 10 {
		c.Changed(id, 1)
		c.Run(0, func(Message) {})
	}
	if tx, resend := c.Pending(); tx != 0 || resend != 3 || c.Dropped != 7 {
		t.Errorf("%d and %d queued, %d dropped", tx, resend, c.Dropped)
	}
}
