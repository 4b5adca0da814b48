package garbage

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flood sends garbage from one address. Inside runs a function in a namespace
// ((*nettest.Node).Do).
type Flood struct {
	Inside   func(func() error) error
	From     netip.Addr // an IPv4 address of the namespace
	To       netip.AddrPort
	Rate     int // datagrams per second
	Duration time.Duration
}

// sendBatch datagrams go with one system call, from one copy each.
const sendBatch = 128

type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// Run sends until the time is over and returns how many datagrams went out. It
// sends as many as it can where the rate can't be reached.
func (f *Flood) Run(s *Source) (sent int, err error) {
	fd, err := f.open()
	if err != nil {
		return 0, fmt.Errorf("flood with garbage: %w", err)
	}
	defer unix.Close(fd)
	var msgs [sendBatch]mmsghdr
	var iovs [sendBatch]unix.Iovec
	pool := make([]byte, 0, sendBatch*2048+maxDatagram)
	start := time.Now()
	for {
		passed := time.Since(start)
		if passed >= f.Duration {
			return sent, nil
		}
		if due := int(passed.Seconds() * float64(f.Rate)); sent > due {
			time.Sleep(time.Duration(sent-due) * time.Second / time.Duration(f.Rate))
			continue
		}
		pool = pool[:0]
		n := 0
		for ; n < sendBatch && cap(pool)-len(pool) > maxDatagram; n++ {
			at := len(pool)
			pool = append(pool, s.Next()...)
			iovs[n].Base = unsafe.SliceData(pool[at:cap(pool)])
			iovs[n].SetLen(len(pool) - at)
			msgs[n].Iov = &iovs[n]
			msgs[n].SetIovlen(1)
		}
		for at := 0; at < n; {
			done, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[at])), uintptr(n-at), 0, 0, 0)
			switch e {
			case 0:
				at += int(done)
				sent += int(done)
			case unix.EINTR, unix.ECONNREFUSED: // nobody listens, or did a moment ago
			case unix.ENOBUFS, unix.EMSGSIZE:
				at++
			default:
				return sent, fmt.Errorf("flood with garbage: send: %w", e)
			}
		}
	}
}

func (f *Flood) open() (fd int, err error) {
	err = f.Inside(func() error {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: f.From.As4()}); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: f.To.Addr().As4(), Port: int(f.To.Port())})
		}
		if err != nil {
			_ = unix.Close(fd)
		}
		return err
	})
	return fd, err
}
