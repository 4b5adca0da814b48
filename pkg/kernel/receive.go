package kernel

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// receiver takes datagrams off a socket in batches (recvmmsg) into buffers
// that are allocated once and valid until the next receive.
type receiver struct {
	sock *socket
	hdrs []mmsghdr
	iovs []unix.Iovec
	bufs []byte
	size int // bytes of one buffer

	count int // datagrams of the last receive
	next  int // the one that datagram hands out next
	errno unix.Errno

	// The poller takes functions; made once, so that receiving does not allocate.
	readFn    func(fd uintptr) bool
	controlFn func(fd uintptr)
}

func newReceiver(s *socket, batch, size int) *receiver {
	r := &receiver{
		sock: s,
		hdrs: make([]mmsghdr, batch),
		iovs: make([]unix.Iovec, batch),
		bufs: make([]byte, batch*size),
		size: size,
	}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i*size]
		r.iovs[i].SetLen(size)
		r.hdrs[i].hdr.Iov = &r.iovs[i]
		r.hdrs[i].hdr.SetIovlen(1)
	}
	r.readFn = func(fd uintptr) bool {
		r.recvmmsg(fd)
		return r.errno != unix.EAGAIN
	}
	r.controlFn = r.recvmmsg
	return r
}

// receive takes what is queued, at most one batch, and if wait is set sleeps
// in the poller until there is something. Nothing there without wait is
// EAGAIN; a deadline is os.ErrDeadlineExceeded, a closed socket os.ErrClosed.
func (r *receiver) receive(wait bool) error {
	var err error
	if r.count, r.next = 0, 0; wait {
		err = r.sock.raw.Read(r.readFn)
	} else {
		err = r.sock.raw.Control(r.controlFn)
	}
	runtime.KeepAlive(r.sock.owner)
	if err != nil {
		return r.sock.wrap(err)
	}
	if r.errno != 0 {
		return r.errno
	}
	return nil
}

func (r *receiver) recvmmsg(fd uintptr) {
	for {
		// It never blocks: the scheduler need not know.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])),
			uintptr(len(r.hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if r.errno = errno; errno == 0 {
			r.count = int(n)
		}
		return
	}
}

// more says that datagrams of the last receive are left.
func (r *receiver) more() bool { return r.next < r.count }

// drained says that the last receive emptied the socket.
func (r *receiver) drained() bool { return r.count < len(r.hdrs) }

// datagram returns the next datagram of the last receive. cut says that it
// was longer than the buffer and its end is lost.
func (r *receiver) datagram() (b []byte, cut bool) {
	h := &r.hdrs[r.next]
	at := r.next * r.size
	r.next++
	return r.bufs[at : at+int(h.len)], h.hdr.Flags&unix.MSG_TRUNC != 0
}
