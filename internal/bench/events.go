package main

import (
	"context"
	"math"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const (
	// standing entries are there before and after a churn, so that "in
	// step" compares something.
	standing = 5000
	// loadTime is how long a rate is kept up, maxTime the highest.
	loadTime = 3 * time.Second
	slowTime = 4 * time.Second // up to 10k/s, for a finer measurement
	maxTime  = 4 * time.Second
	idleTime = 10 * time.Second
	// maxRate is more than a kernel makes; maxTime at it is the number of
	// flows of the row.
	maxRate = 330_000
	// maxRound gathers what was reached into one point of the plot.
	maxRound = 100_000
	// stepTime is how long the pair may take to be in step at the end.
	stepTime = 5 * time.Second
)

// A run is what a load cost.
type loadRun struct {
	events int
	took   time.Duration
	cpu    [2]time.Duration // of the daemons
	lost   int              // events of the first node
	bytes  float64          // on the link
}

// churn runs a load of new, update and destroy at a rate, 0 for the highest,
// and waits until the daemons have digested it.
func (p *pair) churn(ctx context.Context, rate int, length time.Duration) (r loadRun, err error) {
	c := churnOf(rate, length)
	r.events = c.Events()
	before, err := p.cpuTimes()
	if err != nil {
		return r, err
	}
	lost, err := drops(p.nodes.A)
	if err != nil {
		return r, err
	}
	bytes, err := linkBytes(p.nodes.A)
	if err != nil {
		return r, err
	}
	result, err := p.load.Churn(c)
	if err != nil {
		return r, err
	}
	r.took = result.Took
	if err := p.settle(ctx); err != nil {
		return r, err
	}
	after, err := p.cpuTimes()
	if err != nil {
		return r, err
	}
	for i := range after {
		r.cpu[i] = after[i] - before[i]
	}
	if r.lost, err = drops(p.nodes.A); err != nil {
		return r, err
	}
	r.lost -= lost
	r.bytes, err = linkBytes(p.nodes.A)
	r.bytes -= bytes
	return r, err
}

// churnOf is a churn of about a length, behind the standing entries. At the
// highest rate the length says how much, not how long.
func churnOf(rate int, length time.Duration) flood.Churn {
	r := rate
	if r == 0 {
		r = maxRate
	}
	n := int(float64(r) * length.Seconds() / 3)
	// A flow waits a twentieth of a second for its answer and for its end.
	return flood.Churn{From: standing, To: standing + n, Rate: rate, Live: max(8, r/3/20), Flow: flows}
}

// handled are the events the daemon got to see.
func (r *loadRun) handled() int { return r.events - r.lost }

// perMillion is the CPU time of a daemon for a million of so many, in seconds.
func perMillion(cpu time.Duration, n int) float64 { return cpu.Seconds() / float64(n) * 1e6 }

// stand makes the standing entries and waits until both know them.
func (p *pair) stand(ctx context.Context) error {
	if _, err := p.load.Create(flood.Load{To: standing, Rate: 20_000, Flow: flows}); err != nil {
		return err
	}
	return p.inStep(ctx, 10*time.Second, standing)
}

// senderScenario measures the sender at all rates, the slow ones first, and
// at the end the highest, after which C has to repair itself.
func senderScenario() scenario {
	ids := []string{"idle-cpu", "idle-wake"}
	for _, r := range rates {
		ids = append(ids, rateID(r.rate))
	}
	ids = append(ids, "bytes", "sender-max", "lost-max", "reached-max")
	return scenario{name: "sender", rows: ids, quick: true, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{place: sender})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.startBoth(ctx); err != nil {
			return err
		}
		if err := p.stand(ctx); err != nil {
			return err
		}
		if err := p.idle(ctx, t); err != nil {
			return err
		}
		if err := p.atRates(ctx, t); err != nil {
			return err
		}
		return p.atMax(ctx, t)
	}}
}

