package itest_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// forgeries are datagrams in the other node's name.
var forgeries = []struct {
	name string
	send func(send func([]byte))
}{
	{"one number anywhere", func(send func([]byte)) { send(control(wire.FlagALIVE, rand.Uint32())) }},
	{"a life anywhere", func(send func([]byte)) {
		seq := rand.Uint32()
		for i := range uint32(100) {
			send(control(wire.FlagALIVE, seq+i))
		}
	}},
	{"numbers everywhere", func(send func([]byte)) {
		for range 1000 {
			send(control(wire.FlagALIVE, rand.Uint32()))
		}
	}},
	{"HELLOs everywhere", func(send func([]byte)) {
		for range 1000 {
			send(control(wire.FlagALIVE|wire.FlagHELLO, rand.Uint32()))
		}
	}},
	{"a life begun by HELLO", func(send func([]byte)) {
		seq := rand.Uint32()
		send(control(wire.FlagALIVE|wire.FlagHELLO, seq))
		for i := range uint32(100) {
			send(control(wire.FlagALIVE, seq+1+i))
		}
	}},
	{"random bytes", func(send func([]byte)) {
		for range 1000 {
			b := make([]byte, 1+rand.IntN(100))
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			send(b)
		}
	}},
}

func control(flags uint8, seq uint32) []byte {
	return wire.AppendControl(nil, wire.Header{Flags: flags, Seq: seq, To: rand.Uint32()})
}

// TestHeardAfterForgery sends datagrams with the address of A, a C daemon or
// one of ours, to B. What A says afterwards reaches B, by itself. (That it takes
// two seconds at most is held in package node, whose clock is not a busy
// machine's.) A C daemon in B's place is deaf until somebody restarts something,
// so it is left out.
func TestHeardAfterForgery(t *testing.T) {
	t.Parallel()
	for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			nettest.Need(t, kind, nettest.Go)
			r := newRig(t, pairing{kind, nettest.Go}, nil).start()
			r.handshake()
			w := r.flood(r.two.A)
			for i, f := range forgeries {
				r.forge(f.send)
				r.must(w.Create, load(i, i+1, 0, 0, nil))
				r.eventually("B to hear A after "+f.name, func() error {
					external, err := r.b.External(r.Context())
					if err != nil {
						return err
					}
					if len(external) != i+1 {
						return fmt.Errorf("%d entries, want %d", len(external), i+1)
					}
					return nil
				})
			}
			r.cachesAgree(r.a, r.b, len(forgeries))
		})
	}
}

// forge sends datagrams from A's node to B's daemon.
func (r *rig) forge(what func(send func([]byte))) {
	r.Helper()
	r.ok(r.two.A.Do(func() error {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: nettest.SyncA.AsSlice()}, &net.UDPAddr{IP: nettest.SyncB.AsSlice(), Port: 3780})
		if err != nil {
			return err
		}
		defer c.Close()
		what(func(b []byte) {
			if _, e := c.Write(b); e != nil {
				err = e
			}
		})
		return err
	}))
}

// relay is a bad network between two links: it repeats a fifth, loses a fifth
// and holds each datagram for up to 40 ms on its own, as netem's
// "delay 20ms 20ms" would.
type relay struct {
	good   atomic.Bool // no faults any more
	frames atomic.Int64
}

// join makes a node between A and B, whose daemons know only it.
func (l *relay) join(r *rig) {
	r.Helper()
	n, err := r.lab.NewNode("relay")
	r.ok(err)
	r.ok(r.lab.Connect(r.two.A, "jy0", n, "toa"))
	r.ok(r.lab.Connect(r.two.B, "jy0", n, "tob"))
	r.ok(r.two.A.AddAddr("jy0", "10.77.1.1/24"))
	r.ok(r.two.B.AddAddr("jy0", "10.77.2.1/24"))
	r.ok(n.AddAddr("toa", "10.77.1.2/24"))
	r.ok(n.AddAddr("tob", "10.77.2.2/24"))
	var sides [2]net.PacketConn
	for i, addr := range []string{"10.77.1.2:3780", "10.77.2.2:3780"} {
		r.ok(n.Do(func() error {
			sides[i], err = net.ListenPacket("udp4", addr)
			return err
		}))
		r.Cleanup(func() { sides[i].Close() })
	}
	go l.carry(sides[0], sides[1], &net.UDPAddr{IP: net.IPv4(10, 77, 2, 1), Port: 3780})
	go l.carry(sides[1], sides[0], &net.UDPAddr{IP: net.IPv4(10, 77, 1, 1), Port: 3780})
}

func (l *relay) carry(from, to net.PacketConn, dest net.Addr) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := from.ReadFrom(buf)
		if err != nil {
			return
		}
		l.frames.Add(1)
		b := append([]byte(nil), buf[:n]...)
		send := func() { _, _ = to.WriteTo(b, dest) }
		if l.good.Load() {
			send()
			continue
		}
		copies := 1
		switch dice := rand.IntN(100); {
		case dice < 20:
			copies = 0
		case dice < 40:
			copies = 2
		}
		for range copies {
			time.AfterFunc(rand.N(40*time.Millisecond), send)
		}
	}
}

// TestJitter: a link that swaps, repeats and loses messages. Two of our nodes
// send at most three frames for an update, and agree in the end. What a C
// daemon needs is logged beside it.
func TestJitter(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		const flows, rounds, rate = 200, 5, 200
		r := newRig(t, p, func(a, b *nettest.Config) {
			for i, c := range []*nettest.Config{a, b} {
				c.Interface = "jy0"
				c.Local = netip.MustParseAddr(fmt.Sprintf("10.77.%d.1", i+1))
				c.Peer = netip.MustParseAddr(fmt.Sprintf("10.77.%d.2", i+1))
			}
		})
		var l relay
		l.good.Store(true)
		l.join(r)
		r.start()
		r.handshake()
		l.good.Store(false)
		before := l.frames.Load()
		w := r.flood(r.two.A)
		r.must(w.Create, load(0, flows, rate, 0, nil))
		for i := range rounds - 1 {
			r.must(w.Update, load(0, flows, rate, uint32(i+1), nil))
		}
		frames := l.frames.Load() - before
		t.Logf("%.2f frames for an update", float64(frames)/(flows*rounds))
		if most := int64(3 * flows * rounds); p.a == nettest.Go && p.b == nettest.Go && frames > most {
			t.Errorf("%d frames, more than %d", frames, most)
		}
		l.good.Store(true)
		r.cachesAgree(r.a, r.b, flows)
	})
}
