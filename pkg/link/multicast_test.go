package link

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// groups are the kinds of groups and sources.
var groups = []struct {
	name, group, ifaceA, ifaceB string
	from                        string // the source that b sees
	mtu                         int
}{
	{"IPv4", "225.0.0.50", "10.9.0.1", "10.9.0.2", "10.9.0.1", 1472},
	{"IPv4 without IPv4_interface", "225.0.0.50", "", "", "10.9.0.1", 1472},
	{"IPv6 link", "ff02::50", "", "", "fe80::1", 1452},
	{"IPv6 site", "ff05::50", "", "", "fd09::1", 1452},
}

// A group is joined on the interface of the link and on no other.
func TestMulticastBetweenNamespaces(t *testing.T) {
	for _, c := range groups {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			cable(t, nsA, nsB, "other0")
			nsA.ip(t, "addr add 10.8.0.1/24 dev other0", "route add default via 10.8.0.9")
			nsB.ip(t, "addr add 10.8.0.2/24 dev other0", "route add default via 10.8.0.9")
			a, b := nsA.open(t, group(c.group, c.ifaceA)), nsB.open(t, group(c.group, c.ifaceB))
			if a.MTU() != c.mtu || a.Name() != "sync0" {
				t.Errorf("MTU %d of %s", a.MTU(), a.Name())
			}
			full := string(make([]byte, a.MTU()))
			send(t, a, "to all", full)
			got, from := nsB.receive(t, b, 2)
			if got[0] != "to all" || got[1] != full || c.name != "IPv6 site" && from[0] != netip.MustParseAddr(c.from) {
				t.Errorf("b got %q from %v", got[0], from)
			}
			send(t, b, "to all of you")
			// The first and only datagram: a does not hear itself.
			if got, _ := nsA.receive(t, a, 1); !slices.Equal(got, []string{"to all of you"}) {
				t.Errorf("a got %q", got)
			}
			for i, n := range []*namespace{nsA, nsB} {
				joined := ""
				n.do(func() {
					out, err := exec.Command("ip", "maddr", "show", "dev", "other0").CombinedOutput()
					if joined = string(out); err != nil {
						t.Error(err)
					}
				})
				if strings.Contains(joined, c.group) {
					t.Errorf("node %d joined on the other interface: %s", i, joined)
				}
			}
			if s := b.Stats(); s.Refused != 0 || s.SendErrors != 0 || s.RecvErrors != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// What comes through another interface is not ours, nor is what a foreign
// source sends; AcceptFrom lets a source in, and nobody else.
func TestMulticastAcceptance(t *testing.T) {
	nsA, nsB := pair(t)
	cable(t, nsA, nsB, "other0")
	nsA.ip(t, "addr add 10.8.0.1/24 dev other0")
	nsB.ip(t, "addr add 10.8.0.2/24 dev other0", "addr add 203.0.113.9/32 dev sync0", "addr add 10.9.0.3/24 dev sync0")
	other := func(cfg Config) Config {
		cfg.Interface, cfg.MulticastInterface = "other0", netip.MustParseAddr("10.8.0.1")
		return cfg
	}
	from := func(source, device string) (Config, string) {
		cfg := group("225.0.0.50", source)
		cfg.Interface = device
		return cfg, fmt.Sprintf("%s through %s", source, device)
	}
	for _, c := range []struct {
		source, device string
		only           []netip.Prefix
		allowed        string // a source that is let in
		ok             bool
	}{
		{"10.9.0.2", "sync0", nil, "10.9.0.2", true},
		{"10.9.0.3", "sync0", nil, "10.9.0.2", true},
		{"203.0.113.9", "sync0", nil, "10.9.0.2", false},
		{"203.0.113.9", "sync0", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, "203.0.113.9", true},
		{"10.9.0.3", "sync0", []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32")}, "10.9.0.2", false},
		{"10.8.0.2", "other0", nil, "10.9.0.2", false},
	} {
		cfg, name := from(c.source, c.device)
		t.Run(fmt.Sprint(name, c.only), func(t *testing.T) {
			listen := group("225.0.0.50", "10.9.0.1")
			listen.AcceptFrom = c.only
			a := nsA.open(t, listen)
			defer a.Close()
			// Another socket of the machine joins on the other interface.
			also := nsA.open(t, other(listen))
			defer also.Close()
			b := nsB.open(t, cfg)
			defer b.Close()
			send(t, b, "stranger")
			good, _ := from(c.allowed, "sync0")
			end := nsB.open(t, good)
			defer end.Close()
			send(t, end, "end")
			want := []string{"end"}
			if c.ok {
				want = []string{"stranger", "end"}
			}
			if got, _ := nsA.receive(t, a, len(want)); !slices.Equal(got, want) {
				t.Errorf("got %q", got)
			}
			if s := a.Stats(); (s.Refused == 0) != (c.ok || c.device == "other0") {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The group is joined again on an interface that was made anew.
func TestMulticastInterfaceComesBack(t *testing.T) {
	for _, c := range groups {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			a, b := nsA.open(t, group(c.group, c.ifaceA)), nsB.open(t, group(c.group, c.ifaceB))
			comeBack(t, nsA, nsB, a, b, "fd09::1", "fd09::2")
		})
	}
}

// However often it is made anew: memberships of interfaces that are gone count.
func TestMulticastInterfaceComesBackOften(t *testing.T) {
	nsA, nsB := pair(t)
	for _, n := range []*namespace{nsA, nsB} {
		n.do(func() {
			if err := os.WriteFile("/proc/sys/net/ipv4/igmp_max_memberships", []byte("1"), 0); err != nil {
				t.Error(err)
			}
		})
	}
	a, b := nsA.open(t, group("225.0.0.50", "10.9.0.1")), nsB.open(t, group("225.0.0.50", "10.9.0.2"))
	for i := range 3 {
		send(t, a, "before")
		nsB.receiveUntil(t, b, "before")
		nsA.ip(t, "link del sync0", fmt.Sprintf("link add filler%da type veth peer name filler%db", i, i))
		nsB.ip(t, fmt.Sprintf("link add filler%da type veth peer name filler%db", i, i))
		plug(t, nsA, nsB)
		for range 2 { // each notices by sending
			send(t, a, "awake")
			send(t, b, "awake")
		}
		b.(*datagrams).guard.read = time.Time{} // more than a second has passed
	}
}

func TestMulticastOptions(t *testing.T) {
	nsA, _ := pair(t)
	for _, c := range []struct {
		group             string
		level, loop, hops int
	}{
		{"225.0.0.50", unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, unix.IP_MULTICAST_TTL},
		{"ff02::50", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, unix.IPV6_MULTICAST_HOPS},
	} {
		l := nsA.open(t, group(c.group, ""))
		_ = l.(*datagrams).tx.raw.Control(func(fd uintptr) {
			loop, err1 := unix.GetsockoptInt(int(fd), c.level, c.loop)
			ttl, err2 := unix.GetsockoptInt(int(fd), c.level, c.hops)
			if loop != 0 || ttl != 1 || err1 != nil || err2 != nil {
				t.Errorf("%s: loop %d, hops %d, %v, %v", c.group, loop, ttl, err1, err2)
			}
		})
	}
}
