package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const (
	overrunSize  = 500_000
	overrunBorn  = 30_000 // flows made in the storm: several times what the buffer holds
	overrunDead  = 20_000 // flows ended in the storm
	overrunDelay = "NetlinkOverrunResync 1"
	overrunTime  = 20 * time.Second
)

// overrunScenario measures how long it takes until kernel and caches agree
// again after events were lost. The daemon sleeps during the storm, so that
// both lose the same. C waits for the time it is told, by default 30 s; ours
// begins when the storm is over.
func overrunScenario() scenario {
	ids := []string{"overrun-wall", "overrun-cpu"}
	return scenario{name: "overrun", once: true, rows: ids, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{lines: []string{overrunDelay}})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.startBoth(ctx); err != nil {
			return err
		}
		if _, err := p.load.Create(flood.Load{To: overrunSize, Rate: growRate, Flow: flows}); err != nil {
			return err
		}
		if err := p.settle(ctx); err != nil {
			return err
		}
		if err := p.catchUp(ctx, overrunSize, flows); err != nil {
			return fmt.Errorf("before the storm: %w", err)
		}
		if err := p.inStep(ctx, stepTime, overrunSize); err != nil {
			return fmt.Errorf("before the storm: %w", err)
		}
		if err := freeze(p.a, p.storm); err != nil {
			return err
		}
		return p.recover(ctx, t, ids)
	}}
}

// storm changes more than the buffer of the event socket holds.
func (p *pair) storm() error {
	before, err := drops(p.nodes.A)
	if err != nil {
		return err
	}
	if _, err := p.load.Create(flood.Load{From: overrunSize, To: overrunSize + overrunBorn, Flow: flows}); err != nil {
		return err
	}
	if _, err := p.load.Delete(flood.Load{To: overrunDead, Flow: flows}); err != nil {
		return err
	}
	after, err := drops(p.nodes.A)
	if err == nil && after == before {
		err = errors.New("no event was lost in the storm")
	}
	return err
}

func (p *pair) recover(ctx context.Context, t *trial, ids []string) error {
	begin := time.Now()
	before, err := p.cpuTimes()
	if err != nil {
		return err
	}
	err = p.inStep(ctx, overrunTime, overrunSize+overrunBorn-overrunDead)
	took := time.Since(begin)
	t.step(err, ids...)
	if err != nil {
		return err
	}
	after, err := p.cpuTimes()
	if err != nil {
		return err
	}
	t.add("overrun-wall", took.Seconds())
	t.add("overrun-cpu", (after[0] - before[0] + after[1] - before[1]).Seconds())
	return nil
}
