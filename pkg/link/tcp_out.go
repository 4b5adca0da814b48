package link

import (
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outgoingTCP is the connection we make, and what waits for it.
type outgoingTCP struct {
	tcp     *tcp
	fd      int // -1: none, the timer runs
	up      bool
	since   time.Time // when it came up, or the attempt began
	backoff time.Duration
	watched uint32 // events of fd
	stalled bool   // the peer takes nothing

	local  netip.Addr
	peer   netip.AddrPort // not valid: none configured
	index  int            // of the interface
	buffer int
	queue  queue
	vec    [sendBatch]unix.Iovec
}

const (
	// Between two attempts; each waits twice as long as the one before. The
	// longest is the C daemon's.
	leastBackoff = 50 * time.Millisecond
	mostBackoff  = time.Second
	// The kernel would try for minutes, in ever longer intervals.
	connectTimeout = 3 * time.Second
	// A peer that acknowledges nothing for so long has gone without a word.
	userTimeout = 10 * time.Second
)

// connect begins an attempt.
func (o *outgoingTCP) connect() {
	if !o.peer.IsValid() {
		return
	}
	o.follow()
	o.since = time.Now()
	fd, err := newStreamSocket(o.peer.Addr())
	if err != nil {
		o.later()
		return
	}
	if err = o.prepare(fd); err == nil {
		err = unix.Connect(fd, sockaddr(o.peer, o.index))
	}
	if errors.Is(err, unix.EINPROGRESS) {
		err = nil
	}
	o.watched = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLOUT
	if err == nil {
		err = o.tcp.poll.watch(fd, tagOutgoing, o.watched)
	}
	if err != nil {
		_ = unix.Close(fd)
		o.later()
		return
	}
	o.fd = fd
	o.tcp.poll.set(connectTimeout, false)
}

func (o *outgoingTCP) prepare(fd int) error {
	s := &socket{fd: fd}
	opts := []option{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, "send at once"},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()), "set user timeout"},
	}
	if o.buffer > 0 {
		if err := s.force(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.buffer); err != nil {
			return err
		}
	}
	if o.local.IsUnspecified() {
		return s.set(opts)
	}
	return s.setup(opts, netip.AddrPortFrom(o.local, 0), o.index)
}

// follow finds the interface again if it was made anew.
func (o *outgoingTCP) follow() {
	index := interfaceIndex(o.tcp.in.listener, o.tcp.name)
	if index != 0 && index != o.index {
		o.index = index
		o.tcp.in.follow(index)
	}
}

// later waits for the next attempt.
func (o *outgoingTCP) later() {
	o.tcp.poll.set(o.backoff, false)
	o.backoff = min(2*o.backoff, mostBackoff)
}

// wake makes the timer fire within d, or when it would anyway, as it does at the
// latest after connectTimeout unless there is a connection, or none to be made.
func (o *outgoingTCP) wake(d time.Duration) {
	if o.up || !o.peer.IsValid() {
		o.tcp.poll.set(d, false)
	}
}

// tick is the time of the next attempt, or the end of one.
func (o *outgoingTCP) tick() {
	switch {
	case o.fd < 0:
		o.connect()
	case !o.up && time.Since(o.since) >= connectTimeout:
		o.lose()
	}
}

