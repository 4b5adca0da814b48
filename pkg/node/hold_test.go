package node

import (
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

const (
	testHold   = 20 * time.Second
	udpNormal  = 10 // seconds
	testNormal = udpNormal * time.Second
)

func holdConfig(c *Config) {
	c.DisableExternalCache, c.Hold = true, testHold
	c.HashLimit = 1 << 20
}

func udp(i int) flow.Flow {
	f := flow.Flow{Key: flow.Key{Family: flow.IPv4, Proto: flow.ProtoUDP, Sport: uint16(i), Dport: 53},
		Has:    flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasTimeout | flow.HasReply | flow.HasMark,
		Status: flow.StatusConfirmed | flow.StatusSeenReply | flow.StatusAssured, Timeout: 7, Mark: uint32(i)}
	copy(f.Src[:], []byte{10, 0, byte(i >> 16), byte(i >> 8)})
	copy(f.Dst[:], []byte{10, 0, 0, 2})
	return f
}

// fakeTable is a kernel's table in which nothing but time and injections happens.
type fakeTable struct {
	until   map[flow.Key]time.Duration
	renewed int
	least   time.Duration // of what was left to an entry when it was renewed
	lost    []flow.Flow
}

func newFakeTable() *fakeTable {
	return &fakeTable{until: map[flow.Key]time.Duration{}, least: time.Hour}
}

func (k *fakeTable) inject(now time.Duration, events []flow.Event) {
	for i := range events {
		f := &events[i].Flow
		until, ok := k.until[f.Key]
		if ok && until < now {
			delete(k.until, f.Key)
			ok = false
		}
		switch events[i].Op {
		case flow.Destroy:
			delete(k.until, f.Key)
		case flow.Renew:
			if !ok {
				k.lost = append(k.lost, *f)
				continue
			}
			k.renewed++
			k.least = min(k.least, until-now)
			fallthrough
		default:
			k.until[f.Key] = now + time.Duration(f.Timeout)*time.Second
		}
	}
}

func (k *fakeTable) alive(now time.Duration) (n int) {
	for _, until := range k.until {
		if until >= now {
			n++
		}
	}
	return n
}

// holdPair is a node with traffic, a, and its standby b with its kernel.
type holdPair struct {
	*pair
	kernel *fakeTable
	cut    bool // nothing arrives
	most   int  // injections of one Tick
}

func newHoldPair(t *testing.T, change func(*Config)) *holdPair {
	t.Helper()
	p := &holdPair{kernel: newFakeTable(), pair: newPairOf(t, func(c *Config) {
		holdConfig(c)
		if change != nil {
			change(c)
		}
	})}
	for _, n := range [...]*Node{p.a, p.b} {
		n.SetTimeouts(flow.Timeouts{UDP: udpNormal, UDPStream: udpNormal})
	}
	p.write()
	return p
}

func (p *holdPair) write() {
	events := p.b.Injections(nil)
	p.most = max(p.most, len(events))
	p.kernel.inject(p.now, events)
	if lost := p.kernel.lost; len(lost) > 0 {
		p.kernel.lost = nil
		p.b.Lost(lost)
		p.write()
	}
}

// run lets d pass: a speaks each second, b is called when it wants to be.
func (p *holdPair) run(d time.Duration) {
	for end := p.now + d; p.now < end; {
		next := min(p.now+time.Second, end)
		if at := p.b.Deadline(); at > p.now {
			next = min(next, at)
		} else {
			next = p.now + time.Microsecond
		}
		p.now = next
		p.a.Tick(p.now)
		p.b.Tick(p.now)
		if p.cut {
			messages(p.a, p.now)
			messages(p.b, p.now)
		} else {
			p.exchange()
		}
		p.write()
	}
}

func (p *holdPair) made(from, to int) {
	for i := from; i < to; i++ {
		p.a.Kernel(p.now, event1(flow.New, udp(i)))
	}
	if !p.cut {
		p.exchange()
	}
	p.write()
}

// What the peer has stays however quiet it is, with no less time than a packet
// would give it, and its end is the end.
func TestHoldRenewsBeforeItExpires(t *testing.T) {
	for _, flows := range []int{1, 100, 5000} {
		p := newHoldPair(t, nil)
		p.made(0, flows)
		if left := p.kernel.until[udp(0).Key] - p.now; left != testNormal+testHold {
			t.Fatalf("%d flows: injected with %v", flows, left)
		}
		p.most = 0
		p.run(10 * testHold)
		if n := p.kernel.alive(p.now); n != flows {
			t.Errorf("%d of %d flows are there", n, flows)
		}
		if p.kernel.least < testNormal || p.kernel.least > testNormal+testHold {
			t.Errorf("%d flows: one had %v when it was renewed", flows, p.kernel.least)
		}
		if rounds := float64(p.kernel.renewed) / float64(flows); rounds < 18 || rounds > 22 {
			t.Errorf("%d flows: renewed %.1f times in ten hold timeouts", flows, rounds)
		}
		if p.most > walkChunk*walkMost {
			t.Errorf("%d flows: %d renewed at once", flows, p.most)
		}
		p.a.Kernel(p.now, event1(flow.Destroy, udp(0)))
		p.run(2 * time.Second)
		if n := p.kernel.alive(p.now); n != flows-1 {
			t.Errorf("%d of %d flows are there after the end of one", n, flows)
		}
	}
}

// Without the setting the entries age as they do at conntrackd's.
func TestHoldOff(t *testing.T) {
	p := newHoldPair(t, func(c *Config) { c.Hold = 0 })
	p.made(0, 10)
	if left := p.kernel.until[udp(0).Key] - p.now; left != 7*time.Second {
		t.Errorf("injected with %v", left)
	}
	p.run(testHold)
	if n := p.kernel.alive(p.now); n != 0 || p.kernel.renewed != 0 || p.b.external.live() != 0 {
		t.Errorf("%d flows are there, %d renewals, %d on account", n, p.kernel.renewed, p.b.external.live())
	}
}

func notices(n *Node) (all []Notice) {
	for x, ok := n.NextNotice(); ok; x, ok = n.NextNotice() {
		all = append(all, x)
	}
	return all
}

func (p *holdPair) noticed(t *testing.T, want Notice) {
	t.Helper()
	for _, x := range notices(p.b) {
		if x.Kind == want.Kind {
			if x != want {
				t.Errorf("noticed %+v, want %+v", x, want)
			}
			return
		}
	}
	t.Errorf("nothing said of %+v", want)
}

// A take-over puts the normal timeouts back in a time of its own, whatever -f
// does meanwhile; afterwards nothing is held until the node is a standby again.
func TestHoldTakeOver(t *testing.T) {
	const flows = 5000
	p := newHoldPair(t, nil)
	p.made(0, flows)
	p.run(3 * testHold)
	p.cut = true
	p.b.Kernel(p.now, event1(flow.Update, udp(9))) // a packet
	p.most = 0
	p.b.SetTimeouts(flow.Timeouts{UDPStream: 5})
	if held := p.b.TakeOver(p.now); held != flows-1 {
		t.Errorf("%d entries were held", held)
	}
	if !p.b.FlushExternal() {
		t.Error("-f was refused")
	}
	p.b.FlushInternal()
	p.run(time.Second)
	if p.most > walkChunk*walkMost || p.b.external.live() != 0 {
		t.Errorf("%d at once, %d are left", p.most, p.b.external.live())
	}
	p.noticed(t, Notice{Kind: TakenOver, Count: flows - 1})
	for key, until := range p.kernel.until {
		if left := until - p.now; left > 5*time.Second && key != udp(9).Key {
			t.Fatalf("%v has %v", key.Sport, left)
		}
	}
	p.kernel.renewed = 0
	p.cut = false
	p.made(flows, flows+10) // a peer that speaks on
	p.run(testHold)
	if p.kernel.renewed != 0 || p.b.external.live() != 0 {
		t.Errorf("%d renewals, %d on account", p.kernel.renewed, p.b.external.live())
	}
	p.b.StandBy(p.now)
	p.b.RequestResync()
	p.run(testHold)
	if n := p.kernel.alive(p.now); n != flows+10 || p.b.external.live() != flows+10 {
		t.Errorf("as a standby again: %d flows are there, %d on account", n, p.b.external.live())
	}
}

// A packet makes a flow ours: it is no longer held, and the peer hears of it.
func TestHoldEndsWithAPacket(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 2)
	sentTypes(p.b, p.now)
	p.b.Kernel(p.now, event1(flow.Update, udp(0)))
	if got := sentTypes(p.b, p.now); got != [6]int{wire.CTUpd: 1} {
		t.Errorf("sent %v", got)
	}
	if f, g := udp(0), udp(1); p.b.Holds(&f) || !p.b.Holds(&g) {
		t.Errorf("holds the first: %v, the second: %v", p.b.Holds(&f), p.b.Holds(&g))
	}
	p.a.Kernel(p.now, event1(flow.Update, udp(0))) // goes through both
	p.exchange()
	if f := udp(0); p.b.Holds(&f) {
		t.Error("a flow with packets here is held because the peer has packets too: neither would let it end")
	}
}

