package kernel

import (
	"context"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// BenchmarkDecode decodes the events of typical scenarios; one operation is
// one event.
func BenchmarkDecode(b *testing.B) {
	all := corpus(b)
	for _, name := range []string{"udp", "tcp", "snat-dnat", "accounting", "ftp"} {
		b.Run(name, func(b *testing.B) {
			var bodies [][]byte
			for _, m := range messages(b, all[name]) {
				if !isExpect(&m) {
					bodies = append(bodies, m.body)
				}
			}
			f := new(flow.Flow)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := DecodeFlow(bodies[i%len(bodies)], f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead reads real events; one operation is one event, its part of
// recvmmsg included and the kernel's making of it not.
func BenchmarkRead(b *testing.B) {
	ownNetNS(b)
	e := openEvents(b, Config{BufferSize: 64 << 20, BufferMaxGrowth: 64 << 20})
	w := openWriter(b, WriterConfig{})
	flows := udpFlows(5000)
	dst := make([]flow.Event, 128)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += len(flows) {
		b.StopTimer()
		write := w.Commit
		if n/len(flows)%2 == 1 {
			write = w.Delete
		}
		apply(b, write, flows)
		b.StartTimer()
		for got := 0; got < len(flows); {
			await(b, e)
			k, err := e.Read(dst)
			if err != nil {
				b.Fatal(err)
			}
			got += k
		}
	}
}

// BenchmarkDump reads a table; one operation is one entry.
func BenchmarkDump(b *testing.B) {
	ownNetNS(b)
	const entries = 50000
	apply(b, openWriter(b, WriterConfig{}).Commit, udpFlows(entries))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += entries {
		if err := Dump(context.Background(), func(*flow.Flow) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
