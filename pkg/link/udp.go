package link

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

func openUDP(cfg Config) (Link, error) { return openUDPWith(cfg, nil) }

// openSharedUDP is for one of several links: another may listen on all
// addresses. When all are open, each is made alone.
func openSharedUDP(cfg Config) (Link, error) { return openUDPWith(cfg, shared) }

func openUDPWith(cfg Config, receiving []option) (Link, error) {
	local, peer, err := endpoints(&cfg)
	if err != nil {
		return nil, err
	}
	dev, err := lookupDevice(cfg.Interface)
	if err != nil {
		return nil, err
	}
	l := newDatagrams(&cfg, cfg.Interface, dev.index, payload(dev.mtu, local))
	l.guard, l.tied = newGuard(cfg.Interface, dev.index, peer, cfg.AcceptFrom), scoped(local)
	if peer.IsValid() && !peer.IsUnspecified() {
		l.peer = netip.AddrPortFrom(peer, cfg.Port)
	}
	if l.rx, err = receiver(&cfg, netip.AddrPortFrom(local, cfg.Port), dev.index, receiving...); err != nil {
		return nil, err
	}
	if l.tx, err = sender(&cfg, local, dev.index); err != nil {
		l.rx.close()
		return nil, err
	}
	return l, nil
}

// endpoints returns the addresses of both ends; the local one is a wildcard
// if it is not configured, the peer may be missing.
func endpoints(cfg *Config) (local, peer netip.Addr, err error) {
	local, peer = cfg.Local.Unmap().WithZone(""), cfg.Peer.Unmap().WithZone("")
	switch {
	case local.IsValid() && peer.IsValid() && local.Is4() != peer.Is4():
		return local, peer, fmt.Errorf("local address %s and destination %s are of two families", local, peer)
	case local.IsValid():
	case peer.Is6():
		local = netip.IPv6Unspecified()
	default:
		local = netip.IPv4Unspecified()
	}
	return local, peer, nil
}

// receiver makes the socket to receive on, with more options than usual.
func receiver(cfg *Config, bind netip.AddrPort, index int, more ...option) (*socket, error) {
	s, err := newSocket(bind.Addr())
	if err != nil {
		return nil, err
	}
	err = s.setup(append(arrivalOptions(bind.Addr()), more...), bind, index)
	if err == nil && cfg.ReceiveBuffer > 0 {
		err = s.force(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.ReceiveBuffer)
	}
	return s.ready(err)
}

// shared lets other sockets have the same address and port. Whoever binds such a
// socket last, as any user may, gets what is sent to it, unless that is for a
// multicast group: then each gets it.
var shared = []option{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "share the address"}}

// share sets shared, or takes it back.
func (s *socket) share(on bool) {
	value := 0
	if on {
		value = 1
	}
	_ = s.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, value) })
}

// arrivalOptions ask the kernel which interface a datagram came through.
func arrivalOptions(like netip.Addr) []option {
	if like.Is6() {
		return []option{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "take IPv6 only"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "ask for arrival interface"},
		}
	}
	return []option{{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "ask for arrival interface"}}
}

// sender makes the socket to send on; it is bound to local unless that is the
// wildcard.
func sender(cfg *Config, local netip.Addr, index int, more ...option) (*socket, error) {
	s, err := newSocket(local)
	if err != nil {
		return nil, err
	}
	opts := more
	if cfg.NoChecksum && local.Is4() {
		opts = append(opts, option{unix.SOL_SOCKET, unix.SO_NO_CHECK, 1, "turn checksum off"})
	}
	if local.IsUnspecified() {
		err = s.set(opts)
	} else {
		err = s.setup(opts, netip.AddrPortFrom(local, 0), index)
	}
	if err == nil && cfg.SendBuffer > 0 {
		err = s.force(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SendBuffer)
	}
	return s.ready(err)
}
