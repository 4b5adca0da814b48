package itest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// What the kernels of these tests call normal, in seconds.
const (
	holdUDP     = 3
	holdTCP     = 100
	holdTimeout = 4
)

const (
	holdOn  = "Conntrackgo {\n\tHoldInjected on\n\tHoldTimeout 4\n}\n"
	holdOff = ""
)

// caller is a server that goes on to call those who called it once: what it
// sends gets through to the client only while the connection is known.
type caller struct {
	conn   net.PacketConn
	mu     sync.Mutex
	to     map[string]net.Addr
	silent bool
}

const callPort = 7003

func (r *rig) caller() *caller {
	r.Helper()
	c := &caller{to: map[string]net.Addr{}}
	r.ok(r.pair.Server.Do(func() (err error) {
		c.conn, err = net.ListenPacket("udp", fmt.Sprintf(":%d", callPort))
		return err
	}))
	r.Cleanup(func() { _ = c.conn.Close() })
	go c.answer()
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
				c.call()
			}
		}
	}()
	return c
}

func (c *caller) answer() {
	buf := make([]byte, 64)
	for {
		_, from, err := c.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			c.mu.Lock()
			c.to[from.String()] = from
			c.mu.Unlock()
			_, _ = c.conn.WriteTo([]byte("hello"), from)
		}
	}
}

// call sends the time to all.
func (c *caller) call() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, to := range c.to {
		if !c.silent {
			_, _ = c.conn.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())), to)
		}
	}
}

func (c *caller) fallSilent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
}

// callee is the client's end of a flow.
type callee struct{ net.Conn }

// callees open n flows of each family, each an assured stream.
func (r *rig) callees(n int) (all []callee) {
	r.Helper()
	for i := range 2 * n {
		to := []netip.Addr{nettest.Server, nettest.Server6}[i%2]
		c, err := r.pair.Client.Dial("udp", netip.AddrPortFrom(to, callPort).String(), time.Second)
		r.ok(err)
		all = append(all, callee{c.Conn})
	}
	// The kernel takes it for a stream when it is two seconds old.
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); {
		for _, c := range all {
			_, err := c.Write([]byte("hello"))
			r.ok(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return all
}

// hears waits for a word that is sent from now on.
func (c callee) hears() bool {
	begin := time.Now()
	_ = c.SetReadDeadline(begin.Add(10 * time.Second))
	for {
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil {
			return false
		}
		if n == 8 && int64(binary.BigEndian.Uint64(buf)) > begin.UnixNano() {
			return true
		}
	}
}

// nothing is what a test does while time passes.
func nothing() error { return nil }

// howMany hear what is sent from now on.
func howMany(all []callee) int {
	var heard atomic.Int32
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			if c.hears() {
				heard.Add(1)
			}
		})
	}
	wg.Wait()
	return int(heard.Load())
}

func newHoldRig(t *testing.T, p pairing, extra string) *rig {
	r := newFirewallRig(t, p, func(a, b *nettest.Config) {
		for _, c := range []*nettest.Config{a, b} {
			c.ModeLines = []string{noExternal}
		}
		for c, kind := range map[*nettest.Config]nettest.Kind{a: p.a, b: p.b} {
			if kind == nettest.Go {
				c.Extra = extra
			}
		}
	})
	for _, n := range []*nettest.Node{r.two.A, r.two.B} {
		r.ok(n.Sysctls([]string{
			fmt.Sprintf("net.netfilter.nf_conntrack_udp_timeout=%d", holdUDP),
			fmt.Sprintf("net.netfilter.nf_conntrack_udp_timeout_stream=%d", holdUDP),
			fmt.Sprintf("net.netfilter.nf_conntrack_tcp_timeout_established=%d", holdTCP),
		}))
	}
	r.ok(r.b.Stop()) // it reads what is normal when it starts
	r.ok(r.b.Start(r.Context()))
	r.handshake()
	return r
}

// timeouts are those of the flows to a port in a node's kernel, in seconds.
func (r *rig) timeouts(n *nettest.Node, port uint16) (all []int) {
	r.Helper()
	for k, e := range r.kernel(n) {
		if k.Dport == port {
			all = append(all, e.Timeout)
		}
	}
	return all
}

