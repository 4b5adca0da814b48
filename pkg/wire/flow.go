package wire

import "github.com/conntrackgo/conntrackgo/pkg/flow"

// Conntrack attribute numbers that the code below names; the others appear
// only in their row.
const (
	numMark        = 7
	numMasterProto = 10
	numHelper      = 27
	numLabels      = 28
	numDNATIPv6    = 30
	numSynproxy    = 31
	numZone        = 32
)

// maxHelper is the longest helper name that travels, with its NUL, in bytes:
// a C peer refuses a message with a longer one (docs/protocol.md 3.3).
const maxHelper = 12

// flowRows are the conntrack attributes in the order in which they are sent
// (docs/protocol.md 3.3, 3.4).
var flowRows = []row[flow.Flow]{
	{0, "IPV4", isIPv4 | flow.HasAddr, flow.HasAddr, addrs(flow.IPv4, tuple)},
	{1, "IPV6", isIPv6 | flow.HasAddr, flow.HasAddr, addrs(flow.IPv6, tuple)},
	{5, "STATUS", always, flow.HasStatus, u32(func(f *flow.Flow) *uint32 { return &f.Status })},
	{2, "L4PROTO", always, flow.HasProto, u8(func(f *flow.Flow) *uint8 { return &f.Proto })},

	{3, "PORT", isPorted | flow.HasPorts, flow.HasPorts, ports(tuple)},
	{4, "TCP_STATE", isTCP | flow.HasState, flow.HasState, u8(state)},
	{25, "TCP_WSCALE_ORIG", isTCP | flow.HasState | flow.HasWScaleOrig, flow.HasWScaleOrig, u8(wscale(0))},
	{26, "TCP_WSCALE_REPL", isTCP | flow.HasState | flow.HasWScaleRepl, flow.HasWScaleRepl, u8(wscale(1))},
	{17, "SCTP_STATE", isSCTP | flow.HasState, flow.HasState, u8(state)},
	{18, "SCTP_VTAG_ORIG", isSCTP | flow.HasState, flow.HasVtag, u32(vtag(0))},
	{19, "SCTP_VTAG_REPL", isSCTP | flow.HasState, flow.HasVtag, u32(vtag(1))},
	{20, "DCCP_STATE", isDCCP | flow.HasState, flow.HasState, u8(state)},
	{21, "DCCP_ROLE", isDCCP | flow.HasState, flow.HasRole, u8(func(f *flow.Flow) *uint8 { return &f.Role })},
	{22, "ICMP_TYPE", isICMP | flow.HasPorts, flow.HasPorts, dportHalf(8)},
	{23, "ICMP_CODE", isICMP | flow.HasPorts, flow.HasPorts, dportHalf(0)},
	{24, "ICMP_ID", isICMP | flow.HasPorts, flow.HasPorts, u16Swapped(func(f *flow.Flow) *uint16 { return &f.Sport })},

	{6, "TIMEOUT", flow.HasTimeout, flow.HasTimeout, u32(func(f *flow.Flow) *uint32 { return &f.Timeout })},
	{7, "MARK", flow.HasMark, flow.HasMark, u32(func(f *flow.Flow) *uint32 { return &f.Mark })},

	{8, "MASTER_IPV4", masterIPv4 | flow.HasMaster, flow.HasMaster, addrs(flow.IPv4, master)},
	{9, "MASTER_IPV6", masterIPv6 | flow.HasMaster, flow.HasMaster, addrs(flow.IPv6, master)},
	{10, "MASTER_L4PROTO", flow.HasMaster, 0, u8(func(f *flow.Flow) *uint8 { return &f.Master.Proto })},
	{11, "MASTER_PORT", flow.HasMaster | flow.HasMasterPort, flow.HasMasterPort, ports(master)},

	{12, "SNAT_IPV4", isIPv4 | flow.HasSNAT, flow.HasSNAT, natAddr4(natSrc)},
	{29, "SNAT_IPV6", isIPv6 | flow.HasSNAT, flow.HasSNAT, natAddr6(natSrc)},
	{13, "DNAT_IPV4", isIPv4 | flow.HasDNAT, flow.HasDNAT, natAddr4(natDst)},
	{30, "DNAT_IPV6", isIPv6 | flow.HasDNAT, flow.HasDNAT, natAddr6(natDst)},
	{14, "SPAT_PORT", flow.HasSPAT, flow.HasSPAT, u16Swapped(func(f *flow.Flow) *uint16 { return &f.NAT.Sport })},
	{15, "DPAT_PORT", flow.HasDPAT, flow.HasDPAT, u16Swapped(func(f *flow.Flow) *uint16 { return &f.NAT.Dport })},

	{16, "NAT_SEQ_ADJ", seqAdjBoth, seqAdjBoth, words(6, seqAdj)},
	{27, "HELPER_NAME", flow.HasHelper, flow.HasHelper, name(maxHelper, func(f *flow.Flow) []byte { return f.Helper[:] })},
	{28, "LABELS", flow.HasLabels, flow.HasLabels, labels(func(f *flow.Flow) *[4]uint32 { return &f.Labels })},
	{31, "SYNPROXY", flow.HasSynproxy, flow.HasSynproxy, words(3, synproxy)},
	{32, "ZONE", flow.HasZone, flow.HasZone, u16(func(f *flow.Flow) *uint16 { return &f.Zone })},
}