// What happens to a held entry on this node is not told to the peer, and is
// put right.
func TestHeldEntryThatVanishes(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 3)
	sentTypes(p.b, p.now)
	p.b.FlushInternal() // from now on it would tell the end of flows it does not know
	p.b.Kernel(p.now, event1(flow.Destroy, udp(0)))
	if got := sentTypes(p.b, p.now); got != [6]int{} {
		t.Errorf("told the peer: %v", got)
	}
	delete(p.kernel.until, udp(0).Key)
	p.run(testHold)
	if n := p.kernel.alive(p.now); n != 3 {
		t.Errorf("%d entries after a round", n)
	}
	p.a.Kernel(p.now, event1(flow.Destroy, udp(1)))
	p.exchange()
	p.write()
	p.b.Lost([]flow.Flow{udp(1)})
	if got := p.b.Injections(nil); len(got) != 0 {
		t.Errorf("%d injections of a flow that has ended", len(got))
	}
}

// Neither a look at the table nor an overrun makes held entries ours.
func TestHeldEntriesInADump(t *testing.T) {
	for _, why := range []Purpose{Refresh, Repair} {
		p := newHoldPair(t, nil)
		p.made(0, 3)
		p.b.BeginSweep(why)
		for i := range 4 { // the last is the standby's own
			p.b.Kernel(p.now, event1(flow.Dumped, udp(i)))
		}
		for !p.b.EndSweep(100) {
		}
		if n := p.b.internal.live(); n != 1 {
			t.Errorf("%d entries in the internal cache", n)
		}
	}
}

