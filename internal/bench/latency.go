package main

import (
	"context"
	"slices"
	"time"
)

const (
	latencyTime   = 5 * time.Second / 2
	idleInterval  = 5 * time.Millisecond // between markers when nothing else happens
	coalescedRate = 20_000
)

// latencyScenario measures how long an event takes to be at the peer: as a
// datagram, or (inject) as an entry of the peer's kernel.
func latencyScenario(kind string, own string, mode ...string) scenario {
	var ids []string
	for _, r := range latencyRates {
		ids = append(ids, latencyID(kind, r, "p50"), latencyID(kind, r, "p99"))
	}
	return scenario{name: "latency, " + kind, rows: ids, quick: kind == "datagram", run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{place: sender, mode: mode, own: own})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.startBoth(ctx); err != nil {
			return err
		}
		for _, rate := range latencyRates {
			fifty, ninetynine := latencyID(kind, rate, "p50"), latencyID(kind, rate, "p99")
			if !t.wants(fifty, ninetynine) {
				continue
			}
			ms, err := p.latency(ctx, rate, len(mode) > 0)
			if err != nil {
				return err
			}
			t.add(fifty, percentile(ms, 50))
			t.add(ninetynine, percentile(ms, 99))
		}
		return nil
	}}
}

// coalescedScenario measures our daemon as it is by default. C has nothing
// like it; its figure is what it always does.
func coalescedScenario() scenario {
	id := "coalesced-p99"
	return scenario{name: id, rows: []string{id}, quick: true, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{place: sender, own: coalescing})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.startBoth(ctx); err != nil {
			return err
		}
		ms, err := p.latency(ctx, coalescedRate, false)
		if err != nil {
			return err
		}
		t.add(id, percentile(ms, 99))
		return nil
	}}
}

// latency returns the milliseconds of each marker, sorted.
func (p *pair) latency(ctx context.Context, rate int, inject bool) ([]float64, error) {
	if err := stampEntries(p.nodes.B); err != nil {
		return nil, err
	}
	probe, err := newProbe(p.nodes.A, p.nodes.B)
	if err != nil {
		return nil, err
	}
	defer probe.close()
	if rate == 0 {
		ctx, cancel := context.WithTimeout(ctx, latencyTime)
		err = probe.every(ctx, idleInterval)
		cancel()
	} else {
		err = p.markedChurn(probe, rate)
	}
	if err != nil {
		return nil, err
	}
	if err := p.settle(ctx); err != nil {
		return nil, err
	}
	read := probe.datagrams
	if inject {
		read = probe.entries
	}
	ms, err := read()
	if err != nil {
		return nil, err
	}
	slices.Sort(ms)
	return ms, probe.clean()
}

// markedChurn churns with a marker in every second group.
func (p *pair) markedChurn(probe *probe, rate int) error {
	c := churnOf(rate, latencyTime)
	var failed error
	n := 0
	c.Between = func() {
		if n++; n%2 == 0 && failed == nil {
			failed = probe.mark()
		}
	}
	if _, err := p.load.Churn(c); err != nil {
		return err
	}
	return failed
}
