package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// speaking runs a test in both modes that announce.
func speaking(t *testing.T, test func(t *testing.T, mode Mode)) {
	for _, mode := range []Mode{FTFW, NOTRACK} {
		t.Run(mode.String(), func(t *testing.T) { test(t, mode) })
	}
}

func speakers(t *testing.T, mode Mode) *pair {
	t.Helper()
	return newPairOf(t, func(c *Config) { c.Mode = mode })
}

// extensions are those of a datagram.
func extensions(t *testing.T, b []byte) (list []wire.Ext) {
	t.Helper()
	for len(b) > 0 {
		m, rest, err := wire.Next(b)
		if err != nil {
			t.Fatal(err)
		}
		b = rest
		if m.Class() != wire.ALIVE || len(m.Body) == 0 {
			continue
		}
		var x wire.Ext
		if err := wire.ParseExt(m.Body, &x); err != nil {
			t.Fatalf("%x: %v", m.Body, err)
		}
		list = append(list, x)
	}
	return list
}

// run lets time pass in steps, and returns what a and b said. lose may be nil.
func (p *pair) run(t *testing.T, d time.Duration, lose func(from *Node, b []byte) bool) (said map[*Node][]wire.Ext) {
	t.Helper()
	said = make(map[*Node][]wire.Ext)
	const step = 100 * time.Millisecond
	for end := p.now + d; p.now < end; {
		p.now += step
		for sent := true; sent; {
			sent = false
			for _, ends := range [2][2]*Node{{p.a, p.b}, {p.b, p.a}} {
				from, to := ends[0], ends[1]
				if from == nil {
					continue
				}
				from.Tick(p.now)
				for b := from.Next(p.now, nil, 1472); len(b) > 0; b = from.Next(p.now, nil, 1472) {
					sent = true
					said[from] = append(said[from], extensions(t, b)...)
					if to != nil && (lose == nil || !lose(from, b)) {
						to.Datagram(p.now, b)
					}
				}
				for !from.Expire(100) {
				}
			}
		}
	}
	return said
}

func TestNodesMeet(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		p.run(t, 3*time.Second, nil)
		for _, ends := range [2][2]*Node{{p.a, p.b}, {p.b, p.a}} {
			n, other := ends[0], ends[1]
			got := &n.peer
			if got.name != other.cfg.Name || !got.hearsUs || !got.contact || !got.heard {
				t.Errorf("met %+v, want %v", got, other.cfg.Name)
			}
			if got.settings != other.settings() || string(got.software[:16]) != "conntrackgo test" {
				t.Errorf("settings %+v of %q", got.settings, got.software)
			}
			if !got.complete || !got.compare.made || !got.compare.equal {
				t.Errorf("table received %v, compared %+v", got.complete, got.compare)
			}
			if k := noticeKinds(n); slices.Contains(k, SettingsDiffer) || slices.Contains(k, TablesDiffer) {
				t.Errorf("notices %v", k)
			}
		}
	})
}

// What two idle nodes say to each other costs next to nothing.
func TestIdleNodesSayLittle(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		p.run(t, 10*time.Second, nil)
		bytes := 0
		said := p.run(t, time.Minute, func(from *Node, b []byte) bool {
			if from == p.a {
				bytes += len(b)
			}
			return false
		})
		if n := len(said[p.a]); n < 11 || n > 14 {
			t.Errorf("%d announcements in a minute", n)
		}
		if bytes > 60*(16+24) {
			t.Errorf("%d bytes in a minute", bytes)
		}
	})
}

// A peer that never announces itself is a C daemon: it hears ever less, and all
// of it is ALIVE to it.
func TestToCPeerLittleIsSaid(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := newPairOf(t, func(c *Config) { c.Mode = mode })
		p.b = New(p.cfg, 9000, [2]uint64{5, 6}) // has no name, and says nothing
		p.a = newNamed(p.cfg, 1, 2)
		said := p.run(t, 10*time.Minute, nil)
		if n := len(said[p.a]); n < 10 || n > 20 {
			t.Errorf("%d announcements in ten minutes", n)
		}
		if len(said[p.b]) != 0 || p.b.stats.Extensions != (ExtStats{}) || p.b.stats.Network != (NetworkStats{}) {
			t.Errorf("the other said %d, counted %+v, %+v", len(said[p.b]), p.b.stats.Extensions, p.b.stats.Network)
		}
	})
}

