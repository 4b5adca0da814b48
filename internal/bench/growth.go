package main

import (
	"context"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const (
	// growRate fills the table while both daemons run: C follows it.
	growRate = 100_000
	million  = 1_000_000
	// updates are spread over the whole table, so that each finds its entry
	// far from the last one's.
	updates    = 100_000
	updateRate = 50_000
	stride     = 7919 // a prime
)

// growthScenario measures what an entry and what is done to it costs with n
// of them. The row of a million is also that of the memory.
func growthScenario(n int) scenario {
	ids := []string{growthID(n)}
	if n == million {
		ids = append(ids, "internal-4", "external-4", "empty")
	}
	s := scenario{name: "growth, " + short(n), rows: ids, quick: n == 100_000, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{big: true})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.grow(ctx, t, n, flows, ids...); err != nil {
			return err
		}
		if !t.wants(growthID(n)) {
			return nil
		}
		return p.costs(ctx, t, n)
	}}
	if n > largestC {
		s.only, s.once = oursOnly, true
	}
	return s
}

// memory6Scenario measures the memory of IPv6 entries.
func memory6Scenario() scenario {
	ids := []string{"internal-6", "external-6"}
	return scenario{name: "memory, IPv6", rows: ids, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{big: true})
		if err != nil {
			return err
		}
		defer p.close()
		return p.grow(ctx, t, million, flows6, ids...)
	}}
}

// grow fills the caches with n entries and notes what memory they take: that
// of the process less what it had when empty.
func (p *pair) grow(ctx context.Context, t *trial, n int, of func(int, *flood.Flow), ids ...string) error {
	if err := p.startBoth(ctx); err != nil {
		return err
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	empty, err := p.memory()
	if err != nil {
		return err
	}
	if _, err := p.load.Create(flood.Load{To: n, Rate: growRate, Flow: of}); err != nil {
		return err
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	if err := p.catchUp(ctx, n, of); err != nil {
		return err
	}
	err = p.inStep(ctx, 5*time.Second, n)
	t.step(err, ids...)
	if err != nil {
		return err
	}
	full, err := p.memory()
	if err != nil {
		return err
	}
	family := "4"
	var f flood.Flow
	if of(0, &f); f.Src.Is6() {
		family = "6"
	}
	t.add("empty", empty[0]/1e6)
	for i, x := range []struct{ row, curve string }{{"internal-" + family, curveInternal}, {"external-" + family, curveExternal}} {
		each := (full[i] - empty[i]) / float64(n)
		if n == million {
			t.add(x.row, each)
		}
		if family == "4" {
			t.bench.rec.point(x.curve, t.kind, float64(n), each)
		}
	}
	return nil
}

// memory is what the daemons have in RAM.
func (p *pair) memory() (m [2]float64, err error) {
	for i, d := range p.daemons() {
		if m[i], err = resident(d.Proc().PID()); err != nil {
			return m, err
		}
	}
	return m, nil
}

// costs measures updates, a dump and a commit of n entries.
func (p *pair) costs(ctx context.Context, t *trial, n int) error {
	before, err := p.cpuTimes()
	if err != nil {
		return err
	}
	lost, err := drops(p.nodes.A)
	if err != nil {
		return err
	}
	update := flood.Load{To: updates, Rate: updateRate, Flow: func(i int, f *flood.Flow) {
		flows(i*stride%n, f)
		f.Mark = uint32(i)
	}}
	if _, err := p.load.Update(update); err != nil {
		return err
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	after, err := p.cpuTimes()
	if err != nil {
		return err
	}
	now, err := drops(p.nodes.A)
	if err != nil {
		return err
	}
	each := perMillion(after[0]-before[0], updates-(now-lost))
	t.add(growthID(n), each)
	t.bench.rec.point(curveUpdate, t.kind, float64(n), each)

	took, lines, err := p.dump(ctx, p.a, "-i")
	if err == nil && lines != n {
		err = fmt.Errorf("%d lines of %d entries", lines, n)
	}
	if err != nil {
		return err
	}
	t.bench.rec.point(curveDump, t.kind, float64(n), took.Seconds()/float64(n)*million)
	took, err = p.commit(ctx, n)
	if err != nil {
		return err
	}
	t.bench.rec.point(curveCommit, t.kind, float64(n), took.Seconds()/float64(n)*million)
	return nil
}
