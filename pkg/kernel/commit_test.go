package kernel

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// transports are the protocols that a table entry can have.
var transports = []struct {
	name          string
	family, proto uint8
	nat           []func(*flow.Flow)
}{
	{"tcp4", flow.IPv4, flow.ProtoTCP, ports},
	{"tcp6", flow.IPv6, flow.ProtoTCP, ports},
	{"udp4", flow.IPv4, flow.ProtoUDP, ports},
	{"udp6", flow.IPv6, flow.ProtoUDP, ports},
	{"udplite4", flow.IPv4, flow.ProtoUDPLite, ports},
	{"udplite6", flow.IPv6, flow.ProtoUDPLite, ports},
	{"sctp4", flow.IPv4, flow.ProtoSCTP, ports},
	{"sctp6", flow.IPv6, flow.ProtoSCTP, ports},
	{"icmp", flow.IPv4, flow.ProtoICMP, []func(*flow.Flow){spat}},
	{"icmpv6", flow.IPv6, flow.ProtoICMPv6, []func(*flow.Flow){spat}},
	{"gre4", flow.IPv4, flow.ProtoGRE, nil},
	{"esp4", flow.IPv4, 50, nil},
	{"esp6", flow.IPv6, 50, nil},
}

var ports = []func(*flow.Flow){spat, dpat}

// translations are all subsets of what NAT can change for a protocol.
func translations(port []func(*flow.Flow)) (all [][]func(*flow.Flow)) {
	changes := append([]func(*flow.Flow){snat, dnat}, port...)
	for set := range 1 << len(changes) {
		var some []func(*flow.Flow)
		for i, c := range changes {
			if set>>i&1 != 0 {
				some = append(some, c)
			}
		}
		all = append(all, some)
	}
	return all
}

// extras are the attributes that any TCP flow can have.
var extras = []struct {
	name   string
	change func(*flow.Flow)
}{
	{"plain", func(*flow.Flow) {}},
	{"mark", mark(0xdeadbeef)},
	{"mark zero", mark(0)},
	{"labels", labels(8, 0, 8192, 0x80000000)},
	{"zone", zone(7)},
	{"zone of the original direction", func(f *flow.Flow) { f.Has |= flow.HasZoneOrig; f.Zone = 9 }},
	{"seqadj", func(f *flow.Flow) {
		f.Has |= flow.HasSeqOrig | flow.HasSeqRepl
		f.SeqAdj = [2]flow.SeqAdj{{Pos: 1000, Before: 5, After: 0xfffffffb}, {Pos: 2000, Before: 1, After: 2}}
	}},
	{"seqadj from zero", func(f *flow.Flow) {
		f.Has |= flow.HasSeqOrig | flow.HasSeqRepl
		f.SeqAdj = [2]flow.SeqAdj{{Pos: 1000, Before: 0, After: 7}, {}}
	}},
	{"synproxy", func(f *flow.Flow) {
		f.Has |= flow.HasSynproxy
		f.Synproxy = flow.Synproxy{ISN: 1, ITS: 2, TSOff: 0xfffffff0}
	}},
	{"window scale", func(f *flow.Flow) {
		f.Has |= flow.HasWScaleOrig | flow.HasWScaleRepl
		f.WScale = [2]uint8{7, 10}
	}},
	{"helper", helper("ftp")},
	{"unreplied", func(f *flow.Flow) { f.Status = flow.StatusConfirmed; f.State = 1 }},
	{"dying", func(f *flow.Flow) { f.Status |= flow.StatusDying }},
	{"expected without master", func(f *flow.Flow) { f.Status |= flow.StatusExpected }},
	{"unconfirmed", func(f *flow.Flow) { f.Status = flow.StatusSeenReply }},
	{"fixed timeout", func(f *flow.Flow) { f.Status |= flow.StatusFixedTimeout }},
	{"no timeout", func(f *flow.Flow) { f.Has &^= flow.HasTimeout; f.Timeout = 0 }},
	{"everything", func(f *flow.Flow) {
		mark(1)(f)
		labels(1, 2, 3, 4)(f)
		zone(65535)(f)
		helper("ftp")(f)
		f.Has |= flow.HasSeqOrig | flow.HasSeqRepl | flow.HasSynproxy
		f.SeqAdj = [2]flow.SeqAdj{{Pos: 3, Before: 1, After: 4}, {Pos: 1, Before: 5, After: 9}}
		f.Synproxy = flow.Synproxy{ISN: 2, ITS: 6, TSOff: 5}
	}},
}

