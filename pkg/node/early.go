package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// holder is what a mode has in addition that believes no number before its
// message, and keeps the peer's order (docs/decisions/0072-believe-late.md).
type holder interface {
	Refuse(now time.Duration, h wire.Header) engine.Verdict
	Held(now time.Duration) (seq uint32, ok bool)
}

// reorder is how long a message that came before its turn waits for it.
const reorder = 50 * time.Millisecond

// early is the messages that came before their turn, in pages that are made
// when they are first needed and stay.
type early struct {
	where *[earlyMost]uint16 // by number: the slot, and one more; 0: none
	pages []*[earlyPage]earlyMessage
	free  []uint16 // slots
}

const (
	earlyMost = 4096 // the engine holds no more
	earlyPage = 64
	earlySize = wire.MaxMessage + 16 // a longer one is lost, and asked for
)

type earlyMessage struct {
	seq  uint32
	size uint16
	raw  [earlySize]byte
}

// keep keeps a message. One that the engine has given up since has left its
// slot to the next of its place.
func (e *early) keep(m *wire.Message) {
	if len(m.Raw) > earlySize {
		return
	}
	if e.where == nil {
		e.where = new([earlyMost]uint16)
	}
	where := &e.where[m.Seq%earlyMost]
	if *where == 0 {
		*where = e.slot() + 1
	}
	k := e.at(*where - 1)
	k.seq, k.size = m.Seq, uint16(copy(k.raw[:], m.Raw))
}

func (e *early) at(slot uint16) *earlyMessage { return &e.pages[slot/earlyPage][slot%earlyPage] }

func (e *early) slot() uint16 {
	if len(e.free) == 0 {
		first := uint16(len(e.pages) * earlyPage)
		e.pages = append(e.pages, new([earlyPage]earlyMessage))
		for i := range uint16(earlyPage) {
			e.free = append(e.free, first+i)
		}
	}
	last := len(e.free) - 1
	slot := e.free[last]
	e.free = e.free[:last]
	return slot
}

// take returns the bytes of a message, none if it was not kept. They are good
// until the next one is kept.
func (e *early) take(seq uint32) []byte {
	if e.where == nil {
		return nil
	}
	where := &e.where[seq%earlyMost]
	if *where == 0 {
		return nil
	}
	slot := *where - 1
	*where = 0
	e.free = append(e.free, slot)
	if k := e.at(slot); k.seq == seq {
		return k.raw[:k.size]
	}
	return nil
}

// takeHeld takes the messages whose turn has come.
func (n *Node) takeHeld(now time.Duration) {
	for seq, ok := n.holder.Held(now); ok; seq, ok = n.holder.Held(now) {
		if m, _, err := wire.Next(n.early.take(seq)); err == nil {
			n.message(now, &m)
		}
	}
}
