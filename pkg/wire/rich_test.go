package wire

import (
	"math/rand/v2"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// everything is what a flow of any protocol can have on the wire.
const everything = flow.HasAddr | flow.HasProto | flow.HasStatus | flow.HasTimeout | flow.HasMark |
	flow.HasMaster | flow.HasMasterPort | flow.HasSNAT | flow.HasDNAT | flow.HasSeqOrig | flow.HasSeqRepl |
	flow.HasHelper | flow.HasLabels | flow.HasSynproxy | flow.HasZone

// protoHas is what each protocol adds.
var protoHas = map[uint8]flow.Has{
	flow.ProtoTCP: flow.HasPorts | flow.HasSPAT | flow.HasDPAT | flow.HasState |
		flow.HasWScaleOrig | flow.HasWScaleRepl,
	flow.ProtoUDP:     flow.HasPorts | flow.HasSPAT | flow.HasDPAT,
	flow.ProtoUDPLite: flow.HasPorts | flow.HasSPAT | flow.HasDPAT,
	flow.ProtoGRE:     flow.HasPorts | flow.HasSPAT | flow.HasDPAT,
	flow.ProtoSCTP:    flow.HasPorts | flow.HasSPAT | flow.HasDPAT | flow.HasState | flow.HasVtag,
	flow.ProtoDCCP:    flow.HasPorts | flow.HasSPAT | flow.HasDPAT | flow.HasState | flow.HasRole,
	flow.ProtoICMP:    flow.HasPorts,
	flow.ProtoICMPv6:  flow.HasPorts,
	89:                0,
}

// randomFlow returns a flow with exactly the attributes has, each with a
// value that is worth sending.
func randomFlow(r *rand.Rand, proto, family uint8, has flow.Has) flow.Flow {
	u8 := func() uint8 { return uint8(r.Uint32()) }
	u16 := func() uint16 { return uint16(r.Uint32()) }
	u32 := r.Uint32
	f := flow.Flow{Has: has, Key: randomKey(r, proto, family)}
	f.Zone = 0
	if !has.Has(flow.HasPorts) {
		f.Sport, f.Dport = 0, 0
	}
	set(has, flow.HasStatus, func() { f.Status = u32() })
	if has.Any(flow.HasSNAT | flow.HasSPAT) {
		f.Status |= flow.StatusSrcNATDone
	}
	if has.Any(flow.HasDNAT | flow.HasDPAT) {
		f.Status |= flow.StatusDstNATDone
	}
	set(has, flow.HasTimeout, func() { f.Timeout = u32() })
	set(has, flow.HasMark, func() { f.Mark = u32() })
	set(has, flow.HasState, func() { f.State = u8() })
	set(has, flow.HasWScaleOrig, func() { f.WScale[0] = u8() })
	set(has, flow.HasWScaleRepl, func() { f.WScale[1] = u8() })
	set(has, flow.HasVtag, func() { f.Vtag = [2]uint32{u32(), u32()} })
	set(has, flow.HasRole, func() { f.Role = u8() })
	set(has, flow.HasMaster, func() {
		f.Master = randomKey(r, flow.ProtoTCP, []uint8{flow.IPv4, flow.IPv6}[r.IntN(2)])
		if !has.Has(flow.HasMasterPort) {
			f.Master.Sport, f.Master.Dport = 0, 0
		}
	})
	nat := randomKey(r, proto, family)
	set(has, flow.HasSNAT, func() { f.NAT.Src = nat.Src })
	set(has, flow.HasDNAT, func() { f.NAT.Dst = nat.Dst })
	set(has, flow.HasSPAT, func() { f.NAT.Sport = nat.Sport })
	set(has, flow.HasDPAT, func() { f.NAT.Dport = nat.Dport })
	set(has, flow.HasSeqOrig, func() { f.SeqAdj[0] = flow.SeqAdj{Pos: u32(), Before: u32(), After: u32()} })
	set(has, flow.HasSeqRepl, func() { f.SeqAdj[1] = flow.SeqAdj{Pos: u32(), Before: u32(), After: u32()} })
	set(has, flow.HasHelper, func() { copy(f.Helper[:], "netbios-ns1"[:1+r.IntN(11)]) })
	set(has, flow.HasLabels, func() { f.Labels = [4]uint32{u32(), 1, u32(), u32()} })
	set(has, flow.HasSynproxy, func() { f.Synproxy = flow.Synproxy{ISN: 1 + u32()>>1, ITS: u32(), TSOff: u32()} })
	set(has, flow.HasZone, func() { f.Zone = 1 + u16()>>1 })
	return f
}

func set(has, bit flow.Has, do func()) {
	if has.Has(bit) {
		do()
	}
}

func randomKey(r *rand.Rand, proto, family uint8) flow.Key {
	k := flow.Key{Proto: proto, Family: family, Sport: uint16(r.Uint32()), Dport: uint16(r.Uint32())}
	for i := range addrLen(family) {
		k.Src[i], k.Dst[i] = uint8(r.Uint32()), uint8(r.Uint32())
	}
	return k
}

// richFlows are flows with everything their protocol can have.
func richFlows() map[string]flow.Flow {
	r := rand.New(rand.NewPCG(1, 2))
	rich := func(proto, family uint8) flow.Flow {
		f := randomFlow(r, proto, family, everything|protoHas[proto])
		copy(f.Helper[:], "netbios-ns1")
		return f
	}
	return map[string]flow.Flow{
		"tcp4":  rich(flow.ProtoTCP, flow.IPv4),
		"tcp6":  rich(flow.ProtoTCP, flow.IPv6),
		"sctp4": rich(flow.ProtoSCTP, flow.IPv4),
		"dccp6": rich(flow.ProtoDCCP, flow.IPv6),
		"icmp":  rich(flow.ProtoICMP, flow.IPv4),
		"gre":   rich(flow.ProtoGRE, flow.IPv4),
	}
}

// randomExpect returns an expectation of a TCP master with exactly the
// attributes has.
func randomExpect(r *rand.Rand, family uint8, has flow.Has) flow.Expect {
	e := flow.Expect{Has: has}
	e.Master = randomKey(r, flow.ProtoTCP, family)
	e.Tuple = randomKey(r, []uint8{flow.ProtoTCP, flow.ProtoGRE, flow.ProtoUDP}[r.IntN(3)], family)
	set(has, flow.HasMask, func() { e.Mask = randomKey(r, e.Tuple.Proto, family) })
	set(has, flow.HasTimeout, func() { e.Timeout = r.Uint32() })
	set(has, flow.HasFlags, func() { e.Flags = r.Uint32() })
	set(has, flow.HasClass, func() { e.Class = r.Uint32() })
	if has.Any(flow.HasSNAT | flow.HasSPAT) {
		e.NAT = randomKey(r, flow.ProtoTCP, family)
		if !has.Has(flow.HasSNAT) {
			e.NAT.Src, e.NAT.Dst = flow.Addr{}, flow.Addr{}
		}
	}
	set(has, flow.HasNATDir, func() { e.NATDir = r.Uint32() })
	set(has, flow.HasHelper, func() { copy(e.Helper[:], "netbios-ns1"[:1+r.IntN(11)]) })
	set(has, flow.HasFn, func() { copy(e.Fn[:], "nat-follow-master-and-more!"[:1+r.IntN(27)]) })
	return e
}

// expectNeeds is what every expectation of a TCP master has on the wire.
const expectNeeds = flow.HasMaster | flow.HasMasterPort | flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasFlags

func richExpect() flow.Expect {
	e := randomExpect(rand.New(rand.NewPCG(3, 4)), flow.IPv4, expectNeeds|flow.HasMask|flow.HasTimeout|
		flow.HasClass|flow.HasSNAT|flow.HasSPAT|flow.HasNATDir|flow.HasHelper|flow.HasFn)
	copy(e.Helper[:], "netbios-ns1")
	copy(e.Fn[:], "nat-follow-master-and-more!")
	return e
}