func allOf(all []int, want int, ok func(int) bool) error {
	if len(all) != want {
		return fmt.Errorf("%d entries, want %d", len(all), want)
	}
	for _, t := range all {
		if !ok(t) {
			return fmt.Errorf("a timeout of %d among %v", t, all)
		}
	}
	return nil
}

// holdRuns are ours with the setting, next to either kind, and the controls.
var holdRuns = []struct {
	name  string
	p     pairing
	extra string
	held  bool
}{
	{"Go_Go", pairing{nettest.Go, nettest.Go}, holdOn, true},
	{"C_Go", pairing{nettest.C, nettest.Go}, holdOn, true},
	{"Go_Go_off", pairing{nettest.Go, nettest.Go}, holdOff, false},
	{"C_C", pairing{nettest.C, nettest.C}, holdOff, false},
}

// TestHoldFailover lets UDP flows become older than their kernel timeout, kept
// alive by what the server sends through A, and moves the addresses to B
// without any request to its daemon: the server's next words get through. In
// the control run, which is conntrackd's way, not one does. Then B is told, and
// its entries have normal timeouts again.
func TestHoldFailover(t *testing.T) {
	const flows = 10 // of each family
	t.Parallel()
	for _, test := range holdRuns {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, test.p.a, test.p.b)
			r := newHoldRig(t, test.p, test.extra)
			caller := r.caller()
			all := r.callees(flows)
			tcp, err := r.pair.Client.Dial("tcp", netip.AddrPortFrom(nettest.Server, 7000).String(), 5*time.Second)
			r.ok(err)
			r.ok(tcp.RoundTrip(5 * time.Second))
			aged := time.Now().Add((2*holdUDP + holdTimeout + 2) * time.Second)
			r.ok(nettest.Throughout(r.Context(), time.Until(aged), nothing))
			if err := allOf(r.timeouts(r.two.A, callPort), 2*flows, func(int) bool { return true }); err != nil {
				t.Fatalf("on A: %v", err)
			}

			// Its kernel's entries come to their end now, and if it lived it would
			// tell B.
			r.a.Kill9()
			r.ok(r.pair.MoveVIPs(r.two.B))
			heard := howMany(all)
			if want := map[bool]int{true: len(all), false: 0}[test.held]; heard != want {
				t.Errorf("%d of %d flows go on on B, want %d", heard, len(all), want)
			}
			r.ok(tcp.RoundTrip(10 * time.Second))
			if !test.held {
				return
			}
			r.normalByPackets(tcp, len(all))
			caller.fallSilent()
			r.takenOver(len(all))
		})
	}
}

// normalByPackets: a packet gives an entry its normal timeout, whatever it was
// held for.
func (r *rig) normalByPackets(tcp *nettest.Conn, flows int) {
	r.Helper()
	r.eventually("normal timeouts by packets", func() error {
		if err := tcp.RoundTrip(5 * time.Second); err != nil {
			return err
		}
		return errors.Join(
			allOf(r.timeouts(r.two.B, callPort), flows, func(t int) bool { return t <= holdUDP }),
			allOf(r.timeouts(r.two.B, 7000), 1, func(t int) bool { return t <= holdTCP }))
	})
}

// takenOver runs the script's requests on B, one after the other as it does:
// all entries get their normal timeouts, are B's own, and end in their time.
func (r *rig) takenOver(flows int) {
	r.Helper()
	r.eventually("entries that are held again", func() error {
		return allOf(r.timeouts(r.two.B, callPort), flows, func(t int) bool { return t > holdUDP })
	})
	r.primary(r.b)
	r.eventually("normal timeouts", func() error {
		return allOf(r.timeouts(r.two.B, callPort), flows, func(t int) bool { return t <= holdUDP })
	})
	r.eventually("the end of what is silent", func() error {
		return allOf(r.timeouts(r.two.B, callPort), 0, nil)
	})
	if err := allOf(r.timeouts(r.two.B, 7000), 1, func(t int) bool { return t <= holdTCP }); err != nil {
		r.Errorf("TCP: %v", err)
	}
}

