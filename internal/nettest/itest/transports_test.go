package itest_test

import (
	"fmt"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// transport is a kind of link over one IP version.
type transport struct {
	name string
	v6   bool
}

var transports = []transport{
	{"UDP", true}, // over IPv4 is what all other tests use
	{"Multicast", false},
	{"Multicast", true},
	{"TCP", false},
	{"TCP", true},
}

func (x transport) String() string {
	return fmt.Sprintf("%s%d", x.name, map[bool]int{false: 4, true: 6}[x.v6])
}

// over makes both daemons use the transport.
func (x transport) over(a, b *nettest.Config) {
	ca, cb := nettest.SyncConfigs(x.v6)
	a.Local, a.Peer, a.Transport = ca.Local, ca.Peer, x.name
	b.Local, b.Peer, b.Transport = cb.Local, cb.Peer, x.name
}

// forTransports runs a test for every transport and every pairing in which
// our daemon takes part.
func forTransports(t *testing.T, f func(*testing.T, transport, pairing)) {
	for _, x := range transports {
		t.Run(x.String(), func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) {
				if p.a == nettest.C && p.b == nettest.C {
					t.Skip("the control says nothing here")
				}
				f(t, x, p)
			})
		})
	}
}

// transportFlows are few: what a transport does wrong it does to the first
// datagram, to a full one, or when a side comes back.
const transportFlows = 100

// TestTransports creates, updates and deletes flows on one side, asks and
// sends everything, and restarts both sides.
func TestTransports(t *testing.T) {
	forTransports(t, func(t *testing.T, x transport, p pairing) {
		r := newRig(t, p, func(a, b *nettest.Config) {
			x.over(a, b)
			withStartupResync(a, b)
		}).start()
		r.handshake()
		w := r.flood(r.two.A)
		r.must(w.Create, load(0, transportFlows, 0, 0, nil))
		r.cachesAgree(r.a, r.b, transportFlows)
		r.must(w.Update, load(0, transportFlows, 0, 1<<20, nil))
		r.cachesAgree(r.a, r.b, transportFlows)
		r.must(w.Delete, load(0, transportFlows/2, 0, 0, nil))
		r.cachesAgree(r.a, r.b, transportFlows/2)

		// What is lost on purpose comes back, asked for or sent.
		for _, again := range []struct {
			d   *nettest.Daemon
			arg string
		}{{r.b, "-n"}, {r.a, "-B"}} {
			r.request(r.b, "-f", "external")
			r.request(again.d, again.arg)
			r.cachesAgree(r.a, r.b, transportFlows/2)
		}

		survivor := map[*nettest.Daemon]*nettest.Daemon{r.a: r.b, r.b: r.a}
		for i, d := range []*nettest.Daemon{r.b, r.a} {
			r.ok(d.Stop())
			at := transportFlows + i
			r.must(w.Create, load(at, at+1, 0, 0, nil))
			r.ok(d.Start(r.Context()))
			r.request(survivor[d], "-n")
			r.cachesAgree(r.a, r.b, transportFlows/2+1+i)
		}
		r.request(r.b, "-c")
		// On a slow machine timeouts pass meanwhile; others look at them.
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: -1, Committer: p.b})
		r.noErrors()
	})
}

// noErrors fails if a link of ours refused anything: both ends are what they
// are configured to be.
func (r *rig) noErrors() {
	r.Helper()
	for _, d := range []*nettest.Daemon{r.a, r.b} {
		if d.Kind != nettest.Go {
			continue
		}
		var sent, received int
		stats := r.request(d, "-s", "link")
		if m := errorPattern.FindStringSubmatch(stats); m == nil {
			r.Errorf("no errors in -s link of %s:\n%s", d, stats)
		} else if _, err := fmt.Sscan(m[1]+" "+m[2], &sent, &received); err != nil || received != 0 {
			r.Errorf("-s link of %s: %d and %d errors, %v", d, sent, received, err)
		}
	}
}
