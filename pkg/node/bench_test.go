package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

const tableSize = 20000

// filled is a pair of which the first node's kernel has many flows.
func filled(tb testing.TB, family uint8) (p *pair, dumped []flow.Event) {
	p = newPair(tb)
	events := churnEvents(tableSize, family)
	for i := 0; i < len(events); i += 3 {
		p.a.Kernel(p.now, events[i:i+2])
		p.exchange()
		ev := events[i+1]
		ev.Op = flow.Dumped
		dumped = append(dumped, ev)
	}
	if got := p.b.Stats().External.Active; got != tableSize {
		tb.Fatalf("%d flows at the peer", got)
	}
	return p, dumped
}

// sweepAll reads a table that the cache knows already.
func (p *pair) sweepAll(dumped []flow.Event) {
	p.a.BeginSweep(Refresh)
	p.a.Kernel(p.now, dumped)
	for !p.a.EndSweep(4096) {
	}
}

// commitAll asks for everything a commit asks for.
func (p *pair) commitAll(batch []flow.Flow) (n int) {
	p.b.BeginCommit()
	for done := false; !done; {
		var k int
		k, done = p.b.NextCommit(p.now, batch)
		for i := range k {
			p.b.Held(&batch[i])
		}
		n += k
	}
	return n
}

func (p *pair) dumpAll(text []byte, xml bool) []byte {
	for c := (DumpCursor{}); !c.Done(); {
		text = p.b.Dump(text[:0], p.now, time.Time{}, External, xml, &c, 512)
	}
	return text
}

// commitAllocs are those of its order, however many entries there are.
const commitAllocs = 2

// What walks a table allocates nothing for an entry, however large the table is.
func TestWalksDoNotAllocate(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		p, dumped := filled(t, family)
		batch := make([]flow.Flow, 512)
		text := make([]byte, 0, 1<<20)
		p.a.BeginSweep(Refresh)
		for name, walk := range map[string]func(){
			"sweep":   func() { p.a.internal.gen++; p.a.Kernel(p.now, dumped) },
			"commit":  func() { p.commitAll(batch) },
			"dump":    func() { p.dumpAll(text, false) },
			"XML":     func() { p.dumpAll(text, true) },
			"reports": func() { p.a.Bytes(); p.a.Stats() },
		} {
			walk()
			most := 0.
			if name == "commit" {
				most = commitAllocs
			}
			if n := testing.AllocsPerRun(3, walk); n > most {
				t.Errorf("%s: %v allocations for %d entries", name, n, tableSize)
			}
		}
		p.a.AbortSweep()
		resync := func() { p.a.SendBulk(); p.exchange() }
		resync()
		if n := testing.AllocsPerRun(3, resync); n > 2 { // pages of the queues
			t.Errorf("resync: %v allocations for %d entries", n, tableSize)
		}
	})
}

func BenchmarkTable(b *testing.B) {
	for _, family := range []struct {
		name string
		af   uint8
	}{{"IPv4", flow.IPv4}, {"IPv6", flow.IPv6}} {
		p, dumped := filled(b, family.af)
		batch := make([]flow.Flow, 512)
		text := make([]byte, 0, 1<<20)
		for _, c := range []struct {
			name string
			walk func()
		}{
			{"sweep", func() { p.sweepAll(dumped) }},
			{"commit", func() { p.commitAll(batch) }},
			{"dump", func() { p.dumpAll(text, false) }},
			{"dump XML", func() { p.dumpAll(text, true) }},
			{"resync", func() { p.a.SendBulk(); p.exchange() }},
		} {
			b.Run(family.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					c.walk()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tableSize, "ns/entry")
			})
		}
	}
}