func (p *pair) idle(ctx context.Context, t *trial) error {
	if !t.wants("idle-cpu", "idle-wake") {
		return nil
	}
	length := idleTime
	if t.bench.quick {
		length /= 2
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	pid := p.a.Proc().PID()
	cpu, err := cpuTime(pid)
	if err != nil {
		return err
	}
	wakes, err := switches(pid)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := pause(ctx, length); err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	cpu2, err := cpuTime(pid)
	if err != nil {
		return err
	}
	wakes2, err := switches(pid)
	if err != nil {
		return err
	}
	t.add("idle-cpu", float64((cpu2-cpu).Microseconds())/1000/took)
	t.add("idle-wake", float64(wakes2-wakes)/took)
	return nil
}

// bytesRate is the rate at which the bytes are counted.
const bytesRate = 20_000

func (p *pair) atRates(ctx context.Context, t *trial) error {
	for i := len(rates) - 1; i >= 0; i-- {
		rate := rates[i].rate
		ids := []string{rateID(rate)}
		if rate == bytesRate {
			ids = append(ids, "bytes")
		}
		if !t.wants(ids...) || t.bench.quick && !quickRates[rate] {
			continue
		}
		length := loadTime
		if rate <= 10_000 && !t.bench.quick {
			length = slowTime
		}
		r, err := p.churn(ctx, rate, length)
		if err != nil {
			return err
		}
		t.add(rateID(rate), perMillion(r.cpu[0], r.handled()))
		t.bench.rec.point(curveRate, t.kind, float64(rate), perMillion(r.cpu[0], r.handled()))
		if rate == bytesRate {
			t.add("bytes", r.bytes/float64(r.events))
		}
		t.step(p.inStep(ctx, stepTime, standing), ids...)
	}
	return nil
}

// quickRates are the rates of bench-quick.
var quickRates = map[int]bool{50_000: true, 20_000: true, 5_000: true}

func (p *pair) atMax(ctx context.Context, t *trial) error {
	if !t.wants("sender-max", "lost-max", "reached-max") {
		return nil
	}
	r, err := p.churn(ctx, 0, maxTime)
	if err != nil {
		return err
	}
	t.add("sender-max", perMillion(r.cpu[0], r.handled()))
	reached := float64(r.events) / r.took.Seconds()
	t.bench.rec.point(curveRate, t.kind, math.Round(reached/maxRound)*maxRound, perMillion(r.cpu[0], r.handled()))
	t.add("lost-max", 100*float64(r.lost)/float64(r.events))
	t.add("reached-max", reached/1000)
	t.step(p.inStep(ctx, stepTime, standing), "sender-max", "lost-max")
	return nil
}

// receiverRate is the rate of the receiver rows: what C follows easily.
const receiverRate = 50_000

// receiverScenario measures the other end. A message is an event here: each
// of them is replicated.
func receiverScenario(id string, mode ...string) scenario {
	return scenario{name: id, rows: []string{id}, quick: true, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{place: receiver, mode: mode})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.startBoth(ctx); err != nil {
			return err
		}
		inStep := p.inStep
		if len(mode) > 0 {
			inStep = p.kernelsInStep
		}
		if _, err := p.load.Create(flood.Load{To: standing, Rate: 10_000, Flow: flows}); err != nil {
			return err
		}
		if err := inStep(ctx, 10*time.Second, standing); err != nil {
			return err
		}
		rate := receiverRate
		if len(mode) > 0 {
			rate = injectRate
		}
		r, err := p.churn(ctx, rate, loadTime)
		if err != nil {
			return err
		}
		t.add(id, perMillion(r.cpu[1], r.handled()))
		t.step(inStep(ctx, stepTime, standing), id)
		return nil
	}}
}

// injectRate is lower: each message is a request to the kernel.
const injectRate = 20_000

// injection is what lets a receiver write to its kernel at once.
const injection = "DisableExternalCache On"
