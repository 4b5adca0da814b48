package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func skipOrFail(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func conntrack(t *testing.T, args string) {
	t.Helper()
	command(t, "", "conntrack", strings.Fields(args)...)
}

func command(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func talkTCP(t *testing.T, from, to, at string, port int) {
	talkVia(t, "tcp", from, to, at, port, port)
}
func talkUDP(t *testing.T, from, to, at string, port int) {
	talkVia(t, "udp", from, to, at, port, port)
}

// talkVia sends a word from one address to a port of another, where rules may
// lead it to a listener elsewhere, and waits for the echo. The sockets are
// made on this thread, which is what is in the namespace.
func talkVia(t *testing.T, network, from, to, at string, port, listen int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	here := net.JoinHostPort(at, fmt.Sprint(listen))
	echoed := make(chan error, 1)
	if network == "tcp" {
		l, err := new(net.ListenConfig).Listen(ctx, network, here)
		if err != nil {
			t.Fatal(err)
		}
		defer shut(l)
		go func() { echoed <- echoTCP(l) }()
	} else {
		l, err := new(net.ListenConfig).ListenPacket(ctx, network, here)
		if err != nil {
			t.Fatal(err)
		}
		defer shut(l)
		go func() { echoed <- echoUDP(l) }()
	}
	c := dialFrom(ctx, t, network, from, 40000+listen%1000, net.JoinHostPort(to, fmt.Sprint(port)))
	defer shut(c)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "word"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 16)); n != 4 || err != nil {
		t.Fatalf("echo of %s %s to %s: %d bytes, %v", network, from, to, n, err)
	}
	shut(c)
	if err := <-echoed; err != nil {
		t.Fatal(err)
	}
}

// dialFrom reuses the port, which an earlier scenario may have left in
// TIME_WAIT.
func dialFrom(ctx context.Context, t *testing.T, network, from string, port int, to string) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	if network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from), Port: port}
	} else {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from), Port: port}
	}
	for {
		c, err := d.DialContext(ctx, network, to)
		// The kernel installs the route of a new IPv6 address in a work queue,
		// in steps, and tells nobody when it is done.
		if errors.Is(err, unix.ENETUNREACH) && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// shut closes what has done its part.
func shut(c io.Closer) { _ = c.Close() }

func echoTCP(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer shut(c)
	_, err = io.Copy(c, c)
	return err
}

func echoUDP(l net.PacketConn) error {
	b := make([]byte, 64)
	n, from, err := l.ReadFrom(b)
	if err == nil {
		_, err = l.WriteTo(b[:n], from)
	}
	return err
}

func sendUDP(t *testing.T, from, to string, port int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := dialFrom(ctx, t, "udp", from, 40900, net.JoinHostPort(to, fmt.Sprint(port)))
	defer shut(c)
	if _, err := io.WriteString(c, "word"); err != nil {
		t.Fatal(err)
	}
}

// talkFTP opens a control connection, announces a data connection with PORT
// or EPRT and opens that from the server's side.
func talkFTP(t *testing.T, from, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(to, "21"))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(l)
	data, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(from, "40020"))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(data)
	echoed := make(chan error, 1)
	go func() { echoed <- echoTCP(l) }()
	c := dialFrom(ctx, t, "tcp", from, 40021, net.JoinHostPort(to, "21"))
	defer shut(c)
	announce := "PORT 10,1,0,2,156,84\r\n"
	if strings.Contains(from, ":") {
		announce = "EPRT |2|" + from + "|40020|\r\n"
	}
	b := make([]byte, 128)
	// The helper wants a line before the first command it looks at. The second
	// announcement stays pending.
	for i, line := range []string{"USER anonymous\r\n", announce, announce} {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			continue
		}
		if target, ok := dataTarget(string(b[:n]), from); ok {
			shut(dialFrom(ctx, t, "tcp", to, 20, target))
		}
	}
	shut(c)
	if err := <-echoed; err != nil {
		t.Fatal(err)
	}
}

// dataTarget is the address in an announcement as the server sees it, which
// the kernel may have translated.
func dataTarget(line, from string) (string, bool) {
	var a, b, c, d, hi, lo int
	if _, err := fmt.Sscanf(line, "PORT %d,%d,%d,%d,%d,%d", &a, &b, &c, &d, &hi, &lo); err == nil {
		return fmt.Sprintf("%d.%d.%d.%d:%d", a, b, c, d, hi<<8|lo), true
	}
	return net.JoinHostPort(from, "40020"), strings.HasPrefix(line, "EPRT")
}

func ping(t *testing.T, family int, from, to string) {
	t.Helper()
	proto, echo := unix.IPPROTO_ICMP, []byte{8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1}
	if family == unix.AF_INET6 {
		proto, echo = unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0x12, 0x34, 0, 1}
	}
	sendVia(t, family, proto, from, to, echo)
}

func sendRaw(t *testing.T, proto int, payload []byte) {
	t.Helper()
	sendVia(t, unix.AF_INET, proto, client4, server4, payload)
}

func sendVia(t *testing.T, family, proto int, from, to string, payload []byte) {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(fd, payload, 0, sockaddr(to)); err != nil {
		t.Fatal(err)
	}
}

func sockaddr(text string) unix.Sockaddr {
	a := addr(text)
	if strings.Contains(text, ":") {
		return &unix.SockaddrInet6{Addr: a}
	}
	return &unix.SockaddrInet4{Addr: [4]byte(a[:4])}
}

// sctpInit is an SCTP packet 3000 to 4000 with an INIT chunk, initiate tag
// 0x55667788, and its CRC32c.
func sctpInit() []byte {
	b := []byte{
		0x0b, 0xb8, 0x0f, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0,
		1, 0, 0, 20, 0x55, 0x66, 0x77, 0x88, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1,
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
