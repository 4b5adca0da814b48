package itest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// A weather is what the links between the nodes are like for some time; calm
// ends it.
type weather struct {
	name  string
	begin func(s *storm)
	// A HELLO that comes twice makes a C daemon deaf (docs/protocol.md 11).
	oursOnly bool
}

const bothLinks = nettest.SyncIf + ", " + secondIf

var weathers = []weather{
	{name: "calm"},
	{name: "partition", begin: func(s *storm) {
		s.arriving(s.two.A, bothLinks, "drop")
		s.arriving(s.two.B, bothLinks, "drop")
	}},
	{name: "nobody hears", begin: func(s *storm) {
		for _, n := range []*nettest.Node{s.two.A, s.two.B} {
			s.ok(n.IP("link set "+nettest.SyncIf+" down", "link set "+secondIf+" down"))
		}
	}},
	{name: "A is deaf", begin: func(s *storm) { s.arriving(s.two.A, bothLinks, "drop") }},
	{name: "B is deaf", begin: func(s *storm) { s.arriving(s.two.B, bothLinks, "drop") }},
	{name: "B is deaf on the first link", begin: func(s *storm) { s.arriving(s.two.B, nettest.SyncIf, "drop") }},
	{name: "the first link is down", begin: func(s *storm) { s.ok(s.two.A.IP("link set " + nettest.SyncIf + " down")) }},
	{name: "loss", begin: func(s *storm) {
		percent := 1 + s.dice.IntN(40)
		s.arriving(s.two.A, bothLinks, lost(percent))
		s.arriving(s.two.B, bothLinks, lost(percent))
	}},
	{name: "loss towards B", begin: func(s *storm) { s.arriving(s.two.B, bothLinks, lost(60)) }},
	{name: "repetition and loss", oursOnly: true, begin: func(s *storm) {
		s.twice(s.two.A, nettest.SyncB, second(2))
		s.twice(s.two.B, nettest.SyncA, second(1))
		s.arriving(s.two.A, bothLinks, lost(10))
		s.arriving(s.two.B, bothLinks, lost(10))
	}},
}

func lost(percent int) string {
	return fmt.Sprintf("ip protocol udp numgen random mod 100 < %d drop", percent)
}

// arriving puts a rule before everything that a node receives on the devices.
func (s *storm) arriving(n *nettest.Node, devices, rule string) {
	s.Helper()
	s.ok(n.NFT(fmt.Sprintf("table netdev weather { chain in { type filter hook ingress devices = { %s } priority 0; %s; }; }", devices, rule)))
}

// twice repeats a fifth of what a node sends.
func (s *storm) twice(n *nettest.Node, first, other fmt.Stringer) {
	s.Helper()
	const rule = "ip daddr %s numgen random mod 100 < 20 dup to %[1]s device %s; "
	s.ok(n.NFT("table ip weather { chain out { type filter hook output priority 0; " +
		fmt.Sprintf(rule, first, nettest.SyncIf) + fmt.Sprintf(rule, other, secondIf) + "}; }"))
}

// calm ends any weather.
func (s *storm) calm() {
	s.Helper()
	for _, n := range []*nettest.Node{s.two.A, s.two.B} {
		for _, family := range []string{"netdev", "ip"} {
			s.ok(n.NFT(strings.ReplaceAll("table FAMILY weather\ndelete table FAMILY weather", "FAMILY", family)))
		}
		s.ok(n.IP("link set "+nettest.SyncIf+" up", "link set "+secondIf+" up"))
	}
}

// A mishap is what happens to a node, or what its operator does.
type mishap struct {
	name string
	play func(s *storm)
}

var mishaps = []mishap{
	{"nothing", func(s *storm) { s.pause(0, 2*time.Second) }},
	{"kill -9 of A", func(s *storm) { s.kill(s.a) }},
	{"kill -9 of B", func(s *storm) { s.kill(s.b) }},
	{"kill -9 of both", func(s *storm) {
		s.a.Kill9()
		s.kill(s.b)
		s.restart(s.a)
	}},
	{"A stands still", func(s *storm) { s.stop(s.a) }},
	{"B stands still", func(s *storm) { s.stop(s.b) }},
	{"the links flap", (*storm).flap},
	{"-n", func(s *storm) { s.requests(s.either(), "-n") }},
	{"-B", func(s *storm) { s.requests(s.either(), "-B") }},
	{"-R", func(s *storm) { s.readKernel(s.either()) }},
	{"-f of one cache", func(s *storm) {
		// As docs/protocol.md 11 tells the operator to undo it.
		d := s.either()
		s.ok(s.flush(d, []string{"internal", "external"}[s.dice.IntN(2)]))
		s.readKernel(d)
		s.requests(d, "-B", "-n")
	}},
}

