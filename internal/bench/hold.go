package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

const (
	calledFlows = 24
	// holdNormal is what the kernels of the firewalls give a UDP flow, and
	// holdTime what ours gives it besides, in seconds. holdAge is more than
	// either, and each entry has been renewed by then.
	holdNormal = 10
	holdTime   = 60
	holdAge    = 75 * time.Second
	// cpuTimeOfHold is how long the backup's CPU time is watched.
	cpuTimeOfHold = 10 * time.Second
)

func holdIDs(n int) (stall, called, renewal string) {
	return "stall-hold-" + short(n), "called-hold-" + short(n), "cpu-hold-" + short(n)
}

// holdScenario is failoverScenario without external caches: everything is in
// the backup's kernel and needs no commit. The kernels do not track windows, or
// nothing but the order in which the two networks learn of the new master would
// be measured: see failover.Options. With the rest are UDP flows that are
// older than their timeout. C has nothing to keep them; its backup's purge is
// put off until after the failover.
func holdScenario(n int) scenario {
	stall, called, renewal := holdIDs(n)
	return scenario{name: "held, " + short(n), once: n > 100_000, rows: []string{stall, called, renewal}, run: func(ctx context.Context, t *trial) error {
		rig, lab, err := t.openFailover(ctx, failover.Options{Busy: busyConnections, Called: calledFlows, Entries: n, FillRate: fillRate,
			Inject: true, Liberal: true, Hold: holdTime, UDPTimeout: holdNormal, PurgeTimeout: 600})
		if err != nil {
			return err
		}
		defer lab.Close()
		if err := pause(ctx, holdAge-cpuTimeOfHold); err != nil {
			return err
		}
		if err := t.renewals(ctx, rig.B, n, renewal); err != nil {
			return err
		}
		result, err := rig.Failover(ctx, failover.Stop, failover.Everyone)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "  %s: %v\n", t.kind, result)
		count := result.Count[failover.Called]
		for i := range count.Asked {
			t.count(called, i < count.Alive)
		}
		if busy := result.Count[failover.Busy]; busy.Alive < busy.Asked {
			return fmt.Errorf("%d of %d connections are dead: %w", busy.Asked-busy.Alive, busy.Asked, errors.Join(result.Dead...))
		}
		t.add(stall, result.Max(failover.Busy).Seconds())
		return nil
	}}
}

// renewals measures what it costs the backup to hold n entries. C's does nothing.
func (t *trial) renewals(ctx context.Context, backup *failover.Firewall, n int, id string) error {
	if t.kind != nettest.Go {
		return pause(ctx, cpuTimeOfHold)
	}
	pids, err := backup.DaemonPIDs()
	if err == nil && len(pids) != 1 {
		err = fmt.Errorf("%d daemons on the backup", len(pids))
	}
	if err != nil {
		return err
	}
	before, err := cpuTime(pids[0])
	if err != nil {
		return err
	}
	if err := pause(ctx, cpuTimeOfHold); err != nil {
		return err
	}
	after, err := cpuTime(pids[0])
	if err != nil {
		return err
	}
	renewed := float64(n) * cpuTimeOfHold.Seconds() / (holdTime / 2)
	t.add(id, (after-before).Seconds()/renewed*1e6)
	return nil
}
