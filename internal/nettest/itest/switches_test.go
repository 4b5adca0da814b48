package itest_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const allAttributes = "{ Mark Labels Helper }"

// switchRow is where attributes are switched off. a and b are what the nodes
// are told; cached and restored say whether they still are in B's external
// cache and in B's kernel.
type switchRow struct {
	name             string
	a, b             string
	cached, restored bool
}

var switchRows = []switchRow{
	{"control", "", "", true, true},
	{"sender", "DoNotSync " + allAttributes, "", false, false},
	{"receiver", "", "DoNotSync " + allAttributes, false, false},
	{"restorer", "", "DoNotRestore " + allAttributes, true, false},
}

// ours gives a daemon of ours its block; row is nothing for a C daemon.
func ours(c *nettest.Config, text string) {
	if text != "" {
		c.Extra = "Conntrackgo { " + text + " }\n"
	}
}

// TestAttributeSwitches: mark, labels and helper of a flow come to the other
// node's kernel or not, by commit and by injection.
func TestAttributeSwitches(t *testing.T) {
	for _, s := range switchRows {
		for _, inject := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/inject %v", s.name, inject), func(t *testing.T) {
				forPairings(t, func(t *testing.T, p pairing) {
					if s.a != "" && p.a == nettest.C || s.b != "" && p.b == nettest.C || s.name == "control" && p.b == nettest.C {
						t.Skip("the C daemon has no such switches")
					}
					r := newRig(t, p, func(a, b *nettest.Config) {
						ours(a, s.a)
						ours(b, s.b)
						if inject {
							a.ModeLines, b.ModeLines = []string{noExternal}, []string{noExternal}
						}
					})
					r.ok(r.two.A.EnableLabels())
					r.ok(r.two.B.EnableLabels())
					r.start()
					r.switched(s, inject)
				})
			})
		}
	}
}

func (r *rig) switched(s switchRow, inject bool) {
	r.Helper()
	f := flood.Flow{Proto: flood.TCP, Src: families[0].src, Dst: families[0].dst, Sport: 1000, Dport: 21, State: 3, Status: open,
		Timeout: 1000, Mark: 0xa1b2c3d4, Labels: []byte{8, 0, 0, 0}, Helper: "ftp"}
	_, err := r.flood(r.two.A).Create(each([]flood.Flow{f}))
	r.ok(err)
	r.follow(s, inject, "ESTABLISHED")
	want := "mark 0xa1b2c3d4, label 8, helper ftp"
	if !s.restored {
		want = "mark 0x0, label 0, helper "
	}
	r.dressed("new", want)
	if s.a != "" || r.b.Kind == nettest.C || inject {
		// B does not know better, or deletes and creates, and clears them. What
		// is injected and then changed by both nodes is a race.
		return
	}

	// What B's own rules did to the entry stays when it is written again.
	own := f
	own.Mark, own.Labels = 7, []byte{1, 0, 0, 0}
	_, err = r.flood(r.two.B).Update(each([]flood.Flow{own}))
	r.ok(err)
	f.State = 7
	_, err = r.flood(r.two.A).Update(each([]flood.Flow{f}))
	r.ok(err)
	r.follow(s, inject, "TIME_WAIT")
	if !s.restored {
		want = "mark 0x7, label 1, helper "
	}
	r.dressed("written again", want)
}

// follow waits until B knows the flow in a state, and commits it there unless
// it is injected.
func (r *rig) follow(s switchRow, inject bool, state string) {
	r.Helper()
	r.eventually("the flow in "+state, func() error {
		read := func() (nettest.Table, error) { return r.b.External(r.Context()) }
		if inject {
			read = r.two.B.Kernel
		}
		table, err := read()
		if err != nil {
			return err
		}
		for _, e := range table {
			switch {
			case e.State != state:
				return fmt.Errorf("the state is %s", e.State)
			case !inject && (e.Mark != 0) != s.cached:
				r.Errorf("mark %#x in the external cache", e.Mark)
			}
		}
		if len(table) != 1 {
			return fmt.Errorf("%d entries", len(table))
		}
		return nil
	})
	if !inject {
		r.request(r.b, "-c")
	}
}

