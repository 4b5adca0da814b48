package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// What both daemons are told.
const (
	hashLimit = 6_000_000 // above any load
	hashSize  = 262_144   // buckets of C's caches: four entries each in the rows of a million
	buffer    = 8 << 20   // of the event socket
	bigBuffer = 64 << 20  // where losing events is not the question
)

// setup is what a scenario wants of a pair.
type setup struct {
	place placement
	lines []string // further lines of General, for both
	mode  []string // further lines of Mode, for both
	own   string   // text at the end of our configuration, not of C's
	big   bool     // bigBuffer
	// firewall puts a client and a server beside the nodes.
	firewall bool
}

// Texts for our daemon only. Send at once is what C always does.
const (
	sendAtOnce = "Conntrackgo {\n\tCoalesceTime 0\n}\n"
	coalescing = "" // our default
)

// A pair is two daemons of a kind and a load generator on each node.
type pair struct {
	kind  nettest.Kind
	setup setup
	lab   *nettest.Lab
	fw    *nettest.Pair // with setup.firewall
	nodes *nettest.TwoNodes
	a, b  *nettest.Daemon
	load  *flood.Writer // in the first node's kernel
}

func newPair(k nettest.Kind, s setup) (p *pair, err error) {
	if err := pinBench(s.place); err != nil {
		return nil, err
	}
	lab, err := nettest.New(nettest.Options{Prefix: "bench"})
	if err != nil {
		return nil, err
	}
	p = &pair{kind: k, setup: s, lab: lab}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.connect(); err != nil {
		return nil, err
	}
	if err := p.steer(); err != nil {
		return nil, err
	}
	ca, cb := p.configs()
	if p.a, err = lab.NewDaemon(p.nodes.A, k, ca); err != nil {
		return nil, err
	}
	if p.b, err = lab.NewDaemon(p.nodes.B, k, cb); err != nil {
		return nil, err
	}
	p.load, err = flood.Open(p.nodes.A.Do)
	return p, err
}

func (p *pair) connect() (err error) {
	if !p.setup.firewall {
		p.nodes, err = p.lab.NewTwoNodes()
		return err
	}
	if p.fw, err = p.lab.NewPair(); err == nil {
		p.nodes = &p.fw.TwoNodes
	}
	return err
}

func (p *pair) configs() (a, b nettest.Config) {
	a, b = nettest.SyncConfigs(false)
	size := buffer
	if p.setup.big {
		size = bigBuffer
	}
	for _, c := range []*nettest.Config{&a, &b} {
		c.HashSize, c.HashLimit = hashSize, hashLimit
		c.GeneralLines = append([]string{
			fmt.Sprintf("NetlinkBufferSize %d", size),
			fmt.Sprintf("NetlinkBufferSizeMaxGrowth %d", size),
		}, p.setup.lines...)
		c.ModeLines = p.setup.mode
		c.IgnoreAddresses = []netip.Addr{nettest.SyncA, nettest.SyncB}
		if p.kind == nettest.Go {
			c.Extra = p.setup.own
		}
	}
	return a, b
}

// where are the CPUs of the first and the second daemon.
func (p *pair) where() [2][]int {
	switch p.setup.place {
	case sender:
		return [2][]int{alone(), rest()}
	case receiver:
		return [2][]int{rest(), alone()}
	}
	return [2][]int{cpus, cpus}
}

