package kernel

import "github.com/conntrackgo/conntrackgo/pkg/flow"

// Flags of one direction of a TCP flow (IP_CT_TCP_FLAG_*).
const (
	tcpWindowScale uint8 = 0x01
	tcpBeLiberal   uint8 = 0x08
)

// putProtoinfo writes the state of the protocols that have one.
func (e *encoder) putProtoinfo(f *flow.Flow) {
	switch f.Proto {
	case flow.ProtoTCP:
		const scales = flow.HasWScaleOrig | flow.HasWScaleRepl
		if e.liberal || f.Has.Has(flow.HasState) || f.Has.Has(scales) {
			e.protoinfoTCP(f, f.Has.Has(scales))
		}
	case flow.ProtoSCTP:
		if f.Has.Has(flow.HasState) {
			e.protoinfoSCTP(f)
		}
	case flow.ProtoDCCP:
		if f.Has.Has(flow.HasState) {
			e.protoinfoDCCP(f)
		}
	}
}

// protoinfoTCP sets the window scale flag along with the scales: without it
// the kernel ignores them.
func (e *encoder) protoinfoTCP(f *flow.Flow, scaled bool) {
	info, tcp := e.nest(ctaProtoinfo), e.nest(ctaProtoinfoTCP)
	if f.Has.Has(flow.HasState) {
		e.u8(ctaTCPState, f.State)
	}
	var flags uint8
	if e.liberal {
		flags |= tcpBeLiberal
	}
	if scaled {
		flags |= tcpWindowScale
		e.u8(ctaTCPWScaleOrig, f.WScale[0])
		e.u8(ctaTCPWScaleRepl, f.WScale[1])
	}
	if flags != 0 {
		for _, t := range [...]attr{ctaTCPFlagsOrig, ctaTCPFlagsRepl} {
			e.attr(t, 2)
			e.buf = append(e.buf, flags, flags, 0, 0)
		}
	}
	e.endNest(tcp)
	e.endNest(info)
}

// protoinfoSCTP always has the tags, which the kernel demands with the state.
func (e *encoder) protoinfoSCTP(f *flow.Flow) {
	info, sctp := e.nest(ctaProtoinfo), e.nest(ctaProtoinfoSCTP)
	e.u8(ctaSCTPState, f.State)
	e.u32(ctaSCTPVtagOrig, f.Vtag[0])
	e.u32(ctaSCTPVtagRepl, f.Vtag[1])
	e.endNest(sctp)
	e.endNest(info)
}

func (e *encoder) protoinfoDCCP(f *flow.Flow) {
	info, dccp := e.nest(ctaProtoinfo), e.nest(ctaProtoinfoDCCP)
	e.u8(ctaDCCPState, f.State)
	e.u8(ctaDCCPRole, f.Role)
	e.endNest(dccp)
	e.endNest(info)
}

// putNATSrc and putNATDst tell the kernel what to translate. Both are written
// as soon as anything is translated, and both name address and port even where
// the flow keeps its own: an attribute left out, or an address alone, lets the
// kernel choose another port when its own is taken, and the flow would be dead
// without anybody saying so.
func (e *encoder) putNATSrc(f *flow.Flow) {
	addr, port := f.Src, f.Sport
	if f.Has.Has(flow.HasSNAT) {
		addr = f.NAT.Src
	}
	if f.Has.Has(flow.HasSPAT) {
		port = f.NAT.Sport
	}
	e.nat(ctaNATSrc, f, &addr, port)
}

func (e *encoder) putNATDst(f *flow.Flow) {
	addr, port := f.Dst, f.Dport
	if f.Has.Has(flow.HasDNAT) {
		addr = f.NAT.Dst
	}
	if f.IsICMP() {
		port = f.Sport
	} else if f.Has.Has(flow.HasDPAT) {
		port = f.NAT.Dport
	}
	e.nat(ctaNATDst, f, &addr, port)
}

func (e *encoder) nat(t attr, f *flow.Flow, addr *flow.Addr, port uint16) {
	n := e.nest(t)
	if f.Family == flow.IPv6 {
		e.bytes(ctaNATv6MinIP, addr[:])
		e.bytes(ctaNATv6MaxIP, addr[:])
	} else {
		e.bytes(ctaNATv4MinIP, addr[:4])
		e.bytes(ctaNATv4MaxIP, addr[:4])
	}
	if f.HasRealPorts() || f.IsICMP() {
		p := e.nest(ctaNATProto)
		e.u16(ctaProtoNATMin, port)
		e.u16(ctaProtoNATMax, port)
		e.endNest(p)
	}
	e.endNest(n)
}
