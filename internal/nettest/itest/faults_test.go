package itest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// settling bounds how long the nodes take to agree after the last fault: a
// RESYNC that went astray is said again after 30 s and after 60 s.
const settling = 100 * time.Second

// storm is a rig under faults: a pair of firewalls with two links, flows that
// come, change and go on both, and connections through A.
type storm struct {
	*rig
	dice     *rand.Rand // of the faults
	weathers deck[weather]
	mishaps  deck[mishap]
	conns    []*nettest.Conn
	loads    [2]*churner // on A and B
}

// TestFaults plays faults at random under load. Then there is quiet, and
// without an order of anybody kernels, internal and external caches are
// compared entry by entry; at last A dies, B takes over, and the connections
// opened in the beginning still carry data.
//
// A C daemon is held to what docs/protocol.md 11 says: it has everything that
// lives, and our side of the pair is exact.
//
// FAULTS_TIME is how long the faults go on ("10m"; 15 s without), with a quiet
// moment every 20 s; FAULTS_SEED plays a sequence of faults again.
func TestFaults(t *testing.T) {
	length, seed := faultSettings(t)
	t.Logf("FAULTS_SEED=%d", seed)
	forPairings(t, func(t *testing.T, p pairing) {
		if p.a == nettest.C && p.b == nettest.C {
			t.Skip("the control is TestFaultsControl")
		}
		s := newStorm(t, p, seed)
		for end := time.Now().Add(length); ; {
			s.rage(min(20*time.Second, time.Until(end)))
			s.settle()
			if !time.Now().Before(end) {
				break
			}
		}
		s.takeOver()
	})
}

// TestFaultsControl shows that the comparison can fail: of two C daemons one
// is killed, and what ended meanwhile stays at the other.
func TestFaultsControl(t *testing.T) {
	t.Parallel()
	_, seed := faultSettings(t)
	t.Logf("FAULTS_SEED=%d", seed)
	s := newStorm(t, pairing{nettest.C, nettest.C}, seed)
	s.underLoad(func() {
		s.endSome(s.loads[0]) // there are flows that B knows
		s.a.Kill9()
		s.endSome(s.loads[0])
		s.restart(s.a)
	})
	s.request(s.b, "-n") // of their own accord they lack what began meanwhile, too
	s.externalCovers(s.a, s.b)
	if err := s.same(s.a, s.b, true); err == nil {
		t.Error("the caches of two C daemons are equal after a kill: the comparison finds nothing")
	} else {
		t.Logf("as it must be: %.300v", err)
	}
}

// endSome waits until a load has ended some hundred flows more.
func (s *storm) endSome(c *churner) {
	s.Helper()
	want := c.ended.Load() + 200
	s.eventually("flows to end", func() error {
		if n := c.ended.Load(); n < want {
			return fmt.Errorf("%d flows to go", want-n)
		}
		return nil
	})
}

func faultSettings(t *testing.T) (length time.Duration, seed uint64) {
	t.Helper()
	length, seed = 15*time.Second, rand.Uint64()
	var err error
	if text := os.Getenv("FAULTS_TIME"); text != "" {
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("FAULTS_TIME: %v", err)
		}
	}
	if text := os.Getenv("FAULTS_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("FAULTS_SEED: %v", err)
		}
	}
	return length, seed
}

func newStorm(t *testing.T, p pairing, seed uint64) *storm {
	t.Helper()
	nettest.Need(t, p.a, p.b)
	r := &rig{T: t, lab: nettest.Get(t)}
	pair, err := r.lab.NewPair()
	r.ok(err)
	r.pair, r.two = pair, &pair.TwoNodes
	ca, cb := pair.Configs(false)
	r.secondCable(&ca, &cb, "UDP", 2)
	withStartupResync(&ca, &cb)
	for c, kind := range map[*nettest.Config]nettest.Kind{&ca: p.a, &cb: p.b} {
		if kind == nettest.Go {
			// A second without the daemon is too much for it.
			c.GeneralLines = []string{"NetlinkBufferSize 65536", "NetlinkBufferSizeMaxGrowth 262144"}
		}
	}
	r.addDaemons(p, ca, cb, nil)
	r.ok(r.two.A.NFT(rules))
	r.ok(r.two.B.NFT(rules))
	for port := 7000; port <= 7002; port++ {
		r.ok(r.pair.Server.ServeEcho(port))
	}
	r.ok(r.pair.MoveVIPs(r.two.A))
	r.start()
	r.handshake()

	s := &storm{
		rig:      r,
		dice:     rand.New(rand.NewPCG(seed, 0)),
		weathers: deck[weather]{cards: weathers},
		mishaps:  deck[mishap]{cards: mishaps},
	}
	s.loads[0] = newChurner(r.flood(r.two.A), rand.New(rand.NewPCG(seed, 1)), 0, 20000, 2000)
	s.loads[1] = newChurner(r.flood(r.two.B), rand.New(rand.NewPCG(seed, 2)), 30000, 32000, 200)
	for _, network := range []string{"tcp", "udp"} {
		for _, to := range []string{"10.2.0.2:7000", "10.1.0.1:8001", "[fd02::2]:7001", "[fd01::1]:8002"} {
			c, err := r.pair.Client.Dial(network, to, 5*time.Second)
			r.ok(err)
			s.conns = append(s.conns, c)
		}
	}
	s.talk("at first")
	return s
}

