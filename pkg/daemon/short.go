package daemon

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

const (
	// shortPause is the shortest time between two requests for what a full
	// table refused.
	shortPause = 10 * time.Second
	// roomPart of the table must be free for one.
	roomPart = 16
)

// askAgain asks the other node for everything when the kernel's table, which
// was too full for what was to be injected, has room again: without an external
// cache nobody here remembers it. It belongs to the loop.
func (d *Daemon) askAgain(now time.Duration) {
	inject := d.sync.inject
	if inject == nil || !inject.short.Load() || now-d.asked < shortPause {
		return
	}
	d.asked = now
	used, most, err := kernel.Room()
	if err != nil || used > most-most/roomPart || !d.cfg.Node.Mode.Resyncs() {
		return
	}
	inject.short.Store(false)
	d.log.Info("the conntrack table has room again: asking the other node for the flows it refused")
	d.enter(func(n *node.Group, _ time.Duration) { n.RequestResync() })
}
