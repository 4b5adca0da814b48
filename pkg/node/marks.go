package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// marking is what we say of our bulks: where they begin and end. Nobody repeats
// an ALIVE that is lost, so the end is said again until the peer has answered.
type marking struct {
	begin bool // the beginning is to be said before anything else
	begun bool // it was said
	end   bool // the end is to be said,
	due   bool // now
	tries int
	what  wire.BulkEnd
	owes  bool // we owe the peer our answer to the end of its bulk
	owed  wire.BulkSeen
}

// markTries is how often the end is said to a peer that does not answer.
const markTries = 8

// hearing is a bulk of the peer that is under way.
type hearing struct {
	open   bool
	bulk   uint32
	first  uint32 // the number of the mark of its beginning
	lost   uint64 // messages of the peer, by then
	upTo   uint32 // everything from first to here has arrived,
	broken bool   // and something after it has not
	done   wire.BulkSeen
}

// beginMarks precedes a bulk. Nothing is said of one after -f: what it leaves
// out has not ended.
func (n *Node) beginMarks() {
	m := &n.mark
	if !m.begin { // else the one before was not even begun
		m.what = wire.BulkEnd{Bulk: m.what.Bulk + 1}
	}
	m.begin, m.begun, m.end, m.due = n.speaker != nil && n.speaker.InTouch() && !n.unread, false, false, false
}

// endMarks is called when all of the bulk has been queued.
func (n *Node) endMarks() {
	m := &n.mark
	if !m.begin && !m.begun || n.unread {
		return
	}
	m.end, m.due, m.tries = true, true, 0
	m.what.Flows, m.what.Expects = uint32(n.internal.live()), uint32(n.expects.internal.table.Len())
}

// sayMarks puts into the ALIVE of number seq what is to be said of bulks.
func (n *Node) sayMarks(seq uint32, x *wire.Ext) {
	m := &n.mark
	if m.begin {
		m.begin, m.begun, m.what.First = false, true, seq
		x.Has |= wire.ExtBulkBegin
		x.Begin = m.what.Bulk
	}
	if tx, _ := n.engine.Pending(); m.end && tx == 0 {
		if m.tries == 0 {
			m.what.Last = seq - 1
		}
		m.tries++
		m.due, m.end = false, m.tries < markTries
		x.Has |= wire.ExtBulkEnd
		x.End = m.what
	}
	if m.owes {
		m.owes = false
		x.Has |= wire.ExtBulkSeen
		x.Seen = m.owed
	}
}

// heardMarks takes the marks in a message of number seq.
func (n *Node) heardMarks(now time.Duration, seq uint32, x *wire.Ext) {
	m, h := &n.mark, &n.hear
	if x.Has&wire.ExtBulkSeen != 0 && x.Seen.Bulk == m.what.Bulk {
		m.end, m.due = false, false
		if x.Seen.Complete {
			n.leftovers = false
		}
	}
	// Where repetitions are not told from new messages, one may come when the
	// bulk has ended.
	if x.Has&wire.ExtBulkBegin != 0 && x.Begin != h.done.Bulk {
		*h = hearing{open: true, bulk: x.Begin, first: seq, upTo: seq, lost: n.engine.Stats().Lost, done: h.done}
		n.newPicture()
	}
	if x.Has&wire.ExtBulkEnd == 0 {
		return
	}
	n.hearMore(seq)
	e := &x.End
	m.owes, n.say.urgent = true, true
	if h.done.Bulk == e.Bulk && h.done.Complete { // our answer was lost
		return
	}
	m.owed = wire.BulkSeen{Bulk: e.Bulk}
	switch {
	case h.open && h.bulk == e.Bulk && h.first == e.First && (!h.broken || !wire.Before(h.upTo, e.Last)):
		m.owed.Complete = true
		n.bulkComplete(now)
	case !n.cfg.Mode.row().acknowledged:
		n.gapped(now)
	}
	h.open, h.done = false, m.owed
}

// hearMore notes how far a bulk of the peer has arrived without a gap.
func (n *Node) hearMore(seq uint32) {
	h := &n.hear
	if !h.open || h.broken {
		return
	}
	if h.broken = n.engine.Stats().Lost != h.lost; !h.broken {
		h.upTo = seq
	}
}

// bulkComplete is called when a bulk of the peer has arrived as a whole: what
// it did not name has ended there.
func (n *Node) bulkComplete(now time.Duration) {
	n.tableComplete(now)
	n.expiry = expiry{active: true}
	if !n.cfg.Mode.row().acknowledged {
		n.notices = append(n.notices, Notice{Kind: ResyncComplete})
	}
}

// tableComplete notes that we have all that the peer has.
func (n *Node) tableComplete(now time.Duration) {
	n.peer.complete, n.peer.tableAt = true, now
	n.peer.compare.differ = 0
}
