package link

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a datagram socket that Go's poller does not know: in there, each
// datagram that comes or has gone would wake a thread of the runtime, whether
// or not anybody waits for it. Every call on it says MSG_DONTWAIT.
type socket struct {
	fd   int // until ready; then the file owns it
	file *os.File
	raw  syscall.RawConn
	lost atomic.Uint32 // see drops
}

// option is one socket option and what setting it is for.
type option struct {
	level, name, value int
	verb               string
}

func newSocket(like netip.Addr) (*socket, error) {
	domain := unix.AF_INET
	if like.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	return &socket{fd: fd}, nil
}

// setup sets the options and binds.
func (s *socket) setup(opts []option, bind netip.AddrPort, index int) error {
	if err := s.set(opts); err != nil {
		return err
	}
	err := unix.Bind(s.fd, sockaddr(bind, index))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("bind %s: %w (this machine does not have it; a new IPv6 address takes a second or two)", bind, err)
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", bind, err)
	}
	return nil
}

func (s *socket) set(opts []option) error {
	for _, o := range opts {
		if err := unix.SetsockoptInt(s.fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.verb, err)
		}
	}
	return nil
}

// force sets a buffer size past the system limit, within it without the
// privilege to do so.
func (s *socket) force(forced, plain, size int) error {
	size = min(size, math.MaxInt32)
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, forced, size) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, plain, size); err != nil {
		return fmt.Errorf("set buffer to %d bytes: %w", size, err)
	}
	return nil
}

// ready gives the descriptor an owner, or closes it after an error.
func (s *socket) ready(err error) (*socket, error) {
	if err != nil {
		_ = unix.Close(s.fd)
		return nil, err
	}
	s.file = os.NewFile(uintptr(s.fd), "link")
	s.raw, err = s.file.SyscallConn()
	if err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() error { return s.file.Close() }

// buffer returns a buffer size as it was asked for: the kernel doubles it for
// its own book-keeping.
func (s *socket) buffer(name int) (size int) {
	_ = s.raw.Control(func(fd uintptr) {
		size, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, name)
	})
	return size / 2
}

// drops returns how many datagrams did not fit into the receive buffer, up to
// now or until it was closed.
func (s *socket) drops() uint64 {
	const memDrops = 8 // SK_MEMINFO_DROPS
	var info [memDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_ = s.raw.Control(func(fd uintptr) {
		// It never blocks; and a system call the scheduler knows of wakes up its
		// monitor, in an idle daemon several times.
		_, _, _ = unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	for {
		last := s.lost.Load()
		if info[memDrops] <= last || s.lost.CompareAndSwap(last, info[memDrops]) {
			return uint64(max(info[memDrops], last))
		}
	}
}

// descriptor returns the number of the descriptor, to wait on; -1 when closed.
func (s *socket) descriptor() int {
	n := -1
	_ = s.raw.Control(func(fd uintptr) { n = int(fd) })
	return n
}

// waitWritable waits until the socket takes a datagram, or the deadline.
func (s *socket) waitWritable(deadline time.Time) error {
	var err error
	if s.raw.Control(func(fd uintptr) { err = pollOut(int(fd), deadline) }) != nil {
		return net.ErrClosed
	}
	return err
}

func pollOut(fd int, deadline time.Time) error {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		left := max(time.Until(deadline), 0)
		n, e := unix.Poll(p[:], int((left + time.Millisecond - 1).Milliseconds()))
		switch {
		case e == unix.EINTR:
		case n > 0:
			return nil
		default:
			return os.ErrDeadlineExceeded
		}
	}
}

func sockaddr(a netip.AddrPort, index int) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(index)}
}

// disconnect takes back the peer, and the source address if connecting chose
// it. It does nothing on a socket that is not connected.
func disconnect(fd int) {
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
}
