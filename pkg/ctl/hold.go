package ctl

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// hold keeps the peer of conn connected until the process has ended, although
// conn itself is closed: a duplicate of its descriptor is left open. The
// kernel closes it when everything else of the process is gone.
func hold(conn net.Conn) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	// Without a descriptor to spare the client sees the end a little early.
	_ = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
}