// A malformed body is no message at all: the numbers stay where they are.
func TestMalformedExtensionMovesNothing(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		p.run(t, 2*time.Second, nil)
		before := p.b.Stats()
		x := wire.Ext{Has: wire.ExtNode, Node: p.a.cfg.Name}
		b := wire.AppendExt(nil, wire.Header{Seq: 77}, &x)
		b[15] = 99 // the item is longer than the body
		p.b.Datagram(p.now, b)
		after := p.b.Stats()
		if after.Extensions.Malformed != 1 || after.Network.BadPayload != 1 {
			t.Errorf("counted %+v, %+v", after.Extensions, after.Network)
		}
		if before.Engine != after.Engine {
			t.Errorf("the mode counted: %+v, before %+v", after.Engine, before.Engine)
		}
		p.run(t, 2*time.Second, nil)
		if lost := p.b.Stats().Engine.Lost; lost != 0 {
			t.Errorf("%d lost", lost)
		}
	})
}

func TestSettingsAreCompared(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   NoticeKind
	}{
		{"CommitTimeout", func(c *Config) { c.CommitTimeout = 3 * time.Minute }, SettingsDiffer},
		{"the same", func(*Config) {}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			cfg := p.cfg
			c.change(&cfg)
			p.b = newNamed(cfg, 2, 2)
			p.run(t, 3*time.Minute, nil)
			count := 0
			for _, k := range noticeKinds(p.a) {
				if k == SettingsDiffer || k == ModesDiffer {
					count++
					if k != c.want {
						t.Errorf("notice %d, want %d", k, c.want)
					}
				}
			}
			if want := min(1, int(c.want)); count != want {
				t.Errorf("said %d times, want %d", count, want)
			}
		})
	}
}

// flowsOf gives a node's kernel n flows.
func flowsOf(p *pair, n *Node, from, to int) {
	for i := from; i < to; i++ {
		f := tcp(uint16(i), 3)
		n.Kernel(p.now, event1(flow.New, f))
	}
}

// TestDriftIsRepaired takes entries from the standby, adds some and changes
// one behind its back: the digests tell, and everything is right again soon.
func TestDriftIsRepaired(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		for name, spoil := range map[string]func(n *Node){
			"one is missing": func(n *Node) {
				f := tcp(3, 0)
				n.gone(n.external.lookup(&f.Key))
			},
			"one too many": func(n *Node) {
				f := tcp(999, 3)
				r, _ := n.external.put(&f.Key)
				n.external.save(r, &f)
				n.external.count(r, n.external.common(r))
			},
			"one is different": func(n *Node) {
				f := tcp(5, 3)
				f.Mark, f.Has = 7, f.Has|flow.HasMark
				r := n.external.lookup(&f.Key)
				n.external.uncount(r, n.external.common(r))
				n.external.save(r, &f)
				n.external.count(r, n.external.common(r))
			},
			"all are gone": func(n *Node) { n.FlushExternal() },
		} {
			t.Run(name, func(t *testing.T) {
				p := speakers(t, mode)
				flowsOf(p, p.a, 0, 100)
				p.run(t, 10*time.Second, nil)
				if got := p.b.stats.Extensions; got.Compared == 0 || got.Different != 0 {
					t.Fatalf("before: %+v", got)
				}
				noticeKinds(p.b)
				spoil(p.b)
				p.run(t, 2*sayEvery+2*time.Second, nil)
				if a, b := p.a.internal.digest, p.b.external.digest; a != b || b.count != 100 {
					t.Fatalf("told %v, the peer has %v", a, b)
				}
				repairedOnce(t, p)
			})
		}
	})
}

// repairedOnce fails unless b has noticed a difference and repaired it, and finds
// no other a minute later.
func repairedOnce(t *testing.T, p *pair) {
	t.Helper()
	x := p.b.stats.Extensions
	if x.Repairs != 1 || !slices.Contains(noticeKinds(p.b), TablesDiffer) {
		t.Errorf("counted %+v", x)
	}
	p.run(t, time.Minute, nil)
	if again := p.b.stats.Extensions; again.Repairs != 1 || again.Different != x.Different || !p.b.peer.compare.equal {
		t.Errorf("a minute later %+v", again)
	}
}