// readKernel says -R. A C daemon tells nobody what it finds, neither new flows
// nor ended ones, so then the other node has to ask for everything.
func (s *storm) readKernel(d *nettest.Daemon) {
	s.Helper()
	s.request(d, "-R")
	if d.Kind == nettest.C {
		for _, other := range []*nettest.Daemon{s.a, s.b} {
			if other != d {
				s.request(other, "-n")
			}
		}
	}
}

func (s *storm) flush(d *nettest.Daemon, cache string) error {
	_, err := d.Client(s.Context(), "-f", cache)
	return err
}

func (s *storm) either() *nettest.Daemon {
	return []*nettest.Daemon{s.a, s.b}[s.dice.IntN(2)]
}

// kill ends a daemon at once and starts it again some time later, while flows
// come and go.
func (s *storm) kill(d *nettest.Daemon) {
	s.Helper()
	d.Kill9()
	s.pause(0, time.Second)
	s.restart(d)
}

// stop holds a process for a second: more events come than its socket takes.
func (s *storm) stop(d *nettest.Daemon) {
	s.Helper()
	s.ok(d.Proc().Signal(syscall.SIGSTOP))
	s.pause(time.Second, time.Second)
	s.ok(d.Proc().Signal(syscall.SIGCONT))
}

// flap takes the carrier from one link and the other in turn.
func (s *storm) flap() {
	s.Helper()
	for range 2 + s.dice.IntN(5) {
		for _, device := range []string{nettest.SyncIf, secondIf} {
			s.ok(s.two.B.IP("link set " + device + " down"))
			s.pause(0, 200*time.Millisecond)
			s.ok(s.two.B.IP("link set " + device + " up"))
		}
	}
}

// pause lets at least so much time go by: when a fault comes is random.
func (s *storm) pause(least, most time.Duration) {
	d := least
	if most > least {
		d += time.Duration(s.dice.Int64N(int64(most - least)))
	}
	time.Sleep(d)
}

// A deck deals each of its cards before one comes again.
type deck[T any] struct{ cards, left []T }

func (d *deck[T]) draw(dice *rand.Rand) T {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.cards)
		dice.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	card := d.left[0]
	d.left = d.left[1:]
	return card
}

// churner makes, changes and ends flows [from, to) of loadFlow at random, and
// makes ended ones again.
type churner struct {
	w        *flood.Writer
	dice     *rand.Rand
	from, to int
	rate     int
	live     []int
	isLive   map[int]bool
	mark     uint32
	ended    atomic.Int64 // flows
}

func newChurner(w *flood.Writer, dice *rand.Rand, from, to, rate int) *churner {
	return &churner{w: w, dice: dice, from: from, to: to, rate: rate, isLive: map[int]bool{}}
}

// run goes on until stop is closed.
func (c *churner) run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := c.round(); err != nil {
			return err
		}
	}
}

// round is a twentieth of a second: a few flows of each kind of request.
func (c *churner) round() error {
	each := max(1, c.rate/60)
	made := map[int]bool{}
	for range each {
		if i := c.from + c.dice.IntN(c.to-c.from); !c.isLive[i] {
			made[i] = true
		}
	}
	var fresh []int
	for i := c.from; i < c.to && len(fresh) < len(made); i++ {
		if made[i] {
			fresh = append(fresh, i)
		}
	}
	c.mark += 1 << 16
	if _, err := c.w.Create(c.load(fresh)); err != nil {
		return err
	}
	for _, i := range fresh {
		c.isLive[i] = true
		c.live = append(c.live, i)
	}
	c.dice.Shuffle(len(c.live), func(i, j int) { c.live[i], c.live[j] = c.live[j], c.live[i] })
	if _, err := c.w.Update(c.load(c.live[:min(each, len(c.live))])); err != nil {
		return err
	}
	// The number of flows stays below what makes a comparison slow.
	n := 0
	if len(c.live) > (c.to-c.from)/8 {
		n = min(len(c.live), 2*each)
	} else if len(c.live) > each {
		n = each / 2
	}
	gone := c.live[len(c.live)-n:]
	if _, err := c.w.Delete(c.load(gone)); err != nil {
		return err
	}
	for _, i := range gone {
		delete(c.isLive, i)
	}
	c.ended.Add(int64(n))
	c.live = c.live[:len(c.live)-n]
	return nil
}

// load is requests for flows; none times out during the test.
func (c *churner) load(flows []int) flood.Load {
	return flood.Load{To: len(flows), Rate: c.rate, Flow: func(i int, f *flood.Flow) {
		*f = loadFlow(flows[i], c.mark)
		f.Timeout = 3600
	}}
}
