package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// sender assembles datagrams.
type sender struct {
	held []byte // a message that did not fit the last datagram
	ran  bool   // something was popped since the last Flushed
}

// Next appends the next datagram to dst[:0] and returns it, or an empty slice
// when there is nothing to send. size is the room the send buffer rule
// (docs/protocol.md 1.2) allows: a datagram stays below it. A message larger
// than that travels alone. Call it until it returns nothing.
func (n *Node) Next(now time.Duration, dst []byte, size int) []byte {
	dst = append(dst[:0], n.out.held...)
	n.out.held = n.out.held[:0]
	if n.numbers != nil {
		var full bool
		if dst, full = n.passed(dst, size); full {
			return dst
		}
	}
	for {
		n.feedBulk(now)
		start := len(dst)
		var ok bool
		if dst, ok = n.render(now, dst); !ok {
			if n.wantsToSay(now) {
				n.speaker.Alive()
				continue
			}
			break
		}
		n.out.ran = true
		if len(dst) < size {
			continue
		}
		if start > 0 {
			n.out.held = append(n.out.held[:0], dst[start:]...)
			dst = dst[:start]
		}
		return dst
	}
	if n.out.ran {
		n.out.ran = false
		n.engine.Flushed(now)
		n.settle(now)
	}
	return dst
}

// render appends the engine's next message. An object is built from what its
// entry holds now, so however often it changed since it was queued, one
// message goes out (docs/protocol.md 5.4). It is a CT_NEW as long as the peer
// may hold an earlier flow of the same tuple: a C peer merges a CT_UPD into
// that, and the new flow would inherit its NAT or its labels.
func (n *Node) render(now time.Duration, dst []byte) ([]byte, bool) {
	fr, ok := n.engine.Pop(now)
	if !ok {
		return dst, false
	}
	n.sent.newest = fr.Header.Seq
	if !fr.Object {
		if fr.Header.Flags&wire.FlagALIVE != 0 {
			return n.alive(now, &fr, dst), true
		}
		return wire.AppendControl(dst, fr.Header), true
	}
	r := ref(fr.Ref)
	if r.isExpect() {
		return n.renderExpect(r, fr.Header, dst), true
	}
	n.internal.load(r, &n.scratch)
	c := n.internal.common(r)
	c.flags = c.flags&^unsaid | told
	h := fr.Header
	switch {
	case n.internal.dead(r):
		h.Type = wire.CTDel
	case c.flags&(updated|renewed) == updated:
		h.Type = wire.CTUpd
		n.internal.count(r, c)
	default:
		h.Type = wire.CTNew
		n.internal.count(r, c)
	}
	n.stats.Sent[h.Type]++
	return n.wire.AppendFlow(dst, h, &n.scratch), true
}

// A bulk send walks the internal cache and queues a little at a time, so that
// events go in between and the receiver can follow: only as much is under way
// as its acknowledgements allow.
type bulk struct {
	active  bool
	queued  int  // entries, so far
	again   bool // asked for once more while active
	at      cursor
	retry   time.Duration // when to go on without acknowledgements
	stalled bool
	unheard int // queued since the last pause, where nobody acknowledges
}

const (
	bulkChunk = 64                    // entries queued at a time
	bulkEarly = 2 * windowFirst       // asked for again so early it begins anew: a peer that is back says HELLO, then RESYNC
	bulkRetry = 1 * time.Second       // a peer that acknowledges does so within its timer
	bulkPause = 10 * time.Millisecond // where nobody acknowledges: a first window in this time
)

// A window is how many messages a bulk leaves unacknowledged. It starts with
// what a receiver can hold in a default socket buffer and doubles with each
// window that arrived; once something was lost it grows in steps. When the peer misses something the bulk has a gap
// and will be repeated, so the window halves, and stays below where that was
// until the peer starts anew: the repetition must not lose again.
type window struct {
	size, most int
	least      int    // fewer, and the peer waits for more before it acknowledges
	limit      int    // Config.BulkWindow
	fed        int    // messages since it grew
	nacks      uint64 // of the peer, seen so far
}

const (
	windowFirst = 512
	windowMost  = 4096
	windowStep  = 2 * bulkChunk
)

// newWindow takes how many messages the peer's receive buffer holds, and how
// many it lets come before it acknowledges.
func newWindow(limit, acked int) window {
	least := max(windowFirst, acked+2*bulkChunk)
	limit = max(min(limit, windowMost), least)
	return window{size: least, least: least, most: limit, limit: limit}
}

// feed takes that a chunk goes out. When two windows have gone out since it
// grew, at least one has arrived.
func (w *window) feed() {
	if w.fed += bulkChunk; w.fed >= 2*w.size {
		w.fed = 0
		grown := 2 * w.size
		if w.most < w.limit {
			grown = w.size + windowStep
		}
		w.size = min(grown, w.most)
	}
}

