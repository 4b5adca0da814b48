package itest_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// rules is the ruleset of both firewalls: default drop; connections may begin
// in the LAN only. By the port the client asks for, a connection is translated
// in one of these ways:
//
//	server:7000   SNAT of the address
//	server:7001   not at all
//	server:7002   SNAT of address and port
//	VIP:8000      DNAT to server:7000, SNAT of the address
//	VIP:8001      DNAT to server:7001
//	VIP:8002      DNAT to server:7002, SNAT of address and port
//
// Sync traffic is not tracked. Invalid packets are dropped on input too,
// otherwise a new master would reset connections in the moment between taking
// the address and the end of the commit.
const rules = `
flush ruleset
table inet fw {
	chain raw_in {
		type filter hook prerouting priority raw; policy accept;
		iifname { "sy0", "sy1" } notrack
	}
	chain raw_out {
		type filter hook output priority raw; policy accept;
		oifname { "sy0", "sy1" } notrack
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "lo", "sy0", "sy1" } accept
		ct state invalid drop
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" ct state new accept
	}
	chain dstnat {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 10.1.0.1 meta l4proto { tcp, udp, sctp } dnat ip to 10.2.0.2 : th dport map { 8000 : 7000, 8001 : 7001, 8002 : 7002 }
		ip6 daddr fd01::1 meta l4proto { tcp, udp, sctp } dnat ip6 to fd02::2 : th dport map { 8000 : 7000, 8001 : 7001, 8002 : 7002 }
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "wan" accept
		meta l4proto { tcp, udp } th dport 7001 accept
		meta nfproto ipv4 meta l4proto { tcp, udp } th dport 7002 snat ip to 10.2.0.1:50000-50100
		meta nfproto ipv6 meta l4proto { tcp, udp } th dport 7002 snat ip6 to [fd02::1]:50000-50100
		meta nfproto ipv4 snat ip to 10.2.0.1
		meta nfproto ipv6 snat ip6 to fd02::1
	}
}`

// newFirewallRig makes a rig with the rules loaded, the addresses on A and both
// daemons running. The server echoes.
func newFirewallRig(t *testing.T, p pairing, change func(a, b *nettest.Config)) *rig {
	t.Helper()
	r := newPairRig(t, p, change)
	r.ok(r.two.A.NFT(rules))
	r.ok(r.two.B.NFT(rules))
	for port := 7000; port <= 7002; port++ {
		r.ok(r.pair.Server.ServeEcho(port))
		r.ok(r.pair.Server.ServeSCTP(uint16(port)))
	}
	r.ok(r.pair.MoveVIPs(r.two.A))
	return r.start()
}

// connect opens one TCP connection and one UDP flow of every kind of rules
// and tries each.
func (r *rig) connect() []*nettest.Conn {
	r.Helper()
	var conns []*nettest.Conn
	for _, network := range []string{"tcp", "udp"} {
		for _, to := range []struct {
			server, vip netip.Addr
		}{{nettest.Server, nettest.LanVIP}, {nettest.Server6, nettest.LanVIP6}} {
			for kind := range 3 {
				for _, addr := range []string{
					net.JoinHostPort(to.server.String(), fmt.Sprint(7000+kind)),
					net.JoinHostPort(to.vip.String(), fmt.Sprint(8000+kind)),
				} {
					c, err := r.pair.Client.Dial(network, addr, 5*time.Second)
					r.ok(err)
					conns = append(conns, c)
				}
			}
		}
	}
	r.roundTrips(conns, "at first")
	return conns
}

// roundTrips carries data over every connection.
func (r *rig) roundTrips(conns []*nettest.Conn, when string) {
	r.Helper()
	for _, c := range conns {
		if err := c.RoundTrip(convergence); err != nil {
			r.Errorf("%s: %v", when, err)
		}
	}
	for _, addr := range []netip.Addr{nettest.Server, nettest.Server6} {
		if err := r.pair.Client.Ping(addr.String(), 4711); err != nil {
			r.Errorf("%s: %v", when, err)
		}
	}
}

// primary does what primary-backup.sh does on the new master, backup on the
// other.
func (r *rig) primary(d *nettest.Daemon) {
	r.Helper()
	r.requests(d, "-c", "-f", "-R", "-B")
}

func (r *rig) requests(d *nettest.Daemon, requests ...string) {
	r.Helper()
	for _, request := range requests {
		r.request(d, request)
	}
}

func (r *rig) backup(d *nettest.Daemon) {
	r.Helper()
	r.requests(d, "-s", "-t", "-n")
}

