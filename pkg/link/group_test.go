package link

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A kind of group: its multicast group, if it has one, and how the addresses of
// the nodes look; byInterface sets IPv4_interface.
type groupKind struct {
	name, group, addr string
	byInterface       bool
}

var groupKinds = []groupKind{
	{name: "UDP", addr: "10.9.0.%d"},
	{name: "UDP6", addr: "fd09::%d"},
	{name: "UDP6 link-local", addr: "fe80::%d"},
	{name: "Multicast", group: "225.0.0.50", addr: "10.9.0.%d"},
	{name: "Multicast with IPv4_interface", group: "225.0.0.50", addr: "10.9.0.%d", byInterface: true},
	{name: "Multicast6 link", group: "ff02::50", addr: "fe80::%d"},
	{name: "Multicast6 site", group: "ff05::50", addr: "fd09::%d"},
}

func (k *groupKind) address(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(k.addr, i))
}

// config is that of node i of n.
func (k *groupKind) config(i, n int) Config {
	cfg := Config{Transport: Multicast, Group: true, Interface: "sync0", Port: 3780}
	if k.group == "" {
		cfg.Transport, cfg.Local = UDP, k.address(i)
		for j := range n {
			if j+1 != i {
				cfg.Peers = append(cfg.Peers, k.address(j+1))
			}
		}
		return cfg
	}
	cfg.Local = netip.MustParseAddr(k.group)
	if k.byInterface {
		cfg.MulticastInterface = k.address(i)
	}
	return cfg
}

// groupNode is one of a group.
type groupNode struct {
	*Group
	ns   *namespace
	addr netip.Addr // by which the others know it
}

// heard is a datagram.
type heard struct {
	text    string
	from    netip.Addr
	toGroup bool
}

func (n *groupNode) open(t *testing.T, cfg Config) {
	t.Helper()
	n.Group = n.ns.open(t, cfg).(*Group)
}

func (n *groupNode) tell(t *testing.T, to netip.Addr, texts ...string) {
	t.Helper()
	batch := make([][]byte, len(texts))
	for i, s := range texts {
		batch[i] = []byte(s)
	}
	if sent, err := n.SendTo(to, batch); sent != len(batch) || err != nil {
		t.Errorf("sent %d of %d to %s: %v", sent, len(batch), to, err)
	}
}

// hear returns the next datagrams, so many or a few more.
func (n *groupNode) hear(t *testing.T, want int) (got []heard) {
	t.Helper()
	b := NewBatch(32, 2048)
	n.ns.do(func() {
		for len(got) < want && !t.Failed() {
			await(t, n)
			if _, err := n.Recv(b); err != nil {
				t.Errorf("after %d of %d: %v", len(got), want, err)
			}
			for i := range b.Len() {
				got = append(got, heard{string(b.Datagram(i)), b.From(i), b.ToGroup(i)})
			}
		}
	})
	if t.Failed() {
		t.Fatalf("%s heard %v: %+v", n.addr, got, n.Stats())
	}
	return got
}

// check compares what comes next.
func (n *groupNode) check(t *testing.T, want ...heard) {
	t.Helper()
	if got := n.hear(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("%s heard %v, want %v", n.addr, got, want)
	}
}

// hearUntil passes over what comes before text, and returns that.
func (n *groupNode) hearUntil(t *testing.T, text string) heard {
	t.Helper()
	for {
		got := n.hear(t, 1)
		if last := got[len(got)-1]; last.text == text {
			return last
		}
	}
}

// star makes n namespaces on one bridge, sync0 in each. The bridge is in hub.
func star(t *testing.T, n int) (hub *namespace, nodes []*groupNode) {
	t.Helper()
	hub = newNamespace(t)
	hub.ip(t, "link add br0 type bridge mcast_snooping 0", "link set br0 up")
	for i := range n {
		nodes = append(nodes, &groupNode{ns: newNamespace(t)})
		nodes[i].plug(t, hub, i+1)
	}
	return hub, nodes
}

// plug gives a node an interface on the bridge.
func (n *groupNode) plug(t *testing.T, hub *namespace, i int) {
	t.Helper()
	hub.ip(t, fmt.Sprintf("link add port%d type veth peer name sync0 netns %d", i, n.ns.tid),
		fmt.Sprintf("link set port%d master br0 up", i))
	n.ns.ip(t, "link set sync0 addrgenmode none")
	n.up(t, i)
}