// A difference that no resync can remove brings no storm of them.
func TestLastingDifferenceIsNoStorm(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		flowsOf(p, p.a, 0, 100)
		p.run(t, 10*time.Second, nil)
		before := p.a.Stats().Engine.ResyncsReceived
		for range 60 {
			p.a.internal.digest.sum++ // as if the codecs disagreed
			p.run(t, 10*time.Second, nil)
		}
		asked := p.a.Stats().Engine.ResyncsReceived - before
		if asked < 3 || asked > 8 {
			t.Errorf("%d bulks in ten minutes", asked)
		}
	})
}

// Digests are right while flows come and go, at any moment that one is said.
func TestDigestUnderLoad(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		for i := range 600 {
			flowsOf(p, p.a, i, i+20)
			if i > 10 {
				p.a.Kernel(p.now, event1(flow.Destroy, tcp(uint16(i-10), 3)))
			}
			p.run(t, 100*time.Millisecond, nil)
		}
		if x := p.b.stats.Extensions; x.Compared < 10 || x.Different != 0 {
			t.Errorf("%+v", x)
		}
	})
}

// TestMarksRemoveTheStale: deletions that the standby did not hear of are made
// up for by a bulk that nobody asked for, whichever message of it is lost.
func TestMarksRemoveTheStale(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		for lost := range 6 {
			t.Run(fmt.Sprintf("lost %d", lost), func(t *testing.T) {
				p := speakers(t, mode)
				flowsOf(p, p.a, 0, 200)
				p.run(t, 10*time.Second, nil)
				// As if 50 ended unheard by anybody but the kernel, and were read.
				for i := range 50 {
					f := tcp(uint16(i), 3)
					p.a.Kernel(p.now, []flow.Event{{Op: flow.Destroy, Origin: flow.Self, Flow: f}})
				}
				if live := p.b.external.live(); live != 200 {
					t.Fatalf("%d flows", live)
				}
				p.a.SendBulk()
				n := 0
				// FTFW repeats what was lost; that the bulk was not complete, and
				// something is too many, the digests find.
				p.run(t, 20*time.Second, func(from *Node, _ []byte) bool {
					if from == p.a {
						n++
					}
					return from == p.a && n == lost
				})
				if live := p.b.external.live(); live != 150 {
					t.Errorf("%d flows, want 150; heard %+v, said %+v", live, p.b.hear, p.a.mark)
				}
				if p.a.mark.end {
					t.Errorf("the end of the bulk was never answered: %+v", p.a.mark)
				}
			})
		}
	})
}

// The beginning of a bulk that the network repeats when the bulk has ended is
// none of another: tables are compared as before. The next bulk is.
func TestRepeatedMark(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		flowsOf(p, p.a, 0, 20)
		p.run(t, 10*time.Second, nil)
		var begin []byte
		bulk := func() {
			t.Helper()
			p.a.SendBulk()
			begin = nil
			p.run(t, 3*time.Second, func(from *Node, b []byte) bool {
				for _, x := range extensions(t, b) {
					if from == p.a && x.Has&wire.ExtBulkBegin != 0 {
						begin = slices.Clone(b)
					}
				}
				return false
			})
			if h := p.b.hear; begin == nil || h.open || !h.done.Complete || h.done.Bulk != p.a.mark.what.Bulk {
				t.Fatalf("begun with %x, heard %+v, said %+v", begin, h, p.a.mark)
			}
		}
		for range 2 {
			bulk()
			p.b.Datagram(p.now, begin)
			before := p.b.stats.Extensions
			p.run(t, 5*time.Second, deafTo(p.b)) // in NOTRACK it asks, unheard
			p.run(t, 20*time.Second, nil)
			if x := p.b.stats.Extensions; p.b.hear.open || x.Compared < before.Compared+2 || x.Repairs != 0 {
				t.Errorf("heard %+v, counted %+v, before %+v", p.b.hear, x, before)
			}
		}
	})
}

// Each life of a node numbers its bulks anew, and what the one before had more
// leaves with the first.
func TestMarksOfAnotherLife(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		for life := range uint64(3) {
			p.a = newNamed(p.cfg, 1, 2+life)
			flowsOf(p, p.a, 0, 30-10*int(life))
			p.run(t, 5*time.Second, nil)
			told, heard := p.a.mark.what.Bulk, p.b.hear.done
			if heard != (wire.BulkSeen{Bulk: told, Complete: true}) || told != 1 {
				t.Errorf("life %d has told %d bulks, heard %+v", 2+life, told, heard)
			}
			if live := p.b.external.live(); live != 30-10*int(life) {
				t.Errorf("life %d: %d flows", 2+life, live)
			}
		}
	})
}

