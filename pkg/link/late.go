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

// A late link is one that could not be opened at the start, as its interface or
// address was not there. It waits for that, in Recv, and is the real link from
// then on. Until then it is Down, what is sent is lost, and MTU and Buffers are
// what can be expected. Of several links a late TCP one makes five epoll
// instances, one in the other, as many as the kernel allows.
type late struct {
	cfg  Config
	open func() (Link, error)
	say  func(l Link, why error)
	fd   int // of the epoll instance
	// Before it is open.
	mtu, sendBuffer, receiveBuffer int

	real   atomic.Pointer[Link]
	lost   atomic.Uint64 // datagrams, before it was open
	closed atomic.Bool

	mu    sync.Mutex // guards what follows, and who opens or closes
	poll  *poller
	watch watch
	said  string    // why it could not be opened
	tried time.Time // when that was
}

const (
	// tagLate is the tag of the link that has been opened.
	tagLate = iota
	// tagNews is that of the watch.
	tagNews
)

const (
	// lateEvery is how often a late link is tried without any news.
	lateEvery = 2 * time.Second
	// lateAtMost is how long it rests after an attempt however much news there is.
	lateAtMost = 100 * time.Millisecond
	ethernet   = 1500 // MTU of an interface that is not there
)

// missing is an error that ends by itself when what is missing comes.
type missing struct{ error }

// isMissing reports whether a link could not be opened for want of its interface
// or address.
func isMissing(err error) bool {
	return errors.As(err, &missing{}) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV)
}

// openOrWait is openOne, for a link that may be late if wait is not nil (see
// SetConfig.Wait).
func openOrWait(cfg Config, of int, wait func(l Link, why error)) (Link, error) {
	x, err := openOne(cfg, of)
	if wait == nil || !isMissing(err) {
		return x, err
	}
	l := &late{cfg: cfg, say: wait, watch: watch{-1}, mtu: payload(ethernet, cfg.Local)}
	l.open = func() (Link, error) { return openOne(cfg, of) }
	if err := l.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for %s link on %q: %w", cfg.Transport, cfg.Interface, err), l.Close())
	}
	l.wait(err)
	return l, nil
}

// begin begins to wait.
func (l *late) begin() (err error) {
	if l.poll, err = newPoller(); err != nil {
		return err
	}
	l.fd = l.poll.fd
	if l.watch, err = newWatch(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR); err != nil {
		return err
	}
	if err = l.poll.watch(l.watch.fd, tagNews, unix.EPOLLIN); err != nil {
		return err
	}
	l.poll.set(0, false) // what came before the watch was there
	return l.measure()
}

// measure finds out which buffers the link will have.
func (l *late) measure() error {
	s, err := sender(&l.cfg, netip.IPv4Unspecified(), 0)
	if err != nil {
		return err
	}
	defer s.close()
	if l.cfg.ReceiveBuffer > 0 {
		err = s.force(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, l.cfg.ReceiveBuffer)
	}
	l.sendBuffer, l.receiveBuffer = s.buffer(unix.SO_SNDBUF), s.buffer(unix.SO_RCVBUF)
	return err
}

// opened returns the real link, nil as long as there is none.
func (l *late) opened() Link {
	if x := l.real.Load(); x != nil {
		return *x
	}
	return nil
}

// Recv opens the link if there is news.
func (l *late) Recv(b *Batch) (int, error) {
	if x := l.opened(); x != nil {
		return x.Recv(b)
	}
	b.reset()
	return 0, l.look()
}

func (l *late) look() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return net.ErrClosed
	}
	if len(l.poll.ready()) == 0 {
		return nil
	}
	l.poll.fired()
	l.watch.drain()
	if rest := lateAtMost - time.Since(l.tried); rest > 0 {
		l.poll.set(rest, false)
		return nil
	}
	l.poll.set(lateEvery, true)
	// Where many other interfaces come and go this is the quick way to see that
	// it was none of ours.
	if interfaceIndex(l.watch.fd, l.cfg.Interface) == 0 {
		return nil
	}
	l.tried = time.Now()
	x, err := l.open()
	if err == nil {
		if err = l.poll.watch(x.FD(), tagLate, unix.EPOLLIN); err != nil {
			err = errors.Join(fmt.Errorf("watch link: %w", err), x.Close())
		}
	}
	if err != nil {
		l.wait(err)
		return nil
	}
	l.poll.noTimer()
	_ = l.watch.close()
	l.real.Store(&x)
	l.say(l, nil)
	return nil
}

// wait says why it waits, if it has not said so last.
func (l *late) wait(err error) {
	if inner := errors.Unwrap(err); inner != nil {
		err = inner // whoever is told knows which link it is
	}
	if why := err.Error(); why != l.said {
		l.said = why
		l.say(l, err)
	}
}

// Close ends the link, or the waiting for it.
func (l *late) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Swap(true) {
		return net.ErrClosed
	}
	var errs []error
	if x := l.opened(); x != nil {
		errs = append(errs, x.Close())
	} else if l.watch.fd >= 0 {
		errs = append(errs, l.watch.close())
	}
	if l.poll != nil {
		errs = append(errs, l.poll.close())
	}
	return errors.Join(errs...)
}

// lose counts what is sent before the link is open.
func (l *late) lose(batch [][]byte) (int, error) {
	if l.closed.Load() {
		return 0, net.ErrClosed
	}
	l.lost.Add(uint64(len(batch)))
	return len(batch), nil
}

func (l *late) Send(batch [][]byte) (int, error) {
	if x := l.opened(); x != nil {
		return x.Send(batch)
	}
	return l.lose(batch)
}

// SendTo is that of a Group.
func (l *late) SendTo(to netip.Addr, batch [][]byte) (int, error) {
	if g, ok := l.opened().(*Group); ok {
		return g.SendTo(to, batch)
	}
	return l.lose(batch)
}

func (l *late) WaitWritable(deadline time.Time) error {
	if x := l.opened(); x != nil {
		return x.WaitWritable(deadline)
	}
	_, err := l.lose(nil)
	return err
}

func (l *late) Name() string         { return l.cfg.Interface }
func (l *late) Transport() Transport { return l.cfg.Transport }
func (l *late) FD() int              { return l.fd }

func (l *late) MTU() int {
	if x := l.opened(); x != nil {
		return x.MTU()
	}
	return l.mtu
}

func (l *late) Buffers() (send, receive int) {
	if x := l.opened(); x != nil {
		return x.Buffers()
	}
	return l.sendBuffer, l.receiveBuffer
}

func (l *late) Status() Status {
	if x := l.opened(); x != nil {
		return x.Status()
	}
	return Down
}

func (l *late) Stats() (s Stats) {
	if x := l.opened(); x != nil {
		s = x.Stats()
	}
	s.SendErrors += l.lost.Load()
	return s
}

// Connected is that of TCP.
func (l *late) Connected() (server, client bool) {
	if t, ok := l.opened().(*tcp); ok {
		return t.Connected()
	}
	return false, false
}

func (l *late) failures() uint64 {
	n := l.lost.Load()
	if x, ok := l.opened().(failing); ok {
		n += x.failures()
	}
	return n
}

func (l *late) takeBack(to Link, abort bool) {
	if x, ok := l.opened().(queueing); ok {
		x.takeBack(to, abort)
	}
}
