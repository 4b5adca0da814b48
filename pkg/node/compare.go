package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// compare is how the peer's digest of what it told us and ours of what we have
// compare (docs/protocol.md 12.4).
type compare struct {
	made  bool
	equal bool
	at    time.Duration // of the latest comparison
	difference
}

const (
	// settleTime is how long after a gap nothing is compared: what was missed
	// may be on its way.
	settleTime = 3 * time.Second
	// Between bulks because of a difference.
	differPause     = 10 * time.Second
	differPauseMost = 10 * time.Minute
)

// sayDigest puts our digests into an ALIVE, unless there is something that the
// peer is still to be told: they are of all messages before this one. Without
// ExpectationSync, and after -f until the kernel's expectations were read, there
// is none of those.
func (n *Node) sayDigest(now time.Duration, x *wire.Ext) {
	s := n.internal
	if tx, _ := n.engine.Pending(); tx > 0 || n.bulk.active || n.filling() || n.unread || n.numbers != nil || !s.counting {
		return
	}
	x.Has |= wire.ExtDigest
	x.Digest = s.digest.wire()
	if n.cfg.ExpectationSync && !n.expects.unread {
		x.Has |= wire.ExtExpects
		x.Expects = n.expects.internal.digest.wire()
	}
	n.tellUntold(now)
}

// tellUntold sends everything to a conntrackgo peer that was not told of all we
// have: of what -R found, or a commit made. A C daemon leaves that to -B.
func (n *Node) tellUntold(now time.Duration) {
	u := &n.untold
	if n.holds() { // a standby does not claim all that it has
		return
	}
	untold := n.internal.live() - int(n.internal.digest.count) +
		n.expects.internal.table.Len() - int(n.expects.internal.digest.count)
	if n.peer.name.Node == 0 || untold == 0 {
		u.differ = 0
		return
	}
	if u.twice(now) {
		n.stats.Extensions.Retold++
		n.SendBulk()
	}
}

// A difference that lasts is worth a bulk, ever more seldom while it comes
// back.
type difference struct {
	differ int           // times in a row
	next   time.Duration // when the next bulk may be
	pause  time.Duration // and how long after that another
}

// twice counts a difference and reports whether a bulk is due: what differs
// once may have been overtaken.
func (d *difference) twice(now time.Duration) bool {
	d.differ++
	if d.differ < 2 || now < d.next {
		return false
	}
	if now >= d.next+2*d.pause {
		d.pause = 0
	}
	d.pause = min(max(2*d.pause, differPause), differPauseMost)
	d.differ, d.next = 0, now+d.pause
	return true
}

// heardDigest compares. Different twice in a row, and everything is asked for.
func (n *Node) heardDigest(now time.Duration, x *wire.Ext) {
	n.watchPeer(now)
	p, s := &n.peer, n.external
	c := &p.compare
	switch {
	case n.cfg.DisableExternalCache, n.expiry.active, n.hear.open, !s.counting, !p.alike(n.settings()),
		p.gaps > 0 && now-p.lostAt < settleTime,
		n.limits[External].full: // and refuses what the peer has
		return
	}
	n.stats.Extensions.Compared++
	c.made, c.at = true, now
	if c.equal = x.Digest == s.digest.wire() && n.sameExpects(x); c.equal {
		c.differ, p.complete, p.tableAt, p.proven = 0, true, now, true
		return
	}
	n.stats.Extensions.Different++
	if !c.twice(now) {
		return
	}
	n.stats.Extensions.Repairs++
	n.notices = append(n.notices, Notice{Kind: TablesDiffer, Count: int(x.Digest.Count)})
	n.RequestResync()
}

// sameExpects compares the expectations that the peer has told of, if it says
// anything of them, with those of the external cache. They are kept whatever
// our own ExpectationSync is.
func (n *Node) sameExpects(x *wire.Ext) bool {
	s := n.expects.external
	full := s.table.Len() >= s.limit // and may have refused some
	return x.Has&wire.ExtExpects == 0 || full || x.Expects == s.digest.wire()
}
