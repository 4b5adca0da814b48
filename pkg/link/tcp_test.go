package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

func (n *namespace) connected(t *testing.T, other *namespace, localA, localB string) (a, b Link) {
	t.Helper()
	a, b = n.open(t, endsTCP(localA, localB)), other.open(t, endsTCP(localB, localA))
	n.do(func() { connect(t, a, b) })
	return a, b
}

func TestTCPBetweenNamespaces(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		mtu        int
	}{
		{"IPv4", "10.9.0.1", "10.9.0.2", 1460},
		{"IPv6 global", "fd09::1", "fd09::2", 1440},
		{"IPv6 link-local", "fe80::1", "fe80::2", 1440},
	} {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			cable(t, nsA, nsB, "other0")
			a, b := nsA.connected(t, nsB, c.a, c.b)
			if a.MTU() != c.mtu {
				t.Errorf("MTU %d", a.MTU())
			}
			sendMessages(t, a, "to b")
			if got := receiveMessages(t, b, 1); got[0] != "to b" {
				t.Errorf("b got %q", got)
			}
			sendMessages(t, b, "to a")
			if got := receiveMessages(t, a, 1); got[0] != "to a" {
				t.Errorf("a got %q", got)
			}
		})
	}
}

// What is sent before the peer is there, and while it is away, waits and comes
// in order; only what the queue does not hold is lost, the oldest first.
func TestTCPQueuesWhileDisconnected(t *testing.T) {
	port := freePort(t)
	a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
	sendMessages(t, a, "1", "2", "3")
	if s := a.Stats(); s.Queued != 3 || s.SendErrors != 0 || s.SentPackets != 0 {
		t.Errorf("%+v", s)
	}
	b := openLoopbackTCP(t, "127.0.0.2", "127.0.0.1", port)
	early := connect(t, a, b)
	sendMessages(t, a, "4")
	if got := append(early, receiveMessages(t, b, 4-len(early))...); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
		t.Errorf("got %q", got)
	}
	b.Close()
	work(t, "the end of the connection", []Link{a}, func() bool {
		_, client := a.(*tcp).Connected()
		return !client
	})
	sendMessages(t, a, "5", "6", "7", "8", "9", "10")
	if s := a.Stats(); s.Queued != 4 || s.SendErrors != 2 {
		t.Errorf("%+v", s)
	}
	b = openLoopbackTCP(t, "127.0.0.2", "127.0.0.1", port)
	got := work(t, "what waited", []Link{a, b}, func() bool { return b.Stats().RecvBytes >= 37 })
	if !slices.Equal(got, []string{"7", "8", "9", "10"}) {
		t.Errorf("got %q", got)
	}
	if s := a.Stats(); s.Queued != 0 || s.SentPackets != 8 {
		t.Errorf("%+v", s)
	}
}

