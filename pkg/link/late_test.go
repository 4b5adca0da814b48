package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waiting is a link that may be late, with what was said of it.
type waiting struct {
	Link          // works in its namespace
	bare Link     // itself
	said []string // why it is not open; "open" when it is
}

func (w *waiting) say(_ Link, why error) {
	text := "open"
	if why != nil {
		text = why.Error()
	}
	w.said = append(w.said, text)
}

func (n *namespace) wait(t *testing.T, cfgs ...Config) *waiting {
	t.Helper()
	w := &waiting{}
	var err error
	n.do(func() { w.bare, err = OpenSet(SetConfig{Links: cfgs, Wait: w.say}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.bare.Close() })
	w.Link = inside{within{w.bare, n}, n}
	return w
}

// is fails unless exactly this was said, in order.
func (w *waiting) is(t *testing.T, want ...string) {
	t.Helper()
	ok := len(w.said) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(w.said[i], want[i])
	}
	if !ok {
		t.Errorf("it said %q, want %q", w.said, want)
	}
}

func (w *waiting) isOpen() bool { return w.said[len(w.said)-1] == "open" }

const (
	noInterface = "find interface: no such network interface"
	noAddress   = "cannot assign requested address"
)

// lateKinds are ends of links on a cable that is laid later.
var lateKinds = []struct {
	name           string
	a, b           Config
	needs          string // the address; "": the interface suffices
	localA, localB string
}{
	{"UDP", ends("10.9.0.1", "10.9.0.2"), ends("10.9.0.2", "10.9.0.1"), noAddress, "10.9.0.1", "10.9.0.2"},
	{"UDP6", ends("fd09::1", "fd09::2"), ends("fd09::2", "fd09::1"), noAddress, "fd09::1", "fd09::2"},
	{"UDP link-local", ends("fe80::1", "fe80::2"), ends("fe80::2", "fe80::1"), "", "fe80::1", "fe80::2"},
	{"Multicast", group("225.0.0.50", ""), group("225.0.0.50", ""), "", "10.9.0.1", "10.9.0.2"},
	{"Multicast with IPv4_interface", group("225.0.0.50", "10.9.0.1"), group("225.0.0.50", "10.9.0.2"),
		"no interface has the address 10.9.0.1 of IPv4_interface", "10.9.0.1", "10.9.0.2"},
	{"Multicast6", group("ff02::50", ""), group("ff02::50", ""), "", "fe80::1", "fe80::2"},
	{"TCP", endsTCP("10.9.0.1", "10.9.0.2"), endsTCP("10.9.0.2", "10.9.0.1"), noAddress, "10.9.0.1", "10.9.0.2"},
	{"TCP6", endsTCP("fd09::1", "fd09::2"), endsTCP("fd09::2", "fd09::1"), noAddress, "fd09::1", "fd09::2"},
	{"Group over UDP", groupKinds[0].config(1, 2), groupKinds[0].config(2, 2), noAddress, "10.9.0.1", "10.9.0.2"},
	{"Group over Multicast", groupKinds[3].config(1, 2), groupKinds[3].config(2, 2), "", "10.9.0.1", "10.9.0.2"},
}

