package daemon

import (
	"context"
	"errors"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// errDeafManager is one whose socket is full.
var errDeafManager = errors.New("it does not read what it is told")

// notify tells the service manager, if there is one that asked. Nobody waits
// for one that does not read.
func (d *Daemon) notify(state string) {
	if !d.cfg.Systemd {
		return
	}
	if err := tell(&d.manager, state); err != nil {
		d.say(saidManager, func() { d.log.Warnf("can't notify the service manager: %v", err) })
	}
}

// tell tells the service manager, if there is one.
func tell(p *patient, state string) error {
	var failed error
	if _, done := p.do(func() { _, failed = sd.SdNotify(false, state) }); !done {
		return errDeafManager // and failed may yet be written
	}
	return failed
}

// watchdog tells the service manager twice per interval that the loop turns
// when it is asked to. A daemon whose loop is stuck, in the node or outside,
// falls silent and is restarted.
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
			if d.sync == nil || d.sync.progresses(ctx, interval/4) {
				d.notify(sd.SdNotifyWatchdog)
			}
		}
	}
}

// progresses wakes the loop up and reports whether it turned within a while.
func (s *syncer) progresses(ctx context.Context, within time.Duration) bool {
	before := s.turns.Load()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return true
	}
	s.armed = 0 // so that the turn arms the timer again
	s.alarm(0)
	s.mu.Unlock()
	limit := time.NewTimer(within)
	defer limit.Stop()
	look := time.NewTicker(min(within/8+1, 10*time.Millisecond))
	defer look.Stop()
	for s.turns.Load() == before {
		select {
		case <-ctx.Done():
			return true
		case <-limit.C:
			return s.turns.Load() != before
		case <-look.C:
		}
	}
	return true
}
