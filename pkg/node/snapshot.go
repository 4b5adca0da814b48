package node

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A snapshot hands the external caches to the node that is started next. It is
// a run of records: two ages in seconds, since the entry was inserted and since
// it was last heard of, 4 bytes each, big-endian, and the message that would
// tell of it (docs/protocol.md 2, 3). Restored entries are good for a takeover,
// and the peer's first complete bulk decides which of them remain.

// snapshotWire says everything, whatever is agreed with the peer.
var snapshotWire = wire.Options{WindowScale: true}

const snapshotAges = 8 // bytes

// A SnapshotCursor is a place in a snapshot; the zero value is its start.
type SnapshotCursor struct {
	begun, done bool
	flows       cursor
	expects     cache.ID
}

// NextSeq returns the number of the next message: a later life of this node
// that begins well above it cannot be mixed up with this one.
func (n *Node) NextSeq() uint32 { return n.engine.NextSeq() }

// Snapshot appends up to limit entries of the external caches to dst and moves
// the cursor: nothing is appended when all are done. An entry takes at most
// wire.MaxMessage and 8 bytes.
func (n *Node) Snapshot(dst []byte, now time.Duration, c *SnapshotCursor, limit int) []byte {
	if !c.begun {
		c.begun = true
		for !n.Expire(flushChunk) { // what is on its way out need not go on
			continue
		}
	}
	start := len(dst)
	for len(dst) == start && !c.flows.done {
		s := n.external
		s.scan(&c.flows, limit, func(r ref) {
			s.load(r, &n.scratch)
			e := s.common(r)
			dst = appendAges(dst, now, e.born, e.seen)
			dst = snapshotWire.AppendFlow(dst, wire.Header{Type: wire.CTNew}, &n.scratch)
		})
	}
	for len(dst) == start && !c.done {
		s := n.expects.external
		c.expects = s.scan(c.expects, limit, func(id cache.ID) {
			e := s.at(id)
			dst = appendAges(dst, now, e.born, e.seen)
			dst = snapshotWire.AppendExpect(dst, wire.Header{Type: wire.ExpNew}, &e.x)
		})
		c.done = c.expects == 0
	}
	return dst
}

func appendAges(dst []byte, now time.Duration, born, seen uint32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, seconds(now)-born)
	return binary.BigEndian.AppendUint32(dst, seconds(now)-seen)
}

// errSnapshot refuses what is no record of ours.
var errSnapshot = errors.New("restore entries: a record is damaged")

// Restore takes records of a snapshot that was made away ago into the external
// caches, and returns how many entries were taken: what is there already is
// newer. An error says that they are not ours; those before it were taken.
func (n *Node) Restore(now, away time.Duration, b []byte) (taken int, err error) {
	for len(b) > 0 {
		if len(b) < snapshotAges {
			return taken, errSnapshot
		}
		born := n.then(now, away, binary.BigEndian.Uint32(b))
		seen := n.then(now, away, binary.BigEndian.Uint32(b[4:]))
		m, rest, err := wire.Next(b[snapshotAges:])
		if err != nil {
			return taken, errSnapshot
		}
		b = rest
		ok := false
		switch m.Type {
		case wire.CTNew:
			if snapshotWire.ParseFlow(m.Body, &n.other) != nil {
				return taken, errSnapshot
			}
			ok = n.restoreFlow(now, &n.other, born, seen)
		case wire.ExpNew:
			if snapshotWire.ParseExpect(m.Body, &n.expects.scratch) != nil {
				return taken, errSnapshot
			}
			ok = n.restoreExpect(now, &n.expects.scratch, born, seen)
		default:
			return taken, errSnapshot
		}
		if ok {
			taken++
		}
	}
	n.restored.unheard = n.restored.unheard || taken > 0
	return taken, nil
}

// DropRestored takes back what was restored, before anything else is in the
// external caches.
func (n *Node) DropRestored() {
	n.FlushExternal()
	s := n.expects.external
	s.each(func(id cache.ID) { n.unheard(refExpect(id)) })
	s.stats.Destroyed += uint64(s.table.Len())
	s.clear()
	n.restored = restored{}
}

// then is the second of this node's clock in which something was age old when
// away began. It may be before the clock began and wrap, as ages do when they
// are taken.
func (n *Node) then(now, away time.Duration, age uint32) uint32 {
	return seconds(now) - uint32(min(uint64(age)+uint64(away/time.Second), math.MaxInt32))
}

func (n *Node) restoreFlow(now time.Duration, f *flow.Flow, born, seen uint32) bool {
	s := n.external
	r, fresh := s.put(&f.Key)
	if r == none {
		n.limitReached(External)
		return false
	}
	if !fresh {
		return false
	}
	s.save(r, f)
	c := s.common(r)
	c.born, c.seen = born, seen
	c.gen = s.gen - 1 // no bulk of this life has named it
	s.stats.Created++
	n.heard(now, r)
	return true
}

func (n *Node) restoreExpect(now time.Duration, x *flow.Expect, born, seen uint32) bool {
	s := n.expects.external
	id, fresh := s.put(x)
	if id == 0 || !fresh {
		return false
	}
	*s.at(id) = expectEntry{x: *x, born: born, seen: seen, gen: s.gen - 1}
	s.stats.Created++
	n.heard(now, refExpect(id))
	return true
}

// restored watches over restored entries in a mode that cannot tell when the
// peer's bulk is complete, and has no timers either.
type restored struct {
	unheard bool          // nothing has come from the peer since
	until   time.Duration // then those that the peer has not named go; 0: none
}

// restoredPatience is how long a peer that is there may take to name all it has.
// It is asked for that at the start.
const restoredPatience = time.Minute

// hearRestored begins the end of restored entries: the peer speaks.
func (n *Node) hearRestored(now time.Duration) {
	if !n.restored.unheard {
		return
	}
	n.restored.unheard = false
	if n.timers == nil && !n.cfg.Mode.row().acknowledged {
		n.restored.until = now + restoredPatience
	}
}

// endRestored ends what the peer has not named in time.
func (n *Node) endRestored(now time.Duration) {
	if n.restored.until != 0 && now >= n.restored.until {
		n.restored.until = 0
		n.expects.expiryAt = 0
		n.expiry = expiry{active: true}
	}
}