// TestLate begins without the interface, then gives it without its addresses, and
// then those. Nobody has more privileges than the shipped unit leaves.
func TestLate(t *testing.T) {
	for _, c := range lateKinds {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := newNamespace(t), newNamespace(t)
			nsA.likeTheUnit(t)
			nsB.likeTheUnit(t)
			a, b := nsA.wait(t, c.a), nsB.wait(t, c.b)
			a.is(t, noInterface)
			send(t, a, "lost", "lost too")
			if s := a.Stats(); s != (Stats{SendErrors: 2}) || a.Status() != Down || a.MTU() < 1400 || a.Name() != "sync0" || a.Transport() != c.a.Transport {
				t.Errorf("%s %s is %s, MTU %d: %+v", a.Transport(), a.Name(), a.Status(), a.MTU(), s)
			}
			fd := a.FD()
			both := []Link{a, b}

			cable(t, nsA, nsB, "sync0")
			if c.needs == "" {
				work(t, "both to open", both, func() bool { return a.isOpen() && b.isOpen() })
			} else {
				settle(t, both)
				a.is(t, noInterface, c.needs)
				for _, w := range []*waiting{a, b} {
					w.bare.(*late).poll.set(time.Hour, false) // the news suffices
				}
			}
			address(t, nsA, nsB)
			work(t, "both to open", both, func() bool { return a.isOpen() && b.isOpen() })
			said := len(a.said)
			if said > 3 {
				t.Errorf("it said %q", a.said)
			}
			talk(t, a, b)
			if a.FD() != fd || a.Status() != Running {
				t.Errorf("descriptor %d, was %d; %s", a.FD(), fd, a.Status())
			}

			if c.a.Transport != TCP && !c.a.Group {
				for _, w := range []*waiting{a, b} {
					w.bare.(*late).opened().(*datagrams).guard.read = time.Time{} // more than a second has passed
				}
				comeBack(t, nsA, nsB, inside{a.bare, nsA}, inside{b.bare, nsB}, c.localA, c.localB)
			}
			if len(a.said) != said {
				t.Errorf("it said %q after it was open", a.said[said:])
			}
		})
	}
}

// TestLateRests: however much news there is, an attempt costs too much to be made
// for each.
func TestLateRests(t *testing.T) {
	n, _ := pair(t)
	w := n.wait(t, ends("10.9.0.77", "10.9.0.2"))
	l := w.bare.(*late)
	attempts, open := 0, l.open
	l.open = func() (Link, error) { attempts++; return open() }
	begin := time.Now()
	for range 200 {
		l.poll.set(0, false)
		await(t, l)
		if n, err := w.Recv(NewBatch(1, 100)); n != 0 || err != nil {
			t.Fatal(n, err)
		}
	}
	if most := 1 + int(time.Since(begin)/lateAtMost); attempts == 0 || attempts > most {
		t.Errorf("%d attempts, want 1 to %d", attempts, most)
	}
	n.ip(t, "addr add 10.9.0.77/24 dev sync0")
	work(t, "the link to open", []Link{w}, w.isOpen)
	w.is(t, noAddress, "open")
}

// settle works until the links have had nothing to do for a while, a shorter one
// than that after which a late link tries anyway.
func settle(t *testing.T, links []Link) {
	t.Helper()
	last := time.Now()
	work(t, "the end of work", links, func() bool {
		for _, l := range links {
			if readable(t, l, 0) {
				last = time.Now()
			}
		}
		return time.Since(last) > lateEvery/2
	})
}

// talk lets both say something each 20 ms until they have heard each other.
func talk(t *testing.T, a, b Link) {
	t.Helper()
	work(t, "each to hear the other", []Link{a, b}, func() bool {
		sendMessages(t, a, "from a")
		sendMessages(t, b, "from b")
		return a.Stats().RecvPackets > 0 && b.Stats().RecvPackets > 0
	})
}

// An IPv6 address is of no use before it is known that nobody else has it. When
// the link is open neither the time nor news is of any interest.
func TestLateAddressIsTentative(t *testing.T) {
	nsA, nsB := newNamespace(t), newNamespace(t)
	a := nsA.wait(t, ends("fd09::1", "fd09::2"))
	cable(t, nsA, nsB, "sync0")
	nsA.ip(t, "addr add fd09::1/64 dev sync0")
	work(t, "the link to open", []Link{a}, a.isOpen)
	a.is(t, noInterface, "a new IPv6 address takes a second or two", "open")
	nsA.ip(t, "link add filler0 type veth peer name filler1")
	if readable(t, a, lateEvery*3/2) {
		t.Error("there is something to do, and nothing has come")
	}
}

