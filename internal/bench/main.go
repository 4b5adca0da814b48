// Command bench measures conntrackgo next to the C daemon: pairs of one kind
// in network namespaces, in turn, in one run. It prints one table with
// medians and the ratio ours/C, and writes docs/benchmarks.md, which says how
// each row is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// options are the command line.
type options struct {
	rounds int
	only   []string
	quick  bool
	out    string
	kinds  []nettest.Kind
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "measurements of each daemon per row")
	flag.BoolVar(&o.quick, "quick", false, "the most telling rows only, one round unless -rounds says more")
	flag.StringVar(&o.out, "out", "", "directory for benchmarks.md and its plots; none are written without")
	only := flag.String("run", "", "only rows whose id or name contains one of these words, separated by commas")
	flag.IntVar(&nice, "nice", 0, "niceness of the daemons and of the load: -10 helps on a machine others use")
	list := flag.Bool("list", false, "list the rows and their ids")
	kinds := flag.String("kinds", "C,Go", "whose daemon")
	flag.Parse()
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, k := range strings.Split(*kinds, ",") {
		o.kinds = append(o.kinds, nettest.Kind(k))
	}
	if *list {
		for _, s := range sections() {
			for _, r := range s.rows {
				fmt.Printf("%-22s %s\n", r.id, r.name)
			}
		}
		return
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if err := nettest.Available(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := renice(os.Getpid(), nice); err != nil {
		return err
	}
	restore, err := raiseTables()
	if err != nil {
		return err
	}
	onSignal(restore)
	defer nettest.RemoveGoBinary()
	begin := time.Now()
	b := newBench(o)
	err = b.measure(ctx)
	if e := restore(); e != nil {
		err = errors.Join(err, e)
	}
	// What was measured before an interruption is worth seeing too.
	fmt.Printf("\n%s\n\n%s", b.heading(), textTable(sections(), b.rec))
	fmt.Printf("\n%v in all\n", time.Since(begin).Round(time.Second))
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := b.report(o.out, time.Since(begin)); err != nil {
			return err
		}
	}
	return b.failures()
}
