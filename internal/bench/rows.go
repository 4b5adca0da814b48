package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const (
	churnTime  = 6 * time.Second
	churnChunk = 5000 // flows made, then ended
)

// churn makes and ends flows at a rate, 0 for as fast as the kernel goes, and
// counts CPU time per event.
func churn(rate int) row {
	name := "churn, max"
	if rate > 0 {
		name = fmt.Sprintf("churn, %d/s", rate)
	}
	return row{name, func(ctx context.Context, p *pair) (values, error) {
		for _, d := range []*nettest.Daemon{p.a, p.b} {
			if err := d.Start(ctx); err != nil {
				return nil, err
			}
		}
		if err := p.greeted(ctx); err != nil {
			return nil, err
		}
		var before, after [2]float64
		if err := p.cpus(&before); err != nil {
			return nil, err
		}
		start, events := time.Now(), 0
		for i := 0; time.Since(start) < churnTime; i += churnChunk {
			l := flood.Load{From: i, To: i + churnChunk, Rate: rate, Flow: flows}
			for _, run := range []func(flood.Load) (flood.Result, error){p.load.Create, p.load.Delete} {
				if _, err := run(l); err != nil {
					return nil, err
				}
			}
			events += 2 * churnChunk
		}
		took := time.Since(start)
		inStep := 1.0
		if p.inStep(ctx, 0) != nil {
			inStep = 0
		}
		if err := p.cpus(&after); err != nil {
			return nil, err
		}
		millions := float64(events) / 1e6
		out := values{
			{"sender CPU, s per million events", (after[0] - before[0]) / millions},
			{"receiver CPU, s per million events", (after[1] - before[1]) / millions},
			{"achieved, thousand events/s", float64(events) / took.Seconds() / 1000},
			{"in step 10 s later (1 yes)", inStep},
		}
		runtime, err := p.a.Client(ctx, "-s", "runtime")
		if err != nil {
			return nil, err
		}
		overruns, err := number(runtime, "netlink overrun:")
		if err != nil {
			return nil, err
		}
		link, err := p.a.Client(ctx, "-s", "link")
		if err != nil {
			return nil, err
		}
		sent, err := number(link, "ACTIVE:\n")
		return append(out, value{"overruns", overruns}, value{"bytes on the link per event", sent / float64(events)}), err
	}}
}

// greeted waits until both have heard each other.
func (p *pair) greeted(ctx context.Context) error {
	return nettest.Eventually(ctx, 10*time.Second, "the handshake", func() error {
		for _, d := range []*nettest.Daemon{p.a, p.b} {
			text, err := d.Client(ctx, "-s", "link")
			if err != nil {
				return err
			}
			_, line, _ := strings.Cut(text, "Pckts sent")
			if n, err := number(line, ""); err != nil || n < 3 {
				return errors.Join(err, fmt.Errorf("%s: %v datagrams received", d, n))
			}
		}
		return nil
	})
}

func (p *pair) cpus(to *[2]float64) (err error) {
	for i, d := range []*nettest.Daemon{p.a, p.b} {
		if to[i], err = cpu(d); err != nil {
			return err
		}
	}
	return nil
}

// table measures what depends on the size of the table.
func table(n int) row {
	return row{fmt.Sprintf("table of %d", n), func(ctx context.Context, p *pair) (out values, err error) {
		if _, err := p.load.Create(flood.Load{To: n, Flow: flows}); err != nil {
			return nil, err
		}
		timed := func(name string, f func() error) {
			if err != nil {
				return
			}
			start := time.Now()
			if err = f(); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			out = append(out, value{name + ", ms", float64(time.Since(start).Microseconds()) / 1000})
		}
		client := func(d *nettest.Daemon, args ...string) func() error {
			return func() error { _, err := d.Client(ctx, args...); return err }
		}
		timed("start", func() error { return p.a.Start(ctx) })
		if err == nil {
			err = p.b.Start(ctx)
		}
		if err == nil {
			err = p.greeted(ctx)
		}
		// Our nodes exchange everything at the start; C's wait to be asked.
		if err == nil {
			_, err = p.b.Client(ctx, "-f", "external")
		}
		timed("resync -n until complete", func() error {
			if err := client(p.b, "-n")(); err != nil {
				return err
			}
			return p.inStep(ctx, n)
		})
		timed("-e", client(p.b, "-e"))
		timed("-i", client(p.a, "-i"))
		timed("-R", client(p.a, "-R"))
		timed("-c into an empty table", client(p.b, "-c"))
		timed("-c again", client(p.b, "-c"))
		for i, d := range []*nettest.Daemon{p.a, p.b} {
			if err != nil {
				return nil, err
			}
			var mb float64
			mb, err = rss(d)
			out = append(out, value{[]string{"resident, internal, MB", "resident, external, MB"}[i], mb})
		}
		return out, err
	}}
}
