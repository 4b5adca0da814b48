package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is one netlink socket read with raw system calls. The owner has the
// descriptor, a *netlink.Conn until unpoll: whoever uses raw keeps it reachable.
type socket struct {
	conn   *netlink.Conn // nil after unpoll
	owner  io.Closer
	raw    syscall.RawConn
	pid    uint32
	closed atomic.Bool
}

// dial opens a socket in the network namespace of the calling thread.
func dial() (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netfilter netlink socket: %w", explain(err))
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("get netlink descriptor: %w", err), conn.Close())
	}
	return &socket{conn: conn, owner: conn, raw: raw, pid: conn.PID()}, nil
}

// unpoll moves the socket to a descriptor that Go's poller does not know: an
// event for a descriptor in the poller wakes a thread of the runtime, whether
// or not anybody waits for it.
func (s *socket) unpoll() error {
	dup := -1
	err := s.control(func(fd int) (err error) {
		if dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetNonblock(dup, false) // or NewFile adds it to the poller
	})
	if err != nil {
		return errors.Join(fmt.Errorf("duplicate netlink descriptor: %w", err), closeFD(dup))
	}
	file := os.NewFile(uintptr(dup), "netlink")
	raw, err := file.SyscallConn()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	conn := s.conn
	s.conn, s.owner, s.raw = nil, file, raw
	return conn.Close()
}

func closeFD(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// hints say what an errno of the kernel means to whoever runs the daemon.
var hints = map[unix.Errno]string{
	unix.EPERM:           "this takes root or CAP_NET_ADMIN in the network namespace",
	unix.EINVAL:          "is the kernel module nf_conntrack_netlink missing?",
	unix.EPROTONOSUPPORT: "is the kernel module nfnetlink missing?",
}

// explain reduces an error about opening or asking to its errno, and adds what
// that means.
func explain(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	if hint := hints[errno]; hint != "" {
		return fmt.Errorf("%w (%s)", errno, hint)
	}
	return errno
}

// Close ends every pending read with os.ErrClosed.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return os.ErrClosed
	}
	return s.owner.Close()
}

// portID is the socket's address: the nlmsg_pid of what it causes.
func (s *socket) portID() uint32 { return s.pid }

// wrap names closing as such: the poller's own error for it is internal.
func (s *socket) wrap(err error) error {
	if err != nil && s.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// control runs f on the descriptor.
func (s *socket) control(f func(fd int) error) error {
	var err error
	cerr := s.raw.Control(func(fd uintptr) { err = f(int(fd)) })
	runtime.KeepAlive(s.owner)
	if cerr != nil {
		return s.wrap(cerr)
	}
	return err
}

// forceReadBuffer sets the receive buffer to size bytes, above
// net.core.rmem_max if we may, and returns what the kernel made of it. The
// kernel doubles what it is given, so half is asked for.
func (s *socket) forceReadBuffer(size int) (got int, err error) {
	err = s.control(func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size/2)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2)
		}
		if err != nil {
			return err
		}
		got, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("set netlink receive buffer to %d bytes: %w", size, err)
	}
	return got, nil
}

// readBuffer returns the size of the receive buffer in bytes.
func (s *socket) readBuffer() (got int, err error) {
	err = s.control(func(fd int) error {
		var err error
		got, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("get netlink receive buffer: %w", err)
	}
	return got, nil
}

// drops returns how many messages the kernel could not queue on this socket
// since it was opened (SK_MEMINFO_DROPS).
func (s *socket) drops() (n uint32, err error) {
	const words, dropsWord = 9, 8 // SK_MEMINFO_VARS, SK_MEMINFO_DROPS
	var info [words]uint32
	err = s.control(func(fd int) error {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return info[dropsWord], err
}

// send writes one request to the kernel.
func (s *socket) send(req []byte) error {
	err := s.control(func(fd int) error {
		return unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err != nil {
		return fmt.Errorf("send netlink request: %w", err)
	}
	return nil
}
