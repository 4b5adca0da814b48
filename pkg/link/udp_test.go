package link

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBetweenNamespaces(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		mtu        int
	}{
		{"IPv4", "10.9.0.1", "10.9.0.2", 1472},
		{"IPv6 global", "fd09::1", "fd09::2", 1452},
		{"IPv6 link-local", "fe80::1", "fe80::2", 1452},
		{"IPv6 link-local with a zone", "fe80::1%sync0", "fe80::2%sync0", 1452},
		{"IPv4 in IPv6 form", "::ffff:10.9.0.1", "::ffff:10.9.0.2", 1472},
	} {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			// A second way between the two, so that the scope has to tell.
			cable(t, nsA, nsB, "other0")
			a, b := nsA.open(t, ends(c.a, c.b)), nsB.open(t, ends(c.b, c.a))
			if a.MTU() != c.mtu {
				t.Errorf("MTU %d", a.MTU())
			}
			full := string(make([]byte, a.MTU()))
			send(t, a, "to b", full)
			got, from := nsB.receive(t, b, 2)
			src := netip.MustParseAddr(c.a).Unmap().WithZone("")
			if got[0] != "to b" || got[1] != full || from[0] != src {
				t.Errorf("b got %q from %v", got[0], from)
			}
			send(t, b, "to a")
			if got, _ := nsA.receive(t, a, 1); got[0] != "to a" {
				t.Errorf("a got %q", got)
			}
			if s := b.Stats(); s.Refused != 0 || s.SendErrors != 0 || s.RecvErrors != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// stranger sends one datagram from a socket of its own, as a C peer does, or
// somebody who should not.
func (n *namespace) stranger(t *testing.T, from, to, device, text string) {
	t.Helper()
	n.do(func() {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
		if device != "" {
			d.Control = bindToDevice(device)
		}
		c, err := d.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(to), 3780).String())
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
	})
}

func TestAcceptance(t *testing.T) {
	nsA, nsB := pair(t)
	cable(t, nsA, nsB, "other0")
	// IPv6 does not answer for an address of another interface: tell B where it is.
	nsA.ip(t, "link set other0 address 02:00:00:00:00:99")
	nsB.ip(t, "neigh add fd09::1 lladdr 02:00:00:00:00:99 dev other0")
	nsA.ip(t, "addr add 10.8.0.1/24 dev other0", "addr add fd08::1/64 dev other0 nodad")
	nsB.ip(t, "addr add 10.9.0.3/24 dev sync0", "addr add fd09::3/64 dev sync0 nodad",
		"addr add 10.8.0.2/24 dev other0", "addr add fd08::2/64 dev other0 nodad", "route add fd09::/64 dev other0 metric 4000",
		"addr add 203.0.113.9/32 dev lo", "addr add 203.0.113.7/32 dev lo", "addr add 2001:db8::9/128 dev lo")
	nsB.awaitLocal(t, "2001:db8::9")
	for _, c := range []struct {
		name, local, peer string
		from, device      string // of the stranger
		ok                bool
	}{
		{"configured destination", "10.9.0.1", "10.9.0.2", "10.9.0.2", "", true},
		{"configured destination off the link", "10.9.0.1", "203.0.113.7", "203.0.113.7", "", true},
		{"another address on the link", "10.9.0.1", "10.9.0.2", "10.9.0.3", "", true},
		{"foreign address through the link", "10.9.0.1", "10.9.0.2", "203.0.113.9", "", false},
		{"address of another interface through the link", "10.9.0.1", "10.9.0.2", "10.8.0.2", "", false},
		{"destination through another interface", "10.9.0.1", "10.9.0.2", "10.9.0.2", "other0", false},
		{"on-link address through another interface", "10.9.0.1", "10.9.0.2", "10.9.0.3", "other0", false},
		{"IPv6 destination", "fd09::1", "fd09::2", "fd09::2", "", true},
		{"IPv6, another address on the link", "fd09::1", "fd09::2", "fd09::3", "", true},
		{"IPv6, link-local of the link", "fd09::1", "fd09::2", "fe80::2%sync0", "sync0", true},
		{"IPv6, foreign address", "fd09::1", "fd09::2", "2001:db8::9", "", false},
		{"IPv6, through another interface", "fd09::1", "fd09::2", "fd09::2", "other0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := nsA.open(t, ends(c.local, c.peer))
			defer a.Close()
			nsB.stranger(t, c.from, c.local, c.device, "from a stranger")
			nsB.stranger(t, c.peer, c.local, "sync0", "marker")
			want := []string{"marker"}
			if c.ok {
				want = []string{"from a stranger", "marker"}
			}
			got, _ := nsA.receive(t, a, len(want))
			if !slices.Equal(got, want) {
				t.Errorf("got %q", got)
			}
			checkRefused(t, nsA, a.Stats(), c.ok, c.from, c.device)
		})
	}
}