// With the peer gone entries are held for a day, and then age.
func TestHoldBounds(t *testing.T) {
	for name, mode := range map[string]Mode{"FTFW": FTFW, "NOTRACK": NOTRACK} {
		t.Run(name, func(t *testing.T) {
			p := newHoldPair(t, func(c *Config) { c.Mode, c.Hold = mode, 10*time.Minute })
			p.made(0, 10)
			p.cut = true
			p.run(heldUnheard - time.Minute)
			if n := p.kernel.alive(p.now); n != 10 {
				t.Fatalf("%d entries after nearly a day", n)
			}
			p.run(6 * time.Minute)
			p.noticed(t, Notice{Kind: HoldLapsed, Count: 10})
			if n := p.kernel.alive(p.now); n != 0 {
				p.run(testNormal + time.Second)
			}
			if n := p.kernel.alive(p.now); n != 0 {
				t.Errorf("%d entries after a day", n)
			}
		})
	}
}

// As long as the peer is heard nothing ends, if it acknowledges; else each
// entry wants to be mentioned now and then.
func TestHoldQuietPeer(t *testing.T) {
	for mode, want := range map[Mode]int{FTFW: 10, NOTRACK: 1} {
		p := newHoldPair(t, func(c *Config) { c.Mode, c.Hold = mode, 10*time.Minute })
		p.made(0, 10)
		for range 5 {
			p.run(6 * time.Hour)
			p.a.Kernel(p.now, event1(flow.Update, udp(0)))
		}
		p.run(time.Second)
		if n := p.kernel.alive(p.now); n != want {
			t.Errorf("%v: %d entries after 30 hours, want %d", mode, n, want)
		}
	}
}

