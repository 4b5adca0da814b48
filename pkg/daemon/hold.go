package daemon

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// holds reports whether what is injected is held (see node.Config.Hold).
func (d *Daemon) holds() bool { return d.cfg.Node.Hold != 0 }

// readTimeouts reads what is normal on this machine. An admin may have changed
// it since it was read before.
func (d *Daemon) readTimeouts() flow.Timeouts {
	t, err := kernel.ReadTimeouts()
	if err != nil {
		d.log.Warnf("can't read the kernel's timeouts: %v: those in the other node's messages are used", err)
	}
	return t
}

// takeOver is what is left of a commit where everything is in the kernel: what
// was held gets its normal timeouts back. The client does not wait for it.
func (d *Daemon) takeOver() {
	d.sync.purge.cancel()
	normal := d.readTimeouts()
	held := 0
	d.enter(func(n *node.Group, now time.Duration) {
		n.Pair().SetTimeouts(normal)
		held = n.Pair().TakeOver(now)
	})
	d.log.Infof("taking over %d entries that were held", held)
}

// heldFor reports whether a flow of the kernel's table is the other node's: a
// purge is for those that are nobody's any more.
func (d *Daemon) heldFor(f *flow.Flow) bool {
	if !d.holds() {
		return false
	}
	s := d.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.Pair().Holds(f)
}

// writeLost has flows written again that are held and have gone from the
// kernel, by whatever hand.
func (d *Daemon) writeLost(flows []flow.Flow) {
	d.enter(func(n *node.Group, _ time.Duration) { n.Pair().Lost(flows) })
}
