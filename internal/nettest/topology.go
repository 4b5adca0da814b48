package nettest

import (
	"fmt"
	"net/netip"
)

// SyncIf is the interface of the dedicated link between the two firewalls.
const SyncIf = "sy0"

// Addresses of the sync link, first and second firewall.
var (
	SyncA  = netip.MustParseAddr("192.168.100.1")
	SyncB  = netip.MustParseAddr("192.168.100.2")
	SyncA6 = netip.MustParseAddr("fd00:100::1")
	SyncB6 = netip.MustParseAddr("fd00:100::2")
)

// TwoNodes are two namespaces with only the sync link between them.
type TwoNodes struct {
	A, B *Node
}

// NewTwoNodes makes nodes "a" and "b" joined by the sync link.
func (l *Lab) NewTwoNodes() (*TwoNodes, error) {
	a, err := l.NewNode("a")
	if err != nil {
		return nil, err
	}
	b, err := l.NewNode("b")
	if err != nil {
		return nil, err
	}
	return &TwoNodes{a, b}, l.joinSync(a, b)
}

func (l *Lab) joinSync(a, b *Node) error {
	if err := l.Connect(a, SyncIf, b, SyncIf); err != nil {
		return err
	}
	if err := a.AddAddr(SyncIf, SyncA.String()+"/30", SyncA6.String()+"/64"); err != nil {
		return err
	}
	return b.AddAddr(SyncIf, SyncB.String()+"/30", SyncB6.String()+"/64")
}

// SyncConfigs are the daemon configurations of the first and second node over
// the sync link, with UDP over IPv6 if v6.
func SyncConfigs(v6 bool) (a, b Config) {
	a = Config{Local: SyncA, Peer: SyncB, Interface: SyncIf, Port: 3780}
	if v6 {
		a.Local, a.Peer = SyncA6, SyncB6
	}
	b = a
	b.Local, b.Peer = a.Peer, a.Local
	return a, b
}

// Interfaces of a firewall of a Pair, and of its client and server.
const (
	LanIf  = "lan"
	WanIf  = "wan"
	HostIf = "br0"
)

// Addresses of a Pair.
var (
	Client   = netip.MustParseAddr("10.1.0.2")
	Client6  = netip.MustParseAddr("fd01::2")
	Server   = netip.MustParseAddr("10.2.0.2")
	Server6  = netip.MustParseAddr("fd02::2")
	LanVIP   = netip.MustParseAddr("10.1.0.1")
	LanVIP6  = netip.MustParseAddr("fd01::1")
	WanVIP   = netip.MustParseAddr("10.2.0.1")
	WanVIP6  = netip.MustParseAddr("fd02::1")
	lanVIPs  = []string{"10.1.0.1/24", "fd01::1/64"}
	wanVIPs  = []string{"10.2.0.1/24", "fd02::1/64"}
	hostBits = map[string]string{"a": "251", "b": "252"}
)

// Pair is a client, two firewalls and a server; see the package comment for
// the addresses.
type Pair struct {
	TwoNodes
	Client, Server *Node
	holder         *Node // has the virtual addresses
}

// NewPair builds the topology. Nobody holds the virtual addresses yet and no
// nft rules are loaded.
func (l *Lab) NewPair() (*Pair, error) {
	two, err := l.NewTwoNodes()
	if err != nil {
		return nil, err
	}
	p := &Pair{TwoNodes: *two}
	if p.Client, err = l.newHost("client", []string{"10.1.0.2/24", "fd01::2/64"}, LanVIP, LanVIP6); err != nil {
		return nil, err
	}
	if p.Server, err = l.newHost("server", []string{"10.2.0.2/24", "fd02::2/64"}, WanVIP, WanVIP6); err != nil {
		return nil, err
	}
	for _, fw := range []*Node{p.A, p.B} {
		if err := l.plugFirewall(fw, p.Client, LanIf, "10.1.0.", "fd01::"); err != nil {
			return nil, err
		}
		if err := l.plugFirewall(fw, p.Server, WanIf, "10.2.0.", "fd02::"); err != nil {
			return nil, err
		}
		if err := fw.Sysctls([]string{
			"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
			"net.ipv4.conf.all.send_redirects=0", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1",
		}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// newHost makes an end system whose interface is a bridge, so that two
// firewalls can be plugged into it.
func (l *Lab) newHost(name string, prefixes []string, gw, gw6 netip.Addr) (*Node, error) {
	n, err := l.NewNode(name)
	if err != nil {
		return nil, err
	}
	if err := n.IP("link add "+HostIf+" type bridge forward_delay 0 mcast_snooping 0", "link set "+HostIf+" up"); err != nil {
		return nil, err
	}
	if err := n.AddAddr(HostIf, prefixes...); err != nil {
		return nil, err
	}
	return n, n.IP(fmt.Sprintf("route add default via %s", gw), fmt.Sprintf("route add default via %s dev %s", gw6, HostIf))
}

func (l *Lab) plugFirewall(fw, host *Node, ifname, net4, net6 string) error {
	port := "p-" + fw.Name
	if err := l.Connect(fw, ifname, host, port); err != nil {
		return err
	}
	if err := host.IP("link set " + port + " master " + HostIf); err != nil {
		return err
	}
	bits := hostBits[fw.Name]
	return fw.AddAddr(ifname, net4+bits+"/24", net6+bits+"/64")
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
func (p *Pair) MoveVIPs(fw *Node) error {
	if err := p.DropVIPs(); err != nil {
		return err
	}
	if err := fw.AddAddr(LanIf, lanVIPs...); err != nil {
		return err
	}
	if err := fw.AddAddr(WanIf, wanVIPs...); err != nil {
		return err
	}
	p.holder = fw
	return p.forgetNeighbours()
}

// DropVIPs takes the virtual addresses from their holder, if any.
func (p *Pair) DropVIPs() error {
	if p.holder == nil {
		return nil
	}
	if err := p.holder.DelAddr(LanIf, lanVIPs...); err != nil {
		return err
	}
	if err := p.holder.DelAddr(WanIf, wanVIPs...); err != nil {
		return err
	}
	p.holder = nil
	return p.forgetNeighbours()
}

func (p *Pair) forgetNeighbours() error {
	for _, host := range []*Node{p.Client, p.Server} {
		if err := host.IP("neigh flush dev " + HostIf + " nud all"); err != nil {
			return err
		}
	}
	return nil
}
