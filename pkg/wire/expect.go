package wire

import (
	"encoding/binary"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

const (
	numExpMasterProto = 2  // EXP_MASTER_L4PROTO
	numExpTimeout     = 12 // EXP_TIMEOUT
)

// maxFn is the longest function name that travels, with its NUL, in bytes.
const maxFn = 28

// expectRows are the expectation attributes in the order in which they are
// sent (docs/protocol.md 3.7).
var expectRows = []row[flow.Expect]{
	{0, "EXP_MASTER_IPV4", masterIPv4 | flow.HasMaster, flow.HasMaster, addrs(flow.IPv4, expMaster)},
	{1, "EXP_MASTER_IPV6", masterIPv6 | flow.HasMaster, flow.HasMaster, addrs(flow.IPv6, expMaster)},
	{2, "EXP_MASTER_L4PROTO", flow.HasMaster, 0, u8(proto(expMaster))},
	{3, "EXP_MASTER_PORT", flow.HasMaster | masterPorted, flow.HasMasterPort, ports(expMaster)},

	{4, "EXP_EXPECT_IPV4", isIPv4 | flow.HasAddr, flow.HasAddr, addrs(flow.IPv4, expTuple)},
	{5, "EXP_EXPECT_IPV6", isIPv6 | flow.HasAddr, flow.HasAddr, addrs(flow.IPv6, expTuple)},
	{6, "EXP_EXPECT_L4PROTO", flow.HasProto, flow.HasProto, u8(proto(expTuple))},
	{7, "EXP_EXPECT_PORT", flow.HasAddr | masterPorted, flow.HasPorts, ports(expTuple)},

	{8, "EXP_MASK_IPV4", isIPv4 | flow.HasMask, flow.HasMask, addrs(flow.IPv4, expMask)},
	{9, "EXP_MASK_IPV6", isIPv6 | flow.HasMask, flow.HasMask, addrs(flow.IPv6, expMask)},
	{10, "EXP_MASK_L4PROTO", flow.HasMask, 0, u8(proto(expMask))},
	{11, "EXP_MASK_PORT", flow.HasMask | masterPorted, 0, ports(expMask)},

	{12, "EXP_TIMEOUT", flow.HasTimeout, flow.HasTimeout, u32(func(e *flow.Expect) *uint32 { return &e.Timeout })},
	{13, "EXP_FLAGS", always, flow.HasFlags, u32(func(e *flow.Expect) *uint32 { return &e.Flags })},
	{14, "EXP_CLASS", flow.HasClass, flow.HasClass, u32(func(e *flow.Expect) *uint32 { return &e.Class })},

	{15, "EXP_NAT_IPV4", natIPv4 | flow.HasSNAT, flow.HasSNAT, addrs(flow.IPv4, expNAT)},
	{17, "EXP_NAT_L4PROTO", natTuple, 0, u8(proto(expNAT))},
	{16, "EXP_NAT_PORT", natTuple | masterPorted, flow.HasSPAT, ports(expNAT)},
	{18, "EXP_NAT_DIR", natTuple | flow.HasNATDir, flow.HasNATDir, u32(func(e *flow.Expect) *uint32 { return &e.NATDir })},

	{19, "EXP_HELPER_NAME", flow.HasHelper, flow.HasHelper, name(maxHelper, func(e *flow.Expect) []byte { return e.Helper[:] })},
	{20, "EXP_FN", flow.HasFn, flow.HasFn, name(maxFn, func(e *flow.Expect) []byte { return e.Fn[:] })},
}

var expectTable = newTable(expectRows)

func expMaster(e *flow.Expect) *flow.Key { return &e.Master }
func expTuple(e *flow.Expect) *flow.Key  { return &e.Tuple }
func expMask(e *flow.Expect) *flow.Key   { return &e.Mask }
func expNAT(e *flow.Expect) *flow.Key    { return &e.NAT }

// proto is the protocol of a tuple.
func proto(of func(*flow.Expect) *flow.Key) func(*flow.Expect) *uint8 {
	return func(e *flow.Expect) *uint8 { return &of(e).Proto }
}

// sendableExpect is sendable for expectations. Whether ports travel, those of
// the expected flow included, depends on the master's protocol alone.
func (o *Options) sendableExpect(e *flow.Expect) flow.Has {
	have := e.Has&^anyCondition | family(&e.Tuple, isIPv4, isIPv6) |
		family(&e.Master, masterIPv4, masterIPv6) | family(&e.NAT, natIPv4, 0)
	if sendsPorts(e.Master.Proto) {
		have |= masterPorted
	}
	if have.Any(flow.HasSNAT | flow.HasSPAT) {
		have |= natTuple
	}
	if o.OmitTimeout {
		have &^= flow.HasTimeout
	}
	if !fits(e.Helper[:], maxHelper) {
		have &^= flow.HasHelper
	}
	if !fits(e.Fn[:], maxFn) {
		have &^= flow.HasFn
	}
	return have
}

// AroundTimeout returns what the body of an expectation message says before and
// behind its timeout: two messages that differ in nothing else say the same. The
// body is one that AppendExpect made or ParseExpect took, and is aliased.
func AroundTimeout(body []byte) (before, behind []byte) {
	for at := 0; len(body)-at > attrHeader; {
		size := (int(binary.BigEndian.Uint16(body[at:])) + 3) &^ 3
		next := min(at+max(size, attrHeader), len(body))
		if binary.BigEndian.Uint16(body[at+2:]) == numExpTimeout {
			return body[:at], body[next:]
		}
		at = next
	}
	return body, nil
}

// settleExpect makes what was read canonical and returns what is known.
func settleExpect(e *flow.Expect, has flow.Has) flow.Has {
	if !has.Has(flow.HasMask) || e.Mask.Family != e.Tuple.Family {
		has &^= flow.HasMask
		e.Mask = flow.Key{}
	}
	switch {
	case has.Has(flow.HasSNAT):
	case has.Has(flow.HasSPAT): // IPv6 has no number for the addresses
		e.NAT.Family = e.Tuple.Family
	default:
		has &^= flow.HasNATDir
		e.NAT, e.NATDir = flow.Key{}, 0
	}
	if e.Helper[0] == 0 {
		has &^= flow.HasHelper
	}
	if e.Fn[0] == 0 {
		has &^= flow.HasFn
	}
	return has
}