// Whoever waits for a peer that is not configured must hear of what comes,
// also if it is nothing but refused datagrams.
func TestRefusedIsReported(t *testing.T) {
	nsA, nsB := pair(t)
	nsB.ip(t, "addr add 203.0.113.9/32 dev lo")
	a := nsA.open(t, ends("10.9.0.1", "10.9.0.2"))
	b := NewBatch(4, 100)
	recv := func(wantN int, wantRefused netip.Addr) {
		t.Helper()
		nsA.do(func() {
			await(t, a)
			n, err := a.Recv(b)
			if from, ok := b.Refused(); n != wantN || err != nil || from != wantRefused || ok != wantRefused.IsValid() {
				t.Errorf("received %d, %v; refused %s, %v", n, err, from, ok)
			}
		})
	}
	nsB.stranger(t, "203.0.113.9", "10.9.0.1", "", "who is there?")
	recv(0, netip.MustParseAddr("203.0.113.9"))
	nsB.stranger(t, "10.9.0.2", "10.9.0.1", "", "the peer")
	recv(1, netip.Addr{})
}

func checkRefused(t *testing.T, n *namespace, s Stats, ok bool, from, device string) {
	t.Helper()
	if ok {
		if s.Refused != 0 || s.LastRefused.IsValid() {
			t.Errorf("refused: %+v", s)
		}
		return
	}
	if device == "" {
		device = "sync0"
	}
	index := 0
	n.do(func() {
		if i, err := net.InterfaceByName(device); err == nil {
			index = i.Index
		}
	})
	if s.Refused != 1 || s.LastRefused != netip.MustParseAddr(from) || s.LastRefusedVia != index || s.RecvPackets != 1 {
		t.Errorf("refused %d, last %s through %d (want %s, %d), accepted %d",
			s.Refused, s.LastRefused, s.LastRefusedVia, from, index, s.RecvPackets)
	}
}

// A peer that is down answers with ICMP. Each answer is an error, none ends
// the link, and no later datagram is lost to it.
func TestRefusedByPeer(t *testing.T) {
	port := freePort(t)
	a := openLoopback(t, "127.0.0.1", "127.0.0.2", port)
	// The answer to each comes at once, unless the machine is busy, and is seen
	// with the next.
	sent := uint64(0)
	for end := time.Now().Add(10 * time.Second); a.Stats().SendErrors < 4 && time.Now().Before(end); sent++ {
		send(t, a, "nobody listens")
	}
	if s := a.Stats(); s.SendErrors != 4 || s.SentPackets != sent {
		t.Errorf("%d sent: %+v", sent, s)
	}
	b := openLoopback(t, "127.0.0.2", "127.0.0.1", port)
	send(t, a, "first", "second")
	if got, _ := receive(t, b, 2); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("got %q", got)
	}
}