// A peer that reads slowly gets everything, whole and in order, through socket
// buffers that hold no more than a few datagrams.
func TestTCPPartialWrites(t *testing.T) {
	port := freePort(t)
	small := func(local, peer string) Link {
		cfg := endsTCP(local, peer)
		cfg.Interface, cfg.Port, cfg.SendBuffer, cfg.ReceiveBuffer = "lo", port, 2304, 1152
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	a, b := small("127.0.0.1", "127.0.0.2"), small("127.0.0.2", "127.0.0.1")
	connect(t, a, b)
	var want, got []string
	for i := range 200 {
		want = append(want, fmt.Sprintf("%0*d", 100+i*37%3000, i))
	}
	full := 0
	for batch := messages(want...); len(got) < len(want); {
		n, err := a.Send(batch)
		if err != nil {
			t.Fatal(err)
		}
		if batch = batch[n:]; len(batch) > 0 {
			full++
		}
		got = append(got, work(t, "something to read", []Link{a, b}, func() bool { return readable(t, b, 0) || len(got) == len(want) })...)
		got = append(got, drain(t, b)...)
	}
	if !slices.Equal(got, want) {
		t.Error("what came is not what was sent")
	}
	if full == 0 {
		t.Error("the connection was never full: the test shows nothing")
	}
	if s := a.Stats(); s.SendErrors != 0 || s.SentPackets != uint64(len(want)) {
		t.Errorf("%+v", s)
	}
}

// drain takes what is there.
func drain(t *testing.T, l Link) (got []string) {
	t.Helper()
	b := NewBatch(4, 100)
	for readable(t, l, 0) {
		n, err := l.Recv(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			got = append(got, textsOf(t, b.Datagram(i))...)
		}
	}
	return got
}

// A peer that stops reading costs one wait. Then the queue loses its oldest,
// until the peer reads again.
func TestTCPStalledPeer(t *testing.T) {
	port := freePort(t)
	cfg := endsTCP("127.0.0.1", "127.0.0.2")
	cfg.Interface, cfg.Port, cfg.SendBuffer = "lo", port, 2304
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := openLoopbackTCP(t, "127.0.0.2", "127.0.0.1", port)
	connect(t, a, b)
	one := [][]byte{message(string(make([]byte, 60000)))}
	for sent := 1; sent == 1; {
		if sent, err = a.Send(one); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.WaitWritable(time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("WaitWritable: %v", err)
	}
	for range 3 {
		if n, err := a.Send(one); n != 1 || err != nil {
			t.Errorf("sent %d: %v", n, err)
		}
	}
	if s := a.Stats(); s.SendErrors != 3 || s.Queued != 4 {
		t.Errorf("%+v", s)
	}
	work(t, "the queue to empty", []Link{a, b}, func() bool { return a.Stats().Queued == 0 })
	if n, err := a.Send(messages("after")); n != 1 || err != nil {
		t.Errorf("sent %d: %v", n, err)
	}
}

// dialRaw connects as a peer of another make would, from an address.
func dialRaw(t *testing.T, from string, port uint16) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func serverIs(l Link, want bool) func() bool {
	return func() bool {
		server, _ := l.(*tcp).Connected()
		return server == want
	}
}

// A length that cannot be ends the connection. What was before it counts, the
// header is handed on to be counted, and the peer may connect again.
func TestTCPLostFraming(t *testing.T) {
	port := freePort(t)
	a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
	c := dialRaw(t, "127.0.0.2", port)
	work(t, "the peer", []Link{a}, serverIs(a, true))
	bad := append(message("good"), 0x10, 0, 0, 3, 0, 0, 0, 0, 1, 2, 3, 4)
	if _, err := c.Write(bad); err != nil {
		t.Fatal(err)
	}
	in := NewBatch(4, 100)
	await(t, a)
	if n, err := a.Recv(in); n != 1 || err != nil || len(in.Datagram(0)) != 12+8 {
		t.Fatalf("received %d, %v", n, err)
	}
	if server, _ := a.(*tcp).Connected(); server {
		t.Error("the connection goes on")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer reads %v", err)
	}
	again := dialRaw(t, "127.0.0.2", port)
	if _, err := again.Write(message("again")); err != nil {
		t.Fatal(err)
	}
	if got := receiveMessages(t, a, 1); !slices.Equal(got, []string{"again"}) {
		t.Errorf("got %q", got)
	}
	if s := a.Stats(); s.RecvErrors != 1 {
		t.Errorf("%+v", s)
	}
}

// A new connection takes the place of the old one, whose last words are heard
// and whose half message is forgotten.
func TestTCPNewConnectionReplaces(t *testing.T) {
	port := freePort(t)
	a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
	first := dialRaw(t, "127.0.0.2", port)
	work(t, "the peer", []Link{a}, serverIs(a, true))
	if _, err := first.Write(append(message("last words"), message("half")[:9]...)); err != nil {
		t.Fatal(err)
	}
	second := dialRaw(t, "127.0.0.2", port)
	if _, err := second.Write(message("hello")); err != nil {
		t.Fatal(err)
	}
	if got := receiveMessages(t, a, 2); !slices.Equal(got, []string{"last words", "hello"}) {
		t.Errorf("got %q", got)
	}
	_ = first.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := first.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		t.Errorf("the first connection is still there: %v", err)
	}
	second.Close()
	work(t, "the end", []Link{a}, serverIs(a, false))
}

// Who is not on the link is refused before a byte is read.
func TestTCPRefuses(t *testing.T) {
	for _, c := range []struct {
		only []netip.Prefix
		ok   bool
	}{
		{nil, true}, // 127.0.0.0/8 is the network of lo
		{[]netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}, false},
	} {
		port := freePort(t)
		cfg := endsTCP("127.0.0.1", "127.0.0.2")
		cfg.Interface, cfg.Port, cfg.AcceptFrom = "lo", port, c.only
		a, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		conn := dialRaw(t, "127.0.0.3", port)
		_, _ = conn.Write(message("stranger"))
		if c.ok {
			if got := receiveMessages(t, a, 1); got[0] != "stranger" {
				t.Errorf("got %q", got)
			}
			continue
		}
		b := NewBatch(4, 100)
		refused := false
		for !refused {
			await(t, a)
			if n, err := a.Recv(b); n != 0 || err != nil {
				t.Fatalf("received %d, %v", n, err)
			}
			_, refused = b.Refused()
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the stranger reads something")
		}
		if s := a.Stats(); s.Refused != 1 || s.LastRefused != netip.MustParseAddr("127.0.0.3") || s.RecvBytes != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// A listener that closes each connection at once must not make us spin.
func TestTCPBacksOff(t *testing.T) {
	port := freePort(t)
	l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan time.Time, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- time.Now()
			c.Close()
		}
	}()
	a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
	var at []time.Time
	work(t, "five attempts", []Link{a}, func() bool {
		select {
		case when := <-accepted:
			at = append(at, when)
		default:
		}
		return len(at) == 5
	})
	// 50, 100, 200, 400 ms.
	if took := at[4].Sub(at[0]); took < 700*time.Millisecond {
		t.Errorf("five attempts within %v", took)
	}
}

