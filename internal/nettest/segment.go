package nettest

import "net/netip"

// Segment is firewalls whose sync interfaces meet in a switch, for more nodes
// than a cable joins. Node i is called "a", "b", ... and has SyncAddr(i, ...).
type Segment struct {
	Switch *Node
	Nodes  []*Node
}

// SyncAddr is the address of node i on the sync link, from 0.
func SyncAddr(i int, v6 bool) netip.Addr {
	a := SyncA
	if v6 {
		a = SyncA6
	}
	for range i {
		a = a.Next()
	}
	return a
}

// NewSegment makes n nodes on one segment.
func (l *Lab) NewSegment(n int) (*Segment, error) {
	hub, err := l.NewNode("switch")
	if err != nil {
		return nil, err
	}
	s := &Segment{Switch: hub}
	if err := hub.addBridge(); err != nil {
		return nil, err
	}
	for i := range n {
		node, err := l.NewNode(string(rune('a' + i)))
		if err != nil {
			return nil, err
		}
		s.Nodes = append(s.Nodes, node)
		if err := l.plug(node, SyncIf, hub); err != nil {
			return nil, err
		}
		if err := node.AddAddr(SyncIf, SyncAddr(i, false).String()+"/24", SyncAddr(i, true).String()+"/64"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// SetCarrier pulls a node's cable out of the switch, or puts it back. The node
// notices.
func (s *Segment) SetCarrier(n *Node, on bool) error {
	state := "down"
	if on {
		state = "up"
	}
	return s.Switch.IP("link set " + port(n) + " " + state)
}

// SetJoined takes a node's port out of the switch, or puts it back. The node
// hears nothing, and nobody hears it, but its cable has a carrier.
func (s *Segment) SetJoined(n *Node, on bool) error {
	master := "nomaster"
	if on {
		master = "master " + HostIf
	}
	return s.Switch.IP("link set " + port(n) + " " + master)
}

// Configs are the daemon configurations of the nodes, which are one group if
// group. Over UDP each is told of all the others: of the first as destination,
// of the rest as Peers.
func (s *Segment) Configs(transport string, v6, group bool) []Config {
	all := make([]Config, len(s.Nodes))
	for i := range all {
		c := Config{Transport: transport, Local: SyncAddr(i, v6), Interface: SyncIf, Port: 3780}
		if group {
			c.Ours = []string{"Group on"}
		}
		peers := ""
		for j := range s.Nodes {
			switch addr := SyncAddr(j, v6); {
			case i == j:
			case !c.Peer.IsValid():
				c.Peer = addr
			default:
				peers += " " + family(addr) + "_address " + addr.String()
			}
		}
		if group && transport == "UDP" && peers != "" {
			c.Ours = append(c.Ours, "Peers {"+peers+" }")
		}
		all[i] = c
	}
	return all
}

// Cluster is a site whose firewalls are on one segment.
type Cluster struct {
	Segment
	*Site
}

// NewCluster builds a site with n firewalls. Nobody holds the virtual
// addresses yet and no nft rules are loaded.
func (l *Lab) NewCluster(n int) (*Cluster, error) {
	s, err := l.NewSegment(n)
	if err != nil {
		return nil, err
	}
	site, err := l.newSite(s.Nodes...)
	if err != nil {
		return nil, err
	}
	return &Cluster{*s, site}, nil
}

// Configs are those of the segment, with a filter that leaves the firewalls'
// own traffic alone.
func (c *Cluster) Configs(transport string, v6, group bool) []Config {
	ignore := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	for i := range c.Nodes {
		ignore = append(ignore, SyncAddr(i, false), SyncAddr(i, true))
	}
	all := c.Segment.Configs(transport, v6, group)
	for i := range all {
		all[i].IgnoreAddresses = ignore
	}
	return all
}
