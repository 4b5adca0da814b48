package node

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// travelled sends a flow through the codec, as the peer gets it.
func travelled(t *testing.T, o *wire.Options, f *flow.Flow) flow.Flow {
	t.Helper()
	m, _, err := wire.Next(o.AppendFlow(nil, wire.Header{}, f))
	if err != nil {
		t.Fatal(err)
	}
	var g flow.Flow
	if err := o.ParseFlow(m.Body, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// protocols of which the kernel keeps flows.
var protocols = []uint8{flow.ProtoTCP, flow.ProtoTCP, flow.ProtoUDP, flow.ProtoICMP, flow.ProtoICMPv6, flow.ProtoGRE,
	flow.ProtoSCTP, flow.ProtoDCCP, flow.ProtoUDPLite, 50, 132 + 1}

// anyFlow is a flow as the kernel has it, of any protocol.
func anyFlow(r *rand.Rand, family uint8) flow.Flow {
	f := randomFlow(r, family)
	f.Proto = protocols[r.IntN(len(protocols))]
	f.Status = r.Uint32() & 0x7fff
	if !f.HasRealPorts() && f.Proto != flow.ProtoGRE && !f.IsICMP() {
		f.Sport, f.Dport = 0, 0
		f.Has &^= flow.HasPorts
	}
	if r.IntN(8) == 0 {
		f.Has = f.Has&^flow.HasZone | flow.HasZoneOrig
	}
	if r.IntN(4) == 0 { // known and empty
		f.Has |= flow.HasLabels | flow.HasSynproxy | flow.HasSeqOrig | flow.HasSeqRepl | flow.HasHelper
		f.Labels, f.Synproxy, f.SeqAdj, f.Helper = [4]uint32{}, flow.Synproxy{}, [2]flow.SeqAdj{}, [16]byte{}
	}
	if r.IntN(8) == 0 && f.Has.Has(flow.HasHelper) {
		copy(f.Helper[:], "sixteen-letters")
	}
	return f
}

// What a flow is here and what the other node makes of its message have one
// hash, whatever the codec leaves out or changes.
func TestHashSurvivesTheWire(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		r := rand.New(rand.NewPCG(11, uint64(family)))
		for _, o := range []wire.Options{{}, {WindowScale: true}, {OmitTimeout: true, WindowScale: true},
			{Without: flow.HasMark}, {Without: flow.HasLabels | flow.HasHelper}} {
			internal, external := testStore(1<<20), testStore(1<<20)
			internal.digested(o)
			theirs := o
			theirs.WindowScale = true
			external.digested(theirs)
			for range 5000 {
				f := anyFlow(r, family)
				g := travelled(t, &o, &f)
				i, _ := internal.put(&f.Key)
				internal.save(i, &f)
				e, _ := external.put(&g.Key)
				external.save(e, &g)
				if a, b := internal.hash(i), external.hash(e); a != b {
					t.Fatalf("hash %x, at the peer %x, of\n%+v\nwhich travels as\n%+v", a, b, f, g)
				}
			}
		}
	})
}

// Flows of which the peer has something else have another hash.
func TestHashTellsFlowsApart(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		r := rand.New(rand.NewPCG(12, uint64(family)))
		o := wire.Options{WindowScale: true, OmitTimeout: true}
		seen := map[uint64]flow.Flow{}
		s := testStore(1 << 20)
		s.digested(o)
		base := anyFlow(r, family)
		for i := range 30000 {
			if i%20 == 0 {
				base = anyFlow(r, family)
			}
			f, other := base, anyFlow(r, family)
			switch i % 20 { // one thing differs
			case 1:
				f.Sport++
			case 2:
				f.Src[3]++
			case 3:
				f.Dst[3]++
			case 4:
				f.Mark++
				f.Has |= flow.HasMark
			case 5:
				f.Status ^= 4
			case 6:
				f.State++
				f.Has |= flow.HasState
			case 7:
				f.NAT, f.Has = other.NAT, f.Has|other.Has&flow.HasNAT
			case 8:
				f.Labels, f.Has = other.Labels, f.Has|flow.HasLabels
			case 9:
				f.Zone, f.Has = f.Zone+1, f.Has&^flow.HasZoneOrig|flow.HasZone
			case 10:
				f.SeqAdj, f.Has = [2]flow.SeqAdj{{Pos: r.Uint32()}, {Pos: 1}}, f.Has|flow.HasSeqOrig|flow.HasSeqRepl
			case 11:
				f.Master, f.Has = other.Key, f.Has|flow.HasMaster
			case 12:
				f.WScale, f.Has = [2]uint8{3, 4}, f.Has|flow.HasWScaleOrig|flow.HasWScaleRepl
			case 13:
				copy(f.Helper[:], "h323")
				f.Has |= flow.HasHelper
			}
			g := travelled(t, &o, &f)
			id, _ := s.put(&g.Key)
			s.save(id, &g)
			h := s.hash(id)
			values := valuesOf(g)
			if was, ok := seen[h]; ok && was != values {
				t.Fatalf("hash %x of\n%+v\nand of\n%+v", h, was, values)
			}
			seen[h] = values
		}
		if len(seen) < 8000 {
			t.Errorf("only %d flows were different", len(seen))
		}
	})
}