// TestPackets opens connections through A with every kind of translation,
// moves the addresses to B and back, and carries on with the same connections.
// Without the commit they must be dead, which shows that the commit does it.
func TestPackets(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newFirewallRig(t, p, nil)

		conns := r.connect()
		flows := len(conns) + 2 // two pings
		r.trackedOnly(r.a, flows)
		r.allAtB(flows)

		r.ok(r.pair.MoveVIPs(r.two.B))
		if err := conns[1].RoundTrip(500 * time.Millisecond); err == nil {
			t.Error("a connection flows through the standby before the commit: the test shows nothing")
		}
		r.request(r.b, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 15, Committer: p.b})
		if p.b == nettest.C {
			// Its second commit deletes and creates every entry; the
			// connection tried above has packets under way and may end.
			r.requests(r.b, "-f", "-R", "-B")
		} else {
			r.primary(r.b)
		}
		r.backup(r.a)
		r.roundTrips(conns, "on the standby")
		r.trackedOnly(r.b, flows)
		r.cachesAgree(r.b, r.a, flows)

		// Back again: A still has all entries, from before.
		r.ok(r.pair.MoveVIPs(r.two.A))
		r.primary(r.a)
		r.backup(r.b)
		r.roundTrips(conns, "back again")
		r.trackedOnly(r.a, flows)
		r.cachesAgree(r.a, r.b, flows)

		// The end of a connection reaches the standby too.
		for _, c := range conns {
			_ = c.Close()
		}
		r.eventually("the ends of the connections", func() error {
			external, err := r.b.External(r.Context())
			if err != nil {
				return err
			}
			open := external.Only(func(e *nettest.Entry) bool { return e.State == "ESTABLISHED" })
			if len(open) > 0 {
				return fmt.Errorf("%d connections are still open on the standby", len(open))
			}
			return nil
		})
	})
}

// TestPacketsSCTP does the same with SCTP associations, one with its address
// translated and one with ports too. The C daemon does not recreate the
// translation of SCTP ports, so that one is only tried where ours commits.
func TestPacketsSCTP(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newFirewallRig(t, p, nil)
		targets := []netip.AddrPort{netip.AddrPortFrom(nettest.Server, 7000), netip.AddrPortFrom(nettest.Server6, 7000)}
		if p.b == nettest.Go {
			targets = append(targets, netip.AddrPortFrom(nettest.LanVIP, 8000), netip.AddrPortFrom(nettest.LanVIP6, 8000))
		}
		var conns []*nettest.SCTPConn
		for i, to := range targets {
			c, err := r.pair.Client.DialSCTP(uint16(3000+i), to, 5*time.Second)
			r.ok(err)
			conns = append(conns, c)
		}
		r.trackedOnly(r.a, len(conns))
		r.allAtB(len(conns))
		if n := len(r.kernel(r.two.A).Only(func(e *nettest.Entry) bool { return e.State == "ESTABLISHED" })); n != len(conns) {
			t.Fatalf("%d of %d associations are established", n, len(conns))
		}

		r.ok(r.pair.MoveVIPs(r.two.B))
		r.request(r.b, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 5, Committer: p.b})
		for _, c := range conns {
			if p.b == nettest.C {
				// Its commit spoils a tag, see KernelDiff.
				t.Logf("committed by the C daemon: %v", c.RoundTrip(3*time.Second))
			} else if err := c.RoundTrip(convergence); err != nil {
				t.Error(err)
			}
		}
		r.trackedOnly(r.b, len(conns))
	})
}

// TestPacketsWindowTracking carries TCP connections over with
// TCPWindowTracking. Our commit sets their window scales; the kernel ignores
// the C daemon's, so there only the packets are held to flow.
func TestPacketsWindowTracking(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newFirewallRig(t, p, func(a, b *nettest.Config) { a.TCPWindowTracking, b.TCPWindowTracking = true, true })
		var conns []*nettest.Conn
		for _, to := range []string{"10.2.0.2:7000", "10.1.0.1:8002", "[fd02::2]:7000", "[fd01::1]:8002"} {
			c, err := r.pair.Client.Dial("tcp", to, 5*time.Second)
			r.ok(err)
			r.ok(c.RoundTrip(5 * time.Second))
			conns = append(conns, c)
		}
		r.allAtB(len(conns))
		for _, e := range r.kernel(r.two.A) {
			if e.Raw.WScale[0] == 0 || e.Raw.WScale[1] == 0 {
				t.Fatalf("%v has no window scales: the test shows nothing", e.Key)
			}
		}
		r.ok(r.pair.MoveVIPs(r.two.B))
		r.request(r.b, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 5, Windows: p.b == nettest.Go, Committer: p.b})
		for _, c := range conns {
			if err := c.RoundTrip(convergence); err != nil {
				t.Error(err)
			}
		}
	})
}

// allAtB waits until B knows what A's kernel has, of which the caches may lack
// the last events and agree all the same.
func (r *rig) allAtB(flows int) {
	r.Helper()
	r.internalEqualsKernel(r.a)
	r.cachesAgree(r.a, r.b, flows)
}

// trackedOnly waits until the kernel of an active node has exactly the flows
// of the test. A surplus would be a translated flow that got a second entry.
func (r *rig) trackedOnly(d *nettest.Daemon, want int) {
	r.Helper()
	r.eventually("the flows of the test in the kernel", func() error {
		kernel, err := d.Node.Kernel()
		if err != nil {
			return err
		}
		if len(kernel) != want {
			return fmt.Errorf("%d entries, want %d: %v", len(kernel), want, kernel)
		}
		return nil
	})
}
