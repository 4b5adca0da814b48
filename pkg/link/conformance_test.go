package link

import (
	"encoding/binary"
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
	TCP: func(t *testing.T) (a, b Link) {
		port := freePort(t)
		a, b = openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port), openLoopbackTCP(t, "127.0.0.2", "127.0.0.1", port)
		connect(t, a, b)
		return a, b
	},
	// A group does not hear itself: it takes two machines.
	Multicast: func(t *testing.T) (a, b Link) {
		nsA, nsB := pair(t)
		return nsA.open(t, group("225.0.0.50", "10.9.0.1")), nsB.open(t, group("225.0.0.50", "10.9.0.2"))
	},
}

// A message is what every transport keeps whole: its length is in its header
// (docs/protocol.md 2).
func message(text string) []byte {
	m := make([]byte, header, header+len(text))
	m[0] = 0x10
	binary.BigEndian.PutUint16(m[2:], uint16(header+len(text)))
	return append(m, text...)
}

const header = 8

func messages(texts ...string) (batch [][]byte) {
	for _, s := range texts {
		batch = append(batch, message(s))
	}
	return batch
}

// textsOf takes a datagram apart.
func textsOf(t *testing.T, datagram []byte) (texts []string) {
	t.Helper()
	for len(datagram) > 0 {
		n := len(datagram)
		if n >= header {
			n = int(binary.BigEndian.Uint16(datagram[2:]))
		}
		if n < header || n > len(datagram) {
			t.Errorf("not whole messages: %q", datagram)
			return texts
		}
		texts, datagram = append(texts, string(datagram[header:n])), datagram[n:]
	}
	return texts
}

func sendMessages(t *testing.T, l Link, texts ...string) {
	t.Helper()
	if n, err := l.Send(messages(texts...)); n != len(texts) || err != nil {
		t.Errorf("sent %d of %d: %v", n, len(texts), err)
	}
}

func receiveMessages(t *testing.T, l Link, want int) (got []string) {
	t.Helper()
	b := NewBatch(32, 2048)
	for len(got) < want && !t.Failed() {
		await(t, l)
		n, err := l.Recv(b)
		if err != nil || n != b.Len() {
			t.Errorf("after %d of %d: %d, the batch has %d, %v", len(got), want, n, b.Len(), err)
		}
		for i := range n {
			got = append(got, textsOf(t, b.Datagram(i))...)
		}
	}
	return got
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
	return openOnLoopback(t, ends(local, peer), port)
}

func openLoopbackTCP(t *testing.T, local, peer string, port uint16) Link {
	t.Helper()
	return openOnLoopback(t, endsTCP(local, peer), port)
}

func openOnLoopback(t *testing.T, cfg Config, port uint16) Link {
	t.Helper()
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
	all := map[string]rig{"Set": twoLoopbacks}
	for _, k := range groupKinds {
		all["Group over "+k.name] = func(t *testing.T) (a, b Link) {
			nsA, nsB := pair(t)
			return nsA.open(t, k.config(1, 2)), nsB.open(t, k.config(2, 2))
		}
	}
	for transport := range openers {
		if rigs[transport] == nil {
			t.Fatalf("%s has an opener and no rig", transport)
		}
		all[transport.String()] = rigs[transport]
	}
	for kind, open := range all {
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
			t.Run(kind+"/"+name, func(t *testing.T) { test(t, open) })
		}
	}
}