// up sets the interface up; all but the IPv4 address it lost when it was down.
func (n *groupNode) up(t *testing.T, i int) {
	t.Helper()
	n.ns.ip(t, "link set sync0 up", fmt.Sprintf("addr replace 10.9.0.%d/24 dev sync0", i),
		fmt.Sprintf("addr add fd09::%d/64 dev sync0 nodad", i), fmt.Sprintf("addr add fe80::%d/64 dev sync0 nodad", i))
	n.ns.awaitRunning(t, "sync0")
	n.ns.awaitLocal(t, fmt.Sprintf("fd09::%d", i))
	n.ns.awaitLocal(t, fmt.Sprintf("fe80::%d", i))
}

// openStar makes a group of n.
func openStar(t *testing.T, k *groupKind, n int) (hub *namespace, nodes []*groupNode) {
	t.Helper()
	hub, nodes = star(t, n)
	for i, node := range nodes {
		node.addr = k.address(i + 1)
		node.open(t, k.config(i+1, n))
	}
	return hub, nodes
}

func eachGroup(t *testing.T, test func(*testing.T, *groupKind)) {
	for _, k := range groupKinds {
		t.Run(k.name, func(t *testing.T) { test(t, &k) })
	}
}

// What is said to all reaches all others and nobody else, what is said to one
// that one, from the same address and over the same socket.
func TestGroupSpeaksToEach(t *testing.T) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		_, nodes := openStar(t, k, 3)
		all := k.group != ""
		for i, n := range nodes {
			send(t, n.Group, "hello")
			for j, other := range nodes {
				if j != i {
					other.check(t, heard{"hello", n.addr, all})
				}
			}
		}
		a, b, c := nodes[0], nodes[1], nodes[2]
		a.tell(t, b.addr, "for b")
		a.tell(t, c.addr, "for c", "for c too")
		a.tell(t, b.addr, "for b too")
		if all {
			a.tell(t, netip.Addr{}, "for all")
		} else {
			send(t, a.Group, "for all")
		}
		b.check(t, heard{"for b", a.addr, false}, heard{"for b too", a.addr, false}, heard{"for all", a.addr, all})
		c.check(t, heard{"for c", a.addr, false}, heard{"for c too", a.addr, false}, heard{"for all", a.addr, all})
		b.tell(t, a.addr, "answer")
		a.check(t, heard{"answer", b.addr, false})
		for _, n := range nodes {
			if s := n.Stats(); s.Refused+s.SendErrors+s.RecvErrors != 0 || readable(t, n, 0) {
				t.Errorf("%s: %+v", n.addr, s)
			}
		}
	})
}

// A peer whose daemon is down answers with ICMP. Nobody pays for that.
func TestGroupPeerDown(t *testing.T) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		_, nodes := openStar(t, k, 3)
		a, b, c := nodes[0], nodes[1], nodes[2]
		c.Close()
		var want []heard
		for i := range 100 {
			text := fmt.Sprint("datagram ", i)
			a.tell(t, c.addr, "lost", "lost too")
			a.tell(t, b.addr, text)
			want = append(want, heard{text, a.addr, false})
		}
		b.check(t, want...)
		if s := a.Stats(); s.SendErrors != 0 || s.SentPackets != 300 {
			t.Errorf("%+v", s)
		}
	})
}

// The kernel keeps what is for a neighbour that does not answer. The others do
// not wait for that, with a small buffer either.
func TestGroupSilentPeers(t *testing.T) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		_, nodes := star(t, 2)
		for i, n := range nodes {
			n.addr = k.address(i + 1)
			cfg := k.config(i+1, 2)
			cfg.SendBuffer = 16 << 10
			n.open(t, cfg)
		}
		a, b := nodes[0], nodes[1]
		full := slices.Repeat([]string{string(make([]byte, 1400))}, 300)
		for i := range 10 {
			a.tell(t, k.address(50+i), full...)
			text := fmt.Sprint("past ", i+1)
			a.tell(t, b.addr, text)
			b.check(t, heard{text, a.addr, false})
		}
	})
}

// A C daemon, or one of ours without a group, is a peer over UDP like another.
func TestGroupAndPair(t *testing.T) {
	_, nodes := star(t, 2)
	k := &groupKinds[0]
	a, b := nodes[0], nodes[1]
	a.open(t, k.config(1, 2))
	pair := b.ns.open(t, ends("10.9.0.2", "10.9.0.1"))
	a.tell(t, k.address(2), "to the pair")
	if got, from := b.ns.receive(t, pair, 1); got[0] != "to the pair" || from[0] != k.address(1) {
		t.Errorf("got %q from %s", got, from)
	}
	send(t, pair, "to the group")
	a.check(t, heard{"to the group", k.address(2), false})
}