// valuesOf leaves out whether something is known to be zero or not known.
func valuesOf(f flow.Flow) flow.Flow {
	f.Has = 0
	return f
}

// recountAll is what the digest of a store should be.
func (s *store) recountAll() (d digest) {
	for c := (cursor{}); !c.done; {
		s.scan(&c, 1<<10, func(r ref) {
			if s.common(r).flags&counted != 0 {
				d.add(s.hash(r))
			}
		})
	}
	return d
}

// TestDigestsAgree does at random what can happen to flows. After each step
// the digest is what counting all entries anew gives; when all is sent it is
// the other node's.
func TestDigestsAgree(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, uint64(family)))
			p := newPair(t)
			flows := make([]flow.Flow, 40)
			for i := range flows {
				flows[i] = anyFlow(r, family)
				flows[i].Has |= flow.HasID
			}
			for step := range 400 {
				f := &flows[r.IntN(len(flows))]
				origin := flow.Other
				switch dice := r.IntN(20); {
				case dice < 6:
					g := anyFlow(r, family)
					g.Key, g.Has, g.ID = f.Key, g.Has|flow.HasID, f.ID+1
					g.Has = g.Has&^(flow.HasZone|flow.HasZoneOrig|flow.HasPorts) | f.Has&(flow.HasZone|flow.HasZoneOrig|flow.HasPorts)
					*f = g
					p.a.Kernel(p.now, []flow.Event{{Op: flow.New, Origin: origin, Flow: *f}})
				case dice < 12:
					f.State, f.Mark = uint8(r.UintN(9)), r.Uint32()
					f.Has |= flow.HasState | flow.HasMark
					p.a.Kernel(p.now, []flow.Event{{Op: flow.Update, Origin: origin, Flow: *f}})
				case dice < 16:
					p.a.Kernel(p.now, []flow.Event{{Op: flow.Destroy, Origin: origin, Flow: *f}})
				case dice == 16:
					p.a.BeginSweep(Repair)
					for i := range flows {
						if r.IntN(2) == 0 {
							p.a.Kernel(p.now, event1(flow.Dumped, flows[i]))
						}
					}
					for !p.a.EndSweep(7) {
					}
				case dice == 17:
					p.a.FlushInternal()
					p.a.BeginSweep(Repair)
					for i := range flows {
						p.a.Kernel(p.now, event1(flow.Dumped, flows[i]))
					}
					for !p.a.EndSweep(7) {
					}
					p.exchange()
					p.b.RequestResync()
					for range 3 {
						p.rest()
					}
				case dice == 18:
					p.b.FlushExternal()
					p.a.SendBulk()
				default:
					p.a.engine.(interface{ Alive() }).Alive()
				}
				for which, s := range map[string]*store{"internal": p.a.internal, "external": p.b.external} {
					if want := s.recountAll(); s.digest != want {
						t.Fatalf("seed %d step %d: the %s cache has digest %v, want %v", seed, step, which, s.digest, want)
					}
				}
				if r.IntN(3) > 0 {
					continue
				}
				p.exchange()
				p.now += 10 * time.Millisecond
				if a, b := p.a.internal.digest, p.b.external.digest; a != b {
					t.Fatalf("seed %d step %d: told %v, the peer has %v; bulk %+v, expiry %+v", seed, step, a, b, p.a.bulk, p.b.expiry)
				}
			}
		}
	})
}

// BenchmarkMessages is what one message about a flow costs both nodes.
func BenchmarkMessages(b *testing.B) {
	for _, family := range []struct {
		name string
		af   uint8
	}{{"IPv4", flow.IPv4}, {"IPv6", flow.IPv6}} {
		b.Run(family.name, func(b *testing.B) {
			p := newPair(b)
			events := churnEvents(20000, family.af)
			for i := 0; i < len(events); i += 6 { // half of them stay
				p.a.Kernel(p.now, events[i:i+1])
			}
			p.exchange()
			b.ReportAllocs()
			for done := 0; b.Loop(); done++ {
				op := done % 3 // all begin, all change, all end
				at := done / 3 * 384 % (20000 - 384)
				for i := at + 1; i < at+384; i += 2 {
					p.a.Kernel(p.now, events[3*i+op:3*i+op+1])
				}
				p.exchange()
				p.now += time.Millisecond
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/192, "ns/message")
		})
	}
}