// dressed holds the only entry of B's kernel to a text.
func (r *rig) dressed(what, want string) {
	r.Helper()
	table := r.kernel(r.two.B)
	if len(table) != 1 {
		r.Fatalf("%s: %d entries", what, len(table))
	}
	for _, e := range table {
		label := byte(0)
		if len(e.Raw.Labels) > 0 {
			label = e.Raw.Labels[0]
		}
		if got := fmt.Sprintf("mark %#x, label %d, helper %s", e.Mark, label, e.Raw.HelperName); got != want {
			r.Errorf("%s: %s, want %s", what, got, want)
		}
	}
}

// TestPeerVersion: two nodes that take each other for 1.4.2 have the same
// translations; a C daemon of 1.4.7 that is taken for one gets them turned
// round, which is how 1.4.2 itself would read what 1.4.7 sends.
func TestPeerVersion(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		if p.a == nettest.C {
			t.Skip("the C daemon has no such setting")
		}
		r := newRig(t, p, func(a, b *nettest.Config) {
			ours(a, "PeerVersion "+b.Local.String()+" 1.4.2")
			if p.b == nettest.Go {
				ours(b, "PeerVersion 1.4.2")
			}
		}).start()
		f := flood.Flow{Proto: flood.TCP, Src: families[0].src, Dst: families[0].dst, Sport: 1000, Dport: 80, State: 3, Status: open,
			Timeout: 1000, SNAT: netip.MustParseAddrPort("203.0.113.9:5000")}
		_, err := r.flood(r.two.A).Create(each([]flood.Flow{f}))
		r.ok(err)
		r.cachesAgree(r.a, r.b, 1)
		r.request(r.b, "-c")
		want := f.SNAT.Addr()
		if p.b == nettest.C {
			want = netip.MustParseAddr("9.113.0.203")
		}
		for _, e := range r.kernel(r.two.B) {
			if e.Reply.Dst != want || e.Reply.Dport != f.SNAT.Port() {
				t.Errorf("translated to %v:%d, want %v", e.Reply.Dst, e.Reply.Dport, want)
			}
		}
	})
}

// TestPeerVersionWrong: a zone, which 1.4.6 cannot send, betrays a newer peer;
// an address that NAT never translates to, an older one. Without a wrong
// setting nothing is said.
func TestPeerVersionWrong(t *testing.T) {
	const newer, older = "does not: set PeerVersion", "look byte-reversed"
	for _, c := range []struct{ name, a, b, want string }{
		{"newer", "", "PeerVersion 1.4.6", newer},
		{"older", "PeerVersion 1.4.6", "", older},
		{"right", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) {
				if p.b == nettest.C || c.a != "" && p.a == nettest.C {
					t.Skip("the C daemon has no such setting")
				}
				r := newRig(t, p, func(a, b *nettest.Config) {
					ours(a, c.a)
					ours(b, c.b)
				}).start()
				f := flood.Flow{Proto: flood.UDP, Src: families[0].src, Dst: families[0].dst, Sport: 1000, Dport: 53, Status: seen,
					Timeout: 1000, Zone: 7, SNAT: netip.MustParseAddrPort("203.0.113.254:5000")}
				if c.a != "" {
					f.Zone = 0 // which is not sent then
				}
				_, err := r.flood(r.two.A).Create(each([]flood.Flow{f}))
				r.ok(err)
				r.cachesAgree(r.a, r.b, 1)
				said := func() string {
					log, _, _ := strings.Cut(r.b.Log(200), "-- output --")
					return log
				}
				if c.want == "" {
					if log := said(); strings.Contains(log, newer) || strings.Contains(log, older) {
						t.Errorf("a warning:\n%s", log)
					}
					return
				}
				r.eventually("the warning", func() error {
					if n := strings.Count(said(), c.want); n != 1 {
						return fmt.Errorf("%d lines with %q", n, c.want)
					}
					return nil
				})
			})
		})
	}
}
