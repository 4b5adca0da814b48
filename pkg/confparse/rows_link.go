package confparse

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/link"
)

// The blocks of the links.
const (
	inMulticast = "Sync/Multicast"
	inUDP       = "Sync/UDP"
	inTCP       = "Sync/TCP"
	inUnicast   = inUDP + ", " + inTCP
	inLinks     = inMulticast + ", " + inUnicast
)

// linkRows are the links in Sync { ... }.
var linkRows = []row{
	{
		in: "Sync", words: "Multicast", arg: block, head: headDefault, set: openLink(link.Multicast), done: closeLink,
		help: "`Multicast [Default] { ... }`: a link to a multicast group. All links of a file are of one kind. Default marks the one to send on first; of several the last counts, without any the first link.",
	},
	{
		in: "Sync", words: "UDP", arg: block, head: headDefault, set: openLink(link.UDP), done: closeLink,
		help: "`UDP [Default] { ... }`: a link to one peer.",
	},
	{
		in: "Sync", words: "TCP", arg: block, head: headDefault, set: openLink(link.TCP), done: closeLink,
		help: "`TCP [Default] { ... }`: a link to one peer over TCP.",
	},
	{
		in: inLinks, words: "IPv4_address", arg: address, set: setAddress(flow.IPv4, localAddr),
		help: "The local address to listen on; for Multicast the group. What is no address is ignored with a warning, and so the link listens on all addresses. The last one wins.",
	},
	{
		in: inLinks, words: "IPv6_address", arg: address, set: setAddress(flow.IPv6, localAddr),
		help: "The same for IPv6. A link has one family, that of its last address. A zone (fe80::1%eth2) must be the Interface.",
	},
	{
		in: inUnicast, words: "IPv4_Destination_Address", arg: address, set: setAddress(flow.IPv4, peerAddr),
		help: "The peer's address.",
	},
	{
		in: inUnicast, words: "IPv6_Destination_Address", arg: address, set: setAddress(flow.IPv6, peerAddr),
		help: "The peer's address.",
	},
	{
		in: inMulticast, words: "IPv4_interface", arg: address, set: setAddress(flow.IPv4, multicastAddr),
		absent: "by route",
		help:   "The local address that selects the interface of an IPv4 group.",
	},
	{
		in: inMulticast, words: "IPv6_interface", arg: address, set: ignored("Interface selects it"),
		help: "Ignored with a warning.",
	},
	{
		in: inLinks, words: "Interface", arg: word,
		set: func(b *builder, v value) error {
			b.lastLink().Interface = v.text
			b.link.device = v.pos
			return nil
		},
		help: "The device of the link. It is needed to start.",
	},
	{
		in: inMulticast, words: "Group", arg: number, set: setPort,
		absent: "0",
		help:   "The UDP port of the group.",
	},
	{
		in: inUnicast, words: "Port", arg: number, set: setPort,
		absent: "0, a random one",
		help:   "The port of both sides. Only the low 16 bits count.",
	},
	{
		in: inLinks, words: "SndSocketBuffer", arg: number,
		set: func(b *builder, v value) error {
			b.lastLink().SendBuffer = v.n
			return nil
		},
		absent: "system default",
		help:   "Send buffer in bytes, past the system limit. 0 means the default.",
	},
	{
		in: inLinks, words: "RcvSocketBuffer", arg: number,
		set: func(b *builder, v value) error {
			b.lastLink().ReceiveBuffer = v.n
			return nil
		},
		absent: "system default",
		help:   "Receive buffer in bytes, past the system limit. 0 means the default.",
	},
	{
		in: inLinks, words: "Checksum", arg: boolean,
		set: func(b *builder, v value) error {
			b.lastLink().NoChecksum = !v.on
			return nil
		},
		absent: "on",
		help:   "UDP checksums. Off, they are not sent over IPv4.",
	},
	{
		in: inTCP, words: "ErrorQueueLength", arg: number,
		set:    setInt(func(c *Config) *int { return &c.ErrorQueueLength }),
		absent: fmt.Sprint(DefaultErrorQueueLength),
		help:   "Undelivered buffers kept, for all links. 0 means the default.",
	},
}

// linkState is what is known of the link being read, beside its Config.
type linkState struct {
	family uint8 // of the last address that could be read
	mixed  bool  // a group of each family
	device lexer.Position
	zones  []value   // addresses with a zone
	peer   groupPeer // the destination, of either family
	lonely int       // of the warnings the one that there is no destination; 0: none
}

