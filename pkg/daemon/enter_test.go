package daemon

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// fakeLink takes room datagrams and is then full until somebody waits. The tests
// here that sleep do so in a bubble of testing/synctest, whose time passes at
// once when everybody in it waits.
type fakeLink struct {
	link.Link
	room, refill int
	sent, waits  int  // guarded by syncer.mu, as Send and WaitWritable are called there
	stuck        bool // never writable again
}

func (l *fakeLink) Send(batch [][]byte) (int, error) {
	n := min(len(batch), l.room)
	l.room -= n
	l.sent += n
	return n, nil
}

func (l *fakeLink) Stats() link.Stats { return link.Stats{} }

func (l *fakeLink) WaitWritable(deadline time.Time) error {
	l.waits++
	if l.stuck {
		time.Sleep(time.Until(deadline))
		return os.ErrDeadlineExceeded
	}
	l.room = l.refill
	return nil
}

// newTestDaemon is a node with a link and nothing else.
func newTestDaemon(t *testing.T, l link.Link, log io.Writer) *Daemon {
	t.Helper()
	cfg := working()
	cfg.Node.HashLimit, cfg.Node.ResendQueueSize, cfg.Node.ACKWindowSize = 1<<20, 1<<20, 300
	d := &Daemon{cfg: cfg, log: NewLogger(log, log), started: time.Now()}
	d.sync = &syncer{link: l, size: 1472, batch: make([][]byte, sendBatch), overrun: make(chan struct{}, 1)}
	d.sync.node = node.NewGroup(cfg.Node, 1, [2]uint64{1, 2})
	timer := time.AfterFunc(time.Hour, func() {
		d.enter(func(n *node.Group, now time.Duration) {
			d.sync.armed = 0
			n.Tick(now)
		})
	})
	t.Cleanup(func() { timer.Stop() })
	d.sync.alarm = func(after time.Duration) { timer.Reset(max(after, 0)) }
	return d
}

// end stops the timer, as the daemon does at its end.
func (d *Daemon) end() {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	d.sync.closed = true
}

// counts reads what a link has done.
func (d *Daemon) counts(l *fakeLink) (sent, waits int) {
	d.sync.mu.Lock()
	defer d.sync.mu.Unlock()
	return l.sent, l.waits
}

// hear takes a control message of the other node.
func (d *Daemon) hear(seq uint32, flags uint8) {
	b := wire.AppendControl(nil, wire.Header{Seq: seq, Flags: flags})
	d.enter(func(n *node.Group, now time.Duration) { n.Datagram(now, netip.Addr{}, b) })
}

func (d *Daemon) feed(events []flow.Event) {
	d.enter(func(n *node.Group, now time.Duration) { n.Kernel(now, events) })
}

func someEvents(n int) []flow.Event {
	events := make([]flow.Event, n)
	for i := range events {
		f := &events[i].Flow
		f.Family, f.Proto = flow.IPv4, 17
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).As4()
		copy(f.Src[:], a[:])
		f.Sport, f.Dport = uint16(i), 53
		events[i].Op = flow.New
	}
	return events
}

// TestFullSocket has a socket that is full again and again: everything is sent.
func TestFullSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLink{refill: 7}
		d := newTestDaemon(t, l, io.Discard)
		defer d.end()
		d.hear(1, wire.FlagHELLOBack)
		d.feed(someEvents(20000))
		time.Sleep(10 * time.Second) // objects are held for a hello at first
		st := d.nodeStats()
		if st.Sent[wire.CTNew] != 20000 || st.TxQueue != 0 {
			t.Errorf("%d messages sent, %d wait, want 20000 and none", st.Sent[wire.CTNew], st.TxQueue)
		}
		sent, waits := d.counts(l)
		if want := 20000 * 30 / 1472; sent < want || waits < sent/7-1 {
			t.Errorf("%d datagrams after %d waits, want at least %d and a wait for each 7", sent, waits, want)
		}
	})
}