// heed takes how many NACKs have come since the start.
func (w *window) heed(nacks uint64) {
	if nacks != w.nacks {
		w.nacks, w.fed = nacks, 0
		w.most = max(w.size*3/4, w.least)
		w.size = max(w.size/2, w.least)
	}
}

// renew forgets what a peer that is gone has missed.
func (w *window) renew() { w.most = w.limit }

func (b *bulk) waiting() bool { return b.active && b.stalled }

// SendBulk sends the whole internal cache to the peer (-B, or its RESYNC):
// flows first, then expectations. Without an internal cache it wants the
// kernel's table; see TableWanted. It does nothing in ALARM.
func (n *Node) SendBulk() {
	switch {
	case !n.cfg.Mode.Resyncs():
		return
	case n.away: // it gets everything when it is back
		return
	case n.numbers != nil:
		n.direct.wanted = true
		return
	case n.bulk.active && n.bulk.queued > bulkEarly:
		n.bulk.again = true
		return
	}
	b := &n.bulk // paced as before, if one has just begun
	b.active, b.queued, b.at = true, 0, cursor{}
	n.expects.bulkAt = 0
	waits := n.mark.begin
	if n.beginMarks(); n.mark.begin && !waits {
		n.speaker.Alive()
	}
}

// reading reports whether a cache is being filled from the kernel's table, or is
// still to be.
func (n *Node) reading() bool {
	return n.sweep.rebuilds() || n.expects.sweep.active || n.unfilled || n.expects.unfilled
}

// Unfilled says that the internal cache has yet to be filled, of a node that was
// just made while others of its kind are at work: until its first sweep is
// over, and with ExpectationSync the first of the expectations, nothing of it
// is an answer to the peer.
func (n *Node) Unfilled() { n.unfilled, n.expects.unfilled = true, n.cfg.ExpectationSync }

// filling reports whether a cache is not yet what it is going to be: then it is
// no answer.
func (n *Node) filling() bool { return n.reading() || n.hold.listen.on }

// feedBulk queues the next entries of a bulk when the queue has run low.
func (n *Node) feedBulk(now time.Duration) {
	b := &n.bulk
	if !b.active || n.filling() {
		return
	}
	tx, unacked := n.engine.Pending()
	if tx >= bulkChunk {
		return
	}
	w := &n.window
	w.heed(n.engine.Stats().NACKsReceived)
	if unacked >= w.size || b.unheard >= windowFirst {
		if !b.stalled {
			b.stalled, b.retry = true, now+n.cfg.Mode.row().bulkPause
		}
		if now < b.retry {
			return
		}
		if unacked >= w.size && unacked > n.cfg.ResendQueueSize-bulkChunk {
			b.retry = now + bulkRetry // it would push out what the peer may still ask for
			return
		}
		b.unheard = 0
	}
	b.stalled = false
	b.queued += bulkChunk
	if n.cfg.Mode.row().acknowledged {
		w.feed()
	} else {
		b.unheard += bulkChunk
	}
	for before := tx; tx == before && !b.at.done; tx, _ = n.engine.Pending() {
		n.internal.scan(&b.at, bulkChunk, n.offer) // which may find none there
	}
	if !b.at.done || !n.bulkExpects() {
		return
	}
	again := b.again
	*b = bulk{}
	if again {
		n.SendBulk()
		return
	}
	n.endMarks()
	n.engine.BulkDone()
}

// RequestResync asks the peer for its whole cache (-n). What the peer does not
// send again by the end is gone there and leaves the external cache too, if the
// mode can tell. It does nothing in ALARM.
func (n *Node) RequestResync() {
	if !n.away { // everything is asked for when it is back
		n.engine.RequestResync()
	}
}

func (n *Node) engineEvent(now time.Duration, ev engine.Event) {
	switch ev.Kind {
	case engine.BulkWanted:
		if n.away { // wanted again when it is back
			return
		}
		// A bulk is also due when the peer started anew, which has a line of
		// its own.
		if asked := n.engine.Stats().ResyncsReceived; asked != n.resyncsHeard {
			n.resyncsHeard = asked
			n.notices = append(n.notices, Notice{Kind: ResyncRequested})
		}
		n.SendBulk()
	case engine.PeerRestarted:
		n.notices = append(n.notices, Notice{Kind: PeerRestarted})
		n.window.renew()
		n.say.renew()
		n.hear.open = false
		n.engine.RequestResync() // away or not: it goes with our own hello
	case engine.ResyncStarted:
		n.peer.resyncing = true
		n.beginExpiry()
	case engine.ResyncComplete:
		n.peer.resyncing = false
		n.hold.listen = listen{}
		n.endExpiry(now, ev.Clean)
	}
}