// The former primary has all flows in its internal cache. It holds those the
// new one speaks of, and forgets that they were its own.
func TestHoldAfterAFailover(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 10)
	p.a, p.b = p.b, p.a // b had the traffic, and a takes over
	p.kernel = newFakeTable()
	p.a.TakeOver(p.now)
	p.a.FlushInternal()
	p.a.BeginSweep(Refresh)
	for i := range 10 {
		p.a.Kernel(p.now, event1(flow.Dumped, udp(i)))
	}
	for !p.a.EndSweep(100) {
	}
	p.a.Injections(nil)
	p.run(2 * time.Second)
	p.b.StandBy(p.now)
	p.b.RequestResync()
	p.run(5 * testHold)
	if p.b.internal.live() != 0 || p.b.external.live() != 10 || p.kernel.alive(p.now) != 10 {
		t.Errorf("%d entries of its own, holds %d, %d in the kernel", p.b.internal.live(), p.b.external.live(), p.kernel.alive(p.now))
	}
	if p.a.external.live() != 0 {
		t.Errorf("the primary holds %d entries", p.a.external.live())
	}
}

// restart makes b anew, with what its kernel has.
func (p *holdPair) restart(t *testing.T) {
	t.Helper()
	cfg := p.b.cfg
	p.b = New(cfg, 9000, [2]uint64{5, 6})
	p.b.SetTimeouts(p.a.hold.normal)
	p.b.BeginSweep(Start)
	for i := range 100 {
		f := udp(i)
		until, ok := p.kernel.until[f.Key]
		if left := until - p.now; ok && left > 0 {
			f.Timeout = uint32(left / time.Second)
			p.b.Kernel(p.now, event1(flow.Dumped, f))
		}
	}
	for !p.b.EndSweep(100) {
	}
}

// A standby that was started again finds the peer's flows in its kernel. It
// claims none of them, and holds them as before.
func TestHoldSurvivesARestart(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 10)
	p.run(3 * testHold)
	p.a.Kernel(p.now, event1(flow.Destroy, udp(9)))
	p.cut = true
	p.run(time.Second)
	p.cut = false
	p.restart(t)
	if p.b.internal.live() == 0 {
		t.Fatal("nothing was found: not the test of a restart")
	}
	p.run(10 * time.Second)
	if sent := p.b.stats.Sent; sent[wire.CTNew]+sent[wire.CTUpd]+sent[wire.CTDel] > 1 {
		t.Errorf("the standby claims flows: sent %v", sent)
	}
	p.run(5 * testHold)
	if p.b.external.live() != 9 || p.kernel.alive(p.now) < 9 {
		t.Errorf("holds %d, %d in the kernel", p.b.external.live(), p.kernel.alive(p.now))
	}
	if p.a.internal.live() != 9 || p.a.external.live() != 0 {
		t.Errorf("the primary has %d and holds %d", p.a.internal.live(), p.a.external.live())
	}
}

// If both start at once neither waits for ever, and what more time than normal
// shows to be held is held again.
func TestHoldWhenBothRestart(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 10)
	p.run(3 * testHold)
	p.restart(t)
	cfg := p.a.cfg
	p.a = New(cfg, 7000, [2]uint64{7, 8})
	p.a.SetTimeouts(p.b.hold.normal)
	p.a.BeginSweep(Start)
	for i := range 10 {
		p.a.Kernel(p.now, event1(flow.Dumped, udp(i)))
	}
	for !p.a.EndSweep(100) {
	}
	p.run(2 * listenMost)
	if p.b.external.live() != 10 || p.b.internal.live() != 0 || p.kernel.alive(p.now) != 10 {
		t.Errorf("the standby holds %d, has %d, %d in the kernel", p.b.external.live(), p.b.internal.live(), p.kernel.alive(p.now))
	}
	if p.a.internal.live() != 10 || p.a.external.live() != 0 {
		t.Errorf("the primary has %d and holds %d", p.a.internal.live(), p.a.external.live())
	}
}

