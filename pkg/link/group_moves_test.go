package link

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// An interface that goes down and comes up again, or is made anew under another
// index, costs what is sent meanwhile, no more, whether or not anything was.
func TestGroupInterfaceComesBack(t *testing.T) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		for _, c := range []struct {
			name  string
			quiet bool // nothing is sent meanwhile
			cycle func(t *testing.T, n *groupNode, hub *namespace, i int, meanwhile func())
		}{
			{"down and up", false, downAndUp},
			{"down and up, quiet", true, downAndUp},
			{"made anew", false, madeAnew},
			{"made anew, quiet", true, madeAnew},
		} {
			t.Run(c.name, func(t *testing.T) {
				hub, nodes := openStar(t, k, 3)
				a, b := nodes[0], nodes[1]
				send(t, a.Group, "before")
				b.hearUntil(t, "before")
				c.cycle(t, a, hub, 1, func() {
					if !c.quiet {
						send(t, a.Group, "lost")
						a.tell(t, b.addr, "lost too")
					}
				})
				for range 3 { // as each second
					send(t, a.Group, "awake")
					a.tell(t, b.addr, "awake")
				}
				a.tell(t, b.addr, "there")
				if got := b.hearUntil(t, "there"); got != (heard{"there", a.addr, false}) {
					t.Errorf("b heard %v", got)
				}
				send(t, a.Group, "all there")
				if got := b.hearUntil(t, "all there"); got != (heard{"all there", a.addr, k.group != ""}) {
					t.Errorf("b heard %v", got)
				}
				b.tell(t, a.addr, "back")
				send(t, b.Group, "all back")
				a.check(t, heard{"back", b.addr, false}, heard{"all back", b.addr, k.group != ""})
			})
		}
	})
}

func downAndUp(t *testing.T, n *groupNode, _ *namespace, i int, meanwhile func()) {
	n.ns.ip(t, "link set sync0 down")
	meanwhile()
	n.up(t, i)
}

func madeAnew(t *testing.T, n *groupNode, hub *namespace, i int, meanwhile func()) {
	n.ns.ip(t, "link del sync0", "link add filler0 type veth peer name filler1")
	meanwhile()
	n.plug(t, hub, i)
}

func eachMulticast(t *testing.T, test func(*testing.T, *groupKind)) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		if k.group != "" {
			test(t, k)
		}
	})
}

// seconds are addresses beside those of a groupKind.
var seconds = map[string]string{"10.9.0.%d": "10.10.0.%d", "fd09::%d": "fd0a::%d", "fe80::%d": "fe80::aaaa:%d"}

// both returns two addresses of node i.
func (k *groupKind) both(i int) []netip.Addr {
	return []netip.Addr{k.address(i), netip.MustParseAddr(fmt.Sprintf(seconds[k.addr], i))}
}

// openWithMore makes a group of two nodes that have two addresses of each kind.
func (k *groupKind) openWithMore(t *testing.T) []*groupNode {
	t.Helper()
	_, nodes := star(t, 2)
	for i, n := range nodes {
		for _, format := range seconds {
			addr, rest := fmt.Sprintf(format, i+1), "/64 dev sync0 nodad"
			if format == "10.10.0.%d" {
				rest = "/24 dev sync0"
			}
			n.ns.ip(t, "addr add "+addr+rest)
			n.ns.awaitLocal(t, addr)
		}
		n.addr = k.address(i + 1)
		n.open(t, k.config(i+1, 2))
	}
	return nodes
}

// The others know a node by the source of what it says to all. Whatever it says
// to one comes from there too, though another address were nearer.
func TestGroupHasOneSource(t *testing.T) {
	eachMulticast(t, func(t *testing.T, k *groupKind) {
		nodes := k.openWithMore(t)
		a, b := nodes[0], nodes[1]
		send(t, a.Group, "hello")
		source := b.hear(t, 1)[0].from
		if k.byInterface && source != a.addr {
			t.Errorf("a speaks from %s", source)
		}
		for _, to := range k.both(2) {
			a.tell(t, to, "to "+to.String())
			b.check(t, heard{"to " + to.String(), source, false})
		}
	})
}

// When the address that a node speaks from goes, as a virtual one does, it goes
// on with another one.
func TestGroupSourceGoes(t *testing.T) {
	eachMulticast(t, func(t *testing.T, k *groupKind) {
		if k.byInterface {
			return // says which
		}
		nodes := k.openWithMore(t)
		a, b := nodes[0], nodes[1]
		send(t, a.Group, "hello")
		own := k.both(1)
		was := b.hear(t, 1)[0].from
		i := slices.Index(own, was)
		if i < 0 {
			t.Fatalf("a speaks from %s", was)
		}
		a.ns.ip(t, fmt.Sprintf("addr del %s/%d dev sync0", was, map[bool]int{true: 24, false: 64}[was.Is4()]))
		send(t, a.Group, "lost")
		send(t, a.Group, "here")
		b.check(t, heard{"here", own[1-i], true})
		if s := a.Stats(); s.Unsendable != 1 {
			t.Errorf("%+v", s)
		}
		to := k.both(2)[1-i]
		a.tell(t, to, "alone")
		b.check(t, heard{"alone", own[1-i], false})
	})
}

// A batch of more than one system call reaches one peer whole and in order.
func TestGroupKeepsOrder(t *testing.T) {
	eachGroup(t, func(t *testing.T, k *groupKind) {
		_, nodes := openStar(t, k, 3)
		a, b, c := nodes[0], nodes[1], nodes[2]
		var texts []string
		var want []heard
		for i := range 150 {
			texts = append(texts, fmt.Sprint("datagram ", i))
			want = append(want, heard{texts[i], a.addr, false})
		}
		a.tell(t, b.addr, texts...)
		slices.Reverse(texts)
		a.tell(t, c.addr, texts...)
		b.check(t, want...)
		slices.Reverse(want)
		c.check(t, want...)
	})
}
