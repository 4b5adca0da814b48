package kernel

// The ctnetlink vocabulary: message types and attribute numbers as in the
// kernel's uapi headers nfnetlink.h and nfnetlink_conntrack.h. Every number
// in an attribute is in network byte order, except labels.

// Sizes and flags of netlink framing (struct nlmsghdr, nfgenmsg, nlattr).
const (
	nlmsgHeaderLen = 16
	nfgenLen       = 4
	nlattrLen      = 4

	nlaTypeMask  = 0x3fff // NLA_TYPE_MASK: the type without the two flags
	nlaNested    = 0x8000 // NLA_F_NESTED
	nlaByteOrder = 0x4000 // NLA_F_NET_BYTEORDER
)

// Message types: the subsystem in the upper byte, the message in the lower.
const (
	msgCtNew     uint16 = 1 << 8   // IPCTNL_MSG_CT_NEW
	msgCtGet     uint16 = 1<<8 | 1 // IPCTNL_MSG_CT_GET
	msgCtDelete  uint16 = 1<<8 | 2 // IPCTNL_MSG_CT_DELETE
	msgExpNew    uint16 = 2 << 8   // IPCTNL_MSG_EXP_NEW
	msgExpGet    uint16 = 2<<8 | 1 // IPCTNL_MSG_EXP_GET
	msgExpDelete uint16 = 2<<8 | 2 // IPCTNL_MSG_EXP_DELETE
)

// attr is an attribute number. Its meaning depends on the attribute it is
// nested in.
type attr uint16

// Attributes of a flow (enum ctattr_type).
const (
	ctaTupleOrig     attr = 1  // CTA_TUPLE_ORIG, nested tuple
	ctaTupleReply    attr = 2  // CTA_TUPLE_REPLY, nested tuple
	ctaStatus        attr = 3  // CTA_STATUS, u32
	ctaProtoinfo     attr = 4  // CTA_PROTOINFO, nested
	ctaHelp          attr = 5  // CTA_HELP, nested
	ctaNATSrc        attr = 6  // CTA_NAT_SRC, nested; only towards the kernel
	ctaTimeout       attr = 7  // CTA_TIMEOUT, u32, seconds
	ctaMark          attr = 8  // CTA_MARK, u32
	ctaCountersOrig  attr = 9  // CTA_COUNTERS_ORIG, nested
	ctaCountersReply attr = 10 // CTA_COUNTERS_REPLY, nested
	ctaUse           attr = 11 // CTA_USE, u32
	ctaID            attr = 12 // CTA_ID, u32
	ctaNATDst        attr = 13 // CTA_NAT_DST, nested; only towards the kernel
	ctaTupleMaster   attr = 14 // CTA_TUPLE_MASTER, nested tuple
	ctaSeqAdjOrig    attr = 15 // CTA_SEQ_ADJ_ORIG, nested
	ctaSeqAdjReply   attr = 16 // CTA_SEQ_ADJ_REPLY, nested
	ctaZone          attr = 18 // CTA_ZONE, u16
	ctaTimestamp     attr = 20 // CTA_TIMESTAMP, nested
	ctaMarkMask      attr = 21 // CTA_MARK_MASK, u32
	ctaLabels        attr = 22 // CTA_LABELS, 16 bytes, host byte order
	ctaLabelsMask    attr = 23 // CTA_LABELS_MASK, 16 bytes, host byte order
	ctaSynproxy      attr = 24 // CTA_SYNPROXY, nested
	ctaFilter        attr = 25 // CTA_FILTER, nested; only in requests
	ctaStatusMask    attr = 26 // CTA_STATUS_MASK, u32; only in requests

	ctaMax = ctaStatusMask
)

// Inside a tuple (enum ctattr_tuple).
const (
	ctaTupleIP    attr = 1 // CTA_TUPLE_IP, nested
	ctaTupleProto attr = 2 // CTA_TUPLE_PROTO, nested
	ctaTupleZone  attr = 3 // CTA_TUPLE_ZONE, u16
)

// Inside CTA_TUPLE_IP (enum ctattr_ip).
const (
	ctaIPv4Src attr = 1 // CTA_IP_V4_SRC, 4 bytes
	ctaIPv4Dst attr = 2 // CTA_IP_V4_DST, 4 bytes
	ctaIPv6Src attr = 3 // CTA_IP_V6_SRC, 16 bytes
	ctaIPv6Dst attr = 4 // CTA_IP_V6_DST, 16 bytes
)

// Inside CTA_TUPLE_PROTO (enum ctattr_l4proto). GRE keys travel as ports.
const (
	ctaProtoNum        attr = 1 // CTA_PROTO_NUM, u8
	ctaProtoSrcPort    attr = 2 // CTA_PROTO_SRC_PORT, u16
	ctaProtoDstPort    attr = 3 // CTA_PROTO_DST_PORT, u16
	ctaProtoICMPID     attr = 4 // CTA_PROTO_ICMP_ID, u16
	ctaProtoICMPType   attr = 5 // CTA_PROTO_ICMP_TYPE, u8
	ctaProtoICMPCode   attr = 6 // CTA_PROTO_ICMP_CODE, u8
	ctaProtoICMPv6ID   attr = 7 // CTA_PROTO_ICMPV6_ID, u16
	ctaProtoICMPv6Type attr = 8 // CTA_PROTO_ICMPV6_TYPE, u8
	ctaProtoICMPv6Code attr = 9 // CTA_PROTO_ICMPV6_CODE, u8
)

