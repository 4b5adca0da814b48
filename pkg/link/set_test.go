package link

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// openSet opens links that are ends of cables of their own.
func openSet(t *testing.T, cfg SetConfig) *Set {
	t.Helper()
	l, err := OpenSet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*Set)
}

func twoLoopbacks(t *testing.T) (a, b Link) {
	t.Helper()
	var ca, cb SetConfig
	for range 2 {
		cfg := ends("127.0.0.1", "127.0.0.2")
		cfg.Interface, cfg.Port, cfg.SendBuffer, cfg.ReceiveBuffer = "lo", freePort(t), 1<<20, 1<<20
		ca.Links = append(ca.Links, cfg)
		cfg.Local, cfg.Peer = cfg.Peer, cfg.Local
		cb.Links = append(cb.Links, cfg)
	}
	return openSet(t, ca), openSet(t, cb)
}

// One link is itself: a set around it would cost something.
func TestSetOfOne(t *testing.T) {
	cfg := ends("127.0.0.1", "127.0.0.2")
	cfg.Interface, cfg.Port = "lo", freePort(t)
	l, err := OpenSet(SetConfig{Links: []Config{cfg}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, ok := l.(*datagrams); !ok {
		t.Errorf("it is a %T", l)
	}
}

// A link that cannot be opened closes those before it.
func TestSetRefuses(t *testing.T) {
	good := ends("127.0.0.1", "127.0.0.2")
	good.Interface, good.Port = "lo", freePort(t)
	bad := good
	bad.Interface = "nosuch0"
	if _, err := OpenSet(SetConfig{Links: []Config{good, bad}}); err == nil {
		t.Fatal("opened")
	}
	l, err := OpenSet(SetConfig{Links: []Config{good}})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// twoCables are two nodes with two cables, and a set on each.
type twoCables struct {
	nsA, nsB *namespace
	a, b     *Set
	changes  []string // of a
}

func newTwoCables(t *testing.T, transport Transport) *twoCables {
	t.Helper()
	c := &twoCables{}
	c.nsA, c.nsB = pair(t)
	cable(t, c.nsA, c.nsB, "sync1")
	for i, n := range []*namespace{c.nsA, c.nsB} {
		n.ip(t, fmt.Sprintf("addr add 10.8.0.%d/24 dev sync1", i+1))
		cfg := SetConfig{Silence: 300 * time.Millisecond}
		for net, device := range []string{"sync0", "sync1"} {
			l := ends(fmt.Sprintf("10.%d.0.%d", 9-net, i+1), fmt.Sprintf("10.%d.0.%d", 9-net, 2-i))
			l.Interface, l.Transport, l.ErrorQueue = device, transport, 8
			cfg.Links = append(cfg.Links, l)
		}
		if i == 0 {
			cfg.Changed = func(l Link) {
				name := "none"
				if l != nil {
					name = l.Name()
				}
				c.changes = append(c.changes, name)
			}
		}
		n.do(func() {
			s := openSet(t, cfg)
			if i == 0 {
				c.a = s
			} else {
				c.b = s
			}
		})
	}
	return c
}

// talk lets both say something each 20 ms, as living nodes do, until done.
func (c *twoCables) talk(t *testing.T, what string, done func() bool) (got []string) {
	t.Helper()
	n := 0
	return work(t, what, []Link{within{c.a, c.nsA}, within{c.b, c.nsB}}, func() bool {
		if n++; n%2 == 0 { // work polls for 20 ms at most
			c.nsA.do(func() { sendMessages(t, c.a, "from a") })
			c.nsB.do(func() { sendMessages(t, c.b, "from b") })
		}
		return done()
	})
}

// on reports whether both send on a device, for good, and hear each other there.
func (c *twoCables) on(device string) func() bool {
	start := time.Now()
	return func() bool {
		for _, s := range []*Set{c.a, c.b} {
			if s.sending().Name() != device || s.Current().Name() != device {
				return false
			}
		}
		return c.heard(start, device)
	}
}

func (c *twoCables) heard(since time.Time, device string) bool {
	for _, s := range []*Set{c.a, c.b} {
		i := slices.IndexFunc(s.links, func(l Link) bool { return l.Name() == device })
		s.mu.Lock()
		at := s.start.Add(s.failover.members[i].heard)
		s.mu.Unlock()
		if at.Before(since) {
			return false
		}
	}
	return true
}

// TestSetFailsOver breaks the link in use in every way there is. Without the
// failover (TestOneLinkLoses) nothing gets through.
func TestSetFailsOver(t *testing.T) {
	oneWay := func(n *namespace) func(t *testing.T) {
		// Traffic that comes in through sync0 is lost before anybody sees it.
		return func(t *testing.T) {
			n.nft(t, "table netdev loss { chain in { type filter hook ingress device sync0 priority 0; drop; }; }")
		}
	}
	for _, transport := range []Transport{UDP, TCP} {
		for _, c := range []struct {
			name string
			cut  func(*twoCables) func(t *testing.T)
		}{
			{"admin down here", func(c *twoCables) func(t *testing.T) {
				return func(t *testing.T) { c.nsA.ip(t, "link set sync0 down") }
			}},
			{"carrier down here", func(c *twoCables) func(t *testing.T) {
				return func(t *testing.T) { c.nsB.ip(t, "link set sync0 down") }
			}},
			{"interface deleted", func(c *twoCables) func(t *testing.T) {
				return func(t *testing.T) { c.nsB.ip(t, "link del sync0") }
			}},
			{"deaf here", func(c *twoCables) func(t *testing.T) { return oneWay(c.nsA) }},
			{"deaf there", func(c *twoCables) func(t *testing.T) { return oneWay(c.nsB) }},
		} {
			t.Run(transport.String()+"/"+c.name, func(t *testing.T) {
				cables := newTwoCables(t, transport)
				cables.talk(t, "the first link", cables.on("sync0"))
				c.cut(cables)(t)
				cables.talk(t, "the second link", cables.on("sync1"))
				if n := len(cables.changes); n == 0 || cables.changes[n-1] != "sync1" || cables.a.Current().Name() != "sync1" {
					t.Errorf("changes %q, current %s", cables.changes, cables.a.Current().Name())
				}
			})
		}
	}
}

// The control: with one link, the same loss is a loss.
func TestOneLinkLoses(t *testing.T) {
	nsA, nsB := pair(t)
	a, b := nsA.open(t, ends("10.9.0.1", "10.9.0.2")), nsB.open(t, ends("10.9.0.2", "10.9.0.1"))
	send(t, a, "before")
	nsB.receive(t, b, 1)
	nsB.nft(t, "table netdev loss { chain in { type filter hook ingress device sync0 priority 0; drop; }; }")
	for range 10 {
		send(t, a, "lost")
	}
	if readable(t, b, 500*time.Millisecond) {
		t.Error("something came through")
	}
}

// What a TCP link could not send goes out on the next one, in order.
func TestSetStrandsNothing(t *testing.T) {
	c := newTwoCables(t, TCP)
	c.talk(t, "the first link", c.on("sync0"))
	c.nsB.ip(t, "link set sync0 arp off") // nobody answers a connection attempt
	c.nsA.do(func() {
		l := c.a.sending().(*tcp)
		l.mu.Lock()
		l.out.lose()
		l.mu.Unlock()
		sendMessages(t, c.a, "1", "2", "3")
	})
	if s := c.a.Stats(); s.Queued != 3 {
		t.Fatalf("%+v", s)
	}
	c.nsA.ip(t, "link set sync0 down")
	var got []string
	got = work(t, "what waited", []Link{within{c.a, c.nsA}, within{c.b, c.nsB}}, func() bool {
		return c.a.Stats().Queued == 0 && c.b.links[1].Stats().RecvBytes >= 27
	})
	got = slices.DeleteFunc(got, func(s string) bool { return len(s) > 1 })
	if !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("got %q", got)
	}
}

// All down is said once, and the first to come back is taken.
func TestSetWithoutLinks(t *testing.T) {
	c := newTwoCables(t, UDP)
	c.talk(t, "the first link", c.on("sync0"))
	c.nsA.ip(t, "link set sync1 down", "link set sync0 down")
	links := []Link{within{c.a, c.nsA}}
	work(t, "the news", links, func() bool { return slices.Equal(c.changes, []string{"none"}) })
	c.nsA.ip(t, "link set sync1 up")
	work(t, "the second link", links, func() bool { return slices.Equal(c.changes, []string{"none", "sync1"}) })
}
