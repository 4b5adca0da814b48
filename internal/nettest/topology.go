package nettest

import "net/netip"

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