// After -f the internal cache is no picture of the kernel. Nothing may leave
// the standby because of that.
func TestFlushedNodeSaysNothingOfItsTable(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		flowsOf(p, p.a, 0, 100)
		p.run(t, 10*time.Second, nil)
		p.a.FlushInternal()
		p.a.SendBulk()
		said := p.run(t, time.Minute, nil)
		for _, x := range said[p.a] {
			if x.Has&(wire.ExtDigest|wire.ExtBulkEnd) != 0 {
				t.Fatalf("said %+v", x)
			}
		}
		if live := p.b.external.live(); live != 100 {
			t.Fatalf("%d of 100 flows are left", live)
		}
		p.a.BeginSweep(Refresh) // of a kernel that has one of them
		p.a.Kernel(p.now, event1(flow.Dumped, tcp(1, 3)))
		for !p.a.EndSweep(100) {
		}
		p.a.SendBulk()
		p.run(t, time.Minute, nil)
		if live := p.b.external.live(); live != 1 {
			t.Errorf("%d flows after the table was read", live)
		}
	})
}

// A node without an internal cache marks its kernel's table, unless reading it
// failed.
func TestKernelTableIsMarked(t *testing.T) {
	p := newPairOf(t, func(c *Config) { c.Mode, c.DisableInternalCache = NOTRACK, true })
	table := func(from, to int, complete bool) {
		t.Helper()
		p.a.BeginTable()
		for i := from; i < to; i++ {
			p.a.Kernel(p.now, event1(flow.Dumped, tcp(uint16(i), 3)))
		}
		p.a.EndTable(complete)
		p.run(t, 3*time.Second, nil)
	}
	p.run(t, 3*time.Second, nil)
	for _, c := range []struct {
		from, to int
		complete bool
		want     int
	}{{0, 100, true, 100}, {50, 60, false, 100}, {20, 120, true, 100}, {0, 0, true, 0}} {
		if table(c.from, c.to, c.complete); p.b.external.live() != c.want {
			t.Errorf("%d to %d, complete %v: %d flows, want %d", c.from, c.to, c.complete, p.b.external.live(), c.want)
		}
	}
	if p.b.external.live() != 0 || p.a.mark.end {
		t.Errorf("the last mark was not answered: %+v", p.a.mark)
	}
}

// deafTo loses all that a node says.
func deafTo(n *Node) func(from *Node, _ []byte) bool {
	return func(from *Node, _ []byte) bool { return from == n }
}

// In NOTRACK nobody repeats a RESYNC that was lost: the node sees by itself that
// it has to ask, when the peer comes late, comes again, or when something was
// lost.
func TestNotrackAsksByItself(t *testing.T) {
	kernel := func(n *Node, now time.Duration, from, to int) {
		for i := from; i < to; i++ {
			n.Kernel(now, event1(flow.New, tcp(uint16(i), 3)))
		}
	}
	p := speakers(t, NOTRACK)
	has := func(when string, want int) {
		t.Helper()
		if got := p.b.external.live(); got != want || !p.b.peer.complete {
			t.Errorf("%s: %d flows of %d, complete %v", when, got, want, p.b.peer.complete)
		}
	}
	p.a, p.b = nil, newNamed(p.cfg, 2, 2)
	p.run(t, time.Minute, nil) // asks nobody
	p.a = newNamed(p.cfg, 1, 2)
	kernel(p.a, 0, 0, 50)
	p.run(t, 10*time.Second, nil)
	has("the peer came late", 50)
	p.a = newNamed(p.cfg, 1, 3)
	kernel(p.a, 0, 0, 10)
	p.run(t, 20*time.Second, nil)
	has("the peer came again", 10)
	kernel(p.a, p.now, 10, 30)
	p.run(t, time.Second, deafTo(p.a))
	p.run(t, 5*time.Second, nil)
	has("some were lost", 30)
	for i := range 20 {
		p.a.Kernel(p.now, event1(flow.Destroy, tcp(uint16(i), 3)))
	}
	p.run(t, time.Second, deafTo(p.a))
	p.run(t, 20*time.Second, nil)
	has("ends were lost", 10)
}
