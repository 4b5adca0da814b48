package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A UDP link has two sockets. The receiving one is bound to the local address
// and port. The sending one is bound to the local address and a port of the
// kernel's choice, as peers expect nothing of it (docs/protocol.md 7), and is
// connected: the kernel keeps the route, and tells of a peer that refuses.
const (
	sendBatch  = 64 // datagrams in one system call
	ipv4Header = 28 // IPv4 and UDP
	ipv6Header = 48 // IPv6 and UDP
)

type udp struct {
	name   string
	mtu    int
	tx, rx *socket
	guard  guard

	// Owned by Send.
	peer      netip.AddrPort // not valid: none configured
	index     int            // of the interface
	connected bool
	out       outgoing
	batch     [][]byte
	done      int
	sendFn    func(fd uintptr)

	// Owned by Recv.
	in     *Batch
	recvFn func(fd uintptr)

	count   counters
	mu      sync.Mutex // guards refused and via
	refused netip.Addr
	via     int
}

type counters struct {
	sentBytes, sentPackets, recvBytes, recvPackets atomic.Uint64
	sendErrors, recvErrors, truncated, refused     atomic.Uint64
}

func openUDP(cfg Config) (Link, error) {
	local, peer, err := endpoints(&cfg)
	if err != nil {
		return nil, err
	}
	dev, err := lookupDevice(cfg.Interface)
	if err != nil {
		return nil, err
	}
	l := &udp{name: cfg.Interface, index: dev.index, mtu: payload(dev.mtu, local), out: newOutgoing(sendBatch)}
	l.sendFn, l.recvFn = l.sendSome, l.recvSome
	l.guard = newGuard(cfg.Interface, dev.index, peer)
	if peer.IsValid() && !peer.IsUnspecified() {
		l.peer = netip.AddrPortFrom(peer, cfg.Port)
	}
	if l.rx, err = receiver(&cfg, netip.AddrPortFrom(local, cfg.Port), dev.index); err != nil {
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

// payload returns the largest datagram that goes into one packet.
func payload(mtu int, local netip.Addr) int {
	if local.Is6() {
		return min(mtu, 0xffff) - ipv6Header
	}
	return min(mtu, 0xffff) - ipv4Header
}

func receiver(cfg *Config, bind netip.AddrPort, index int) (*socket, error) {
	s, err := newSocket(bind.Addr())
	if err != nil {
		return nil, err
	}
	opts := []option{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "reuse address"}}
	if bind.Addr().Is6() {
		opts = append(opts,
			option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "take IPv6 only"},
			option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "ask for arrival interface"})
	} else {
		opts = append(opts, option{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "ask for arrival interface"})
	}
	err = s.setup(opts, bind, index)
	if err == nil && cfg.ReceiveBuffer > 0 {
		err = s.force(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.ReceiveBuffer)
	}
	return s.ready(err)
}