// A route that goes and comes back costs the datagrams in between, no more.
func TestAddressComesAndGoes(t *testing.T) {
	for _, c := range []struct{ name, a, b, net string }{
		{"IPv4", "10.9.0.1", "10.9.0.2", "10.9.0.1/24"},
		{"IPv6", "fd09::1", "fd09::2", "fd09::1/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			a, b := nsA.open(t, ends(c.a, c.b)), nsB.open(t, ends(c.b, c.a))
			send(t, a, "before")
			nsB.receive(t, b, 1)
			nsA.ip(t, "addr del "+c.net+" dev sync0")
			send(t, a, "lost", "lost too")
			if s := a.Stats(); s.SendErrors != 2 || s.SentPackets != 1 {
				t.Errorf("without the address: %+v", s)
			}
			add := "addr add " + c.net + " dev sync0"
			if c.name == "IPv6" {
				add += " nodad"
			}
			nsA.ip(t, add)
			nsA.awaitLocal(t, c.a)
			send(t, a, "after")
			if got, _ := nsB.receive(t, b, 1); got[0] != "after" {
				t.Errorf("got %q", got)
			}
			send(t, b, "back")
			if got, _ := nsA.receive(t, a, 1); got[0] != "back" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// An interface that is deleted and made anew, as of a VLAN or a bond, has
// another index.
func TestInterfaceComesBack(t *testing.T) {
	for _, c := range []struct{ name, a, b string }{
		{"IPv4", "10.9.0.1", "10.9.0.2"},
		{"IPv6", "fd09::1", "fd09::2"},
		{"link-local", "fe80::1", "fe80::2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			a, b := nsA.open(t, ends(c.a, c.b)), nsB.open(t, ends(c.b, c.a))
			comeBack(t, nsA, nsB, a, b, c.a, c.b)
		})
	}
}

// comeBack makes the interfaces of two ends anew. What is sent meanwhile is lost,
// no more.
func comeBack(t *testing.T, nsA, nsB *namespace, a, b Link, localA, localB string) {
	t.Helper()
	send(t, a, "before")
	nsB.receive(t, b, 1)
	nsA.ip(t, "link del sync0", "link add filler0 type veth peer name filler1")
	nsB.ip(t, "link add filler2 type veth peer name filler3")
	send(t, a, "lost")
	send(t, b, "lost too")
	plug(t, nsA, nsB)
	nsA.awaitLocal(t, localA)
	nsB.awaitLocal(t, localB)
	send(t, a, "awake") // who was deaf so far hears from here on
	send(t, b, "awake")
	send(t, a, "there")
	send(t, b, "back")
	nsB.receiveUntil(t, b, "there")
	nsA.receiveUntil(t, a, "back")
}

// steal tries to bind another socket to an address that may be taken.
func steal(t *testing.T, n *namespace, addr string) (err error) {
	t.Helper()
	n.do(func() {
		fd, e := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if e != nil {
			t.Error(e)
			return
		}
		defer unix.Close(fd)
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Port: 3780, Addr: netip.MustParseAddr(addr).As4()}))
	})
	return err
}

