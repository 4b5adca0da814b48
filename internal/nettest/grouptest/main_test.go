// Package grouptest_test runs groups of three and more nodes (Group on) on the
// real kernel: each with a kernel, caches and a daemon of its own, on one
// segment. Beside them stand C daemons, which know pairs only, as controls.
package grouptest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for timers of a second and of ten.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	code := m.Run()
	nettest.RemoveGoBinary()
	os.Exit(code)
}

// convergence bounds how long a group may take to agree. It takes a second or
// two, and some more where the first answers after an outage are lost.
const convergence = 30 * time.Second

// transport is what a group talks over.
type transport struct {
	name string
	v6   bool
}

var (
	multicast4 = transport{"Multicast", false}
	multicast6 = transport{"Multicast", true}
	udp4       = transport{"UDP", false}
	udp6       = transport{"UDP", true}
)

func (x transport) String() string {
	return fmt.Sprintf("%s%d", x.name, map[bool]int{false: 4, true: 6}[x.v6])
}

// rig is a group whose daemons do not run yet.
type rig struct {
	*testing.T
	lab     *nettest.Lab
	segment *nettest.Segment
	members []*member
}

// setup says what a rig is made of.
type setup struct {
	over   transport
	kinds  []nettest.Kind
	pairs  bool                             // without Group
	change func(i int, cfg *nettest.Config) // adapts a configuration; may be nil
}

// ours are n daemons of ours.
func ours(n int) (kinds []nettest.Kind) {
	for range n {
		kinds = append(kinds, nettest.Go)
	}
	return kinds
}

func newRig(t *testing.T, s setup) *rig {
	t.Helper()
	nettest.Need(t, s.kinds...)
	r := &rig{T: t, lab: nettest.Get(t)}
	var err error
	r.segment, err = r.lab.NewSegment(len(s.kinds))
	r.ok(err)
	r.addMembers(s, r.segment.Configs(s.over.name, s.over.v6, !s.pairs))
	return r
}

func (r *rig) addMembers(s setup, configs []nettest.Config) {
	r.Helper()
	for i, cfg := range configs {
		if s.kinds[i] == nettest.C {
			cfg.Ours = nil
		}
		if s.change != nil {
			s.change(i, &cfg)
		}
		d, err := r.lab.NewDaemon(r.segment.Nodes[i], s.kinds[i], cfg)
		r.ok(err)
		w, err := flood.Open(d.Node.Do)
		r.ok(err)
		r.Cleanup(func() { _ = w.Close() })
		first := 10_000 * i
		r.members = append(r.members, &member{Daemon: d, addr: r.source(d.Node, s.over, cfg.Local), w: w, first: first, next: first})
	}
	r.Cleanup(func() {
		for _, m := range r.members {
			if r.Failed() {
				r.Logf("%s\n%s", m.State(context.Background()), m.lastHealth())
			}
		}
	})
}

// source is the address that the others hear a node from. To an IPv6 group the
// kernel sends from a link-local one.
func (r *rig) source(n *nettest.Node, over transport, local netip.Addr) (addr netip.Addr) {
	r.Helper()
	if over != multicast6 {
		return local
	}
	r.ok(n.Do(func() error {
		i, err := net.InterfaceByName(nettest.SyncIf)
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		for _, a := range addrs {
			if p := netip.MustParsePrefix(a.String()); p.Addr().IsLinkLocalUnicast() {
				addr = p.Addr()
			}
		}
		return err
	}))
	return addr
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) eventually(what string, check func() error) {
	r.Helper()
	r.ok(nettest.Eventually(r.Context(), convergence, what, check))
}

// start starts daemons at the same time.
func (r *rig) start(members ...*member) {
	r.Helper()
	r.each(members, func(m *member) error { return m.Start(r.Context()) })
}

// each does something on several members at the same time.
func (r *rig) each(members []*member, do func(*member) error) {
	r.Helper()
	var g errgroup.Group
	for _, m := range members {
		g.Go(func() error { return do(m) })
	}
	r.ok(g.Wait())
}

// request runs a client request of a daemon; it must succeed.
func (r *rig) request(m *member, args ...string) string {
	r.Helper()
	out, err := m.Client(r.Context(), args...)
	r.ok(err)
	return out
}

// exact waits until each of the members has exactly the flows of each of the
// others, entry by entry, and says so.
func (r *rig) exact(what string, members ...*member) {
	r.Helper()
	r.eventually(what, func() error {
		external := map[*member]map[netip.Addr]nettest.Table{}
		for _, m := range members {
			var err error
			if external[m], err = m.ExternalByNode(r.Context()); err != nil {
				return err
			}
			if n := len(external[m]); n != len(members)-1 {
				return fmt.Errorf("%s has flows from %d nodes", m, n)
			}
		}
		for _, m := range members {
			internal, err := m.inStep(r.Context())
			if err != nil {
				return err
			}
			for o := range external {
				if o == m {
					continue
				}
				if err := nettest.DiffCaches(internal, external[o][m.addr]).Err(); err != nil {
					return fmt.Errorf("flows of %s at %s: %w", m, o, err)
				}
			}
		}
		return r.healthy(members)
	})
}

// healthy fails unless each member says that it is in step with all others,
// and there is nobody else.
func (r *rig) healthy(members []*member) error {
	var errs []error
	for _, m := range members {
		h, err := m.health(r.Context())
		if err != nil {
			return err
		}
		for _, o := range members {
			if o != m && !h.says(o, "in-step", "yes") {
				errs = append(errs, fmt.Errorf("%s is not in step with %s: %v", m, o, h.peers[o.addr]))
			}
		}
		if others := fmt.Sprint(len(members) - 1); h.group["peers"] != others || h.group["peers-in-step"] != others || h.group["ready"] != "yes" {
			errs = append(errs, fmt.Errorf("%s says %v", m, h.group))
		}
	}
	return errors.Join(errs...)
}