// versions are the IP versions of the families.
var versions = map[uint8]int{flow.IPv4: 4, flow.IPv6: 6}

func localAddr(l *link.Config) *netip.Addr     { return &l.Local }
func peerAddr(l *link.Config) *netip.Addr      { return &l.Peer }
func multicastAddr(l *link.Config) *netip.Addr { return &l.MulticastInterface }

func (b *builder) lastLink() *link.Config { return &b.cfg.Links[len(b.cfg.Links)-1] }

func openLink(kind link.Transport) func(*builder, value) error {
	return func(b *builder, v value) error {
		if n := len(b.cfg.Links); n == maxLinks {
			return fmt.Errorf("more than %d links", maxLinks)
		} else if n > 0 && b.cfg.Links[0].Transport != kind {
			return fmt.Errorf("a %s link with a %s link before it: all links must be of one kind", kind, b.cfg.Links[0].Transport)
		}
		if v.head != "" {
			for i := range b.cfg.Links {
				b.cfg.Links[i].Default = false
			}
		}
		b.cfg.Links = append(b.cfg.Links, link.Config{Transport: kind, Default: v.head != ""})
		b.link = linkState{}
		return nil
	}
}

// address converts an address of a family. The zero Addr is none; the caller
// warns and goes on, as conntrackd does. What conntrackd cannot read and a
// person can is either understood or an error, as nobody relies on it.
func (b *builder) address(v value, family uint8) (netip.Addr, error) {
	if !strings.Contains(v.text, ":") {
		if family != flow.IPv4 {
			return netip.Addr{}, nil
		}
		return b.address4(v), nil
	}
	addr, err := netip.ParseAddr(v.text)
	switch {
	case addr.Is4In6() && strings.Contains(v.text, "."):
		return netip.Addr{}, fmt.Errorf("%s is an IPv4 address in IPv6 clothes: write %s with the IPv4 keyword", quote(v.text), addr.Unmap())
	case strings.ContainsAny(v.text, ".%") && (err != nil || family != flow.IPv6):
		return netip.Addr{}, fmt.Errorf("%s is not an IPv%d address", quote(v.text), versions[family])
	case err != nil || family != flow.IPv6:
		return netip.Addr{}, nil
	}
	return addr, nil
}

// address4 converts a dotted quad as of old: a leading 0 means octal.
func (b *builder) address4(v value) netip.Addr {
	var a [4]byte
	octal := false
	parts := strings.Split(v.text, ".")
	if len(parts) != len(a) {
		return netip.Addr{}
	}
	for i, part := range parts {
		base := 10
		if part[:min(1, len(part))] == "0" {
			base = 8
		}
		n, err := strconv.ParseUint(part, base, 8)
		if err != nil {
			return netip.Addr{}
		}
		octal = octal || base == 8 && n > 7
		a[i] = byte(n)
	}
	addr := netip.AddrFrom4(a)
	if octal {
		b.warnf(v.pos, "%s is read as %s: a leading 0 means octal", quote(v.text), addr)
	}
	return addr
}

// setAddress sets an address of the link and, with it, the link's family.
func setAddress(family uint8, field func(*link.Config) *netip.Addr) func(*builder, value) error {
	return func(b *builder, v value) error {
		addr, err := b.address(v, family)
		if err != nil {
			return err
		}
		if !addr.IsValid() {
			b.warnf(v.pos, "%s is not an IPv%d address: %s is left unset", quote(v.text), versions[family], v.key)
			return nil
		}
		l := b.lastLink()
		if l.Transport == link.Multicast && b.link.family != 0 && b.link.family != family {
			b.warnf(v.pos, "%s is ignored: the link is an IPv%d link", v.key, versions[b.link.family])
			b.link.mixed = b.link.mixed || v.key != "IPv4_interface"
			return nil
		}
		if addr.Zone() != "" {
			v.text = addr.Zone()
			b.link.zones = append(b.link.zones, v)
		}
		b.link.family = family
		*field(l) = addr.WithZone("")
		return nil
	}
}

func setPort(b *builder, v value) error {
	l := b.lastLink()
	l.Port = uint16(v.n)
	if int(l.Port) != v.n {
		b.warnf(v.pos, "%s %s is beyond 65535 and is read as %d", v.key, v.text, l.Port)
	}
	return nil
}