var flowTable = newTable(flowRows)

const seqAdjBoth = flow.HasSeqOrig | flow.HasSeqRepl

func tuple(f *flow.Flow) *flow.Key   { return &f.Key }
func master(f *flow.Flow) *flow.Key  { return &f.Master }
func natSrc(f *flow.Flow) *flow.Addr { return &f.NAT.Src }
func natDst(f *flow.Flow) *flow.Addr { return &f.NAT.Dst }
func state(f *flow.Flow) *uint8      { return &f.State }

func wscale(dir int) func(*flow.Flow) *uint8 {
	return func(f *flow.Flow) *uint8 { return &f.WScale[dir] }
}

func vtag(dir int) func(*flow.Flow) *uint32 {
	return func(f *flow.Flow) *uint32 { return &f.Vtag[dir] }
}

// seqAdj is the order of NAT_SEQ_ADJ.
func seqAdj(f *flow.Flow, i int) *uint32 {
	a := &f.SeqAdj[i/3]
	return [...]*uint32{&a.Pos, &a.Before, &a.After}[i%3]
}

// synproxy is the order of SYNPROXY, which is not the kernel's.
func synproxy(f *flow.Flow, i int) *uint32 {
	return [...]*uint32{&f.Synproxy.ITS, &f.Synproxy.ISN, &f.Synproxy.TSOff}[i]
}

// dportHalf is one byte of Dport, where an ICMP flow keeps type and code.
func dportHalf(shift int) codec[flow.Flow] {
	return codec[flow.Flow]{
		min: 1, max: 1,
		read: func(f *flow.Flow, p []byte, _ *Options) error {
			f.Dport = f.Dport&^(0xff<<shift) | uint16(p[0])<<shift
			return nil
		},
		put: func(dst []byte, f *flow.Flow, _ *Options) []byte {
			return append(dst, byte(f.Dport>>shift))
		},
	}
}

// sendable returns what of f goes on the wire: its attributes less those that
// stay at home, plus the conditions of the rows (docs/protocol.md 3.4, 10).
func (o *Options) sendable(f *flow.Flow) flow.Has {
	kind := kindOf(&f.Key)
	have := f.Has&^anyCondition | kind | family(&f.Master, masterIPv4, masterIPv6)
	if sendsPorts(f.Proto) {
		have |= flow.HasPorts
	}
	if o.OmitTimeout {
		have &^= flow.HasTimeout
	}
	if !o.WindowScale {
		have &^= flow.HasWScaleOrig | flow.HasWScaleRepl
	}
	if f.Status&flow.StatusSrcNATDone == 0 {
		have &^= flow.HasSNAT | flow.HasSPAT
	}
	if f.Status&flow.StatusDstNATDone == 0 {
		have &^= flow.HasDNAT | flow.HasDPAT
	}
	if kind&isPorted == 0 {
		have &^= flow.HasSPAT | flow.HasDPAT
	}
	if have.Any(flow.HasHelper | flow.HasLabels | flow.HasSynproxy | flow.HasZone) {
		have &^= withoutContent(f)
	}
	if o.Peer != Since147 {
		have &^= o.Peer.unknown(kind)
	}
	return have &^ o.Without
}

// Travels returns which attributes of f AppendFlow sends.
func (o *Options) Travels(f *flow.Flow) (has flow.Has) {
	have := o.sendable(f)
	for i, needs := range flowTable.needs {
		if have&needs == needs {
			has |= flowTable.order[i].sets
		}
	}
	return has
}

// withoutContent returns the attributes of f that are not worth sending
// though they are known, and the helper name that is too long to send.
func withoutContent(f *flow.Flow) (not flow.Has) {
	if !fits(f.Helper[:], maxHelper) {
		not |= flow.HasHelper
	}
	if f.Labels == [4]uint32{} {
		not |= flow.HasLabels
	}
	if f.Synproxy == (flow.Synproxy{}) {
		not |= flow.HasSynproxy
	}
	if f.Zone == 0 {
		not |= flow.HasZone
	}
	return not
}

// optional are the attributes that Options.Without may name.
var optional = [...]struct {
	has flow.Has
	num uint8
}{{flow.HasMark, numMark}, {flow.HasHelper, numHelper}, {flow.HasLabels, numLabels}}

// skip returns the numbers of Without.
func (o *Options) skip() (nums uint64) {
	if o.Without == 0 {
		return 0
	}
	for _, a := range optional {
		if o.Without.Has(a.has) {
			nums |= bit(a.num)
		}
	}
	return nums
}

// settleFlow makes what was read canonical and returns what is known.
func settleFlow(f *flow.Flow, has flow.Has, seen uint64) flow.Has {
	kind := kindOf(&f.Key)
	if kind&isPorted == 0 && has.Any(flow.HasSPAT|flow.HasDPAT) {
		// C sends zeros here for every ICMP flow that passed a NAT hook.
		has &^= flow.HasSPAT | flow.HasDPAT
		f.NAT.Sport, f.NAT.Dport = 0, 0
	}
	if !has.Has(flow.HasMaster) || seen&bit(numMasterProto) == 0 {
		has &^= flow.HasMaster | flow.HasMasterPort
		f.Master = flow.Key{}
	}
	if f.Zone == 0 {
		has &^= flow.HasZone
	}
	if f.Helper[0] == 0 {
		has &^= flow.HasHelper
	}
	return has
}
