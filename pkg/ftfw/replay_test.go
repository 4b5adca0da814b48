package ftfw

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/capture"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// TestReplayCaptures puts the engine in the place of one C daemon: it hears
// what that one heard, is given its events, and its timer fires when C's
// fired. It must send the same kinds, objects, flags and ranges in the same
// order. Where we differ on purpose the daemon's way is restored by hand; each
// such place is marked "differs".
func TestReplayCaptures(t *testing.T) {
	both := []string{"192.168.100.1", "192.168.100.2"}
	for _, c := range []struct {
		name   string
		window int
		sides  []string // those that were not restarted
	}{
		{"ftfw-ipv4", 300, both},
		{"ftfw-ipv6", 300, both},
		{"ftfw-nat", 300, both},
		{"ftfw-sctp", 300, both},
		{"ftfw-mark-label-zone", 300, both},
		{"ftfw-tcpwindow", 300, both},
		{"ftfw-committimeout", 300, both},
		{"ftfw-synproxy", 300, both},
		{"ftfw-loss-nack", 300, both},
		{"ftfw-resync-bulk", 300, both},
		{"ftfw-burst-ackwindow", 20, both},
		{"ftfw-peer-restart", 300, both[:1]},
		{"ftfw-startup-resync", 300, both[:1]},
		{"ftfw-mcast-ipv4", 300, both},
	} {
		for _, side := range c.sides {
			t.Run(c.name+"/"+side, func(t *testing.T) {
				replay(t, capture.Read(t, c.name), side, c.window)
			})
		}
	}
}

func replay(t *testing.T, ms []capture.Message, side string, window int) {
	lost := map[uint32]bool{} // what the capture has and the daemon did not hear
	var first *capture.Message
	for i, m := range ms {
		if !strings.HasPrefix(m.Src, side+":") {
			continue
		}
		if first == nil {
			first = &ms[i]
		}
		for n := m.From; m.Header().Class() == wire.NACK && n <= m.To; n++ {
			lost[n] = true
		}
	}
	start := ms[0].TS - 10
	clock := func(m capture.Message) time.Duration { return time.Duration((m.TS - start) * 1e9) }
	e := New(Config{FirstSeq: first.Seq, ACKWindow: window, ResendQueue: 131072}, 0)
	e.ForgetAll()
	e.q.move(freeList, e.q.lists[txList].head) // differs: no ALIVE at the start,
	e.out.aliveQueued = true                   // nor when a HELLO is to be answered
	refs := map[string]Ref{}
	compared := 0
	uncross(ms, side)
	for _, m := range ms {
		now := clock(m)
		if !strings.HasPrefix(m.Src, side+":") {
			if lost[m.Seq] {
				continue
			}
			requeued := e.Stats().Requeued
			e.Receive(now, m.Header())
			if e.Stats().Requeued != requeued {
				e.ForgetAll() // differs: C forgets what a new life of the peer misses
			}
			e.resync.heldCount = 0 // differs: C acknowledges a RESYNC at once
			continue
		}
		h := m.Header()
		if h.Type != wire.Control {
			name := m.Object()
			if _, ok := refs[name]; !ok {
				refs[name] = Ref(len(refs))
			}
			if tx, _ := e.Pending(); tx == 0 {
				e.Enqueue(refs[name])
			}
		} else if h.Class() == wire.RESYNC {
			e.RequestResync()
		} else if tx, _ := e.Pending(); tx == 0 {
			e.out.aliveQueued = false
			e.out.timer = now
			e.Tick(now)
		}
		f, ok := e.Pop(now)
		e.out.aliveQueued = true
		if !ok {
			t.Fatalf("C sent %v, the engine nothing", message{Header: h})
		}
		if f.Object {
			if want := refs[m.Object()]; h.Type == wire.Control || f.Ref != want {
				t.Fatalf("C sent %v, the engine object %d, want %d", message{Header: h}, f.Ref, want)
			}
			f.Header.Type = h.Type
		}
		if f.Header != h {
			t.Fatalf("C sent %v, the engine %v", message{Header: h}, message{Header: f.Header})
		}
		compared++
	}
	if compared < 2 {
		t.Fatalf("only %d messages compared", compared)
	}
}

// uncross puts messages that crossed on the way in the order side saw them: an
// ACK that ends before the message captured just before it.
func uncross(ms []capture.Message, side string) {
	for i := 1; i < len(ms); i++ {
		a, b := &ms[i-1], &ms[i]
		if strings.HasPrefix(b.Src, side+":") && !strings.HasPrefix(a.Src, side+":") &&
			b.Header().Class() == wire.ACK && b.To == a.Seq-1 && b.TS-a.TS < 0.001 {
			*a, *b = *b, *a
		}
	}
}

// TestMalformedVectors feeds the datagrams that a C daemon was fed, and
// expects its verdicts, positions and counters, but for the two that C counts
// too many for each gap.
func TestMalformedVectors(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(capture.Testdata, "malformed-vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Run      int
		Mode     string
		Name     string
		Expected uint64 `json:"expected_seq"`
		Datagram string
		Counters map[string]uint64
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	var e *Engine
	run, tried := 0, 0
	for _, v := range vectors {
		if v.Mode != "FTFW" {
			continue
		}
		if v.Run != run {
			run = v.Run
			e = New(Config{FirstSeq: 1, ACKWindow: 300, ResendQueue: 131072}, 0)
			if run == 8 {
				e.Receive(0, wire.Header{Seq: 1000})
			}
		}
		if e.peer.Set && e.peer.Last+1 != uint32(v.Expected) {
			t.Errorf("run %d, before %q: next is %d, C expects %d", run, v.Name, e.peer.Last+1, v.Expected)
		}
		datagram, err := hex.DecodeString(v.Datagram)
		if err != nil {
			t.Fatal(err)
		}
		before := e.Stats()
		bad, gaps := uint64(0), uint64(0)
		for len(datagram) > 0 {
			m, rest, err := wire.Next(datagram)
			datagram = rest
			if err != nil {
				continue
			}
			lost := e.Stats().Lost
			if e.Receive(time.Duration(tried)*time.Second, m.Header) == Bad {
				bad++
			}
			if e.Stats().Lost != lost {
				gaps++
			}
		}
		for _, c := range []struct {
			name string
			got  uint64
		}{
			{"bad_header", bad},
			{"lost", e.Stats().Lost - before.Lost + 2*gaps},
			{"before", e.Stats().Before - before.Before},
		} {
			if c.got != v.Counters[c.name] {
				t.Errorf("run %d, %q: %s +%d, C +%d", run, v.Name, c.name, c.got, v.Counters[c.name])
			}
		}
		tried++
	}
	if tried < 70 {
		t.Errorf("only %d vectors", tried)
	}
}
