package link

import "net/netip"

// Transport is how datagrams travel to the peer.
type Transport uint8

// The transports of conntrackd.conf.
const (
	UDP Transport = iota + 1
	Multicast
	TCP
)

// String returns the keyword of the configuration.
func (t Transport) String() string {
	switch t {
	case UDP:
		return "UDP"
	case Multicast:
		return "Multicast"
	case TCP:
		return "TCP"
	}
	return "unknown"
}

// Config is one link: a UDP, Multicast or TCP block of conntrackd.conf.
type Config struct {
	Transport Transport
	// Default marks the link to send on first.
	Default bool
	// Interface is the device of the link. It must exist when the link is
	// opened (but see SetConfig.Wait); its MTU bounds a datagram.
	Interface string
	// Local is the address to listen on and to send from (IPv4_address,
	// IPv6_address); for Multicast it is the group. Invalid: the wildcard of
	// the family of Peer.
	Local netip.Addr
	// Peer is where datagrams go (IPv4_Destination_Address,
	// IPv6_Destination_Address). Unused for Multicast.
	Peer netip.Addr
	// MulticastInterface is IPv4_interface, the local address that selects
	// the interface of an IPv4 group.
	MulticastInterface netip.Addr
	// Group opens a Group: every peer is spoken to alone. Not for TCP.
	Group bool
	// Peers are those of a Group over UDP, Peer included.
	Peers []netip.Addr
	// Port is the UDP or TCP port of both sides (Port, Group). Zero: any.
	Port uint16
	// SendBuffer and ReceiveBuffer are socket buffer sizes in bytes, forced
	// past the system limit. Zero: the system default.
	SendBuffer, ReceiveBuffer int
	// AcceptFrom are the sources to accept, beside Peer. Empty: the networks
	// of Interface.
	AcceptFrom []netip.Prefix
	// ErrorQueue is how many datagrams TCP keeps while they cannot be sent;
	// when there are more the oldest is lost. Zero: none is kept.
	ErrorQueue int
	// NoChecksum sends UDP over IPv4 without checksum (Checksum off).
	NoChecksum bool
}
