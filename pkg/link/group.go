package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Group is a link to several peers, of which each is spoken to alone. Over
// Multicast they share a group beside, to find each other (docs/protocol.md
// 7.3). One socket sends to all of them. It is not connected to any, so what
// comes back from one that is down concerns nobody else.
type Group struct {
	*datagrams
	peers []netip.Addr // over UDP; over Multicast datagrams.peer is the group
	port  uint16

	// Owned by Send and SendTo.
	to    netip.Addr
	name  unix.RawSockaddrInet6 // of to; large enough for IPv4 too
	check sourceCheck
}

// While a neighbour does not answer, the kernel keeps up to heldBack bytes for
// it (unres_qlen_bytes) and charges them to our send buffer. So many neighbours
// may do so at once before the others are held up too.
const (
	heldBack = 212992
	silent   = 16
)

// openGroup opens a link to several peers, or to everybody in a group.
func openGroup(cfg Config) (Link, error) {
	g := &Group{port: cfg.Port}
	var err error
	switch cfg.Transport {
	case UDP:
		err = g.openUnicast(cfg)
	case Multicast:
		err = g.wrap(openMulticast(cfg))
	default:
		err = fmt.Errorf("no group over %s", cfg.Transport)
	}
	if err != nil {
		return nil, err
	}
	g.out.address(&g.name)
	g.sendFn = g.sendSome
	if err = g.makeRoom(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// openUnicast opens a link to the peers that are configured. Nobody else is
// let in but AcceptFrom.
func (g *Group) openUnicast(cfg Config) (err error) {
	only := slices.Clone(cfg.AcceptFrom)
	for _, peer := range cfg.Peers {
		cfg.Peer = peer
		if cfg.Local, peer, err = endpoints(&cfg); err != nil {
			return err
		}
		g.peers = append(g.peers, peer)
		only = append(only, netip.PrefixFrom(peer, peer.BitLen()))
	}
	if err = g.wrap(openUDP(cfg)); err != nil {
		return err
	}
	g.peer = netip.AddrPort{}
	g.guard = newGuard(g.device, g.index, netip.Addr{}, only)
	g.guard.only = true // though the list be empty
	return nil
}

func (g *Group) wrap(l Link, err error) error {
	if err == nil {
		g.datagrams = l.(*datagrams)
	}
	return err
}

// makeRoom enlarges the send buffer by what silent neighbours take.
func (g *Group) makeRoom() (err error) {
	size := g.tx.buffer(unix.SO_SNDBUF) + max(silent, len(g.peers))*heldBack/2
	closed := g.tx.raw.Control(func(uintptr) {
		err = g.tx.force(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, size)
	})
	if err = errors.Join(err, closed); err != nil {
		return fmt.Errorf("make room for silent peers: %w", err)
	}
	return nil
}

// SendTo sends as Send does, to one peer. The invalid address is the multicast
// group.
func (g *Group) SendTo(to netip.Addr, batch [][]byte) (sent int, err error) {
	if !to.IsValid() {
		to = g.peer.Addr()
	}
	if !to.IsValid() {
		g.count.refuse(len(batch), unix.EDESTADDRREQ)
		return len(batch), nil
	}
	g.to = to.Unmap().WithZone("")
	return g.datagrams.Send(batch)
}

// Send sends to the multicast group, or to one peer after the other. If the
// socket is full in between, what the first ones got already will come to them
// twice, which does no harm.
func (g *Group) Send(batch [][]byte) (sent int, err error) {
	if len(g.peers) == 0 {
		return g.SendTo(netip.Addr{}, batch)
	}
	sent = len(batch)
	for _, to := range g.peers {
		if sent, err = g.SendTo(to, batch[:sent]); err != nil {
			break
		}
	}
	return sent, err
}

func (g *Group) sendSome(fd uintptr) {
	if !g.connected {
		g.aim(int(fd))
	}
	g.setName()
	g.datagrams.sendSome(fd)
}

// aim connects to the multicast group, if there is one. Datagrams go where their
// name says all the same, but all of them from one address: to the peers we are
// the source that the group heard.
func (g *Group) aim(fd int) {
	switch {
	case !g.peer.IsValid():
		g.follow(fd)
		g.connected = true
	case g.connect(fd) == 0:
		g.check.set(fd, g.index)
	}
}

// setName makes the kernel's address of to.
func (g *Group) setName() {
	first := &g.out.msgs[0]
	first.SetControllen(0)
	if g.to.Is4() {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&g.name))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(g.port), Addr: g.to.As4()}
		return
	}
	g.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(g.port), Addr: g.to.As16()}
	if scoped(g.to) {
		g.name.Scope_id = uint32(g.index)
	}
	if g.to == g.peer.Addr() {
		first.Control = (*byte)(unsafe.Pointer(&g.check))
		first.SetControllen(g.check.size)
	}
}

func networkOrder(port uint16) (n uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&n))[:], port)
	return n
}

// A sourceCheck names the source once more beside a datagram to an IPv6 group,
// for the kernel to refuse it when the address is no longer ours: other than
// for IPv4 it does not look. Then we connect anew, with another one.
type sourceCheck struct {
	head unix.Cmsghdr
	info unix.Inet6Pktinfo
	_    [4]byte
	size int
}

// set takes the source that the kernel chose when it connected.
func (c *sourceCheck) set(fd, index int) {
	c.size = 0
	local, err := unix.Getsockname(fd)
	if v6, ok := local.(*unix.SockaddrInet6); ok && err == nil {
		c.head = unix.Cmsghdr{Level: unix.IPPROTO_IPV6, Type: unix.IPV6_PKTINFO}
		c.head.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		c.info = unix.Inet6Pktinfo{Addr: v6.Addr, Ifindex: uint32(index)}
		c.size = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
}