// What a complete bulk does not mention has ended: a standby deletes it, and
// who does not know what it is lets it age.
func TestHoldAfterAResync(t *testing.T) {
	for name, told := range map[string]bool{"standby": true, "not told": false} {
		t.Run(name, func(t *testing.T) {
			p := newHoldPair(t, nil)
			p.made(0, 10)
			if told {
				p.b.StandBy(p.now)
			}
			p.a.FlushInternal() // as if it had ended, unheard
			p.b.RequestResync()
			for range 5 {
				p.run(time.Second)
				for !p.b.Expire(100) {
				}
				p.write()
			}
			if want := map[bool]int{true: 0, false: 10}[told]; p.kernel.alive(p.now) != want || p.b.external.live() != 0 {
				t.Errorf("%d in the kernel, want %d; %d on account", p.kernel.alive(p.now), want, p.b.external.live())
			}
			p.run(testNormal)
			if n := p.kernel.alive(p.now); n != 0 {
				t.Errorf("%d in the kernel in the end", n)
			}
		})
	}
}

// A fixed timeout is not refreshed by packets either, so it is no reason to
// hold anything; and a full account is not one to lose a flow.
func TestHoldExceptions(t *testing.T) {
	p := newHoldPair(t, func(c *Config) { c.HashLimit = 2 })
	fixed := udp(1)
	fixed.Status |= flow.StatusFixedTimeout
	p.a.Kernel(p.now, event1(flow.New, fixed))
	p.exchange()
	p.write()
	if left := p.kernel.until[fixed.Key] - p.now; left != 7*time.Second || p.b.Holds(&fixed) {
		t.Errorf("a fixed timeout: injected with %v, held %v", left, p.b.Holds(&fixed))
	}
	p.a.cfg.HashLimit = 100
	p.a.internal.limit = 100
	p.made(2, 5)
	if p.b.external.live() != 2 || p.kernel.alive(p.now) != 4 {
		t.Errorf("holds %d, %d in the kernel", p.b.external.live(), p.kernel.alive(p.now))
	}
	if n := p.b.Stats().External.NoSpace; n == 0 {
		t.Error("nothing says that the account is full")
	}
}

// The account is shown as the external cache that it takes the place of.
func TestHoldIsShown(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 3)
	text := string(p.b.Dump(nil, p.now, time.Time{}, External, false, &DumpCursor{}, 1000))
	if strings.Count(text, "\n") != 3 || !strings.Contains(text, "sport=2 dport=53") {
		t.Errorf("shows %q", text)
	}
}

func TestHoldAllocatesNothing(t *testing.T) {
	p := newHoldPair(t, nil)
	p.made(0, 1000)
	events := churnEvents(50, flow.IPv4)
	var spare []flow.Event
	cycle := func() {
		for i := range events {
			p.a.Kernel(p.now, events[i:i+1])
		}
		p.exchange()
		p.now += 100 * time.Millisecond
		p.b.Tick(p.now)
		spare = p.b.Injections(spare[:0])
	}
	for range 300 {
		cycle()
	}
	if n := testing.AllocsPerRun(100, cycle); n > 0 {
		t.Errorf("%.1f allocations", n)
	}
}

// A former primary keeps to itself what expires in its kernel for want of
// packets, until the new one has said which flows it has; what had packets here
// since is told.
func TestStandbyDoesNotEndFlows(t *testing.T) {
	p := newHoldPair(t, nil)
	for i := range 3 {
		p.b.Kernel(p.now, event1(flow.New, udp(i)))
	}
	sentTypes(p.b, p.now)
	p.now += time.Second
	p.b.StandBy(p.now)
	p.now += 2 * time.Second
	p.b.Kernel(p.now, event1(flow.Update, udp(1)))
	p.b.Kernel(p.now, event1(flow.Update, udp(2)))
	p.b.Kernel(p.now, event1(flow.Destroy, udp(0)))
	p.b.Kernel(p.now, event1(flow.Destroy, udp(1)))
	if got := sentTypes(p.b, p.now); got != [6]int{wire.CTUpd: 1, wire.CTDel: 1} {
		t.Errorf("sent %v", got)
	}
}