// talk carries data over every connection.
func (s *storm) talk(when string) {
	s.Helper()
	for _, c := range s.conns {
		if err := c.RoundTrip(10 * time.Second); err != nil {
			s.Fatalf("%s: %v", when, err)
		}
	}
}

// underLoad runs f while flows come, change and go on both nodes.
func (s *storm) underLoad(f func()) {
	s.Helper()
	stop := make(chan struct{})
	var waits []func() error
	for _, l := range s.loads {
		waits = append(waits, inBackground(func() error { return l.run(stop) }))
	}
	defer func() {
		close(stop)
		for _, wait := range waits {
			if err := wait(); err != nil {
				s.Errorf("the load: %v", err)
			}
		}
	}()
	f()
}

// rage plays faults for some time: at each step a weather between the nodes
// and something that happens to one of them in it.
func (s *storm) rage(length time.Duration) {
	s.Helper()
	s.underLoad(func() {
		for end := time.Now().Add(length); time.Now().Before(end); {
			w := s.weathers.draw(s.dice)
			if w.oursOnly && s.hasC() {
				continue
			}
			m := s.mishaps.draw(s.dice)
			s.Logf("%s: %s", w.name, m.name)
			if w.begin != nil {
				w.begin(s)
			}
			s.pause(0, 500*time.Millisecond)
			m.play(s)
			s.pause(0, 500*time.Millisecond)
			s.calm()
			if s.dice.IntN(2) == 0 {
				s.pause(0, time.Second)
			}
			s.talk("among the faults")
			for _, d := range []*nettest.Daemon{s.a, s.b} {
				if !d.Running() {
					s.Fatalf("%s has ended: %v", d, d.Proc().Err())
				}
			}
		}
	})
}

func (s *storm) hasC() bool { return s.a.Kind == nettest.C || s.b.Kind == nettest.C }

// settle waits until everything is equal. A C daemon may know too much.
func (s *storm) settle() {
	s.Helper()
	start := time.Now()
	for _, way := range [][2]*nettest.Daemon{{s.a, s.b}, {s.b, s.a}} {
		from, to := way[0], way[1]
		what := fmt.Sprintf("%s to be in step with %s", to, from)
		s.ok(nettest.Eventually(s.Context(), settling, what, func() error {
			return s.same(from, to, to.Kind == nettest.Go)
		}))
	}
	s.Logf("in step after %v, %d and %d flows", time.Since(start).Round(10*time.Millisecond), len(s.loads[0].live), len(s.loads[1].live))
	for _, d := range []*nettest.Daemon{s.a, s.b} {
		if d.Kind == nettest.Go {
			s.Logf("since its start %s has seen: %s", d, overrunPattern.FindString(s.request(d, "-s", "runtime")))
		}
	}
}

// same compares a node's kernel with its internal cache and that with the
// other's external cache, which may have more unless it must be exact. A C
// daemon that starts under load has a wrong internal cache until somebody says
// -R, and what that mends it tells nobody. What it believes is what the other
// node must have.
func (s *storm) same(from, to *nettest.Daemon, exact bool) error {
	kernel, err := from.Node.Kernel()
	if err != nil {
		return err
	}
	internal, err := from.Internal(s.Context())
	if err != nil {
		return err
	}
	external, err := to.External(s.Context())
	if err != nil {
		return err
	}
	if len(kernel) == 0 {
		return errors.New("the kernel has no entries: nothing is compared")
	}
	if from.Kind == nettest.Go {
		if err := nettest.DiffInternal(kernel, internal).Err(); err != nil {
			return err
		}
	}
	if !exact {
		external = external.Only(func(e *nettest.Entry) bool { return internal[e.Key] != nil })
	}
	return nettest.DiffCaches(internal, external).Err()
}

// takeOver kills A. B commits and gets the addresses.
func (s *storm) takeOver() {
	s.Helper()
	s.talk("before the end")
	original := s.known(s.a)
	s.a.Kill9()
	s.request(s.b, "-c")
	committed := s.kernel(s.two.B).Only(func(e *nettest.Entry) bool { return original[e.Key] != nil })
	if err := (nettest.KernelDiff{Tolerance: -1, Committer: s.b.Kind}).Tables(original, committed).Err(); err != nil {
		s.Errorf("kernel tables: %v", err)
	}
	s.ok(s.pair.MoveVIPs(s.two.B))
	s.talk("on the other node")
}

// known is what of its kernel's table a daemon has right: all, if it is ours.
func (s *storm) known(d *nettest.Daemon) nettest.Table {
	s.Helper()
	internal, err := d.Internal(s.Context())
	s.ok(err)
	kernel := s.kernel(d.Node)
	right := kernel.Only(func(e *nettest.Entry) bool {
		i := internal[e.Key]
		return i != nil && nettest.DiffInternal(nettest.Table{e.Key: e}, nettest.Table{e.Key: i}).Err() == nil
	})
	if wrong := len(kernel) - len(right); wrong > 0 {
		s.Logf("%s has %d of %d entries wrong", d, wrong, len(kernel))
		if d.Kind == nettest.Go {
			s.Error("ours must not")
		}
	}
	return right
}
