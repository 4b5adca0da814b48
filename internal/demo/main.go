// Command demo shows what the daemon is for: two firewalls with keepalived,
// connections through them, and failovers, once with the daemon and once
// without. Everything happens in network namespaces; see package failover.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

// settings come from the command line.
type settings struct {
	bin, script string
	a, b        nettest.Kind
	connections int
	entries     int
}

func main() {
	s, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := run(context.Background(), s); err != nil {
		waitForCleanup(interrupted)
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// waitForCleanup returns if nobody interrupted the demo. Otherwise the error
// comes from that, and the lab is cleaning up and then ends this process. The
// terminal also interrupts the programs in the lab, so the error may be
// earlier than the signal.
func waitForCleanup(interrupted <-chan os.Signal) {
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-interrupted:
		fmt.Fprintln(os.Stderr, "\nInterrupted, cleaning up.")
		select {}
	case <-timer.C:
	}
}

func parse(args []string) (settings, error) {
	var s settings
	var a, b string
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.StringVar(&s.bin, "bin", "bin/conntrackgo", "our daemon")
	f.StringVar(&s.script, "script", "contrib/primary-backup.sh", "what keepalived calls; \"stock\" for the one of Debian's conntrackd package")
	f.StringVar(&a, "a", "go", "daemon on the first firewall: go (ours) or c (conntrackd)")
	f.StringVar(&b, "b", "go", "daemon on the second firewall: go or c")
	f.IntVar(&s.connections, "connections", 220, "number of TCP connections, 20 of them busy and the others idle")
	f.IntVar(&s.entries, "entries", 0, "put this many more connections into the master's table")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	var err error
	if s.a, err = kind(a); err != nil {
		return s, err
	}
	if s.b, err = kind(b); err != nil {
		return s, err
	}
	switch {
	case f.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case s.connections < busy:
		return s, fmt.Errorf("-connections must be at least %d", busy)
	case s.entries < 0:
		return s, errors.New("-entries must not be negative")
	}
	if s.script == "stock" {
		s.script = failover.StockScript
	}
	return s, nil
}

func kind(word string) (nettest.Kind, error) {
	switch strings.ToLower(word) {
	case "go":
		return nettest.Go, nil
	case "c":
		return nettest.C, nil
	}
	return "", fmt.Errorf("daemon %q is neither go nor c", word)
}

// check says what is missing in words that help.
func check(s settings) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root. Try: sudo make demo")
	}
	if err := nettest.Available(); err != nil {
		return fmt.Errorf("%w. On Debian: make deps", err)
	}
	for _, tool := range []string{"keepalived", "flock", "logger", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("program missing: %w. On Debian: make deps", err)
		}
	}
	for _, file := range []string{s.bin, s.script} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("file missing: %w", err)
		}
	}
	return nil
}

func run(ctx context.Context, s settings) error {
	if err := check(s); err != nil {
		return err
	}
	bin, err := filepath.Abs(s.bin)
	if err != nil {
		return err
	}
	os.Setenv("CONNTRACKGO_BIN", bin)

	n := newNarrator(os.Stdout)
	n.intro(s)
	with, err := show(ctx, n, s, true)
	if err != nil {
		return err
	}
	without, err := show(ctx, n, s, false)
	if err != nil {
		return err
	}
	n.summary(with, without)
	return verdict(s, with, without)
}

// verdict is an error unless the demo showed what it should: with the daemon
// everything lives, without it no TCP connection does.
func verdict(s settings, with, without []*failover.Result) error {
	for _, r := range with {
		if t := r.Total(); t.Alive != t.Asked {
			return fmt.Errorf("%d connections were lost when %s", t.Asked-t.Alive, cause(r))
		}
		if r.Held != s.connections {
			return fmt.Errorf("%d of %d connections were not in the table of %s when %s", s.connections-r.Held, s.connections, r.To, cause(r))
		}
	}
	for _, r := range without {
		if c := tcp(r); c.Alive != 0 {
			return fmt.Errorf("%d TCP connections lived without a daemon; this shows nothing", c.Alive)
		}
	}
	return nil
}
