package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// hops is how far a datagram to a group may go: no router passes it on.
const hops = 1

// openMulticast opens a link to a group: what is sent reaches everybody who
// joined it on this network, ourselves excepted (docs/protocol.md 7).
func openMulticast(cfg Config) (Link, error) {
	group := cfg.Local.Unmap().WithZone("")
	if !group.IsMulticast() {
		return nil, fmt.Errorf("%s is no multicast address", group)
	}
	dev, err := lookupDevice(cfg.Interface)
	if err != nil {
		return nil, err
	}
	via, err := groupDevice(&cfg, group)
	if err != nil {
		return nil, err
	}
	l := newDatagrams(&cfg, via.Name, via.Index, payload(dev.mtu, group))
	l.guard = newGuard(via.Name, via.Index, netip.Addr{}, cfg.AcceptFrom)
	l.guard.refresh()
	l.peer = netip.AddrPortFrom(group, cfg.Port)
	bind := l.peer
	m := membership{group: group, source: cfg.MulticastInterface}
	receiving := m.receiving()
	if cfg.Group { // receives what is sent to us alone, too
		bind = netip.AddrPortFrom(wildcard(group), cfg.Port)
	} else {
		receiving = append(receiving, shared...)
	}
	l.tied = scoped(bind.Addr())
	if l.rx, err = receiver(&cfg, bind, l.index, receiving...); err != nil {
		return nil, err
	}
	if l.tx, err = sender(&cfg, wildcard(group), l.index, m.sending()...); err == nil {
		if err = errors.Join(m.join(l.rx, l.index), m.leaveBy(l.tx, l.index)); err == nil {
			l.moved = func(index int) { _, _ = m.join(l.rx, index), m.leaveBy(l.tx, index) }
			return l, nil
		}
		l.tx.close()
	}
	l.rx.close()
	return nil, err
}

func wildcard(like netip.Addr) netip.Addr {
	if like.Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// groupDevice returns the interface to join on: the one that has the address
// IPv4_interface, as in the C daemon, which normally is the link's own.
func groupDevice(cfg *Config, group netip.Addr) (*net.Interface, error) {
	own, err := net.InterfaceByName(cfg.Interface)
	if err != nil || group.Is6() || !cfg.MulticastInterface.IsValid() || hasAddress(own, cfg.MulticastInterface) {
		return own, err
	}
	all, err := net.Interfaces()
	for i := range all {
		if hasAddress(&all[i], cfg.MulticastInterface) {
			return &all[i], nil
		}
	}
	return nil, errors.Join(missing{fmt.Errorf("no interface has the address %s of IPv4_interface", cfg.MulticastInterface)}, err)
}

func hasAddress(i *net.Interface, a netip.Addr) bool {
	addrs, _ := i.Addrs()
	for _, x := range addrs {
		if n, ok := x.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
			return true
		}
	}
	return false
}

// membership is how sockets take part in a group.
type membership struct {
	group  netip.Addr
	source netip.Addr // of what is sent; not valid: any of the interface
	joined int        // the interface; 0 before
}

// receiving keeps out the groups that other processes of the machine joined.
func (m *membership) receiving() []option {
	if m.group.Is6() {
		return []option{{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0, "take joined groups only"}}
	}
	return []option{{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0, "take joined groups only"}}
}

func (m *membership) sending() []option {
	if m.group.Is6() {
		return []option{
			{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0, "turn multicast loop off"},
			{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hops, "set hop limit"},
		}
	}
	return []option{
		{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0, "turn multicast loop off"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, hops, "set TTL"},
	}
}

// join joins on an interface. It leaves the one before though that is gone: a
// socket may have so many memberships and no more.
func (m *membership) join(s *socket, index int) (err error) {
	closed := s.raw.Control(func(fd uintptr) {
		if m.joined != 0 {
			_ = m.change(int(fd), unix.IP_DROP_MEMBERSHIP, unix.IPV6_LEAVE_GROUP, m.joined)
		}
		m.joined = index
		err = m.change(int(fd), unix.IP_ADD_MEMBERSHIP, unix.IPV6_JOIN_GROUP, index)
	})
	if err = errors.Join(err, closed); err != nil {
		return fmt.Errorf("join group %s: %w", m.group, err)
	}
	return nil
}

func (m *membership) change(fd, how4, how6, index int) error {
	if m.group.Is6() {
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, how6, &unix.IPv6Mreq{Multiaddr: m.group.As16(), Interface: uint32(index)})
	}
	return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, how4, &unix.IPMreqn{Multiaddr: m.group.As4(), Ifindex: int32(index)})
}

// leaveBy chooses the interface that datagrams leave by.
func (m *membership) leaveBy(s *socket, index int) (err error) {
	closed := s.raw.Control(func(fd uintptr) {
		if m.group.Is6() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
			return
		}
		via := unix.IPMreqn{Ifindex: int32(index)}
		if m.source.Is4() {
			via.Address = m.source.As4()
		}
		err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &via)
	})
	if err = errors.Join(err, closed); err != nil {
		return fmt.Errorf("select interface for group %s: %w", m.group, err)
	}
	return nil
}
