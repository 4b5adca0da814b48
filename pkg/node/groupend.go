package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// silence is how long nothing must be heard of a peer until another's word about
// its flows counts. One that is there says something each second.
const silence = 2 * time.Second

// ended is called when a peer says that a flow has ended, of which it told last
// at told, in seconds of the node's clock. A peer that was silent even then has
// lost the flow to it: there too it has ended, or the next commit would bring it
// back. Of a peer that is there, nobody else knows better: a standby's entries
// end too, while the connection goes on.
func (g *Group) ended(now time.Duration, by *relation, k *flow.Key, told uint32) {
	for _, r := range g.relations {
		last := r.Node.peer.lastAt
		if r == by || now-last < silence || seconds(last) > told {
			continue
		}
		if x := r.external.lookup(k); x != none && !r.external.dead(x) {
			r.gone(x)
		}
	}
}