// A group's peers are spoken to alone, too, once it is open.
func TestLateGroupSpeaksToOne(t *testing.T) {
	nsA, nsB := newNamespace(t), newNamespace(t)
	a, b := nsA.wait(t, groupKinds[0].config(1, 2)), nsB.wait(t, groupKinds[0].config(2, 2))
	to := netip.MustParseAddr("10.9.0.2")
	tell := func() (n int) {
		nsA.do(func() { n, _ = a.bare.(*late).SendTo(to, messages("to you")) })
		return n
	}
	if n := tell(); n != 1 || a.Stats().SendErrors != 1 {
		t.Errorf("%d are done with: %+v", n, a.Stats())
	}
	plug(t, nsA, nsB)
	work(t, "what is said to one", []Link{a, b}, func() bool {
		tell()
		return b.Stats().RecvPackets > 0
	})
}

// While it is opened others may send, ask and at last close it.
func TestLateFromAnywhere(t *testing.T) {
	for _, c := range lateKinds[:2] {
		nsA, nsB := newNamespace(t), newNamespace(t)
		a := nsA.wait(t, c.a)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					if err := a.bare.Close(); err != nil {
						t.Error(err)
					}
					return
				default:
				}
				send(t, a.bare, "maybe lost")
				a.Stats()
				a.Buffers()
				if a.bare.Status() == Running && a.MTU() > 1500 {
					t.Errorf("MTU %d", a.MTU())
				}
			}
		}()
		plug(t, nsA, nsB)
		work(t, "the link to open", []Link{a}, a.isOpen)
		close(stop)
		for b := NewBatch(1, 100); ; {
			if _, err := a.Recv(b); errors.Is(err, net.ErrClosed) {
				break
			}
		}
		<-stopped
	}
}

// What was there at the start is used directly.
func TestNotLate(t *testing.T) {
	nsA, _ := pair(t)
	for _, c := range lateKinds {
		w := nsA.wait(t, c.a)
		w.is(t)
		if _, ok := w.bare.(*late); ok {
			t.Errorf("%s waits", c.name)
		}
		w.Close()
	}
}

// What does not come by itself is not waited for.
func TestLateRefuses(t *testing.T) {
	n, _ := pair(t)
	noGroup, mixed := group("10.9.0.1", ""), ends("10.9.0.1", "fd09::2")
	n.open(t, ends("10.9.0.1", "10.9.0.2"))
	for name, cfg := range map[string]Config{
		"no multicast address": noGroup, "two families": mixed, "the port is taken": ends("10.9.0.1", "10.9.0.2"),
		"no transport": {Interface: "nosuch0"}, "no interface": {Transport: UDP, Local: mixed.Local},
	} {
		var l Link
		var err error
		n.do(func() {
			l, err = OpenSet(SetConfig{Links: []Config{cfg}, Wait: func(Link, error) { t.Errorf("%s: waits", name) }})
		})
		if err == nil {
			t.Errorf("%s: opened", name)
			l.Close()
		}
	}
}