// What is sent to a link must not go to whoever binds its address and port after
// it: SO_REUSEADDR would let any user of the machine do that.
func TestNobodyTakesThePort(t *testing.T) {
	n, _ := pair(t)
	n.ip(t, "addr add 10.8.0.1/24 dev sync0")
	several := func(cfgs ...Config) func() (Link, error) {
		return func() (Link, error) { return OpenSet(SetConfig{Links: cfgs}) }
	}
	everywhere := ends("10.9.0.1", "10.9.0.2")
	everywhere.Local = netip.Addr{}
	inGroup, onGroup := ends("10.9.0.1", "10.9.0.2"), group("225.0.0.50", "10.9.0.1")
	inGroup.Group, inGroup.Peers, onGroup.Group = true, []netip.Addr{inGroup.Peer}, true
	for _, c := range []struct {
		name string
		open func() (Link, error)
		addr string
		want error
	}{
		{"UDP", several(ends("10.9.0.1", "10.9.0.2")), "10.9.0.1", unix.EADDRINUSE},
		{"UDP, all addresses", several(everywhere), "10.9.0.1", unix.EADDRINUSE},
		{"two links", several(ends("10.9.0.1", "10.9.0.2"), ends("10.8.0.1", "10.8.0.2")), "10.8.0.1", unix.EADDRINUSE},
		{"two links, one on all addresses", several(ends("10.8.0.1", "10.8.0.2"), everywhere), "10.8.0.1", unix.EADDRINUSE},
		{"a group over UDP", several(inGroup), "10.9.0.1", unix.EADDRINUSE},
		{"a group over Multicast", several(onGroup), "10.9.0.1", unix.EADDRINUSE},
		{"Multicast, which each gets", several(group("225.0.0.50", "10.9.0.1")), "225.0.0.50", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l Link
			var err error
			n.do(func() { l, err = c.open() })
			if err != nil {
				t.Fatal(err)
			}
			if err := steal(t, n, c.addr); !errors.Is(err, c.want) {
				t.Errorf("another socket on %s: %v, want %v", c.addr, err, c.want)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := steal(t, n, c.addr); err != nil {
				t.Errorf("when the link is closed: %v", err)
			}
		})
	}
}

// A link can be opened before there is a way to the peer.
func TestOpenWithoutRoute(t *testing.T) {
	nsA, nsB := pair(t)
	nsB.ip(t, "addr add 203.0.113.7/32 dev lo")
	a := nsA.open(t, ends("10.9.0.1", "203.0.113.7"))
	b := nsB.open(t, ends("203.0.113.7", "10.9.0.1"))
	send(t, a, "no route")
	if s := a.Stats(); s.SendErrors != 1 || s.SentPackets != 0 || s.Unsendable != 1 || s.LastUnsendable != unix.ENETUNREACH {
		t.Errorf("%+v", s)
	}
	nsA.ip(t, "route add 203.0.113.7 via 10.9.0.2")
	send(t, a, "route")
	if got, _ := nsB.receive(t, b, 1); got[0] != "route" {
		t.Errorf("got %q", got)
	}
}

// Without addresses a link listens on the wildcard and has nobody to send to.
func TestNoAddresses(t *testing.T) {
	nsA, nsB := pair(t)
	cfg := ends("10.9.0.1", "10.9.0.2")
	cfg.Local, cfg.Peer = netip.Addr{}, netip.Addr{}
	a := nsA.open(t, cfg)
	send(t, a, "to nobody")
	if s := a.Stats(); s.SendErrors != 1 || s.SentPackets != 0 {
		t.Errorf("%+v", s)
	}
	nsB.stranger(t, "10.9.0.2", "10.9.0.1", "", "hello")
	if got, _ := nsA.receive(t, a, 1); got[0] != "hello" {
		t.Errorf("got %q", got)
	}
}