// everyFlow is the table of the tests: each protocol with each translation,
// and each attribute with and without NAT.
func everyFlow() (flows []flow.Flow, names []string) {
	port := uint16(20000)
	add := func(name string, f flow.Flow) {
		if port++; f.HasRealPorts() || f.IsICMP() {
			f.Sport = port
			if f.Has.Has(flow.HasSPAT) {
				f.NAT.Sport = port + 20000
			}
		} else {
			f.Src[2], f.Src[3] = byte(port>>8), byte(port)
		}
		flows, names = append(flows, f), append(names, name)
	}
	for _, tr := range transports {
		for _, nat := range translations(tr.nat) {
			f := with(newFlow(tr.family, tr.proto), nat...)
			add(fmt.Sprintf("%s nat %x", tr.name, uint64(f.Has&flow.HasNAT)), f)
		}
	}
	for _, x := range extras {
		for _, family := range []uint8{flow.IPv4, flow.IPv6} {
			f := with(newFlow(family, flow.ProtoTCP), x.change)
			add(fmt.Sprintf("%s family %d", x.name, family), f)
			add(fmt.Sprintf("%s family %d nat", x.name, family), with(f, snat, dnat, dpat))
		}
	}
	return flows, names
}

// diff says in what the entry got is not what writing want should have made.
func diff(want, got *flow.Flow) (out []string) {
	differ := func(name string, w, g any) {
		if w != g {
			out = append(out, fmt.Sprintf("%s: want %v, got %v", name, w, g))
		}
	}
	status := want.Status&^statusRefused | flow.StatusConfirmed
	if want.Has.Has(flow.HasMaster) {
		status |= flow.StatusExpected
	}
	if want.Has.Any(flow.HasNAT) {
		status |= flow.StatusSrcNATDone | flow.StatusDstNATDone
	}
	if want.Has.Any(flow.HasSNAT | flow.HasSPAT) {
		status |= flow.StatusSrcNAT
	}
	if want.Has.Any(flow.HasDNAT | flow.HasDPAT) {
		status |= flow.StatusDstNAT
	}
	if want.Has.Any(flow.HasSeqOrig | flow.HasSeqRepl) {
		status |= flow.StatusSeqAdjust
	}
	if want.Has.Has(flow.HasHelper) {
		status |= flow.StatusHelper
	}
	differ("status", fmt.Sprintf("%#x", status), fmt.Sprintf("%#x", got.Status))

	seconds := want.Timeout
	if !want.Has.Has(flow.HasTimeout) {
		seconds = defaultTimeout
	}
	if got.Timeout > seconds || got.Timeout+3 < seconds {
		differ("timeout", seconds, got.Timeout)
	}
	differ("nat kind", want.Has&flow.HasNAT, got.Has&flow.HasNAT)
	differ("nat", want.NAT, got.NAT)
	differ("mark", want.Mark, got.Mark)
	differ("state", want.State, got.State)
	differ("window scale", want.WScale, got.WScale)
	differ("vtag", want.Vtag, got.Vtag)
	differ("seqadj", want.SeqAdj, got.SeqAdj)
	differ("synproxy", want.Synproxy, got.Synproxy)
	differ("helper", flow.Name(want.Helper[:]), flow.Name(got.Helper[:]))
	differ("labels", want.Labels, got.Labels)
	differ("master", want.Master, got.Master)
	differ("zone kind", want.Has&(flow.HasZone|flow.HasZoneOrig), got.Has&(flow.HasZone|flow.HasZoneOrig))
	return out
}

func compare(t *testing.T, flows []flow.Flow, names []string) {
	t.Helper()
	all := table(t)
	if len(all) != len(flows) {
		t.Errorf("kernel has %d entries, want %d", len(all), len(flows))
	}
	for i := range flows {
		got, ok := all[flows[i].Key]
		if !ok {
			t.Errorf("%s: not in the kernel", names[i])
			continue
		}
		for _, d := range diff(&flows[i], &got) {
			t.Errorf("%s: %s", names[i], d)
		}
	}
}

func TestCommitCarriesEverything(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows, names := everyFlow()
	commit(t, w, Created, flows...)
	compare(t, flows, names)

	for i := range flows {
		flows[i].Timeout, flows[i].Has = 1000, flows[i].Has|flow.HasTimeout
		if flows[i].Status&flow.StatusFixedTimeout != 0 {
			flows[i].Timeout = 300
		}
		if flows[i].Proto == flow.ProtoTCP {
			flows[i].State = 4
		}
		flows[i].Has |= flow.HasMark
		flows[i].Mark ^= 0xdeadbeef
	}
	commit(t, w, Updated, flows...)
	compare(t, flows, names)
}

func TestCommitAnswerlessICMP(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	f := newFlow(flow.IPv4, flow.ProtoICMP)
	f.Dport = 3 << 8 // destination unreachable
	results := make([]Result, 1)
	if err := w.Commit([]flow.Flow{f}, results); err != nil {
		t.Fatal(err)
	}
	if results[0].Err() != unix.EINVAL {
		t.Errorf("got %+v, want EINVAL", results[0])
	}
}