// ready deals with the events of the connection.
func (o *outgoingTCP) ready(events uint32) {
	if o.fd < 0 {
		return
	}
	if !o.up {
		e, err := unix.GetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || e != 0 || events&unix.EPOLLHUP != 0 {
			o.lose()
			return
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		o.up, o.since = true, time.Now()
		o.tcp.client.Store(true)
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !o.alive() {
		o.lose()
		return
	}
	if events&unix.EPOLLOUT != 0 {
		o.stalled = false
		o.flush()
	}
}

// alive reads what the peer should not say, and reports whether it still
// listens.
func (o *outgoingTCP) alive() bool {
	var nonsense [512]byte
	n, e := recv(o.fd, nonsense[:])
	return n > 0 || e == unix.EAGAIN || e == unix.EINTR
}

// lose gives up the connection; what the peer has only a part of is sent again.
func (o *outgoingTCP) lose() {
	if o.up && time.Since(o.since) >= mostBackoff {
		o.backoff = leastBackoff
	}
	o.close()
	o.later()
}

func (o *outgoingTCP) close() {
	if o.fd >= 0 {
		_ = unix.Close(o.fd)
	}
	o.fd, o.up, o.stalled = -1, false, false
	o.queue.restart()
	o.tcp.client.Store(false)
}

// send sends or queues the datagrams and returns how many are done with. It
// leaves the rest to a caller who can wait, unless the last wait was in vain.
func (o *outgoingTCP) send(batch [][]byte) (done int) {
	if !o.peer.IsValid() {
		o.tcp.count.sendErrors.Add(uint64(len(batch)))
		return len(batch)
	}
	if o.up && o.queue.n > 0 && !o.stalled {
		o.flush()
	}
	for o.up && o.queue.n == 0 && done < len(batch) {
		n, partial := o.write(batch[done:])
		done += n
		if partial > 0 {
			o.queue.push(batch[done], partial)
			done++
		}
		if n == 0 && partial == 0 {
			break
		}
	}
	for _, p := range batch[done:] {
		if o.up && o.queue.full() && !o.stalled {
			break
		}
		if o.queue.push(p, 0) {
			o.tcp.count.sendErrors.Add(1)
		}
		done++
	}
	o.watch()
	return done
}

// write hands datagrams to the connection. It returns how many it took whole,
// and how many bytes of the one after them.
func (o *outgoingTCP) write(batch [][]byte) (whole, partial int) {
	batch = batch[:min(len(batch), len(o.vec))]
	for i, p := range batch {
		o.vec[i].Base = unsafe.SliceData(p)
		o.vec[i].SetLen(len(p))
	}
	n, e := sendmsg(o.fd, o.vec[:len(batch)])
	if e != 0 {
		if e != unix.EAGAIN && e != unix.EINTR {
			o.lose()
		}
		return 0, 0
	}
	for whole < len(batch) && n >= len(batch[whole]) {
		n -= len(batch[whole])
		o.sent(len(batch[whole]))
		whole++
	}
	return whole, n
}

func (o *outgoingTCP) sent(bytes int) {
	o.tcp.count.sentPackets.Add(1)
	o.tcp.count.sentBytes.Add(uint64(bytes))
}

// flush sends what waits.
func (o *outgoingTCP) flush() {
	for o.up && o.queue.n > 0 {
		p := o.queue.first()
		o.vec[0].Base = unsafe.SliceData(p)
		o.vec[0].SetLen(len(p))
		n, e := sendmsg(o.fd, o.vec[:1])
		switch {
		case e == unix.EAGAIN || e == unix.EINTR:
			o.watch()
			return
		case e != 0:
			o.lose()
			return
		case n < len(p):
			o.queue.sent += n
		default:
			o.sent(len(o.queue.whole()))
			o.queue.pop()
		}
	}
	o.watch()
}

// watch waits for room while something waits to be sent.
func (o *outgoingTCP) watch() {
	if !o.up {
		return
	}
	want := uint32(unix.EPOLLIN | unix.EPOLLRDHUP)
	if o.queue.n > 0 {
		want |= unix.EPOLLOUT
	}
	if want != o.watched {
		o.watched = want
		o.tcp.poll.change(o.fd, tagOutgoing, want)
	}
}

// waitWritable waits for room in the connection; after a wait in vain nobody
// need wait until there is some.
func (o *outgoingTCP) waitWritable(deadline time.Time) error {
	if !o.up {
		return nil // Send queues
	}
	err := pollOut(o.fd, deadline)
	o.stalled = err != nil
	return err
}