// Batches of more than one system call, in several receives, keep their order.
func testOrder(t *testing.T, open rig) {
	a, b := open(t)
	want := make([]string, 200)
	for i := range want {
		want[i] = fmt.Sprintf("message %d", i)
	}
	sendMessages(t, a, want...)
	if got := receiveMessages(t, b, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func testBothWays(t *testing.T, open rig) {
	a, b := open(t)
	sendMessages(t, a, "ping")
	if got := receiveMessages(t, b, 1); !slices.Equal(got, []string{"ping"}) {
		t.Errorf("got %q", got)
	}
	sendMessages(t, b, "pong")
	if got := receiveMessages(t, a, 1); !slices.Equal(got, []string{"pong"}) {
		t.Errorf("got %q", got)
	}
}

// A stream may come in fewer pieces than it was sent in.
func testCounters(t *testing.T, open rig) {
	a, b := open(t)
	sendMessages(t, a, "12345678", "1234")
	receiveMessages(t, b, 2)
	if got, want := a.Stats(), (Stats{SentBytes: 28, SentPackets: 2}); got != want {
		t.Errorf("sender: %+v", got)
	}
	got, want := b.Stats(), Stats{RecvBytes: 28, RecvPackets: 2}
	if b.Transport() == TCP && got.RecvPackets == 1 {
		want.RecvPackets = 1
	}
	if got != want {
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
	sendMessages(t, a, "1", "2", "3", "4", "5")
	for got := 0; got < 5 && !t.Failed(); {
		await(t, b)
		n, err := b.Recv(in)
		if err != nil || n > 4 || b.Transport() != TCP && in.Full() != (n == 4) {
			t.Errorf("received %d, %v, full %v", n, err, in.Full())
		}
		for i := range n {
			got += len(textsOf(t, in.Datagram(i)))
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
	sendMessages(t, a, "a deadline that passed does not matter to Send")
}

func testAllocations(t *testing.T, open rig) {
	a, b := open(t)
	batch := make([][]byte, 100)
	size := 0
	for i := range batch {
		batch[i] = message("a message like many")
		size += len(batch[i])
	}
	in := NewBatch(64, 2048)
	var failed error
	var from netip.Addr
	n := testing.AllocsPerRun(200, func() {
		if n, err := a.Send(batch); n != len(batch) || err != nil {
			failed = fmt.Errorf("sent %d: %v", n, err)
			return
		}
		for got := 0; got < size; {
			n, err := b.Recv(in)
			if err != nil {
				failed = err
				return
			}
			for i := range n {
				from = in.From(i)
				got += len(in.Datagram(i))
			}
		}
	})
	if n != 0 || failed != nil || !from.IsValid() {
		t.Errorf("%v allocations per 100 datagrams, error %v, source %s", n, failed, from)
	}
}

// What does not fit is dropped and counted, and the next one is intact.
func testTruncated(t *testing.T, open rig) {
	a, b := open(t)
	if b.Transport() == TCP {
		return // nothing is too large for a stream
	}
	send(t, a, "much too long", "fits")
	in := NewBatch(4, 8)
	await(t, b)
	n, err := b.Recv(in)
	if n == 0 && err == nil { // the second was on its way
		await(t, b)
		n, err = b.Recv(in)
	}
	if n != 1 || err != nil || string(in.Datagram(0)) != "fits" {
		t.Fatalf("got %d, %v", n, err)
	}
	if s := b.Stats(); s.Truncated != 1 || s.RecvPackets != 1 || s.RecvBytes != 4 {
		t.Errorf("%+v", s)
	}
}

func testDescription(t *testing.T, open rig) {
	a, _ := open(t)
	want := map[string]int{"lo": 60000, "sync0": 1400}[a.Name()]
	if want == 0 || openers[a.Transport()] == nil || a.MTU() < want || a.Status() != Running {
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
		{"a group of one", `open Multicast link on "lo": 10.1.1.1 is no multicast address`,
			Config{Transport: Multicast, Interface: "lo", Local: netip.MustParseAddr("10.1.1.1")}, nil},
		{"group on an unknown interface", `open Multicast link on "nosuch0": find interface: no such network interface`,
			Config{Transport: Multicast, Interface: "nosuch0", Local: netip.MustParseAddr("225.0.0.50")}, nil},
		{"group on a foreign address", `open Multicast link on "lo": no interface has the address 192.0.2.77 of IPv4_interface`,
			Config{Transport: Multicast, Interface: "lo", Local: netip.MustParseAddr("225.0.0.50"), MulticastInterface: netip.MustParseAddr("192.0.2.77")}, nil},
		{"TCP group", `open TCP link on "lo": no group over TCP`,
			Config{Transport: TCP, Interface: "lo", Local: local, Group: true}, nil},
		{"group on no multicast address", `open Multicast link on "lo": 10.1.1.1 is no multicast address`,
			Config{Transport: Multicast, Interface: "lo", Local: netip.MustParseAddr("10.1.1.1"), Group: true}, nil},
		{"peers of two families", `open UDP link on "lo": local address 0.0.0.0 and destination ::1 are of two families`,
			Config{Transport: UDP, Interface: "lo", Group: true, Peers: []netip.Addr{peer, netip.IPv6Loopback()}}, nil},
		{"no transport", `open link on "lo": unknown transport`, Config{Interface: "lo"}, nil},
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
