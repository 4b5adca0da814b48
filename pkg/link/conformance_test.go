package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rig makes two ends of a link of one transport on a loopback device.
type rig func(t *testing.T) (a, b Link)

// rigs has a row for each row of openers.
var rigs = map[Transport]rig{
	UDP: func(t *testing.T) (a, b Link) {
		port := freePort(t)
		return openLoopback(t, "127.0.0.1", "127.0.0.2", port), openLoopback(t, "127.0.0.2", "127.0.0.1", port)
	},
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func openLoopback(t *testing.T, local, peer string, port uint16) Link {
	t.Helper()
	cfg := ends(local, peer)
	cfg.Interface, cfg.Port = "lo", port
	cfg.SendBuffer, cfg.ReceiveBuffer = 1<<20, 1<<20
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestConformance is what every transport must do.
func TestConformance(t *testing.T) {
	for transport := range openers {
		open := rigs[transport]
		if open == nil {
			t.Errorf("%s has an opener and no rig", transport)
			continue
		}
		for name, test := range map[string]func(*testing.T, rig){
			"order":               testOrder,
			"both ways":           testBothWays,
			"counters":            testCounters,
			"nothing there":       testNothing,
			"closed":              testClosed,
			"empty batch":         testEmptyBatch,
			"idle is writable":    testIdleWritable,
			"allocates nothing":   testAllocations,
			"too large for place": testTruncated,
			"describes itself":    testDescription,
		} {
			t.Run(transport.String()+"/"+name, func(t *testing.T) { test(t, open) })
		}
	}
}

// Batches of more than one system call, in several receives, keep their order.
func testOrder(t *testing.T, open rig) {
	a, b := open(t)
	want := make([]string, 200)
	for i := range want {
		want[i] = fmt.Sprintf("datagram %d", i)
	}
	send(t, a, want...)
	if got, _ := receive(t, b, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func testBothWays(t *testing.T, open rig) {
	a, b := open(t)
	send(t, a, "ping")
	if got, _ := receive(t, b, 1); !slices.Equal(got, []string{"ping"}) {
		t.Errorf("got %q", got)
	}
	send(t, b, "pong")
	if got, _ := receive(t, a, 1); !slices.Equal(got, []string{"pong"}) {
		t.Errorf("got %q", got)
	}
}

func testCounters(t *testing.T, open rig) {
	a, b := open(t)
	send(t, a, "12345", "123")
	receive(t, b, 2)
	if got, want := a.Stats(), (Stats{SentBytes: 8, SentPackets: 2}); got != want {
		t.Errorf("sender: %+v", got)
	}
	if got, want := b.Stats(), (Stats{RecvBytes: 8, RecvPackets: 2}); got != want {
		t.Errorf("receiver: %+v", got)
	}
}

// Nothing there is no error, and the descriptor says so.
func testNothing(t *testing.T, open rig) {
	a, b := open(t)
	in := NewBatch(4, 100)
	if n, err := b.Recv(in); n != 0 || err != nil || in.Full() {
		t.Errorf("received %d, %v, full %v", n, err, in.Full())
	}
	if readable(t, b, 0) {
		t.Error("readable, and nothing came")
	}
	send(t, a, "1", "2", "3", "4", "5")
	for i, want := range []int{4, 1} {
		await(t, b)
		if n, err := b.Recv(in); n != want || err != nil || in.Full() != (i == 0) {
			t.Errorf("received %d, %v, full %v", n, err, in.Full())
		}
	}
	if readable(t, b, 0) {
		t.Error("readable, and everything was read")
	}
}

func testClosed(t *testing.T, open rig) {
	a, _ := open(t)
	a.Close()
	if n, err := a.Send([][]byte{{1}}); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send: %d, %v", n, err)
	}
	if _, err := a.Recv(NewBatch(1, 100)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Recv: %v", err)
	}
	if err := a.WaitWritable(time.Now().Add(time.Minute)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WaitWritable: %v", err)
	}
	a.Stats()
	a.Status()
	a.Buffers()
}

func testEmptyBatch(t *testing.T, open rig) {
	a, _ := open(t)
	if n, err := a.Send(nil); n != 0 || err != nil {
		t.Errorf("Send: %d, %v", n, err)
	}
	if s := a.Stats(); s != (Stats{}) {
		t.Errorf("counted %+v", s)
	}
}

func testIdleWritable(t *testing.T, open rig) {
	a, _ := open(t)
	if err := a.WaitWritable(time.Now().Add(10 * time.Second)); err != nil {
		t.Error(err)
	}
	if err := a.WaitWritable(time.Now().Add(-time.Second)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	send(t, a, "a deadline that passed does not matter to Send")
}

func testAllocations(t *testing.T, open rig) {
	a, b := open(t)
	batch := make([][]byte, 100)
	for i := range batch {
		batch[i] = make([]byte, 100)
	}
	in := NewBatch(64, 2048)
	var failed error
	var from netip.Addr
	n := testing.AllocsPerRun(200, func() {
		if n, err := a.Send(batch); n != len(batch) || err != nil {
			failed = fmt.Errorf("sent %d: %v", n, err)
			return
		}
		for got := 0; got < len(batch); {
			n, err := b.Recv(in)
			if err != nil {
				failed = err
				return
			}
			if n > 0 {
				from = in.From(n - 1)
			}
			got += n
		}
	})
	if n != 0 || failed != nil || !from.IsValid() {
		t.Errorf("%v allocations per 100 datagrams, error %v, source %s", n, failed, from)
	}
}

// What does not fit is dropped and counted, and the next one is intact.
func testTruncated(t *testing.T, open rig) {
	a, b := open(t)
	send(t, a, "much too long", "fits")
	in := NewBatch(4, 8)
	await(t, b)
	n, err := b.Recv(in)
	if n != 1 || err != nil || string(in.Datagram(0)) != "fits" {
		t.Fatalf("got %d, %v", n, err)
	}
	if s := b.Stats(); s.Truncated != 1 || s.RecvPackets != 1 || s.RecvBytes != 4 {
		t.Errorf("%+v", s)
	}
}

func testDescription(t *testing.T, open rig) {
	a, _ := open(t)
	if a.Name() != "lo" || openers[a.Transport()] == nil || a.MTU() < 60000 || a.Status() != Running {
		t.Errorf("%q %s, %d bytes, %s", a.Name(), a.Transport(), a.MTU(), a.Status())
	}
}

func TestOpenRefuses(t *testing.T) {
	local, peer := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	for _, c := range []struct {
		name, want string
		cfg        Config
		is         error
	}{
		{"multicast", `open link on "lo": transport Multicast is not supported yet`,
			Config{Transport: Multicast, Interface: "lo"}, ErrNotSupported},
		{"TCP", `open link on "lo": transport TCP is not supported yet`,
			Config{Transport: TCP, Interface: "lo"}, ErrNotSupported},
		{"no interface", `open UDP link on "": no Interface configured`,
			Config{Transport: UDP, Local: local, Peer: peer}, nil},
		{"unknown interface", `open UDP link on "nosuch0": find interface: no such network interface`,
			Config{Transport: UDP, Interface: "nosuch0", Local: local, Peer: peer}, nil},
		{"two families", `open UDP link on "lo": local address 127.0.0.1 and destination ::1 are of two families`,
			Config{Transport: UDP, Interface: "lo", Local: local, Peer: netip.IPv6Loopback()}, nil},
		{"foreign local address", `open UDP link on "lo": bind 192.0.2.77:9: cannot assign requested address (this machine does not have it; a new IPv6 address takes a second or two)`,
			Config{Transport: UDP, Interface: "lo", Local: netip.MustParseAddr("192.0.2.77"), Peer: peer, Port: 9}, unix.EADDRNOTAVAIL},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Open(c.cfg)
			if err == nil {
				l.Close()
				t.Fatal("opened")
			}
			if err.Error() != c.want || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
