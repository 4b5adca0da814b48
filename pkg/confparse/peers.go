package confparse

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// peerVersion is one PeerVersion.
type peerVersion struct {
	pos     lexer.Position
	addr    netip.Addr // not valid: of every peer
	version wire.Version
}

func setPeerVersion(b *builder, v value) error {
	version, ok := wire.ParseVersion(v.text)
	if !ok {
		return fmt.Errorf("%s is no version that is known: they go from 1.4.2 to 1.4.9", quote(v.text))
	}
	p := peerVersion{pos: v.pos, version: version}
	if v.head != "" {
		var err error
		if p.addr, err = b.eitherAddress(v); err != nil {
			return err
		}
	}
	b.peers = append(b.peers, p)
	return nil
}

// eitherAddress converts the head, an address of either family.
func (b *builder) eitherAddress(v value) (netip.Addr, error) {
	family := flow.IPv4
	if strings.Contains(v.head, ":") {
		family = flow.IPv6
	}
	addr, err := b.address(value{pos: v.pos, text: v.head}, family)
	if err == nil && (!addr.IsValid() || strings.Contains(v.head, "/")) {
		err = fmt.Errorf("%s is not an address", quote(v.head))
	}
	return addr.WithZone(""), err
}

// finishPeers chooses the version that suits every peer: messages are made
// once for all of them. Of several words about one peer the last counts.
func (b *builder) finishPeers() {
	var everybody wire.Version
	of := map[netip.Addr]wire.Version{}
	for _, p := range b.peers {
		if !p.addr.IsValid() {
			everybody = p.version
			continue
		}
		of[p.addr] = p.version
		if !slices.ContainsFunc(b.cfg.Links, func(l link.Config) bool { return slices.Contains(destinations(&l), p.addr) }) {
			b.advisef(p.pos, "PeerVersion of %s is not used: it is the destination of no link", p.addr)
		}
	}
	oldest := &b.cfg.Node.PeerVersion
	for i := range b.cfg.Links {
		for _, addr := range destinations(&b.cfg.Links[i]) {
			version, ok := of[addr]
			if !ok {
				version = everybody
			}
			*oldest = max(*oldest, version)
		}
	}
}

// destinations are whom a link sends to, an invalid address being whoever
// listens.
func destinations(l *link.Config) []netip.Addr {
	if len(l.Peers) > 0 {
		return l.Peers
	}
	return []netip.Addr{l.Peer}
}