// Inside CTA_NAT_SRC, CTA_NAT_DST (enum ctattr_nat) and CTA_NAT_PROTO.
const (
	ctaNATv4MinIP  attr = 1 // CTA_NAT_V4_MINIP, 4 bytes
	ctaNATv4MaxIP  attr = 2 // CTA_NAT_V4_MAXIP, 4 bytes
	ctaNATProto    attr = 3 // CTA_NAT_PROTO, nested
	ctaNATv6MinIP  attr = 4 // CTA_NAT_V6_MINIP, 16 bytes
	ctaNATv6MaxIP  attr = 5 // CTA_NAT_V6_MAXIP, 16 bytes
	ctaProtoNATMin attr = 1 // CTA_PROTONAT_PORT_MIN, u16
	ctaProtoNATMax attr = 2 // CTA_PROTONAT_PORT_MAX, u16
)

// Inside CTA_PROTOINFO (enum ctattr_protoinfo).
const (
	ctaProtoinfoTCP  attr = 1 // CTA_PROTOINFO_TCP, nested
	ctaProtoinfoDCCP attr = 2 // CTA_PROTOINFO_DCCP, nested
	ctaProtoinfoSCTP attr = 3 // CTA_PROTOINFO_SCTP, nested
)

// Inside CTA_PROTOINFO_TCP (enum ctattr_protoinfo_tcp).
const (
	ctaTCPState      attr = 1 // CTA_PROTOINFO_TCP_STATE, u8
	ctaTCPWScaleOrig attr = 2 // CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, u8
	ctaTCPWScaleRepl attr = 3 // CTA_PROTOINFO_TCP_WSCALE_REPLY, u8
	ctaTCPFlagsOrig  attr = 4 // CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, u8 flags, u8 mask
	ctaTCPFlagsRepl  attr = 5 // CTA_PROTOINFO_TCP_FLAGS_REPLY, u8 flags, u8 mask
)

// Inside CTA_PROTOINFO_DCCP (enum ctattr_protoinfo_dccp).
const (
	ctaDCCPState attr = 1 // CTA_PROTOINFO_DCCP_STATE, u8
	ctaDCCPRole  attr = 2 // CTA_PROTOINFO_DCCP_ROLE, u8
	ctaDCCPSeq   attr = 3 // CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ, u64
)

// Inside CTA_PROTOINFO_SCTP (enum ctattr_protoinfo_sctp).
const (
	ctaSCTPState    attr = 1 // CTA_PROTOINFO_SCTP_STATE, u8
	ctaSCTPVtagOrig attr = 2 // CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, u32
	ctaSCTPVtagRepl attr = 3 // CTA_PROTOINFO_SCTP_VTAG_REPLY, u32
)

// Inside the remaining nested attributes of a flow.
const (
	ctaCountersPackets attr = 1 // CTA_COUNTERS_PACKETS, u64
	ctaCountersBytes   attr = 2 // CTA_COUNTERS_BYTES, u64

	ctaTimestampStart attr = 1 // CTA_TIMESTAMP_START, u64, ns since 1970
	ctaTimestampStop  attr = 2 // CTA_TIMESTAMP_STOP, u64, ns since 1970

	ctaHelpName attr = 1 // CTA_HELP_NAME, text ending in NUL
	ctaHelpInfo attr = 2 // CTA_HELP_INFO, the helper's private data

	ctaSeqAdjPos    attr = 1 // CTA_SEQADJ_CORRECTION_POS, u32
	ctaSeqAdjBefore attr = 2 // CTA_SEQADJ_OFFSET_BEFORE, u32
	ctaSeqAdjAfter  attr = 3 // CTA_SEQADJ_OFFSET_AFTER, u32

	ctaSynproxyISN   attr = 1 // CTA_SYNPROXY_ISN, u32
	ctaSynproxyITS   attr = 2 // CTA_SYNPROXY_ITS, u32
	ctaSynproxyTSOff attr = 3 // CTA_SYNPROXY_TSOFF, u32
)

// Attributes of an expectation (enum ctattr_expect).
const (
	ctaExpectMaster   attr = 1  // CTA_EXPECT_MASTER, nested tuple
	ctaExpectTuple    attr = 2  // CTA_EXPECT_TUPLE, nested tuple
	ctaExpectMask     attr = 3  // CTA_EXPECT_MASK, nested tuple
	ctaExpectTimeout  attr = 4  // CTA_EXPECT_TIMEOUT, u32, seconds
	ctaExpectID       attr = 5  // CTA_EXPECT_ID, u32
	ctaExpectHelpName attr = 6  // CTA_EXPECT_HELP_NAME, text ending in NUL
	ctaExpectZone     attr = 7  // CTA_EXPECT_ZONE, u16
	ctaExpectFlags    attr = 8  // CTA_EXPECT_FLAGS, u32
	ctaExpectClass    attr = 9  // CTA_EXPECT_CLASS, u32
	ctaExpectNAT      attr = 10 // CTA_EXPECT_NAT, nested
	ctaExpectFn       attr = 11 // CTA_EXPECT_FN, text ending in NUL

	ctaExpectMax = ctaExpectFn

	ctaExpectNATDir   attr = 1 // CTA_EXPECT_NAT_DIR, u32
	ctaExpectNATTuple attr = 2 // CTA_EXPECT_NAT_TUPLE, nested tuple
)
