package nettest

import (
	"fmt"
	"net/netip"
)

// Interfaces of a firewall of a Pair, and of its client and server.
const (
	LanIf  = "lan"
	WanIf  = "wan"
	HostIf = "br0"
)

// Addresses of a Pair.
var (
	Client  = netip.MustParseAddr("10.1.0.2")
	Client6 = netip.MustParseAddr("fd01::2")
	Server  = netip.MustParseAddr("10.2.0.2")
	Server6 = netip.MustParseAddr("fd02::2")
	LanVIP  = netip.MustParseAddr("10.1.0.1")
	LanVIP6 = netip.MustParseAddr("fd01::1")
	WanVIP  = netip.MustParseAddr("10.2.0.1")
	WanVIP6 = netip.MustParseAddr("fd02::1")
	lanVIPs = []string{"10.1.0.1/24", "fd01::1/64"}
	wanVIPs = []string{"10.2.0.1/24", "fd02::1/64"}
)

// Site is a client and a server with firewalls between them, and the virtual
// addresses that one of the firewalls holds; see the package comment.
type Site struct {
	Client, Server *Node
	holder         *Node // has the virtual addresses
}

// Pair is a site with two firewalls.
type Pair struct {
	TwoNodes
	*Site
}

// NewPair builds the topology. Nobody holds the virtual addresses yet and no
// nft rules are loaded.
func (l *Lab) NewPair() (*Pair, error) {
	two, err := l.NewTwoNodes()
	if err != nil {
		return nil, err
	}
	site, err := l.newSite(two.A, two.B)
	if err != nil {
		return nil, err
	}
	return &Pair{*two, site}, nil
}

// newSite puts firewalls between a client and a server. Their host bits are
// 251 and on.
func (l *Lab) newSite(firewalls ...*Node) (*Site, error) {
	s := &Site{}
	var err error
	if s.Client, err = l.newHost("client", []string{"10.1.0.2/24", "fd01::2/64"}, LanVIP, LanVIP6); err != nil {
		return nil, err
	}
	if s.Server, err = l.newHost("server", []string{"10.2.0.2/24", "fd02::2/64"}, WanVIP, WanVIP6); err != nil {
		return nil, err
	}
	for i, fw := range firewalls {
		host := fmt.Sprint(251 + i)
		if err := l.plugFirewall(fw, LanIf, s.Client, "10.1.0."+host+"/24", "fd01::"+host+"/64"); err != nil {
			return nil, err
		}
		if err := l.plugFirewall(fw, WanIf, s.Server, "10.2.0."+host+"/24", "fd02::"+host+"/64"); err != nil {
			return nil, err
		}
		if err := fw.Sysctls(firewallSysctls); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var firewallSysctls = []string{
	"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
	"net.ipv4.conf.all.send_redirects=0", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1",
}

// newHost makes an end system whose interface is a bridge, so that two
// firewalls can be plugged into it.
func (l *Lab) newHost(name string, prefixes []string, gw, gw6 netip.Addr) (*Node, error) {
	n, err := l.NewNode(name)
	if err != nil {
		return nil, err
	}
	if err := n.addBridge(); err != nil {
		return nil, err
	}
	if err := n.AddAddr(HostIf, prefixes...); err != nil {
		return nil, err
	}
	return n, n.IP(fmt.Sprintf("route add default via %s", gw), fmt.Sprintf("route add default via %s dev %s", gw6, HostIf))
}

// addBridge makes the bridge HostIf, which floods multicasts.
func (n *Node) addBridge() error {
	return n.IP("link add "+HostIf+" type bridge forward_delay 0 mcast_snooping 0", "link set "+HostIf+" up")
}

// port is the interface of a bridge that a node is plugged into.
func port(n *Node) string { return "p-" + n.Name }

// plug connects an interface of a node to the bridge of another.
func (l *Lab) plug(n *Node, ifname string, bridge *Node) error {
	if err := l.Connect(n, ifname, bridge, port(n)); err != nil {
		return err
	}
	return bridge.IP("link set " + port(n) + " master " + HostIf)
}

func (l *Lab) plugFirewall(fw *Node, ifname string, host *Node, prefixes ...string) error {
	if err := l.plug(fw, ifname, host); err != nil {
		return err
	}
	return fw.AddAddr(ifname, prefixes...)
}

// Configs are the daemon configurations of the two firewalls: the sync link as
// in SyncConfigs, and a filter that leaves the firewalls' own traffic alone.
func (p *Pair) Configs(v6 bool) (a, b Config) {
	a, b = SyncConfigs(v6)
	ignore := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), SyncA, SyncB, SyncA6, SyncB6}
	a.IgnoreAddresses, b.IgnoreAddresses = ignore, ignore
	return a, b
}

// MoveVIPs takes the virtual addresses from their holder, if any, and gives
// them to fw as a failover would: the end systems forget the old neighbour.
func (s *Site) MoveVIPs(fw *Node) error {
	if err := s.DropVIPs(); err != nil {
		return err
	}
	if err := fw.AddAddr(LanIf, lanVIPs...); err != nil {
		return err
	}
	if err := fw.AddAddr(WanIf, wanVIPs...); err != nil {
		return err
	}
	s.holder = fw
	return s.forgetNeighbours()
}

// DropVIPs takes the virtual addresses from their holder, if any.
func (s *Site) DropVIPs() error {
	if s.holder == nil {
		return nil
	}
	if err := s.holder.DelAddr(LanIf, lanVIPs...); err != nil {
		return err
	}
	if err := s.holder.DelAddr(WanIf, wanVIPs...); err != nil {
		return err
	}
	s.holder = nil
	return s.forgetNeighbours()
}

func (s *Site) forgetNeighbours() error {
	for _, host := range []*Node{s.Client, s.Server} {
		if err := host.IP("neigh flush dev " + HostIf + " nud all"); err != nil {
			return err
		}
	}
	return nil
}
