package failover

import "github.com/conntrackgo/conntrackgo/internal/nettest"

// Ports of the rig: the servers listen on servicePort, firewalls publish it
// as publishedPort of their virtual addresses.
const (
	servicePort   = 7000
	publishedPort = 8000
)

// rules is the ruleset of both firewalls. Everything not named is dropped.
//
// Some lines are there for the moment when a new master has the addresses and
// not yet the connections:
//
//   - invalid packets are dropped on input too, or the new master answers the
//     packets of translated connections with resets;
//   - new UDP from the WAN is dropped on input, and a published UDP server
//     can't begin a flow, or a packet makes an entry of its own, with another
//     translation, before the commit brings the right one.
//
// Sync link and VRRP are not tracked.
const rules = `
flush ruleset
table inet fw {
	chain raw_in {
		type filter hook prerouting priority raw; policy accept;
		iifname "sy0" notrack
		meta l4proto { vrrp, igmp } notrack
	}
	chain raw_out {
		type filter hook output priority raw; policy accept;
		oifname "sy0" notrack
		meta l4proto { vrrp, igmp } notrack
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "lo", "sy0" } accept
		meta l4proto vrrp accept
		ct state invalid drop
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		iifname "lan" udp sport 7000 drop
		iifname "lan" ct state new accept
		iifname "wan" ct state new ct status dnat th dport 7000 accept
	}
	chain dstnat {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 10.1.0.1 meta l4proto { tcp, udp } th dport 8000 dnat ip to 10.2.0.2:7000
		ip6 daddr fd01::1 meta l4proto { tcp, udp } th dport 8000 dnat ip6 to [fd02::2]:7000
		ip daddr 10.2.0.1 meta l4proto { tcp, udp } th dport 8000 dnat ip to 10.1.0.2:7000
		ip6 daddr fd02::1 meta l4proto { tcp, udp } th dport 8000 dnat ip6 to [fd01::2]:7000
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" meta nfproto ipv4 snat ip to 10.2.0.1
		oifname "wan" meta nfproto ipv6 snat ip6 to fd02::1
	}
}`

// class is a way through the firewalls. The three kinds of address are what
// the side that connects asks for.
type class struct {
	name     string
	outside  bool // the server's side connects, to the published port
	to4, to6 string
}

// classes are the kinds of connections, in the order they are dealt out. The
// first ones begin inside.
const inside = 2

var classes = []class{
	{name: "snat", to4: target(nettest.Server.String(), servicePort), to6: target(nettest.Server6.String(), servicePort)},
	{name: "dnat+snat", to4: target(nettest.LanVIP.String(), publishedPort), to6: target(nettest.LanVIP6.String(), publishedPort)},
	{name: "published", outside: true, to4: target(nettest.WanVIP.String(), publishedPort), to6: target(nettest.WanVIP6.String(), publishedPort)},
}
