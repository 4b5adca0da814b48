package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// EventCost is more than an event takes of the receive buffer, in bytes: the
// kernel counts what it has allocated for it.
const EventCost = 2 << 10

// Backlog returns how full the receive buffer of the event socket is: what
// waits to be read and what fits, both in bytes as the kernel counts them
// (SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_RCVBUF). It may be called from any
// goroutine.
func (e *Events) Backlog() (used, size int, err error) {
	const words, allocWord, bufferWord = 9, 0, 1
	var info [words]uint32
	err = e.sock.control(func(fd int) error {
		n := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return int(info[allocWord]), int(info[bufferWord]), err
}
