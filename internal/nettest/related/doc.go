// Package related makes the traffic that expectations are for: FTP and TFTP
// sessions of which the data connection can be held back until the test has
// done something to the firewalls in between.
package related

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// Content is what the servers have to offer, whatever is asked for.
const Content = "It takes two connections to say this.\n"

// patience bounds each step of a session. A lost segment is sent again within
// a second.
const patience = 8 * time.Second

// dial opens a TCP connection of a node; from may be nil.
func dial(n *nettest.Node, from *net.TCPAddr, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: patience, Control: reuse}
	if from != nil {
		d.LocalAddr = from
	}
	err = n.Do(func() (err error) {
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

// reuse lets a server use port 20 for one transfer after the other.
func reuse(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}

// listen accepts one connection of a node soon, on a port the kernel chooses.
func listen(n *nettest.Node, addr string) (l *net.TCPListener, err error) {
	err = n.Do(func() error {
		x, err := net.Listen("tcp", addr)
		if err == nil {
			l = x.(*net.TCPListener)
		}
		return err
	})
	return l, err
}

func listenPacket(n *nettest.Node, addr string) (c net.PacketConn, err error) {
	err = n.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(context.Background(), "udp", addr)
		return err
	})
	return c, err
}
