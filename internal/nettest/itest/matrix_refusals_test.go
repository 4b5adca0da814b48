package itest_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// refusals are the rows that the matrix can't have, because the C daemon does
// not start with them. Ours must not either: a file that works here and not
// there is no drop-in.
var refusals = []struct {
	name   string
	change func(*nettest.Config)
}{
	{"FTFW without internal cache", inMode("FTFW", noInternal)},
	{"ALARM without internal cache", inMode("ALARM", noInternal)},
	{"ALARM without external cache", inMode("ALARM", noExternal)},
	{"ALARM with StartupResync", inMode("ALARM", "StartupResync on")},
	{"NOTRACK with an ACK window", inMode("NOTRACK", "ACKWindowSize 20")},
	{"NOTRACK with refreshes", inMode("NOTRACK", "RefreshTime 10")},
	{"no link", linked()},
	{"UDP and TCP", linked("UDP", "TCP")},
	{"Multicast and UDP", linked("Multicast", "UDP")},
	{"five links", linked("UDP", "UDP", "UDP", "UDP", "UDP")},
	{"no such address", func(c *nettest.Config) { c.Local = netip.MustParseAddr("192.0.2.1") }},
}

func inMode(mode string, line string) func(*nettest.Config) {
	return func(c *nettest.Config) { c.Mode, c.ModeLines = mode, []string{line} }
}

func linked(transports ...string) func(*nettest.Config) {
	return func(c *nettest.Config) {
		c.Link = " "
		for i, x := range transports {
			c.Link += nettest.LinkSection(x, c.Interface, c.Local, c.Peer, c.Port+i, false)
		}
	}
}

// TestMatrixRefusals starts both kinds with what neither may take.
func TestMatrixRefusals(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.C, nettest.Go)
	lab := nettest.Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range refusals {
		for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
			t.Run(row.name+"/"+string(kind), func(t *testing.T) {
				cfg, _ := nettest.SyncConfigs(false)
				row.change(&cfg)
				d, err := lab.NewDaemon(two.A, kind, cfg)
				if err != nil {
					t.Fatal(err)
				}
				err = d.Start(t.Context())
				if err == nil { // C may answer on its way out
					if wait := nettest.Eventually(t.Context(), 10*time.Second, "the end", func() error {
						if d.Running() {
							return errors.New("it runs")
						}
						return nil
					}); wait != nil {
						t.Fatal(wait)
					}
					err = d.Proc().Err()
				}
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 1 {
					t.Fatalf("it does not end with exit code 1: %v", err)
				}
				if text := d.Log(5); strings.TrimSpace(text) == "" {
					t.Error("it does not say why")
				}
			})
		}
	}
}
