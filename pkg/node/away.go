package node

import (
	"math"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// leaver is what FTFW has in addition: it can do without its peer.
type leaver interface {
	Leave(now time.Duration)
	InTouch() bool
	UnansweredSince() (since time.Duration, waits bool)
}

// awayAfter is how long a peer of a group may acknowledge nothing. One that
// hears us does so each second.
const awayAfter = 10 * time.Second

// giveUpAt is when the peer will have been silent for too long.
func (n *Node) giveUpAt() time.Duration {
	if n.leaver != nil && !n.away {
		if since, waits := n.leaver.UnansweredSince(); waits {
			return since + awayAfter
		}
	}
	return math.MaxInt64
}

// giveUp leaves a peer that has been silent for too long. Whatever changes until
// it is back is kept in the internal cache only, and what ends leaves it at
// once: a peer that is gone for a week costs what an idle one does. What it has
// told us stays.
func (n *Node) giveUp(now time.Duration) {
	if now < n.giveUpAt() {
		return
	}
	n.leaver.Leave(now)
	n.engine.Released(n.renounced)
	n.away, n.leftovers = true, true
	n.bulk, n.expects.bulkAt = bulk{}, 0
	// An answer that is late is not about the next bulk.
	n.mark = marking{what: wire.BulkEnd{Bulk: n.mark.what.Bulk + 1}}
	n.hear.open = false
	n.expiry.retry, n.expiry.gaps = 0, 0
	n.peer.resyncing, n.peer.hearsUs = false, false
	n.untold = difference{}
	n.notices = append(n.notices, Notice{Kind: PeerAway})
}

// renounced is released for what the peer was not told.
func (n *Node) renounced(r engine.Ref) {
	if ref(r).isExpect() {
		n.expects.internal.table.Unpin(ref(r).expectID())
		return
	}
	n.internal.unpin(ref(r))
}

// returned is called before anything is queued for a peer that answers again.
func (n *Node) returned() {
	if !n.away || !n.leaver.InTouch() {
		return
	}
	n.away = false
	n.say.renew()
	n.window.renew()
	n.notices = append(n.notices, Notice{Kind: PeerBack})
}
