package node

import "time"

// limited is what is to be done about a cache that refused an entry at
// HashLimit: nothing tells it of that flow again when there is room, so it is
// filled anew, the internal cache by the kernel and the external one by the
// peer.
type limited struct {
	full bool          // something was refused
	next time.Duration // when to fill it at the earliest
}

const (
	// roomPart of a cache must be free, or it would soon be full again.
	roomPart = 8
	// refillPause is the shortest time between two fills.
	refillPause = 10 * time.Second
)

func (n *Node) limitReached(which Which) { n.limits[which].full = true }

// refill fills the caches that have room again.
func (n *Node) refill(now time.Duration) {
	for which, s := range [...]*store{Internal: n.internal, External: n.external} {
		l := &n.limits[which]
		if !l.full || now < l.next || s.live() > s.limit-max(s.limit/roomPart, 1) {
			continue
		}
		*l = limited{next: now + refillPause}
		n.notices = append(n.notices, Notice{Kind: RoomAgain, Which: Which(which)})
		if Which(which) == Internal {
			n.sweepWanted = true
		} else {
			n.RequestResync()
		}
	}
}

// SweepWanted reports, once, that the kernel's table is to be read: the
// internal cache has room for what it refused.
func (n *Node) SweepWanted() (wanted bool) {
	wanted, n.sweepWanted = n.sweepWanted, false
	return wanted
}