// TestStuckSocket has a socket that never takes anything: whoever enters loses
// no more than the patience, and the timer does not spin.
func TestStuckSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLink{stuck: true}
		d := newTestDaemon(t, l, io.Discard)
		defer d.end()
		d.hear(1, wire.FlagHELLOBack)
		start := time.Now()
		d.feed(someEvents(100000))
		if took := time.Since(start); took > sendPatience {
			t.Errorf("one visit took %v, want at most %v", took, sendPatience)
		}
		d.enter(func(n *node.Group, _ time.Duration) { n.SendBulk() })
		time.Sleep(time.Minute)
		if sent, _ := d.counts(l); sent != 0 {
			t.Errorf("%d datagrams sent", sent)
		}
	})
}

// TestSocketThatLies has a socket that says it takes something and takes nothing,
// as that of a TCP link does while the kernel has no memory for TCP: that is
// a full socket too.
func TestSocketThatLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLink{} // with room for nothing after each wait
		d := newTestDaemon(t, l, io.Discard)
		defer d.end()
		d.hear(1, wire.FlagHELLOBack)
		time.Sleep(10 * time.Second) // objects are held for a hello at first
		_, before := d.counts(l)
		start := time.Now()
		d.feed(someEvents(100000))
		if took := time.Since(start); took < sendPatience || took > sendPatience+sendPause {
			t.Errorf("one visit took %v, want about %v", took, sendPatience)
		}
		if _, after := d.counts(l); after-before > 100 {
			t.Errorf("%d waits in one visit", after-before)
		}
	})
}

// TestTimerGoesOn leaves a daemon without a peer alone for an hour of its
// time: it says something now and then, and a loop without a pause would hang
// this test.
func TestTimerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLink{room: 1 << 30}
		d := newTestDaemon(t, l, io.Discard)
		defer d.end()
		d.feed(someEvents(5000))
		d.enter(func(n *node.Group, _ time.Duration) { n.SendBulk() })
		before := 0
		for minute := range 60 {
			time.Sleep(time.Minute)
			sent, _ := d.counts(l)
			if sent == before {
				t.Fatalf("minute %d: silent", minute)
			}
			before = sent
		}
		if before > 60*60*20 {
			t.Errorf("%d datagrams in an hour without a peer", before)
		}
	})
}

// TestHostilePeer sends what is worth a line, over and over, and rubbish: the
// log stays short.
func TestHostilePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := &fakeLink{room: 1 << 30}
		d := newTestDaemon(t, l, &log)
		defer d.end()
		for i := range uint32(5000) {
			d.hear(i+1, wire.FlagRESYNC)
			d.hear(i*1000, wire.FlagHELLO)
			d.enter(func(n *node.Group, now time.Duration) {
				n.Datagram(now, netip.Addr{}, []byte{0xff, byte(i), 0, 3})
				n.Datagram(now, netip.Addr{}, make([]byte, i%100))
			})
			d.lookAround(d.now())
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(saidPeriod)
		d.lookAround(d.now())
		if n := strings.Count(log.String(), "\n"); n == 0 || n > 5*(saidKinds[saidNotice].lines+1) {
			t.Errorf("%d lines:\n%.2000s", n, log.String())
		}
		for text, times := range map[string]int{"more lines about the other node": 2, "malformed messages came": 2} {
			if n := strings.Count(log.String(), text); n < 1 || n > times {
				t.Errorf("%d times, want 1 to %d: %q\n%s", n, times, text, log.String())
			}
		}
		if got := d.nodeStats().Network.Malformed; got < 5000 {
			t.Errorf("%d malformed messages counted", got)
		}
	})
}

// TestClosedNode answers requests after the end and sends nothing.
func TestClosedNode(t *testing.T) {
	l := &fakeLink{room: 1 << 30}
	d := newTestDaemon(t, l, io.Discard)
	d.hear(1, wire.FlagHELLOBack)
	d.end()
	before := l.sent
	d.feed(someEvents(10))
	if got := d.nodeStats().Internal.Active; got != 10 {
		t.Errorf("%d entries, want 10", got)
	}
	if l.sent != before {
		t.Errorf("%d datagrams sent after the end", l.sent-before)
	}
}
