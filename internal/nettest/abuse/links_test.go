package abuse_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// outages take the sync link from a and give it back.
var outages = []struct {
	name       string
	away, back func(r *rig) error
	says       bool   // with UDP: that datagrams can't be sent
	missing    string // what a start without it calls it; "": it does not matter there
}{
	{"address removed", func(r *rig) error {
		return r.Two.A.DelAddr(nettest.SyncIf, nettest.SyncA.String()+"/30")
	}, func(r *rig) error {
		return r.Two.A.AddAddr(nettest.SyncIf, nettest.SyncA.String()+"/30")
	}, true, nettest.SyncA.String()},
	{"interface down", func(r *rig) error {
		return r.Two.A.IP("link set " + nettest.SyncIf + " down")
	}, func(r *rig) error {
		return r.Two.A.IP("link set " + nettest.SyncIf + " up")
	}, true, ""},
	{"cable pulled", func(r *rig) error {
		return r.Two.B.IP("link set " + nettest.SyncIf + " down")
	}, func(r *rig) error {
		return r.Two.B.IP("link set " + nettest.SyncIf + " up")
	}, false, ""},
	{"interface removed", func(r *rig) error {
		return r.Two.A.IP("link del " + nettest.SyncIf)
	}, func(r *rig) error {
		if err := r.Lab.Connect(r.Two.A, nettest.SyncIf, r.Two.B, nettest.SyncIf); err != nil {
			return err
		}
		if err := r.Two.A.AddAddr(nettest.SyncIf, nettest.SyncA.String()+"/30"); err != nil {
			return err
		}
		return r.Two.B.AddAddr(nettest.SyncIf, nettest.SyncB.String()+"/30")
	}, true, "no such network interface"},
}

// TestLinkGoes takes the link away in all ways, one after the other, while
// flows come and go on both nodes.
func TestLinkGoes(t *testing.T) {
	for _, transport := range []string{"UDP", "Multicast", "TCP"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			r := newRig(t, func(a, b *nettest.Config) { a.Transport, b.Transport = transport, transport }).start()
			for i, o := range outages {
				lines := len(r.lines(0))
				wait := r.churn(2500 * time.Millisecond)
				r.OK(o.away(r))
				n := byte(40 + 2*i)
				r.Must(r.Writer(r.Two.A).Create(flood.UDPFlows(n, 0, 500)))
				r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(n+1, 0, 500)))
				wait()
				r.OK(o.back(r))
				start := time.Now()
				r.recovered()
				t.Logf("%s: in step again after %v", o.name, time.Since(start).Round(10*time.Millisecond))
				if o.says && transport != "TCP" {
					r.says(lines, `datagrams could not be sent on the sync link \(\d+\): (network is|no route|no such device|invalid arg|cannot assign|network is down)`, 0, 1)
				}
				r.short(lines, 15)
			}
			if transport == "UDP" {
				r.saysOnce(0, `datagrams could not be sent on the sync link \(\d+\): `, begun)
			}
		})
	}
}

// TestSilenceIsSaid pulls the cable for longer than a node in step says nothing: a
// line when the other node has fallen silent, and one when it is heard again.
func TestSilenceIsSaid(t *testing.T) {
	for _, kind := range []nettest.Kind{nettest.Go, nettest.C} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := newRigOf(t, kind, nil).start()
			lines := len(r.lines(0))
			logged := func(text string) {
				r.Eventually(text, func() error {
					if !strings.Contains(strings.Join(r.lines(lines), "\n"), text) {
						return errors.New("not in the log")
					}
					return nil
				})
			}
			cable := outages[2]
			r.OK(cable.away(r))
			logged("the other node is silent")
			r.OK(cable.back(r))
			logged("the other node is heard again")
			r.recovered()
			r.OK(r.A.Stop())
			r.says(lines, `\[warning\] the other node is silent: nothing has been heard of it for [5-9] s$`, 1, 1)
			r.says(lines, `\[notice\] the other node is heard again, after \d+ s$`, 1, 1)
		})
	}
}

// TestLinkMissing starts without the interface, and without its address: both
// daemons refuse, and ours says what is missing. TestLinkComesLate tells it to wait.
func TestLinkMissing(t *testing.T) {
	for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
		for what, change := range map[string]func(*nettest.Config){
			"eth77":       func(c *nettest.Config) { c.Interface = "eth77" },
			"198.51.100.": func(c *nettest.Config) { c.Local = stranger.Next() },
		} {
			t.Run(fmt.Sprintf("%s/%s", kind, what), func(t *testing.T) {
				r := newRigOf(t, kind, func(_, b *nettest.Config) { change(b) })
				r.OK(r.B.WriteConfig())
				binary, err := kind.Binary()
				r.OK(err)
				proc, err := r.Two.B.Start(nil, binary, "-C", r.B.ConfigPath)
				r.OK(err)
				select {
				case <-proc.Done():
				case <-time.After(duo.Patience):
					proc.Kill9()
					t.Fatal("it runs")
				}
				text := proc.Tail(20)
				t.Logf("%v: %s", proc.Err(), text)
				if proc.Err() == nil {
					t.Error("exit code 0")
				}
				if what == "198.51.100." {
					what = stranger.Next().String()
				}
				if kind == nettest.Go && !strings.Contains(text, what) {
					t.Errorf("%s is not named in %q", what, text)
				}
			})
		}
	}
}
