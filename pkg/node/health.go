package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Health is how far this node and its peer are in step (docs/protocol.md 12.5).
// Times that end in Age are how long ago something was; they mean nothing where
// it has not been.
type Health struct {
	Mode Mode
	// Ready: the peer has answered, and its table has been received as a whole.
	// It stays so: with a peer that is gone its flows are what a takeover needs.
	Ready bool
	// InStep: what we have is what the peer has told, as far as anybody knows.
	InStep bool

	Contact        bool // the peer answers
	Away           bool // it has not for so long that nothing is kept for it; with Group
	Heard          bool // it has ever been heard
	HeardAge       time.Duration
	Peer           wire.NodeName // zero unless it is conntrackgo
	Software       string
	HearsUs        bool
	Others         bool // there are more nodes than one peer
	SettingsDiffer bool

	Complete  bool // its table has been received as a whole
	TableAge  time.Duration
	Resyncing bool // it is being received

	Compared, Equal bool // with the peer's digest
	ComparedAge     time.Duration

	Unacked int           // flows told and not acknowledged
	Lag     time.Duration // since the oldest of them was sent; exact to a second
	Queued  int           // messages to be sent
	Gaps    uint64        // times that messages were missed
	Told    uint32        // flows the peer was told of
	Known   uint32        // flows it has told us of
}

// aliveSilence is how long a peer in step may say nothing.
const aliveSilence = 5 * time.Second

// Ready is Health.Ready: cheap, for who looks at it often.
func (n *Node) Ready() bool { return n.peer.complete && n.peer.heard }

// Health tells how far this node and its peer are in step.
func (n *Node) Health(now time.Duration) Health {
	p := &n.peer
	h := Health{
		Mode: n.cfg.Mode, Ready: n.Ready(),
		Contact: p.contact, Away: n.away, Heard: p.heard, HeardAge: now - p.lastAt,
		Peer: p.name, HearsUs: p.hearsUs, Others: p.others != 0,
		SettingsDiffer: p.warned,
		Complete:       p.complete, TableAge: now - p.tableAt,
		Resyncing: p.resyncing || n.hear.open || n.expiry.retry != 0,
		Compared:  p.compare.made, Equal: p.compare.equal, ComparedAge: now - p.compare.at,
		Lag: n.lag(now), Gaps: p.gaps,
		Told: n.internal.digest.count, Known: n.external.digest.count,
	}
	x := wire.Ext{Software: p.software}
	h.Software = string(x.SoftwareName())
	h.Queued, _ = n.engine.Pending()
	if e, ok := n.engine.(interface{ Unacked() int }); ok {
		h.Unacked = e.Unacked()
	}
	// The digest is exact; a resync that is waited for, or is to be repeated as
	// something was missed in it, can add nothing to it. And a whole table since is
	// worth more than a difference before it.
	h.InStep = h.Ready && h.Contact && (!h.Resyncing || p.proven) && h.HeardAge < aliveSilence &&
		h.Lag < aliveSilence && (!h.Compared || h.Equal || h.TableAge < h.ComparedAge)
	return h
}

// clock remembers which number was the newest at which time.
type clock struct {
	newest uint32 // number sent
	at     [64]time.Duration
	seq    [64]uint32
	n      int // noted so far
}

// note is called now and then.
func (c *clock) note(now time.Duration) {
	if last := (c.n + len(c.at) - 1) % len(c.at); c.n > 0 && now-c.at[last] < time.Second {
		return
	}
	i := c.n % len(c.at)
	c.at[i], c.seq[i] = now, c.newest
	c.n++
}

// since returns how long ago a number had been sent for certain.
func (c *clock) since(now time.Duration, seq uint32) time.Duration {
	for k := max(0, c.n-len(c.at)); k < c.n; k++ {
		if i := k % len(c.at); !wire.Before(c.seq[i], seq) {
			return now - c.at[i]
		}
	}
	return 0
}

// lag is how long ago the oldest flow that is not acknowledged was sent.
func (n *Node) lag(now time.Duration) time.Duration {
	queue := n.engine.ResendQueue()
	if queue == nil {
		return 0
	}
	for r := range queue {
		if r.Object {
			return n.sent.since(now, r.Seq)
		}
	}
	return 0
}