// Nobody is let in whom a group does not know.
func TestGroupAcceptance(t *testing.T) {
	nsA, nsB := pair(t)
	cable(t, nsA, nsB, "other0")
	nsA.ip(t, "addr add 10.8.0.1/24 dev other0")
	nsB.ip(t, "addr add 10.8.0.2/24 dev other0", "addr add 10.9.0.3/24 dev sync0", "addr add 203.0.113.9/32 dev lo")
	only := func(prefixes ...string) (list []netip.Prefix) {
		for _, p := range prefixes {
			list = append(list, netip.MustParsePrefix(p))
		}
		return list
	}
	for _, c := range []struct {
		kind       int // of groupKinds
		from       string
		device     string
		acceptFrom []netip.Prefix
		ok         bool
	}{
		{0, "10.9.0.2", "", nil, true},
		{0, "10.9.0.3", "", nil, false},
		{0, "10.9.0.3", "", only("10.9.0.3/32"), true},
		{0, "10.9.0.2", "", only("10.9.0.3/32"), true},
		{0, "203.0.113.9", "", nil, false},
		{0, "203.0.113.9", "", only("203.0.113.0/24"), true},
		{0, "10.9.0.2", "other0", nil, false},
		{0, "10.9.0.3", "other0", only("10.9.0.3/32"), false},
		{3, "10.9.0.2", "", nil, true},
		{3, "10.9.0.3", "", nil, true},
		{3, "10.9.0.3", "", only("10.9.0.2/32"), false},
		{3, "203.0.113.9", "", nil, false},
		{3, "203.0.113.9", "", only("203.0.113.0/24", "10.9.0.2/32"), true},
		{3, "10.9.0.2", "other0", nil, false},
		{3, "10.8.0.2", "other0", nil, false},
	} {
		t.Run(fmt.Sprint(groupKinds[c.kind].name, c.from, c.device, c.acceptFrom), func(t *testing.T) {
			cfg := groupKinds[c.kind].config(1, 2)
			cfg.AcceptFrom = c.acceptFrom
			a := &groupNode{ns: nsA, addr: netip.MustParseAddr("10.9.0.1")}
			a.open(t, cfg)
			defer a.Close()
			nsB.stranger(t, c.from, "10.9.0.1", c.device, "from a stranger")
			marker := "10.9.0.2"
			if c.acceptFrom != nil {
				marker = c.acceptFrom[len(c.acceptFrom)-1].Addr().String()
			}
			if marker == "203.0.113.0" {
				marker = "10.9.0.2" // a peer
			}
			nsB.stranger(t, marker, "10.9.0.1", "sync0", "marker")
			want := []heard{{"marker", netip.MustParseAddr(marker), false}}
			if c.ok {
				want = slices.Insert(want, 0, heard{"from a stranger", netip.MustParseAddr(c.from), false})
			}
			a.check(t, want...)
			checkRefused(t, nsA, a.Stats(), c.ok, c.from, c.device)
		})
	}
}

// A group over UDP without peers talks to nobody and listens to nobody.
func TestGroupOfNobody(t *testing.T) {
	nsA, nsB := pair(t)
	a := nsA.open(t, groupKinds[0].config(1, 1)).(*Group)
	nsB.stranger(t, "10.9.0.2", "10.9.0.1", "", "hello")
	nsA.do(func() {
		await(t, a)
		if n, err := a.Recv(NewBatch(4, 100)); n != 0 || err != nil {
			t.Errorf("received %d, %v", n, err)
		}
	})
	send(t, a, "to nobody", "either")
	if n, err := a.SendTo(netip.Addr{}, [][]byte{{1}}); n != 1 || err != nil {
		t.Errorf("sent %d, %v", n, err)
	}
	want := Stats{SendErrors: 3, Unsendable: 3, LastUnsendable: unix.EDESTADDRREQ,
		Refused: 1, LastRefused: netip.MustParseAddr("10.9.0.2"), LastRefusedVia: a.index}
	if got := a.Stats(); got != want {
		t.Errorf("%+v", got)
	}
}

// To go from one peer to the next costs no memory, nor do announcements.
func TestGroupAllocatesNothing(t *testing.T) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		_, nodes := openStar(t, k, 3)
		a := nodes[0]
		to := []netip.Addr{nodes[1].addr, nodes[2].addr}
		if k.group != "" {
			to = append(to, netip.Addr{})
		}
		batch := messages("one", "two", "three")
		short := 0
		n := testing.AllocsPerRun(100, func() {
			for _, to := range to {
				if n, err := a.SendTo(to, batch); n != len(batch) || err != nil {
					short++
				}
			}
		})
		if n != 0 || short != 0 || a.Stats().SendErrors != 0 {
			t.Errorf("%v allocations, %d short, %+v", n, short, a.Stats())
		}
	})
}
