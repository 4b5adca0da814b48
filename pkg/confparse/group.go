package confparse

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/alecthomas/participle/v2/lexer"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// maxPeers is the number of peers that a node of a group may have.
const maxPeers = 15

// groupState is what Group and Peers say, wherever in the file they are.
type groupState struct {
	on    bool
	pos   lexer.Position // of the last Group
	block lexer.Position // of the first Peers
	peers []groupPeer
}

type groupPeer struct {
	pos  lexer.Position
	addr netip.Addr
}

// addPeer takes what is certainly the address of a node, and nothing else:
// unlike an address of a link it is in no file of conntrackd.
func addPeer(family uint8) func(*builder, value) error {
	return func(b *builder, v value) error {
		addr, err := b.address(v, family)
		switch {
		case err != nil:
			return err
		case addr.Zone() != "":
			return fmt.Errorf("%s has a zone: leave it out, it is the Interface of the link", quote(v.text))
		case addr.Is4In6() || !addr.IsGlobalUnicast() && !addr.IsLinkLocalUnicast() && !addr.IsLoopback():
			return fmt.Errorf("%s is not the IPv%d address of a node", quote(v.text), versions[family])
		}
		b.group.peers = append(b.group.peers, groupPeer{v.pos, addr})
		return nil
	}
}

// aloneWith are the settings that Group does not go with, and why.
var aloneWith = []struct {
	is  func(*Config) bool
	why string
}{
	{func(c *Config) bool { return c.Stats }, "Stats: there is nobody to be in step with"},
	{func(c *Config) bool { return c.Node.Mode == node.ALARM }, "Mode ALARM: only with FTFW it is known what each of the others has"},
	{func(c *Config) bool { return c.Node.Mode == node.NOTRACK }, "Mode NOTRACK: only with FTFW it is known what each of the others has"},
	{overTCP, "TCP: the nodes of a group talk over UDP or Multicast"},
	{func(c *Config) bool { return len(c.Links) > 1 }, "several links: the others know a node by its one address"},
	{func(c *Config) bool { return c.Node.DisableInternalCache }, "DisableInternalCache: each of the others is told from a cache of its own"},
	{func(c *Config) bool { return c.Node.DisableExternalCache }, "DisableExternalCache: whose flows they are must be known until one of the nodes takes over"},
	{func(c *Config) bool { return c.Snapshot.Path != "" }, "Snapshot: the file has room for the flows of one other node"},
}

func overTCP(c *Config) bool { return len(c.Links) > 0 && c.Links[0].Transport == link.TCP }

// finishGroup settles whether the node is one of several, and who the others
// are.
func (b *builder) finishGroup() {
	c, g := b.cfg, &b.group
	if !g.on {
		if g.block.Line > 0 {
			b.refuseStart(g.block, "Peers is for a Group: write Group on, or the one peer as destination of the link")
		}
		return
	}
	c.Node.Group = true
	if b.hold.on {
		b.refuseStart(b.hold.pos, "Group does not go with HoldInjected: that needs DisableExternalCache, which Group does not go with either")
	}
	for _, other := range aloneWith {
		if other.is(c) {
			b.refuseStart(g.pos, "Group does not go with %s", other.why)
		}
	}
	for i := range c.Links {
		l := &c.Links[i]
		l.Group = true
		switch {
		case l.Transport == link.UDP && len(c.Links) == 1:
			b.finishMembers(l)
		case l.Transport == link.Multicast && g.block.Line > 0:
			b.refuseStart(g.block, "Peers does not go with Multicast: there the nodes of a group find each other")
		}
	}
}

// finishMembers lists everybody whom the only link, over UDP, talks to.
func (b *builder) finishMembers(l *link.Config) {
	family := b.link.family
	if family == 0 {
		return // refused for that already
	}
	candidates := slices.Clone(b.group.peers)
	if b.link.peer.addr.IsValid() {
		candidates = slices.Insert(candidates, 0, b.link.peer)
	}
	for _, p := range candidates {
		switch {
		case p.addr.Is4() != (family == flow.IPv4):
			b.refuseStart(p.pos, "peer %s in an IPv%d link: the nodes of a Group have addresses of one family", p.addr, versions[family])
		case p.addr == l.Local:
			b.refuseStart(p.pos, "peer %s is the address of this node: the peers of a Group are the others", p.addr)
		case !slices.Contains(l.Peers, p.addr):
			l.Peers = append(l.Peers, p.addr)
		}
	}
	switch n := len(l.Peers); {
	case n == 0:
		b.refuseStart(b.group.pos, "Group over UDP without any peer: name the other nodes in Peers")
	case n > maxPeers:
		b.refuseStart(b.group.pos, "Group of %d peers, the limit is %d", n, maxPeers)
	}
	if i := b.link.lonely; i > 0 && len(l.Peers) > 0 {
		b.warnings = slices.Delete(b.warnings, i-1, i)
	}
}
