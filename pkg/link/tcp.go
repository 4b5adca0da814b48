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

// A TCP link is two connections, each of which carries data one way: we
// connect to the peer to send, and it connects to us (docs/protocol.md 7).
// outgoingTCP is the one, incomingTCP the other. Whatever they wait for is in
// one epoll instance, and what has become ready is dealt with in Recv.
type tcp struct {
	name string
	mtu  int
	fd   int // of the epoll instance

	mu     sync.Mutex // guards all but the counters
	closed bool
	poll   *poller
	out    outgoingTCP
	in     incomingTCP

	count          counters
	server, client atomic.Bool // who is connected: the peer to us, we to it
	queued         atomic.Int64
	refused        atomic.Pointer[refusal]
}

// refusal is who was refused last, and the interface it came through.
type refusal struct {
	from netip.Addr
	via  int
}

// The tags of the descriptors.
const (
	tagListener = iota
	tagIncoming
	tagOutgoing
)

// ipv4HeaderTCP and ipv6HeaderTCP are the headers of a segment without options.
const (
	ipv4HeaderTCP = 40
	ipv6HeaderTCP = 60
)

func openTCP(cfg Config) (Link, error) {
	local, peer, err := endpoints(&cfg)
	if err != nil {
		return nil, err
	}
	dev, err := lookupDevice(cfg.Interface)
	if err != nil {
		return nil, err
	}
	l := &tcp{name: cfg.Interface, mtu: min(dev.mtu, 0xffff) - ipv4HeaderTCP}
	if local.Is6() {
		l.mtu = min(dev.mtu, 0xffff) - ipv6HeaderTCP
	}
	if l.poll, err = newPoller(); err != nil {
		return nil, err
	}
	l.fd = l.poll.fd
	l.out = outgoingTCP{tcp: l, fd: -1, local: local, index: dev.index, buffer: cfg.SendBuffer, backoff: leastBackoff}
	l.out.queue.limit = cfg.ErrorQueue
	if peer.IsValid() && !peer.IsUnspecified() {
		l.out.peer = netip.AddrPortFrom(peer, cfg.Port)
	}
	l.in = incomingTCP{tcp: l, fd: -1, guard: newGuard(cfg.Interface, dev.index, peer, cfg.AcceptFrom)}
	if err := l.in.listen(&cfg, netip.AddrPortFrom(local, cfg.Port), dev.index); err != nil {
		return nil, errors.Join(err, l.poll.close())
	}
	l.out.connect()
	return l, nil
}

// newStreamSocket makes a socket that never blocks. Go's poller does not know
// it, as it does not know the datagram sockets.
func newStreamSocket(like netip.Addr) (int, error) {
	domain := unix.AF_INET
	if like.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	return fd, nil
}

func (l *tcp) Name() string         { return l.name }
func (l *tcp) Transport() Transport { return TCP }
func (l *tcp) MTU() int             { return l.mtu }

// Connected reports whether the peer is connected to us, and we to it.
func (l *tcp) Connected() (server, client bool) { return l.server.Load(), l.client.Load() }

func (l *tcp) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Down
	}
	return deviceStatus(l.in.listener, l.name)
}

func (l *tcp) Buffers() (send, receive int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, 0
	}
	receive, _ = unix.GetsockoptInt(l.in.listener, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if l.out.fd >= 0 {
		send, _ = unix.GetsockoptInt(l.out.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	}
	return send / 2, receive / 2
}

func (l *tcp) FD() int { return l.fd }

func (l *tcp) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	l.out.close()
	l.in.close()
	return errors.Join(unix.Close(l.in.listener), l.poll.close())
}

// Send never loses a datagram as long as there is room in the queue: what the
// connection does not take, or cannot as there is none, waits there.
func (l *tcp) Send(batch [][]byte) (sent int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, net.ErrClosed
	}
	sent = l.out.send(batch)
	l.queued.Store(int64(l.out.queue.n))
	return sent, nil
}

func (l *tcp) WaitWritable(deadline time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	return l.out.waitWritable(deadline)
}

// Recv deals with whatever is ready, connections and timer too.
func (l *tcp) Recv(b *Batch) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.reset()
	b.read = 0
	if l.closed {
		return 0, net.ErrClosed
	}
	incoming, newcomer := false, false
	for _, e := range l.poll.ready() {
		switch e.Fd {
		case tagIncoming:
			incoming = true
		case tagListener:
			newcomer = true
		case tagOutgoing:
			l.out.ready(e.Events)
		case tagTimer:
			l.poll.fired()
			l.out.tick()
			l.in.resume()
		}
	}
	if incoming {
		l.in.receive(b)
	}
	if newcomer && b.n == 0 { // first what is left of the old connection
		l.in.accept(b)
	}
	l.queued.Store(int64(l.out.queue.n))
	return b.n, nil
}

func (l *tcp) Stats() Stats {
	s := l.count.stats()
	s.Queued = uint64(l.queued.Load())
	if r := l.refused.Load(); r != nil {
		s.LastRefused, s.LastRefusedVia = r.from, r.via
	}
	return s
}

func (l *tcp) failures() uint64 { return l.count.sendErrors.Load() }

// takeBack sends what waits on another link, unless this one is about to send
// it. With abort the connection is reset, so that what the kernel holds does
// not arrive when it is out of date.
func (l *tcp) takeBack(to Link, abort bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.out.up && !abort {
		return
	}
	if abort && l.out.fd >= 0 {
		_ = unix.SetsockoptLinger(l.out.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		l.out.lose()
	}
	for l.out.queue.n > 0 {
		one := [][]byte{l.out.queue.whole()}
		if n, err := to.Send(one); n == 0 || err != nil {
			l.count.sendErrors.Add(1)
		}
		l.out.queue.pop()
	}
	l.queued.Store(0)
}