// While the neighbour is not resolved, the kernel holds datagrams back and
// the send buffer fills up: Send must return at once and say how far it came.
func TestFullSocket(t *testing.T) {
	nsA, nsB := pair(t)
	nsB.ip(t, "link set sync0 down")
	nsA.ip(t, "link set sync0 down", "link set sync0 up", "addr replace 10.9.0.1/24 dev sync0")
	nsB.ip(t, "link set sync0 arp off", "link set sync0 up")
	cfg := ends("10.9.0.1", "10.9.0.2")
	cfg.SendBuffer = 16 << 10
	a := nsA.open(t, cfg)
	batch := make([][]byte, 300)
	for i := range batch {
		batch[i] = make([]byte, 1400)
	}
	sent, err := a.Send(batch)
	if sent == 0 || sent >= len(batch) || err != nil {
		t.Fatalf("sent %d of %d: %v", sent, len(batch), err)
	}
	if s := a.Stats(); s.SentPackets != uint64(sent) || s.SendErrors != 0 {
		t.Errorf("sent %d, counted %+v", sent, s)
	}
	if err := a.WaitWritable(time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("WaitWritable: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- a.WaitWritable(time.Now().Add(10 * time.Second)) }()
	if n, err := a.Send(batch[:1]); n != 0 || err != nil { // must not wait for the waiter
		t.Errorf("sent %d: %v", n, err)
	}
	nsA.ip(t, "neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 nud permanent dev sync0")
	if err := <-waited; err != nil {
		t.Errorf("WaitWritable: %v", err)
	}
	if n, err := a.Send(batch[sent:]); n == 0 || err != nil {
		t.Errorf("sent %d: %v", n, err)
	}
}

func TestBuffers(t *testing.T) {
	need(t, os.Geteuid() == 0, "root")
	cfg := ends("127.0.0.1", "127.0.0.2")
	cfg.Interface, cfg.Port, cfg.SendBuffer, cfg.ReceiveBuffer = "lo", freePort(t), 32<<20, 48<<20
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if snd, rcv := l.Buffers(); snd != cfg.SendBuffer || rcv != cfg.ReceiveBuffer {
		t.Errorf("asked for %d and %d, got %d and %d", cfg.SendBuffer, cfg.ReceiveBuffer, snd, rcv)
	}
}

// Past the receive buffer the kernel drops, and we say so.
func TestDropsAreCounted(t *testing.T) {
	port := freePort(t)
	cfg := ends("127.0.0.2", "127.0.0.1")
	cfg.Interface, cfg.Port, cfg.ReceiveBuffer = "lo", port, 4096
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a := openLoopback(t, "127.0.0.1", "127.0.0.2", port)
	const sent = 200
	for range sent {
		send(t, a, string(make([]byte, 1000)))
	}
	// A busy machine may still carry the last ones through lo.
	before := b.Stats()
	for in, end := NewBatch(32, 2048), time.Now().Add(10*time.Second); before.RecvPackets+before.RecvDropped < sent && time.Now().Before(end); before = b.Stats() {
		if _, err := b.Recv(in); err != nil {
			t.Fatal(err)
		}
	}
	if before.RecvPackets+before.RecvDropped != sent || before.RecvDropped == 0 || before.RecvPackets == 0 {
		t.Errorf("%+v", before)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s != before { // who compares must not find fewer than there were
		t.Errorf("closed: %+v, before: %+v", s, before)
	}
}

func TestNoChecksum(t *testing.T) {
	for _, off := range []bool{false, true} {
		cfg := ends("127.0.0.1", "127.0.0.2")
		cfg.Interface, cfg.Port, cfg.NoChecksum = "lo", freePort(t), off
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		got := -1
		l.(*datagrams).tx.raw.Control(func(fd uintptr) {
			got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK)
		})
		if err != nil || (got == 1) != off {
			t.Errorf("NoChecksum %v: SO_NO_CHECK is %d, %v", off, got, err)
		}
	}
}

func TestStatus(t *testing.T) {
	nsA, nsB := pair(t)
	a := nsA.open(t, ends("10.9.0.1", "10.9.0.2"))
	// The kernel passes on a change of carrier up to a second later.
	check := func(want Status, word string) {
		t.Helper()
		poll, deadline := time.NewTicker(time.Millisecond), time.Now().Add(10*time.Second)
		defer poll.Stop()
		for a.Status() != want && time.Now().Before(deadline) {
			<-poll.C
		}
		if got := a.Status(); got != want || got.String() != word {
			t.Errorf("status %s, want %s", got, word)
		}
	}
	check(Running, "RUNNING")
	nsB.ip(t, "link set sync0 down")
	check(NoCarrier, "NO-CARRIER")
	nsA.ip(t, "link set sync0 down")
	check(Down, "DOWN")
	nsA.ip(t, "link del sync0")
	check(Down, "DOWN")
}