// Attempts leave nothing behind, and nor does the end of waiting.
func TestLateLeavesNothing(t *testing.T) {
	n, _ := pair(t)
	before := descriptors(t)
	for _, c := range lateKinds {
		switch {
		case c.needs == "":
			continue
		case c.a.Transport == Multicast:
			c.a.MulticastInterface = netip.MustParseAddr("10.9.0.77")
		default:
			c.a.Local = netip.MustParseAddr(strings.NewReplacer("9.0.1", "9.0.77", "::1", "::77").Replace(c.localA))
		}
		w := n.wait(t, c.a)
		l := w.bare.(*late)
		once := descriptors(t)
		for range 20 {
			l.tried = time.Time{}
			l.poll.set(0, false)
			await(t, l)
			if n, err := w.Recv(NewBatch(1, 100)); n != 0 || err != nil {
				t.Fatal(n, err)
			}
		}
		if got := descriptors(t); got != once {
			t.Errorf("%s: %d descriptors, were %d before the attempts", c.name, got, once)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if got := descriptors(t); got != before {
			t.Errorf("%s: %d descriptors after the end, were %d", c.name, got, before)
		}
		testClosed(t, func(*testing.T) (Link, Link) { return l, nil })
		if len(w.said) != 1 {
			t.Errorf("%s: said %q", c.name, w.said)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// What else hinders the link is said once, and does not end the waiting.
func TestLateMeetsOtherTrouble(t *testing.T) {
	nsA, nsB := newNamespace(t), newNamespace(t)
	a := nsA.wait(t, ends("10.9.0.1", "10.9.0.2"))
	var other net.PacketConn
	nsA.do(func() {
		var err error
		if other, err = net.ListenPacket("udp4", "0.0.0.0:3780"); err != nil {
			t.Error(err)
		}
	})
	plug(t, nsA, nsB)
	attempts := 0
	work(t, "two attempts", []Link{a}, func() bool {
		if len(a.said) > 1 {
			attempts++
			a.bare.(*late).poll.set(0, false)
		}
		return attempts > 2
	})
	a.is(t, noInterface, "address already in use")
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	work(t, "the link to open", []Link{a}, a.isOpen) // by the clock alone
	a.is(t, noInterface, "address already in use", "open")
}

// Of two links one is late. The other is used until the late one, which is the
// better, is there. Over UDP one of them listens on all addresses, and when both
// are open nobody else can have one of these.
func TestSetWithLateLink(t *testing.T) {
	for _, c := range []struct {
		transport  Transport
		everywhere int
	}{{UDP, 0}, {UDP, 1}, {TCP, -1}} {
		t.Run(fmt.Sprint(c.transport, c.everywhere), func(t *testing.T) {
			transport := c.transport
			nsA, nsB := newNamespace(t), newNamespace(t)
			cable(t, nsA, nsB, "sync1")
			var nodes []*waiting
			for i, n := range []*namespace{nsA, nsB} {
				n.ip(t, fmt.Sprintf("addr add 10.8.0.%d/24 dev sync1", i+1))
				var cfgs []Config
				for net, device := range []string{"sync0", "sync1"} {
					l := ends(fmt.Sprintf("10.%d.0.%d", 9-net, i+1), fmt.Sprintf("10.%d.0.%d", 9-net, 2-i))
					if net == c.everywhere {
						l.Local = netip.Addr{}
					}
					l.Interface, l.Transport, l.ErrorQueue, l.Default = device, transport, 8, net == 0
					cfgs = append(cfgs, l)
				}
				nodes = append(nodes, n.wait(t, cfgs...))
			}
			a, b := nodes[0], nodes[1]
			a.is(t, noInterface)
			talk(t, a, b)
			if now := a.Name(); now != "sync1" || transport == UDP && a.Stats().SendErrors != 0 {
				t.Errorf("the link in use is %s: %+v", now, a.Stats())
			}
			plug(t, nsA, nsB)
			work(t, "the late link", []Link{a, b}, func() bool {
				sendMessages(t, a, "from a")
				sendMessages(t, b, "from b")
				return a.isOpen() && a.bare.(*Set).links[0].Status() == Running && b.bare.(*Set).links[0].Status() == Running
			})
			nsA.ip(t, "link set sync1 down")
			start := a.bare.(*Set).links[0].Stats().RecvPackets
			work(t, "the late link to be used", []Link{a, b}, func() bool {
				sendMessages(t, a, "from a")
				sendMessages(t, b, "from b")
				return a.Name() == "sync0" && b.Name() == "sync0" && a.bare.(*Set).links[0].Stats().RecvPackets > start+2
			})
			a.is(t, noInterface, "open")
			if transport == UDP {
				for _, addr := range []string{"10.9.0.1", "10.8.0.1"} {
					if err := steal(t, nsA, addr); !errors.Is(err, unix.EADDRINUSE) {
						t.Errorf("another socket on %s: %v", addr, err)
					}
				}
			}
		})
	}
}
