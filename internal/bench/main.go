// Command bench measures conntrackgo next to the C daemon: pairs of one kind
// in network namespaces, in turn, in one run, and one table with medians and
// the ratio ours/C. CPU time is that of the daemon's process, user and system;
// both run as SCHED_OTHER. On a busy machine wall times say little, ratios of
// CPU time more.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// A row runs one measurement on a fresh pair whose daemons do not run yet.
type row struct {
	name string
	run  func(ctx context.Context, p *pair) (values, error)
}

type values []value

type value struct {
	name string
	v    float64
}

var kinds = kindsOf(os.Getenv("BENCHONLY"))

func kindsOf(s string) []nettest.Kind { if s == "go" { return []nettest.Kind{nettest.Go} }; return []nettest.Kind{nettest.C, nettest.Go} }

func main() {
	rounds := flag.Int("rounds", 3, "measurements of each daemon per row")
	only := flag.String("run", "", "only rows whose name contains this")
	entries := flag.Int("entries", 100_000, "entries of the table row")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *only, *entries); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, only string, entries int) error {
	var rows []row
	for _, rate := range []int{0, 100_000, 50_000, 20_000, 5_000, 1_000} {
		rows = append(rows, churn(rate))
	}
	rows = append(rows, table(entries))
	fmt.Printf("%-16s %-36s %10s %10s %8s\n", "", "median of "+fmt.Sprint(rounds), "C", "Go", "Go/C")
	for _, r := range rows {
		if !strings.Contains(r.name, only) {
			continue
		}
		if err := measure(ctx, r, rounds); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// measure runs a row with each kind in turn and prints its medians.
func measure(ctx context.Context, r row, rounds int) error {
	var names []string
	samples := map[nettest.Kind]map[string][]float64{}
	for _, k := range kinds {
		samples[k] = map[string][]float64{}
	}
	for range rounds {
		for _, k := range kinds {
			got, err := once(ctx, r, k)
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			names = names[:0]
			for _, x := range got {
				names = append(names, x.name)
				samples[k][x.name] = append(samples[k][x.name], x.v)
			}
		}
	}
	for _, n := range names {
		if len(kinds) == 1 {
			fmt.Printf("%-16s %-36s %10.2f\n", r.name, n, median(samples[kinds[0]][n]))
			continue
		}
		c, g := median(samples[nettest.C][n]), median(samples[nettest.Go][n])
		fmt.Printf("%-16s %-36s %10.2f %10.2f %8.2f\n", r.name, n, c, g, g/c)
	}
	return nil
}

func once(ctx context.Context, r row, k nettest.Kind) (got values, err error) {
	p, err := newPair(k)
	if err != nil {
		return nil, err
	}
	got, err = r.run(ctx, p)
	if e := p.close(); err == nil {
		err = e
	}
	return got, err
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
