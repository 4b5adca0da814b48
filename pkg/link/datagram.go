package link

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A link of datagrams, to one peer (udp.go), to a group (multicast.go), or to
// each of several peers (group.go), has two sockets. The receiving one is bound
// to where the peers send to. The sending one has a port of the kernel's choice,
// as peers expect nothing of it (docs/protocol.md 7), and is connected, if there
// is one place to send to: the kernel keeps the route, and tells of a peer that
// refuses.
type datagrams struct {
	transport Transport
	name      string
	device    string // the interface that is sent and received through
	tied      bool   // bound to an address that means nothing beyond device
	mtu       int
	tx, rx    *socket
	guard     guard

	// Owned by Send.
	peer      netip.AddrPort  // not valid: none configured
	index     int             // of the device
	moved     func(index int) // the device has another index; may be nil
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

const (
	sendBatch  = 64 // datagrams in one system call
	ipv4Header = 28 // IPv4 and UDP
	ipv6Header = 48 // IPv6 and UDP
)

type counters struct {
	sentBytes, sentPackets, recvBytes, recvPackets atomic.Uint64
	sendErrors, recvErrors, truncated, refused     atomic.Uint64
	unsendable                                     atomic.Uint64
	why                                            atomic.Uint32 // errno of the last one
	unaccepted                                     atomic.Uint64
	whyUnaccepted                                  atomic.Uint32 // likewise
}

// refuse counts datagrams that the system would not send.
func (c *counters) refuse(n int, e unix.Errno) {
	c.sendErrors.Add(uint64(n))
	c.unsendable.Add(uint64(n))
	c.why.Store(uint32(e))
}

func (c *counters) stats() Stats {
	return Stats{
		SentBytes: c.sentBytes.Load(), SentPackets: c.sentPackets.Load(),
		RecvBytes: c.recvBytes.Load(), RecvPackets: c.recvPackets.Load(),
		SendErrors: c.sendErrors.Load(), RecvErrors: c.recvErrors.Load(),
		Truncated: c.truncated.Load(), Refused: c.refused.Load(),
		Unsendable: c.unsendable.Load(), LastUnsendable: unix.Errno(c.why.Load()),
		Unaccepted: c.unaccepted.Load(), LastUnaccepted: unix.Errno(c.whyUnaccepted.Load()),
	}
}

func newDatagrams(cfg *Config, device string, index, mtu int) *datagrams {
	l := &datagrams{transport: cfg.Transport, name: cfg.Interface, device: device, index: index, mtu: mtu, out: newOutgoing(sendBatch)}
	l.sendFn, l.recvFn = l.sendSome, l.recvSome
	return l
}

// payload returns the largest datagram that goes into one packet.
func payload(mtu int, local netip.Addr) int {
	if local.Is6() {
		return min(mtu, 0xffff) - ipv6Header
	}
	return min(mtu, 0xffff) - ipv4Header
}

func (l *datagrams) Name() string         { return l.name }
func (l *datagrams) Transport() Transport { return l.transport }
func (l *datagrams) MTU() int             { return l.mtu }
func (l *datagrams) Status() Status       { return interfaceStatus(l.tx, l.name) }

func (l *datagrams) Buffers() (send, receive int) {
	return l.tx.buffer(unix.SO_SNDBUF), l.rx.buffer(unix.SO_RCVBUF)
}

func (l *datagrams) Close() error {
	return errors.Join(l.tx.close(), l.rx.close())
}

func (l *datagrams) Send(batch [][]byte) (sent int, err error) {
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
func (l *datagrams) sendSome(fd uintptr) {
	if !l.connected {
		if e := l.connect(int(fd)); e != 0 {
			l.count.refuse(len(l.batch), e)
			l.done = len(l.batch)
			return
		}
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
			l.count.refuse(1, e)
			l.done++
			l.connected = false
		}
	}
}

// connect fixes the destination, and anew the source if that is a wildcard.
func (l *datagrams) connect(fd int) unix.Errno {
	if !l.peer.IsValid() {
		return unix.EDESTADDRREQ
	}
	l.follow(fd)
	disconnect(fd)
	e := unix.Errno(0)
	_ = errors.As(unix.Connect(fd, sockaddr(l.peer, l.index)), &e)
	l.connected = e == 0
	return e
}

// follow finds the device again if it was made anew.
func (l *datagrams) follow(fd int) {
	index := interfaceIndex(fd, l.device)
	if index == 0 || index == l.index {
		return
	}
	l.index = index
	if l.tied { // to its index
		tie(fd, index)
		_ = l.rx.raw.Control(func(fd uintptr) { tie(int(fd), index) })
	}
	if l.moved != nil {
		l.moved(index)
	}
}

func tie(fd, index int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index)
}

// scoped reports whether an address has a meaning on one interface only.
func scoped(a netip.Addr) bool {
	return a.Is6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast())
}

func (l *datagrams) countSent(batch [][]byte) {
	bytes := 0
	for _, p := range batch {
		bytes += len(p)
	}
	l.count.sentBytes.Add(uint64(bytes))
	l.count.sentPackets.Add(uint64(len(batch)))
}

func (l *datagrams) WaitWritable(deadline time.Time) error { return l.tx.waitWritable(deadline) }

func (l *datagrams) FD() int { return l.rx.descriptor() }

func (l *datagrams) Recv(b *Batch) (int, error) {
	b.reset()
	l.in = b
	if err := l.rx.raw.Control(l.recvFn); err != nil {
		return 0, net.ErrClosed
	}
	return b.n, nil
}

// recvSome reads a batch.
func (l *datagrams) recvSome(fd uintptr) {
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
func (l *datagrams) judge(i int) int {
	from := l.in.source(i)
	via, toGroup := l.in.arrival(i)
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
	return l.in.accept(i, from, toGroup)
}

func (l *datagrams) Stats() Stats {
	l.mu.Lock()
	refused, via := l.refused, l.via
	l.mu.Unlock()
	s := l.count.stats()
	s.RecvDropped, s.LastRefused, s.LastRefusedVia = l.rx.drops(), refused, via
	return s
}

func (l *datagrams) failures() uint64 { return l.count.sendErrors.Load() }