// The interface goes and comes back as another: both connections are made
// again, and what waited arrives.
func TestTCPInterfaceComesBack(t *testing.T) {
	nsA, nsB := pair(t)
	a, b := nsA.connected(t, nsB, "10.9.0.1", "10.9.0.2")
	comeBackTCP(t, nsA, nsB, a, b)
}

func comeBackTCP(t *testing.T, nsA, nsB *namespace, a, b Link) {
	t.Helper()
	nsA.ip(t, "link del sync0", "link add filler0 type veth peer name filler1")
	nsB.ip(t, "link add filler2 type veth peer name filler3")
	// The connections do not notice: they end as the peer's machine does.
	a.(*tcp).out.lose()
	b.(*tcp).out.lose()
	sendMessages(t, a, "waits")
	sendMessages(t, b, "waits too")
	plug(t, nsA, nsB)
	nsA.awaitLocal(t, "fd09::1")
	nsB.awaitLocal(t, "fd09::2")
	got := work(t, "both messages", []Link{within{a, nsA}, within{b, nsB}}, func() bool {
		return a.Stats().RecvPackets == 1 && b.Stats().RecvPackets == 1
	})
	slices.Sort(got)
	if !slices.Equal(got, []string{"waits", "waits too"}) {
		t.Errorf("got %q", got)
	}
}

func TestTCPReconnectsFromAnywhere(t *testing.T) {
	port := freePort(t)
	a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
	l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 2 {
		got := make(chan []byte, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, len(message("x")))
			_, _ = io.ReadFull(c, b)
			got <- b
			_ = c.(*net.TCPConn).SetLinger(0) // a reset, as of a process that was killed
			c.Close()
		}()
		sendMessages(t, a, "x")
		var b []byte
		work(t, fmt.Sprint("message ", i), []Link{a}, func() bool {
			select {
			case b = <-got:
			default:
			}
			return b != nil
		})
		if texts := textsOf(t, b); !slices.Equal(texts, []string{"x"}) {
			t.Errorf("got %q", texts)
		}
		work(t, "the reset", []Link{a}, func() bool { _, client := a.(*tcp).Connected(); return !client })
	}
}
