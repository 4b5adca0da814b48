package link

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func bindToDevice(device string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
		return err
	}
}

// A flood of strangers must not make us read the interface each time, and a
// new address must become known soon.
func TestGuardRefreshes(t *testing.T) {
	ns := newNamespace(t)
	ns.ip(t, "link add sync0 type veth peer name end0", "link set sync0 up", "addr add 10.9.0.1/24 dev sync0")
	var g guard
	now := time.Unix(1000, 0)
	ns.do(func() {
		i, err := net.InterfaceByName("sync0")
		if err != nil {
			t.Error(err)
			return
		}
		g = newGuard("sync0", i.Index, netip.MustParseAddr("192.0.2.1"), nil)
	})
	g.now = func() time.Time { return now }
	pass := func(want bool, from string) {
		t.Helper()
		ns.do(func() {
			if got := g.pass(netip.MustParseAddr(from), g.index); got != want {
				t.Errorf("%s at %d: %v", from, now.Unix(), got)
			}
		})
	}
	pass(true, "192.0.2.1")
	if !g.read.IsZero() {
		t.Error("the interface was read for the configured peer")
	}
	g.heard = false
	pass(true, "10.9.0.77")
	pass(false, "10.10.0.1")
	ns.ip(t, "addr add 10.10.0.9/16 dev sync0", "addr del 10.9.0.1/24 dev sync0")
	now = now.Add(refreshAfter - time.Nanosecond)
	pass(false, "10.10.0.1")
	pass(true, "10.9.0.77")
	now = now.Add(time.Nanosecond)
	pass(true, "10.10.0.1")
	pass(false, "10.9.0.77")

	// The interface is made anew, under another index.
	was := g.index
	ns.ip(t, "link del sync0", "link add filler0 type veth peer name filler1", "link add sync0 type veth peer name end0", "link set sync0 up")
	now = now.Add(refreshAfter)
	ns.do(func() {
		i, err := net.InterfaceByName("sync0")
		if err != nil || i.Index == was {
			t.Errorf("index %d again, or %v", was, err)
			return
		}
		if !g.pass(netip.MustParseAddr("192.0.2.1"), i.Index) {
			t.Error("the peer through the new interface is refused")
		}
	})
	ns.ip(t, "link del sync0")
	now = now.Add(refreshAfter)
	pass(false, "10.10.0.1")
	pass(true, "192.0.2.1")
}

// While the peer speaks for itself nobody else of its network is taken for it;
// when it is silent somebody may be it, under another address. AcceptFrom
// names who else is.
func TestGuardPrefersThePeer(t *testing.T) {
	peer, other := netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.3")
	network := netip.MustParsePrefix("10.9.0.0/24")
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	g := guard{index: 5, peer: peer, prefixes: []netip.Prefix{network}, read: now, now: clock}
	pass := func(want bool, from netip.Addr, via int) {
		t.Helper()
		if got := g.pass(from, via); got != want {
			t.Errorf("%s through %d at %d: %v", from, via, now.Unix(), got)
		}
	}
	pass(true, other, 5) // the peer was not heard yet
	pass(true, peer, 5)
	pass(false, other, 5)
	now = now.Add(aloneFor - time.Millisecond)
	pass(false, other, 5)
	pass(true, peer, 5)
	pass(false, other, 5) // from now on
	now = now.Add(aloneFor - time.Millisecond)
	pass(false, other, 5)
	now = now.Add(time.Millisecond)
	pass(true, other, 5) // the peer has gone silent
	g = newGuard("none", 5, peer, []netip.Prefix{network})
	pass(true, peer, 5)
	pass(true, other, 5)
	pass(false, other, 6)
}

func TestPrefix(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3/8": "10.0.0.0/8", "fe80::5/64": "fe80::/64", "192.0.2.1/32": "192.0.2.1/32", "::1/128": "::1/128",
	} {
		ip, n, err := net.ParseCIDR(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []net.IP{ip, ip.To16()} {
			if got := prefix(&net.IPNet{IP: form, Mask: n.Mask}); got.String() != want {
				t.Errorf("%s: %s", in, got)
			}
		}
	}
}
