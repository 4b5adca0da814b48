package abuse_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const waits = "WaitForInterface on"

// link waits until a daemon says this of one of its links.
func (r *rig) link(d *nettest.Daemon, device, says string) {
	r.Helper()
	r.Eventually(fmt.Sprintf("%s of %s to be %s", device, d, says), func() error {
		out, err := d.Client(r.Context(), "-s", "link")
		if err == nil && !strings.Contains(out, "device="+device+" "+says) {
			err = errors.New(out)
		}
		return err
	})
}

// TestLinkComesLate starts a without its interface, and without its address, and
// tells it to wait: it does whatever it can alone, says once what it waits for,
// and both are in step when that comes. So it is when it goes once more, and
// after a restart.
func TestLinkComesLate(t *testing.T) {
	for _, transport := range []string{"UDP", "Multicast", "TCP"} {
		for _, o := range outages {
			if o.missing == "" {
				continue
			}
			t.Run(transport+"/"+o.name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(a, b *nettest.Config) {
					a.Transport, b.Transport, a.Ours = transport, transport, []string{waits}
				})
				r.OK(r.B.Start(r.Context()))
				r.OK(o.away(r))
				r.startA()
				r.Must(r.Writer(r.Two.A).Create(flood.UDPFlows(1, 0, 500)))
				r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(2, 0, 500)))
				r.Eventually("a to know its own flows", func() error {
					internal, external, err := r.A.Sizes(r.Context())
					if err == nil && (internal != 500 || external != 0) {
						err = fmt.Errorf("%d and %d", internal, external)
					}
					return err
				})
				r.link(r.A, nettest.SyncIf, "status=DOWN role=ACTIVE")
				for _, request := range []string{"-c", "-n", "-B", "-R"} {
					r.Request(r.A, request)
				}
				before := r.usage()
				r.churn(2500 * time.Millisecond)()
				r.alive()
				r.says(0, "sync link", 1, 1)
				r.says(0, `sync link on `+nettest.SyncIf+` is not there yet: waiting for it \(.*`+o.missing, 1, 1)
				r.OK(o.back(r))
				r.recovered()
				r.link(r.A, nettest.SyncIf, "status=RUNNING role=ACTIVE")
				// The interface may have been seen without its address.
				r.says(0, "sync link", 2, 3)
				r.says(0, `sync link on `+nettest.SyncIf+` is open now`, 1, 1)
				r.bounded(before, 32<<10, 3)

				r.OK(o.away(r))
				r.churn(time.Second)()
				r.OK(o.back(r))
				r.recovered()
				r.says(0, `sync link on`, 2, 3)

				r.OK(o.away(r))
				for range 2 { // the first waits in vain
					r.OK(r.A.Stop())
					r.startA()
				}
				r.OK(o.back(r))
				r.recovered()
				r.short(0, 60)
			})
		}
	}
}

// secondIf is a second cable between the nodes, laid after the start.
const secondIf = "sy1"

func secondAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 101, byte(i)}) }

func (r *rig) laySecond() {
	r.Helper()
	r.OK(r.Lab.Connect(r.Two.A, secondIf, r.Two.B, secondIf))
	for i, n := range []*nettest.Node{r.Two.A, r.Two.B} {
		r.OK(n.AddAddr(secondIf, secondAddr(i+1).String()+"/30"))
	}
}

// TestOneLinkComesLate starts both without one or both of two links. What comes
// is used, and either takes over from the other.
func TestOneLinkComesLate(t *testing.T) {
	for _, transport := range []string{"UDP", "TCP"} {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/both=%v", transport, both), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(a, b *nettest.Config) {
					for i, c := range []*nettest.Config{a, b} {
						c.Ours = []string{waits}
						c.Link = nettest.LinkSection(transport, c.Interface, c.Local, c.Peer, c.Port, true) +
							nettest.LinkSection(transport, secondIf, secondAddr(i+1), secondAddr(2-i), c.Port, false)
					}
				})
				first := outages[len(outages)-1]
				if both {
					r.OK(first.away(r))
				}
				r.OK(r.B.Start(r.Context()))
				r.startA()
				r.link(r.A, secondIf, "status=DOWN role=BACKUP")
				if !both {
					r.recovered()
				}
				r.laySecond()
				for _, d := range []*nettest.Daemon{r.A, r.B} {
					r.link(d, secondIf, "status=RUNNING")
				}
				if both {
					r.recovered()
					r.says(0, "no dedicated links available!", 1, 1)
					r.OK(first.back(r))
				}
				for _, d := range []*nettest.Daemon{r.A, r.B} {
					r.link(d, nettest.SyncIf, "status=RUNNING")
				}
				for _, cut := range []string{nettest.SyncIf, secondIf} {
					r.OK(r.Two.A.IP("link set " + cut + " down"))
					r.recovered()
					r.OK(r.Two.A.IP("link set " + cut + " up"))
					r.link(r.A, cut, "status=RUNNING")
				}
				n := map[bool]int{false: 1, true: 2}[both]
				r.says(0, `is not there yet: waiting for it`, n, 2*n)
				r.says(0, `is open now`, n, n)
				r.short(0, 40)
			})
		}
	}
}