func (p *pair) steer() error {
	if p.setup.place == nobody {
		return nil
	}
	for i, n := range []*nettest.Node{p.nodes.A, p.nodes.B} {
		if err := steer(n, p.where()[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) close() error {
	var err error
	if p.load != nil {
		err = p.load.Close()
	}
	return errors.Join(err, p.lab.Close())
}

func (p *pair) daemons() [2]*nettest.Daemon { return [2]*nettest.Daemon{p.a, p.b} }

// unsupported is our daemon's refusal of something it can't do yet.
type unsupported struct{ text string }

func (u unsupported) Error() string { return u.text }

// start starts one daemon, waits until it answers and places it. Its time is
// until the first answer.
func (p *pair) start(ctx context.Context, i int) (took time.Duration, err error) {
	d := p.daemons()[i]
	if err := d.WriteConfig(); err != nil {
		return 0, err
	}
	answered := make(chan time.Duration, 1)
	begin := time.Now()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { answered <- firstAnswer(waiting, d, begin) }()
	if err = d.Start(ctx); err == nil {
		took = <-answered
	}
	if err != nil {
		if what := refusal(d.Log(20)); p.kind == nettest.Go && what != "" {
			return 0, unsupported{what}
		}
		return 0, err
	}
	if class, err := schedulerOf(d.Proc().PID()); err != nil || class != "SCHED_OTHER" {
		return 0, errors.Join(err, fmt.Errorf("%s runs as %s", d, class))
	}
	if err := renice(d.Proc().PID(), nice); err != nil {
		return 0, err
	}
	return took, pin(d.Proc().PID(), p.where()[i])
}

// firstAnswer asks until there is an answer.
func firstAnswer(ctx context.Context, d *nettest.Daemon, since time.Time) time.Duration {
	const pause = 2 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		if text, err := ask(ctx, d, askStats); err == nil && text != "" {
			break
		}
		<-tick.C
	}
	return time.Since(since)
}

// refusal finds the line in which our daemon says what it doesn't support.
func refusal(log string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "not supported") && !strings.Contains(line, "warn") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// startBoth starts both and waits until they have greeted each other.
func (p *pair) startBoth(ctx context.Context) error {
	for i := range p.daemons() {
		if _, err := p.start(ctx, i); err != nil {
			return err
		}
	}
	return p.greeted(ctx)
}

// greeted waits until both have heard each other.
func (p *pair) greeted(ctx context.Context) error {
	return poll(ctx, 10*time.Second, "the handshake", func() error {
		for _, d := range p.daemons() {
			text, err := ask(ctx, d, askStats)
			if err != nil {
				return err
			}
			_, line, _ := strings.Cut(text, "Pckts sent")
			if n, err := number(line, ""); err != nil || n < 3 {
				return errors.Join(err, fmt.Errorf("%s: %v datagrams received", d, n))
			}
		}
		return nil
	})
}

// settle waits until both daemons have nothing to do any more, seen from
// outside: a request would be work too.
func (p *pair) settle(ctx context.Context) error {
	const (
		look  = 50 * time.Millisecond
		quiet = 2 * time.Millisecond // of CPU time in a look
		calm  = 3                    // looks in a row
		most  = 20 * time.Second
	)
	before, err := p.cpuTimes()
	if err != nil {
		return err
	}
	calmly := 0
	for end := time.Now().Add(most); calmly < calm; {
		if err := pause(ctx, look); err != nil {
			return err
		}
		now, err := p.cpuTimes()
		if err != nil {
			return err
		}
		calmly++
		if now[0]-before[0] > quiet || now[1]-before[1] > quiet {
			calmly = 0
		}
		before = now
		if time.Now().After(end) {
			return nil // it goes on working: so be it, what follows tells
		}
	}
	return nil
}

func (p *pair) cpuTimes() (t [2]time.Duration, err error) {
	for i, d := range p.daemons() {
		if !d.Running() {
			return t, fmt.Errorf("%s has ended\n%s", d, d.Log(10))
		}
		if t[i], err = cpuTime(d.Proc().PID()); err != nil {
			return t, err
		}
	}
	return t, nil
}

// inStep waits until the kernel, the first daemon's internal cache and the
// second's external cache have the same number of entries, and the number of
// entries is want unless that is negative.
func (p *pair) inStep(ctx context.Context, timeout time.Duration, want int) error {
	return poll(ctx, timeout, "in step", func() error {
		kernel, err := p.nodes.A.Held()
		if err != nil {
			return err
		}
		internal, _, err := cacheSizes(ctx, p.a)
		if err != nil {
			return err
		}
		_, external, err := cacheSizes(ctx, p.b)
		if err != nil {
			return err
		}
		if kernel != internal || internal != external || want >= 0 && kernel != want {
			return fmt.Errorf("%d entries in the kernel, %d in the internal cache, %d in the external cache, want %d", kernel, internal, external, want)
		}
		return nil
	})
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// freeze stops a daemon for as long as f takes.
func freeze(d *nettest.Daemon, f func() error) error {
	if err := d.Proc().Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := f()
	return errors.Join(err, d.Proc().Signal(syscall.SIGCONT))
}

// flows fills flow i: established TCP over IPv4, every other one translated.
func flows(i int, f *flood.Flow) {
	high := [4]byte{10, byte(i >> 24), byte(i >> 16), byte(i >> 8)}
	*f = flood.Flow{
		Proto: flood.TCP, Src: netip.AddrFrom4(high), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 1}),
		Sport: uint16(i&0xff) + 1024, Dport: 80, Timeout: 3000, State: 3,
		Status: flood.SeenReply | flood.Assured | flood.Confirmed,
	}
	if i%2 == 1 {
		high[0] = 100
		f.SNAT = netip.AddrPortFrom(netip.AddrFrom4(high), 0)
	}
}

// flows6 is flows over IPv6, where hardly anybody translates: one flow in 64.
func flows6(i int, f *flood.Flow) {
	flows(i, f)
	src := [16]byte{0: 0xfd, 1: 0x10, 13: byte(i >> 24), 14: byte(i >> 16), 15: byte(i >> 8)}
	f.Src, f.Dst = netip.AddrFrom16(src), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x20, 15: 1})
	f.SNAT = netip.AddrPort{}
	if i%64 == 1 {
		src[1] = 0x30
		f.SNAT = netip.AddrPortFrom(netip.AddrFrom16(src), 0)
	}
}

// kernelsInStep is inStep for a receiver without external cache.
func (p *pair) kernelsInStep(ctx context.Context, timeout time.Duration, want int) error {
	return poll(ctx, timeout, "kernels in step", func() error {
		a, err := p.nodes.A.Held()
		if err != nil {
			return err
		}
		b, err := p.nodes.B.Held()
		if err != nil {
			return err
		}
		if a != b || a != want {
			return fmt.Errorf("%d entries in the first kernel, %d in the second, want %d", a, b, want)
		}
		return nil
	})
}
