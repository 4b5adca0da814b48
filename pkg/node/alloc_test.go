package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// newNamed is a node that says who it is. Its numbers begin as if its life had
// lasted an hour before the next.
func newNamed(cfg Config, name, life uint64) *Node {
	cfg.Name = wire.NodeName{Node: name, Epoch: life}
	cfg.Software = "conntrackgo test"
	return New(cfg, uint32(1000*name+3600*life), [2]uint64{2*name - 1, 2 * name})
}

// pair is two nodes on a perfect link, past their handshake.
type pair struct {
	a, b *Node
	cfg  Config
	now  time.Duration
	bufs [2][]byte
}

func newPair(tb testing.TB) *pair { return newPairOf(tb, nil) }

// newPairOf is newPair with other settings; change may be nil.
func newPairOf(tb testing.TB, change func(*Config)) *pair {
	tb.Helper()
	cfg := simConfig()
	cfg.ResendQueueSize, cfg.ACKWindowSize = DefaultResendQueueSize, DefaultACKWindowSize
	if change != nil {
		change(&cfg)
	}
	p := &pair{cfg: cfg, a: newNamed(cfg, 1, 1), b: newNamed(cfg, 2, 1)}
	for range 5 {
		p.later(1)
	}
	return p
}

// exchange lets both send until they have nothing more to say.
func (p *pair) exchange() {
	for sent := true; sent; {
		sent = false
		for i, nodes := range [2][2]*Node{{p.a, p.b}, {p.b, p.a}} {
			for {
				p.bufs[i] = nodes[0].Next(p.now, p.bufs[i], 1472)
				if len(p.bufs[i]) == 0 {
					break
				}
				sent = true
				nodes[1].Datagram(p.now, p.bufs[i])
			}
		}
	}
}

// churnEvents are n flows made, updated and destroyed.
func churnEvents(n int, family uint8) []flow.Event {
	events := make([]flow.Event, 0, 3*n)
	for i := range n {
		f := flow.Flow{Key: flow.Key{Family: family, Proto: flow.ProtoTCP, Sport: uint16(i), Dport: 80}}
		f.Src[0], f.Src[1], f.Src[2] = 10, byte(i>>16), byte(i>>8)
		f.Dst[0] = 192
		f.Has = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasTimeout | flow.HasState | flow.HasReply | flow.HasID
		f.Status = flow.StatusConfirmed | flow.StatusSrcNATDone
		f.ID = uint32(i)
		f.NAT.Src[0] = 100
		f.Has |= flow.HasSNAT
		events = append(events, flow.Event{Op: flow.New, Flow: f})
		f.State = 3
		events = append(events, flow.Event{Op: flow.Update, Flow: f})
		events = append(events, flow.Event{Op: flow.Destroy, Flow: f})
	}
	return events
}

// From kernel event to the peer's external cache and back to the released
// tombstone nothing is allocated.
func TestNoAllocations(t *testing.T) { noAllocations(t, nil) }

// The same with an old peer and attributes that are left out.
func TestNoAllocationsForOldPeers(t *testing.T) {
	noAllocations(t, func(cfg *Config) { cfg.PeerVersion, cfg.DoNotSync = wire.Since142, allOptional })
}

func noAllocations(t *testing.T, change func(*Config)) {
	families(t, func(t *testing.T, family uint8) {
		p := newPairOf(t, change)
		events := churnEvents(50, family)
		cycle := func() {
			for i := range events { // one by one, so that nothing coalesces away
				p.a.Kernel(p.now, events[i:i+1])
				p.exchange()
			}
			p.later(1)
		}
		for range 20 {
			cycle()
		}
		created := p.b.Stats().External.Created
		if got := testing.AllocsPerRun(50, cycle); got != 0 {
			t.Errorf("%v allocations for %d events", got, len(events))
		}
		if got := p.b.Stats().External.Created - created; got < 50*50 {
			t.Errorf("only %d flows reached the peer", got)
		}
	})
}

func BenchmarkEventToPeer(b *testing.B) {
	for _, family := range []struct {
		name string
		af   uint8
	}{{"IPv4", flow.IPv4}, {"IPv6", flow.IPv6}} {
		b.Run(family.name, func(b *testing.B) {
			p := newPair(b)
			events := churnEvents(20000, family.af)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; {
				for i := 0; i < len(events) && done < b.N; i += 192 {
					batch := events[i:min(i+192, len(events))]
					p.a.Kernel(p.now, batch)
					p.exchange()
					p.now += time.Millisecond
					done += len(batch)
				}
			}
		})
	}
}

// A commit hands its entries out without allocating, however many there are.
func TestCommitNoAllocations(t *testing.T) {
	p := newPair(t)
	events := churnEvents(2000, flow.IPv4)
	for i := 0; i < len(events); i += 3 {
		p.a.Kernel(p.now, events[i:i+2])
	}
	p.exchange()
	batch := make([]flow.Flow, 256)
	var total int
	run := func() {
		total = 0
		p.b.BeginCommit()
		for done := false; !done; {
			var n int
			n, done = p.b.NextCommit(p.now, batch)
			total += n
		}
	}
	if got := testing.AllocsPerRun(20, run); got > commitAllocs {
		t.Errorf("%v allocations per commit of %d entries", got, total)
	}
	if total != 2000 {
		t.Errorf("%d entries handed out, want 2000", total)
	}
}
