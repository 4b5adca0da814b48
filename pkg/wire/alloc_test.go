package wire

import (
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestNoAllocations(t *testing.T) {
	dst := make([]byte, 0, MaxMessage)
	ack := Header{Type: Control, Flags: FlagACK, Seq: 1, From: 2, To: 3}
	e, f := new(flow.Expect), new(flow.Flow)
	rich := richExpect()
	expect := full.AppendExpect(nil, Header{Type: ExpNew}, &rich)
	check := func(name string, do func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	check("append control", func() { dst = AppendControl(dst[:0], ack) })
	check("append expectation", func() { dst = full.AppendExpect(dst[:0], Header{Type: ExpNew}, &rich) })
	check("split expectation", func() { _, _ = AroundTimeout(expect[shortHeader:]) })
	check("parse expectation", func() { must(t, full.ParseExpect(expect[shortHeader:], e)) })
	old := Options{WindowScale: true, Peer: Since142, Without: flow.HasMark | flow.HasHelper | flow.HasLabels}
	for name, rich := range richFlows() {
		for _, o := range []*Options{&full, &old} {
			raw := o.AppendFlow(nil, Header{}, &rich)
			check("append "+name, func() { dst = o.AppendFlow(dst[:0], Header{}, &rich) })
			check("frame "+name, func() {
				_, _, err := Next(raw)
				must(t, err)
			})
			check("parse "+name, func() { must(t, o.ParseFlow(raw[shortHeader:], f)) })
			check("doubt "+name, func() { o.Doubt(f) })
		}
	}
	bad := body(attrIPv4, attrTCP, attr(33, 1))
	check("refuse", func() {
		if full.ParseFlow(bad, f) == nil {
			t.Fatal("accepted")
		}
		if _, _, err := Next(bad[:5]); err != Truncated {
			t.Fatal(err)
		}
	})
}

func must(t testing.TB, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// typicalTCP is what most messages are about: an established connection
// through source NAT, with a mark.
func typicalTCP() flow.Flow {
	f := flow.Flow{Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasState |
		flow.HasTimeout | flow.HasMark | flow.HasReply | flow.HasSNAT | flow.HasSPAT | flow.HasID}
	f.Key = flow.Key{Src: flow.Addr{10, 1, 0, 2}, Dst: flow.Addr{10, 2, 0, 2}, Sport: 40001, Dport: 80,
		Proto: flow.ProtoTCP, Family: flow.IPv4}
	f.Status, f.State, f.Timeout = 0x18e|flow.StatusSrcNAT, 3, 432000
	f.NAT.Src, f.NAT.Sport = flow.Addr{10, 2, 0, 1}, 50006
	return f
}

func benchFlows() map[string]flow.Flow {
	rich := richFlows()
	return map[string]flow.Flow{"typical": typicalTCP(), "rich": rich["tcp6"], "icmp": rich["icmp"]}
}

func BenchmarkAppendFlow(b *testing.B) {
	for name, f := range benchFlows() {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, MaxMessage)
			b.ReportAllocs()
			for b.Loop() {
				dst = full.AppendFlow(dst[:0], Header{Seq: 7}, &f)
			}
			b.SetBytes(int64(len(dst)))
		})
	}
}

func BenchmarkParseFlow(b *testing.B) {
	for name, f := range benchFlows() {
		b.Run(name, func(b *testing.B) {
			raw := full.AppendFlow(nil, Header{}, &f)
			var got flow.Flow
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				m, _, err := Next(raw)
				if err != nil {
					b.Fatal(err)
				}
				if err := full.ParseFlow(m.Body, &got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