func sender(cfg *Config, local netip.Addr, index int) (*socket, error) {
	s, err := newSocket(local)
	if err != nil {
		return nil, err
	}
	var opts []option
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

func (l *udp) Name() string         { return l.name }
func (l *udp) Transport() Transport { return UDP }
func (l *udp) MTU() int             { return l.mtu }
func (l *udp) Status() Status       { return interfaceStatus(l.tx, l.name) }

func (l *udp) Buffers() (send, receive int) {
	return l.tx.buffer(unix.SO_SNDBUF), l.rx.buffer(unix.SO_RCVBUF)
}

func (l *udp) Close() error {
	return errors.Join(l.tx.close(), l.rx.close())
}

func (l *udp) Send(batch [][]byte) (sent int, err error) {
	l.batch, l.done = batch, 0
	err = l.tx.raw.Control(l.sendFn)
	l.batch = nil
	if err != nil {
		return l.done, net.ErrClosed
	}
	return l.done, nil
}

// sendSome sends what the socket takes. A system call reports an error only
// of its first datagram, so each error is about batch[done].
func (l *udp) sendSome(fd uintptr) {
	if !l.connected && !l.connect(int(fd)) {
		l.count.sendErrors.Add(uint64(len(l.batch)))
		l.done = len(l.batch)
		return
	}
	bounced := false
	for l.done < len(l.batch) {
		n, e := sendmmsg(fd, l.out.msgs[:l.out.load(l.batch[l.done:])])
		switch {
		case e == 0:
			l.countSent(l.batch[l.done : l.done+n])
			l.done += n
			bounced = false
		case e == unix.EAGAIN:
			return
		case e == unix.EINTR:
		case e == unix.ECONNREFUSED && !bounced:
			// An earlier datagram came back; this one was not tried.
			l.count.sendErrors.Add(1)
			bounced = true
		default:
			// This one is lost. What hinders it may be a route or an address
			// that went, and comes back as another: connect anew next time.
			l.count.sendErrors.Add(1)
			l.done++
			l.connected = false
		}
	}
}

// connect fixes the destination, and anew the source if that is a wildcard.
func (l *udp) connect(fd int) bool {
	if !l.peer.IsValid() {
		return false
	}
	l.follow(fd)
	disconnect(fd)
	l.connected = unix.Connect(fd, sockaddr(l.peer, l.index)) == nil
	return l.connected
}

// follow finds the interface again if it was made anew. The receiving socket
// of a link-local address is tied to the index of the interface.
func (l *udp) follow(fd int) {
	index := interfaceIndex(fd, l.name)
	if index == 0 || index == l.index {
		return
	}
	l.index = index
	if l.peer.Addr().IsLinkLocalUnicast() && l.peer.Addr().Is6() {
		_ = l.rx.raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index)
		})
	}
}

func (l *udp) countSent(batch [][]byte) {
	bytes := 0
	for _, p := range batch {
		bytes += len(p)
	}
	l.count.sentBytes.Add(uint64(bytes))
	l.count.sentPackets.Add(uint64(len(batch)))
}

func (l *udp) WaitWritable(deadline time.Time) error { return l.tx.waitWritable(deadline) }

func (l *udp) FD() int { return l.rx.descriptor() }

func (l *udp) Recv(b *Batch) (int, error) {
	b.reset()
	l.in = b
	if err := l.rx.raw.Control(l.recvFn); err != nil {
		return 0, net.ErrClosed
	}
	return b.n, nil
}

// recvSome reads a batch.
func (l *udp) recvSome(fd uintptr) {
	n, e := recvmmsg(fd, l.in.msgs)
	if e != 0 {
		if e != unix.EAGAIN && e != unix.EINTR {
			l.count.recvErrors.Add(1)
		}
		return
	}
	l.in.read = n
	bytes := 0
	for i := range n {
		bytes += l.judge(i)
	}
	l.count.recvBytes.Add(uint64(bytes))
	l.count.recvPackets.Add(uint64(l.in.n))
}

// judge accepts or refuses datagram i and returns the bytes accepted.
func (l *udp) judge(i int) int {
	from, via := l.in.source(i), l.in.arrival(i)
	if !l.guard.pass(from, via) {
		l.count.refused.Add(1)
		l.in.refused = from
		l.mu.Lock()
		l.refused, l.via = from, via
		l.mu.Unlock()
		return 0
	}
	if l.in.msgs[i].Flags&unix.MSG_TRUNC != 0 {
		l.count.truncated.Add(1)
		return 0
	}
	return l.in.accept(i, from)
}

func (l *udp) Stats() Stats {
	l.mu.Lock()
	refused, via := l.refused, l.via
	l.mu.Unlock()
	c := &l.count
	return Stats{
		SentBytes: c.sentBytes.Load(), SentPackets: c.sentPackets.Load(),
		RecvBytes: c.recvBytes.Load(), RecvPackets: c.recvPackets.Load(),
		SendErrors: c.sendErrors.Load(), RecvErrors: c.recvErrors.Load(),
		RecvDropped: l.rx.drops(), Truncated: c.truncated.Load(),
		Refused: c.refused.Load(), LastRefused: refused, LastRefusedVia: via,
	}
}
