package link

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// incomingTCP is the listener and the connection that the peer made last.
type incomingTCP struct {
	tcp      *tcp
	listener int
	paused   bool // nobody looks who wants to connect
	fd       int  // -1: nobody is connected
	from     netip.Addr
	guard    guard
	stream   stream
}

// After so many seconds of silence the peer is asked whether it lives.
const (
	keepIdle     = 10
	keepInterval = 5
	keepProbes   = 3
	backlog      = 4
)

// listen makes the listener; the options go over to accepted connections.
func (in *incomingTCP) listen(cfg *Config, bind netip.AddrPort, index int) error {
	fd, err := newStreamSocket(bind.Addr())
	if err != nil {
		return err
	}
	s := &socket{fd: fd}
	opts := []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "reuse address"},
		{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index, "bind to interface"},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, "turn keepalive on"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle, "set keepalive"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval, "set keepalive"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepProbes, "set keepalive"},
	}
	if bind.Addr().Is6() {
		opts = append(opts, option{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "take IPv6 only"})
	}
	err = s.setup(opts, bind, index)
	if err == nil && cfg.ReceiveBuffer > 0 {
		err = s.force(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.ReceiveBuffer)
	}
	if err == nil {
		if err = unix.Listen(fd, backlog); err != nil {
			err = fmt.Errorf("listen on %s: %w", bind, err)
		}
	}
	if err == nil {
		err = in.tcp.poll.watch(fd, tagListener, unix.EPOLLIN)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	in.listener = fd
	return nil
}

// accept takes a newcomer in the place of whoever is connected, as it is the
// peer again after it has lost the connection without our knowing.
func (in *incomingTCP) accept(b *Batch) {
	fd, sa, err := unix.Accept4(in.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		if err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED {
			in.unacceptable(err)
		}
		return
	}
	from := addrOf(sa)
	if in.fd >= 0 && in.from == in.guard.peer {
		in.guard.heard = true // it still is
	}
	if !in.guard.pass(from, in.guard.index) { // the listener is bound to the interface
		_ = unix.Close(fd)
		in.tcp.count.refused.Add(1)
		in.tcp.refused.Store(&refusal{from: from, via: in.guard.index})
		b.refused = from
		return
	}
	in.close()
	if in.tcp.poll.watch(fd, tagIncoming, unix.EPOLLIN) != nil {
		_ = unix.Close(fd)
		in.tcp.count.recvErrors.Add(1)
		return
	}
	in.fd, in.from = fd, from
	in.tcp.server.Store(true)
}

// unacceptable counts a connection that could not be taken, most likely for want
// of a descriptor. It stays where it is, and would be announced again at once:
// nobody looks until the timer fires.
func (in *incomingTCP) unacceptable(err error) {
	c := &in.tcp.count
	c.recvErrors.Add(1)
	c.unaccepted.Add(1)
	var e unix.Errno
	if errors.As(err, &e) {
		c.whyUnaccepted.Store(uint32(e))
	}
	in.paused = true
	in.tcp.poll.change(in.listener, tagListener, 0)
	in.tcp.out.wake(mostBackoff)
}

// resume looks again.
func (in *incomingTCP) resume() {
	if in.paused {
		in.paused = false
		in.tcp.poll.change(in.listener, tagListener, unix.EPOLLIN)
	}
}

func addrOf(sa unix.Sockaddr) netip.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr)
	}
	return netip.Addr{}
}

// receive reads once and hands out what is complete.
func (in *incomingTCP) receive(b *Batch) {
	if in.fd < 0 {
		return
	}
	space := in.stream.space()
	n, e := recv(in.fd, space)
	switch {
	case e == unix.EAGAIN || e == unix.EINTR:
		return
	case e != 0:
		in.tcp.count.recvErrors.Add(1)
		in.close()
		return
	case n == 0:
		in.close()
		return
	}
	in.stream.got(n)
	b.more = n == len(space)
	in.tcp.count.recvBytes.Add(uint64(n))
	for {
		size := in.tcp.mtu
		if b.n == len(b.got)-1 {
			size = streamBuffer // the last takes all
		}
		datagram, ok := in.stream.cut(size)
		if len(datagram) > 0 {
			b.add(datagram, in.from)
			in.tcp.count.recvPackets.Add(1)
		}
		if !ok {
			// The peer finds its connection closed and makes a new one.
			in.tcp.count.recvErrors.Add(1)
			in.close()
			return
		}
		if len(datagram) == 0 || b.n == len(b.got) {
			return
		}
	}
}

// follow ties the listener to the interface that has the name now.
func (in *incomingTCP) follow(index int) {
	_ = unix.SetsockoptInt(in.listener, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index)
	in.guard.index = index
}

// close ends the connection, with the rest of a message that will not come.
func (in *incomingTCP) close() {
	if in.fd < 0 {
		return
	}
	_ = unix.Close(in.fd)
	in.fd = -1
	in.stream.reset()
	in.tcp.server.Store(false)
}