// TestHoldThereAndBack moves a quiet flow to B and back to A and there again,
// with what the script does on both nodes, and with a restart of the standby's
// daemon in between.
func TestHoldThereAndBack(t *testing.T) {
	t.Parallel()
	p := pairing{nettest.Go, nettest.Go}
	nettest.Need(t, p.a)
	r := newHoldRig(t, p, holdOn)
	r.caller()
	r.primary(r.a)
	all := r.callees(3)
	active, passive := r.a, r.b
	for round := range 4 {
		if round == 2 {
			r.ok(passive.Stop())
			r.ok(passive.Start(r.Context()))
		}
		r.ok(nettest.Throughout(r.Context(), (holdUDP+holdTimeout+2)*time.Second, nothing))
		r.ok(r.pair.MoveVIPs(passive.Node))
		active, passive = passive, active
		r.primary(active)
		r.backup(passive)
		if heard := howMany(all); heard != len(all) {
			t.Errorf("round %d: %d of %d flows go on", round, heard, len(all))
			t.Logf("-i of the active: %s\n-e of the standby: %s", r.request(active, "-i"), r.request(passive, "-e"))
			return
		}
	}
}

// TestHoldStandbyRestart starts the standby's daemon again, which finds A's
// flows in its kernel. Taken for its own, as conntrackd does, they expire there
// and A is told to delete connections in use; held, they stay.
func TestHoldStandbyRestart(t *testing.T) {
	t.Parallel()
	for _, test := range holdRuns {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, test.p.a, test.p.b)
			r := newHoldRig(t, test.p, test.extra)
			if !test.held { // B's entries must live until its daemon has read them
				for _, n := range []*nettest.Node{r.two.A, r.two.B} {
					r.ok(n.Sysctls([]string{"net.netfilter.nf_conntrack_udp_timeout=10", "net.netfilter.nf_conntrack_udp_timeout_stream=10"}))
				}
			}
			r.caller()
			all := r.callees(5)
			r.ok(r.b.Stop())
			r.ok(r.b.Start(r.Context()))
			if n := len(r.timeouts(r.two.B, callPort)); n != len(all) {
				t.Fatalf("B's kernel has %d flows: no test", n)
			}
			// An expired entry is ended, with an event, when somebody meets it: a listing
			// does; the kernel's own round may take a minute.
			have := func(want int) error {
				if b, a := len(r.timeouts(r.two.B, callPort)), len(r.timeouts(r.two.A, callPort)); a != want || b != want {
					return fmt.Errorf("A has %d of its flows, and B %d, want %d", a, b, want)
				}
				return nil
			}
			if !test.held {
				r.ok(nettest.Eventually(r.Context(), time.Minute, "the flows to end on B, and so on A", func() error { return have(0) }))
				return
			}
			r.ok(nettest.Throughout(r.Context(), (2*holdUDP+holdTimeout)*time.Second, func() error {
				r.timeouts(r.two.B, callPort)
				return nil
			}))
			if err := have(len(all)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHoldRestartBeforeSilence starts the standby's daemon again when nobody can
// tell it what is held any more, and the flows, which are older than their
// timeout, move to it. They are in its kernel, with more time than a restart
// takes, and what it does not know to be held it leaves alone.
func TestHoldRestartBeforeSilence(t *testing.T) {
	t.Parallel()
	p := pairing{nettest.Go, nettest.Go}
	nettest.Need(t, p.a)
	r := newHoldRig(t, p, holdOn)
	r.caller()
	r.primary(r.a)
	r.backup(r.b)
	all := r.callees(5)
	r.ok(nettest.Throughout(r.Context(), (2*holdUDP+holdTimeout)*time.Second, nothing))
	r.a.Kill9()
	r.ok(r.b.Stop())
	r.ok(r.b.Start(r.Context()))
	if held, err := r.b.External(r.Context()); err != nil || len(held) != 0 {
		t.Fatalf("%d entries are known to be held, %v: no test", len(held), err)
	}
	// At least half of the hold was left besides the normal timeout.
	if err := allOf(r.timeouts(r.two.B, callPort), len(all), func(t int) bool { return t > 0 }); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	r.ok(r.pair.MoveVIPs(r.two.B))
	r.primary(r.b)
	if heard := howMany(all); heard != len(all) {
		t.Errorf("%d of %d flows go on", heard, len(all))
	}
}
