package itest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// secondIf is the other cable between the firewalls.
const secondIf = "sy1"

// newTwoLinkRig makes a rig with two cables. With one link only the first
// cable is used: the control.
func newTwoLinkRig(t *testing.T, p pairing, transport string, links int, extra string) *rig {
	t.Helper()
	r := &rig{T: t, lab: nettest.Get(t)}
	two, err := r.lab.NewTwoNodes()
	r.ok(err)
	r.two = two
	ca, cb := nettest.SyncConfigs(false)
	r.secondCable(&ca, &cb, transport, links)
	if p.a == nettest.Go {
		ca.Extra = extra
	}
	if p.b == nettest.Go {
		cb.Extra = extra
	}
	r.addDaemons(p, ca, cb, withStartupResync)
	return r
}

// secondCable connects the nodes once more and puts the links into the
// configurations.
func (r *rig) secondCable(a, b *nettest.Config, transport string, links int) {
	r.Helper()
	r.ok(r.lab.Connect(r.two.A, secondIf, r.two.B, secondIf))
	for i, c := range []*nettest.Config{a, b} {
		node := []*nettest.Node{r.two.A, r.two.B}[i]
		own, other := second(i+1), second(2-i)
		r.ok(node.AddAddr(secondIf, own.String()+"/30"))
		c.Link = nettest.LinkSection(transport, c.Interface, c.Local, c.Peer, c.Port, true)
		if links > 1 {
			c.Link += nettest.LinkSection(transport, secondIf, own, other, c.Port+1, false)
		}
	}
}

func second(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("192.168.101.%d", host)) }

// activeLink waits until a daemon says that it uses a device.
func (r *rig) activeLink(d *nettest.Daemon, device string) {
	r.Helper()
	r.eventually(fmt.Sprintf("%s to use %s", d, device), func() error {
		out, err := d.Client(r.Context(), "-s", "link")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "device="+device+" ") && strings.Contains(line, "role=ACTIVE") {
				return nil
			}
		}
		return fmt.Errorf("-s link says:\n%s", out)
	})
}

// cuts are the ways a link ends. C notices those of the interface only: with a
// cut of one direction it follows ours.
var cuts = []struct {
	name    string
	cut     func(r *rig) error
	oneWay  bool
	recover func(r *rig) error
}{
	{"admin down", func(r *rig) error { return r.two.A.IP("link set " + nettest.SyncIf + " down") }, false,
		func(r *rig) error { return r.two.A.IP("link set " + nettest.SyncIf + " up") }},
	{"carrier down", func(r *rig) error { return r.two.B.IP("link set " + nettest.SyncIf + " down") }, false,
		func(r *rig) error { return r.two.B.IP("link set " + nettest.SyncIf + " up") }},
	{"B is deaf", func(r *rig) error { return r.two.B.NFT(deaf) }, true,
		func(r *rig) error { return r.two.B.NFT("delete table netdev deaf") }},
	{"A is deaf", func(r *rig) error { return r.two.A.NFT(deaf) }, true,
		func(r *rig) error { return r.two.A.NFT("delete table netdev deaf") }},
}

const deaf = "table netdev deaf { chain in { type filter hook ingress device " + nettest.SyncIf + " priority 0; drop; }; }"

// throughout is how long something must not happen.
const throughout = time.Second

// TestLinkFailover cuts the link in use under load. Everything arrives over
// the other one.
func TestLinkFailover(t *testing.T) {
	for _, transport := range []string{"UDP", "Multicast", "TCP"} {
		for _, c := range cuts {
			t.Run(transport+"/"+c.name, func(t *testing.T) {
				forPairings(t, func(t *testing.T, p pairing) {
					switch {
					case p.a == nettest.C && p.b == nettest.C:
						t.Skip("the control is TestOneLinkIsCut")
					case transport != "UDP" && p.a != p.b && !c.oneWay:
						t.Skip("UDP shows how they go together")
					}
					r := newTwoLinkRig(t, p, transport, 2, "").start()
					r.handshake()
					w := r.flood(r.two.A)
					r.must(w.Create, load(0, 1000, 0, 0, nil))
					r.cachesAgree(r.a, r.b, 1000)
					r.activeLink(r.a, nettest.SyncIf)

					under := inBackground(func() error {
						_, err := w.Create(load(1000, 4000, 2000, 0, nil))
						return err
					})
					r.ok(c.cut(r))
					r.ok(under())
					r.must(r.flood(r.two.B).Create, load(4000, 4100, 0, 0, nil))
					r.activeLink(r.a, secondIf)
					r.activeLink(r.b, secondIf)
					r.cachesAgree(r.a, r.b, 4000)
					r.cachesAgree(r.b, r.a, 100)
				})
			})
		}
	}
}

// TestOneLinkIsCut is the control: with one link what happens after the cut
// does not arrive, in one direction at least.
func TestOneLinkIsCut(t *testing.T) {
	for _, c := range cuts {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, nettest.Go)
			r := newTwoLinkRig(t, pairing{nettest.Go, nettest.Go}, "UDP", 1, "").start()
			r.handshake()
			w := r.flood(r.two.A)
			r.must(w.Create, load(0, 100, 0, 0, nil))
			r.cachesAgree(r.a, r.b, 100)
			r.ok(c.cut(r))
			r.must(w.Create, load(100, 200, 0, 0, nil))
			r.must(r.flood(r.two.B).Create, load(200, 300, 0, 0, nil))
			r.ok(nettest.Throughout(r.Context(), throughout, func() error {
				toA, err := r.a.External(r.Context())
				if err != nil {
					return err
				}
				toB, err := r.b.External(r.Context())
				if err == nil && len(toB) == 200 && len(toA) == 100 {
					err = errors.New("everything arrived")
				}
				return err
			}))
			r.ok(c.recover(r))
			r.cachesAgree(r.a, r.b, 200)
			r.cachesAgree(r.b, r.a, 100)
		})
	}
}

// TestReturnToDefault goes back when it is told to, and stays when it is not.
func TestReturnToDefault(t *testing.T) {
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) {
				if p.a == nettest.C {
					t.Skip("it is ours that returns")
				}
				extra := ""
				if on {
					extra = "Conntrackgo { ReturnToDefault on }"
				}
				r := newTwoLinkRig(t, p, "UDP", 2, extra).start()
				r.handshake()
				r.ok(cuts[0].cut(r))
				r.activeLink(r.a, secondIf)
				r.activeLink(r.b, secondIf)
				r.ok(cuts[0].recover(r))
				back := secondIf
				if on {
					back = nettest.SyncIf
				} else {
					r.ok(nettest.Throughout(r.Context(), 12*throughout, func() error { return nil }))
				}
				r.activeLink(r.a, back)
				r.activeLink(r.b, back)
				w := r.flood(r.two.A)
				r.must(w.Create, load(0, 100, 0, 0, nil))
				r.cachesAgree(r.a, r.b, 100)
			})
		})
	}
}
