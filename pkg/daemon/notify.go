package daemon

import (
	"context"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/node"
	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells the service manager, if there is one that asked.
func (d *Daemon) notify(state string) {
	if !d.cfg.Systemd {
		return
	}
	if _, err := sd.SdNotify(false, state); err != nil {
		d.say(saidManager, func() { d.log.Warnf("can't notify the service manager: %v", err) })
	}
}

// watchdog tells the service manager twice per interval that the node can be
// entered. A daemon stuck in it falls silent and is restarted.
func (d *Daemon) watchdog(ctx context.Context) error {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 || !d.cfg.Systemd {
		return nil
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if d.sync != nil {
				d.enter(func(*node.Node, time.Duration) {})
			}
			d.notify(sd.SdNotifyWatchdog)
		}
	}
}
