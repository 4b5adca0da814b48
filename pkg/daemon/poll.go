package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// polling reports whether the kernel's table is read each PollSecs instead of
// listening to events.
func (d *Daemon) polling() bool { return d.cfg.Kernel.Poll != 0 }

// poll makes the caches equal to the kernel's tables at each interval, tells
// the peer what has gone, and sends it everything that is there: between two
// polls an entry's timeout is news, too. The first poll comes an interval
// after the start, which read the tables itself.
func (d *Daemon) poll(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.Kernel.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := d.readTables(ctx, node.Refresh)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, kernel.ErrTorn) {
			d.say(saidPoll, func() { d.log.Errorf("poll the conntrack table: %v", err) })
			continue
		}
		d.enter(func(n *node.Group, _ time.Duration) { n.SendBulk() })
	}
}
