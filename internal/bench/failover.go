package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

const (
	busyConnections = 8
	fillRate        = 80_000
)

// failoverScenario measures what a user sees: how long busy connections stand
// still while the other firewall takes over, with n more in the table.
// keepalived is stopped on the primary, which gives up its addresses at once,
// so the stall is the script's: mostly the commit.
func failoverScenario(n int) scenario {
	stall, script := "stall-"+short(n), "script-"+short(n)
	return scenario{name: "failover, " + short(n), once: n > 100_000, rows: []string{stall, script}, run: func(ctx context.Context, t *trial) error {
		rig, lab, err := t.openFailover(ctx, failover.Options{Busy: busyConnections, Entries: n, FillRate: fillRate})
		if err != nil {
			return err
		}
		defer lab.Close()
		result, err := rig.Failover(ctx, failover.Stop, failover.Everyone)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "  %s: %v\n", t.kind, result)
		if len(result.Dead) > 0 {
			return fmt.Errorf("%d of %d connections are dead: %w", len(result.Dead), result.Total().Asked, errors.Join(result.Dead...))
		}
		t.add(stall, result.Max(failover.Busy).Seconds())
		t.add(script, result.Script.Seconds())
		return nil
	}}
}

// openFailover makes a rig of two firewalls of the trial's kind and opens its
// connections. The caller closes the lab.
func (t *trial) openFailover(ctx context.Context, o failover.Options) (_ *failover.Rig, _ *nettest.Lab, err error) {
	if err := pinBench(nobody); err != nil {
		return nil, nil, err
	}
	lab, err := nettest.New(nettest.Options{Prefix: "bench"})
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			lab.Close()
		}
	}()
	firewall := failover.Setup{Kind: t.kind, Script: failover.StockScript}
	o.A, o.B = firewall, firewall
	rig, err := failover.New(lab, o)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range []*nettest.Node{rig.Pair.Client, rig.Pair.Server} {
		if err := retransmitOften(n); err != nil {
			return nil, nil, err
		}
	}
	if err := rig.Start(ctx); err != nil {
		return nil, nil, err
	}
	return rig, lab, rig.Connect(ctx)
}

// retransmitOften keeps TCP from doubling the time between retransmissions
// without end. It notices the end of a stall only at its next one: with the
// usual settings all stalls between 6.4 and 12.8 s would look the same.
func retransmitOften(n *nettest.Node) error {
	if err := n.Sysctls([]string{"net.ipv4.tcp_thin_linear_timeouts=1"}); err != nil {
		return err
	}
	err := n.Sysctls([]string{"net.ipv4.tcp_rto_max_ms=1000"})
	if errors.Is(err, os.ErrNotExist) {
		return nil // before Linux 6.15
	}
	return err
}
