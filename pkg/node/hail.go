package node

import (
	"net/netip"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// hailing is how the nodes of a multicast group find each other: each says once
// a second that it is there, to all (docs/protocol.md 13.1). Everything else is
// between two of them.
type hailing struct {
	on   bool
	next time.Duration
	said wire.Ext
}

const (
	hailEvery = time.Second
	// forgetAfter is how long somebody is remembered who was there, or pretended
	// to be, and never answered.
	forgetAfter = 30 * time.Second
)

// Strangers are those who speak on the link and are not of the group.
type Strangers struct {
	Datagrams uint64 // of anybody who is no peer
	Refused   uint64 // announcements, as there are MaxPeers
	Last      netip.Addr
}

// Announce makes the node announce itself.
func (g *Group) Announce() { g.hail.on = true }

// Announcement appends the announcement that is due to dst[:0], for the
// multicast group; nothing if none is.
func (g *Group) Announcement(now time.Duration, dst []byte) []byte {
	h := &g.hail
	if !h.on || now < h.next {
		return dst[:0]
	}
	h.next = now + hailEvery
	return wire.AppendHail(dst[:0], &wire.Ext{Has: wire.ExtNode, Node: g.cfg.Name})
}

func (g *Group) hailDeadline(d time.Duration) time.Duration {
	if g.hail.on {
		return min(d, g.hail.next)
	}
	return d
}

// Hail takes an announcement, or whatever else came over the multicast group.
func (g *Group) Hail(now time.Duration, from netip.Addr, b []byte) {
	x := &g.hail.said
	switch err := wire.ParseHail(b, x); {
	case err != nil, x.Has&wire.ExtNode == 0:
		g.stranger(from)
		return
	case x.Node.Node == g.cfg.Name.Node:
		return // ours, come back
	}
	if !g.Add(now, from) {
		g.strange.Refused++
		g.strange.Last = from
		return
	}
	g.of(from).hailed = now
}

// stranger counts what nobody of the group sent.
func (g *Group) stranger(from netip.Addr) {
	g.strange.Datagrams++
	g.strange.Last = from
}

// forget ends relations with those who never answered and are not heard to be
// there any more. One is always kept.
func (g *Group) forget(now time.Duration) {
	if !g.hail.on {
		return
	}
	kept := g.relations[:0]
	for i, r := range g.relations {
		if r.peer.IsValid() && !r.Node.peer.heard && now-r.hailed >= forgetAfter {
			if i > 0 {
				continue
			}
			r.peer = netip.Addr{}
		}
		kept = append(kept, r)
	}
	clear(g.relations[len(kept):])
	g.relations = kept
	g.turn %= len(kept)
}

// Strangers returns who was heard and is not of the group.
func (g *Group) Strangers() Strangers { return g.strange }
