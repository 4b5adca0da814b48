package main

import (
	"context"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

// Flows that talk all the time.
const (
	busy = 20
	udp  = 12
)

// causes break the master; the firewalls take turns.
var causes = []*failover.Cause{failover.Stop, failover.LanDown, failover.Crash, failover.WanDown, failover.PowerCut, failover.PowerCut}

// settleWith is enough for a busy machine; without a daemon no waiting helps.
const (
	settleWith    = 20 * time.Second
	settleWithout = 5 * time.Second
)

// show builds the network, opens the connections and fails over. Without the
// daemon once: nothing is left after that.
func show(ctx context.Context, n *narrator, s settings, daemon bool) (results []*failover.Result, err error) {
	n.chapter(s, daemon)
	lab, err := nettest.New(nettest.Options{Prefix: "demo"})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := lab.Close(); err == nil {
			err = closeErr
		}
	}()
	o := failover.Options{
		A: failover.Setup{Kind: s.a, Script: s.script}, B: failover.Setup{Kind: s.b, Script: s.script},
		Busy: busy, Idle: s.connections - busy, UDP: udp, Entries: s.entries, Settle: settleWith,
	}
	todo := causes
	if !daemon {
		o.NoDaemon, o.Settle, todo = true, settleWithout, causes[:1]
	}
	rig, err := failover.New(lab, o)
	if err != nil {
		return nil, err
	}
	if err := rig.Start(ctx); err != nil {
		return nil, err
	}
	n.started()
	if err := rig.Connect(ctx); err != nil {
		return nil, err
	}
	n.connected(s, daemon)
	for i, c := range todo {
		r, err := rig.Failover(ctx, c, failover.Everyone)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
		n.failover(i+1, r)
		if i == len(todo)-1 {
			break
		}
		if err := rig.Recover(ctx); err != nil {
			return nil, err
		}
		n.recovered(r)
	}
	return results, rig.Complaints()
}
