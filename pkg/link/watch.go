package link

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A watch is a netlink socket that is readable when something about interfaces,
// or what else is asked for, has changed. What that is does not matter: who is
// woken looks.
type watch struct{ fd int }

// newWatch watches interfaces, and more groups (RTMGRP_*).
func newWatch(more uint32) (watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return watch{-1}, fmt.Errorf("watch interfaces: make socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | more}); err != nil {
		_ = unix.Close(fd)
		return watch{-1}, fmt.Errorf("watch interfaces: bind: %w", err)
	}
	return watch{fd}, nil
}

// drain takes what is there. A message that did not fit counts as one too.
func (w watch) drain() {
	var scratch [1]byte
	for {
		if _, e := recv(w.fd, scratch[:]); e != 0 && e != unix.ENOBUFS && e != unix.EINTR {
			return
		}
	}
}

func (w watch) close() error { return unix.Close(w.fd) }
