package nettest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// ServeEcho answers every byte on a TCP and a UDP port of the node, IPv4 and
// IPv6, until the lab closes.
func (n *Node) ServeEcho(port int) error {
	addr := fmt.Sprintf(":%d", port)
	var l net.Listener
	var pc net.PacketConn
	err := n.Do(func() (err error) {
		if l, err = net.Listen("tcp", addr); err != nil {
			return err
		}
		pc, err = net.ListenPacket("udp", addr)
		return err
	})
	if l != nil {
		n.lab.OnClose(l.Close)
	}
	if err != nil {
		return fmt.Errorf("serve echo on %s: %w", n.Name, err)
	}
	n.lab.OnClose(pc.Close)
	go echoStreams(l)
	go echoDatagrams(pc)
	return nil
}

func echoStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			_, _ = io.Copy(c, c)
		}()
	}
}

func echoDatagrams(pc net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		size, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = pc.WriteTo(buf[:size], from)
		}
	}
}

// Conn is a client's TCP connection or UDP flow to an echo server.
type Conn struct {
	net.Conn
	Network string // "tcp" or "udp"
	lines   *bufio.Reader
	count   int
}

// Dial opens a connection from the node; the lab closes it at the end.
func (n *Node) Dial(network, addr string, timeout time.Duration) (*Conn, error) {
	c := &Conn{Network: network}
	err := n.Do(func() (err error) {
		c.Conn, err = net.DialTimeout(network, addr, timeout)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", n.Name, err)
	}
	c.lines = bufio.NewReader(c)
	n.lab.OnClose(func() error {
		_ = c.Close()
		return nil
	})
	return c, nil
}

// resend is how long a UDP round trip waits before it sends again.
const resend = 200 * time.Millisecond

// RoundTrip sends a line and waits until it comes back, skipping what earlier
// round trips left behind. Only UDP sends again.
func (c *Conn) RoundTrip(timeout time.Duration) error {
	c.count++
	line := fmt.Sprintf("%d\n", c.count)
	end := time.Now().Add(timeout)
	for {
		if _, err := c.Write([]byte(line)); err != nil && c.Network == "tcp" {
			return fmt.Errorf("round trip %s: %w", c, err)
		}
		wait := end
		if again := time.Now().Add(resend); c.Network == "udp" && again.Before(end) {
			wait = again
		}
		err := c.await(line, wait)
		if err == nil {
			return nil
		}
		if c.Network == "tcp" || !time.Now().Before(end) {
			return fmt.Errorf("round trip %s: %w", c, err)
		}
	}
}

// await reads until line arrives or the time is over.
func (c *Conn) await(line string, until time.Time) error {
	if err := c.SetReadDeadline(until); err != nil {
		return err
	}
	var got strings.Builder
	for {
		part, err := c.lines.ReadString('\n')
		got.WriteString(part)
		if got.String() == line {
			return nil
		}
		if err == nil {
			got.Reset()
			continue
		}
		// A UDP socket reports a refusal once and works on.
		if c.Network == "tcp" || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

func (c *Conn) String() string {
	return fmt.Sprintf("%s %v > %v", c.Network, c.LocalAddr(), c.RemoteAddr())
}

// Ping sends one ICMP or ICMPv6 echo request with the given id and waits for
// the answer.
func (n *Node) Ping(addr string, id int) error {
	_, err := n.Run("ping", "-n", "-c", "1", "-W", "3", "-e", fmt.Sprint(id), addr)
	return err
}
