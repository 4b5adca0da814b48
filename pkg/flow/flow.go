// Package flow holds the words everything else speaks: the key of a
// connection, the connection itself, the expectation, the event and the
// userspace filter. They are plain values without pointers, so slabs of them
// cost the collector nothing, and the package does no I/O.
//
// All numbers are in host byte order; addresses are in network order.
package flow

// Address families, the kernel's AF_INET and AF_INET6 (nfgen_family).
const (
	IPv4 uint8 = 2
	IPv6 uint8 = 10
)

// IP protocol numbers with fields of their own.
const (
	ProtoICMP    uint8 = 1
	ProtoTCP     uint8 = 6
	ProtoUDP     uint8 = 17
	ProtoDCCP    uint8 = 33
	ProtoGRE     uint8 = 47
	ProtoICMPv6  uint8 = 58
	ProtoSCTP    uint8 = 132
	ProtoUDPLite uint8 = 136
)

// Status bits, the kernel's enum ip_conntrack_status (CTA_STATUS).
const (
	StatusExpected     uint32 = 1 << 0
	StatusSeenReply    uint32 = 1 << 1
	StatusAssured      uint32 = 1 << 2
	StatusConfirmed    uint32 = 1 << 3
	StatusSrcNAT       uint32 = 1 << 4
	StatusDstNAT       uint32 = 1 << 5
	StatusSeqAdjust    uint32 = 1 << 6
	StatusSrcNATDone   uint32 = 1 << 7
	StatusDstNATDone   uint32 = 1 << 8
	StatusDying        uint32 = 1 << 9
	StatusFixedTimeout uint32 = 1 << 10
	StatusTemplate     uint32 = 1 << 11
	StatusNATClash     uint32 = 1 << 12
	StatusHelper       uint32 = 1 << 13
	StatusOffload      uint32 = 1 << 14
	StatusHWOffload    uint32 = 1 << 15
)

// Addr is an IP address in network order. An IPv4 address is in the first
// four bytes and the rest is zero.
type Addr [16]byte

// Key identifies a flow: its original tuple and the zone of that direction.
// It is comparable and free of pointers.
//
// What the two ports hold depends on Proto: ports for TCP, UDP, UDP-Lite,
// SCTP and DCCP; for ICMP and ICMPv6 Sport is the id and Dport type<<8|code;
// for GRE the two keys; zero for every other protocol.
type Key struct {
	Src, Dst           Addr
	Sport, Dport, Zone uint16
	Proto, Family      uint8
}

// Has says which attributes of a Flow or an Expect are known.
type Has uint64

// The attributes. An attribute whose bit is not set holds its zero value.
const (
	HasAddr       Has = 1 << iota // Src and Dst
	HasProto                      // Proto
	HasPorts                      // Sport and Dport, or what the protocol keeps there
	HasStatus                     // Status
	HasState                      // State
	HasTimeout                    // Timeout
	HasMark                       // Mark
	HasWScaleOrig                 // WScale[0]
	HasWScaleRepl                 // WScale[1]
	HasVtag                       // Vtag
	HasRole                       // Role
	HasMaster                     // Master addresses and protocol
	HasMasterPort                 // Master ports
	HasSNAT                       // NAT.Src
	HasDNAT                       // NAT.Dst
	HasSPAT                       // NAT.Sport
	HasDPAT                       // NAT.Dport
	HasSeqOrig                    // SeqAdj[0]
	HasSeqRepl                    // SeqAdj[1]
	HasHelper                     // Helper
	HasLabels                     // Labels
	HasSynproxy                   // Synproxy
	HasZone                       // Key.Zone is the zone of both directions (CTA_ZONE)
	HasZoneOrig                   // Key.Zone is the zone of the original direction only
	HasZoneRepl                   // ZoneRepl
	HasReply                      // the reply tuple is known; see Reply
	HasID                         // ID
	HasUse                        // Use
	HasCounters                   // Counters
	HasStart                      // Start
	HasStop                       // Stop
	HasMask                       // Expect.Mask
	HasFlags                      // Expect.Flags
	HasClass                      // Expect.Class
	HasNATDir                     // Expect.NATDir
	HasFn                         // Expect.Fn
)

// HasNAT are the four ways a reply tuple may differ from the mirrored
// original tuple.
const HasNAT = HasSNAT | HasDNAT | HasSPAT | HasDPAT

// Has reports whether all attributes of mask are known.
func (h Has) Has(mask Has) bool { return h&mask == mask }

// Any reports whether at least one attribute of mask is known.
func (h Has) Any(mask Has) bool { return h&mask != 0 }

// NAT is how the reply tuple differs from the mirrored original tuple. Each
// field has its own bit in Has and is zero without it.
type NAT struct {
	Src   Addr   // the reply's destination: the source after SNAT
	Dst   Addr   // the reply's source: the destination after DNAT
	Sport uint16 // the reply's destination port (ICMP: id) after SNAT
	Dport uint16 // the reply's source port after DNAT
}

// SeqAdj is one direction's TCP sequence adjustment (CTA_SEQ_ADJ_ORIG,
// CTA_SEQ_ADJ_REPLY). The offsets are signed in meaning.
type SeqAdj struct {
	Pos, Before, After uint32
}

// Synproxy is CTA_SYNPROXY.
type Synproxy struct {
	ISN, ITS, TSOff uint32
}

// Counters are one direction's packet and byte counts (CTA_COUNTERS_ORIG,
// CTA_COUNTERS_REPLY).
type Counters struct {
	Packets, Bytes uint64
}

// Flow is one connection-tracking entry with everything the daemon carries.
type Flow struct {
	Key
	Has      Has
	Status   uint32      // CTA_STATUS, kernel status bits
	Timeout  uint32      // CTA_TIMEOUT, seconds
	Mark     uint32      // CTA_MARK
	ID       uint32      // CTA_ID
	Use      uint32      // CTA_USE
	NAT      NAT         // reply tuple as differences
	State    uint8       // TCP, SCTP or DCCP state, the kernel's number
	WScale   [2]uint8    // TCP window scale, original and reply
	Role     uint8       // DCCP role
	ZoneRepl uint16      // CTA_TUPLE_ZONE of the reply tuple
	Vtag     [2]uint32   // SCTP verification tags, original and reply
	Master   Key         // original tuple of the master flow; its Zone is unused
	SeqAdj   [2]SeqAdj   // original and reply
	Synproxy Synproxy    // CTA_SYNPROXY
	Helper   [16]byte    // CTA_HELP_NAME, NUL-padded
	Labels   [4]uint32   // CTA_LABELS: bit n is in word n/32 at n%32
	Counters [2]Counters // original and reply
	Start    uint64      // CTA_TIMESTAMP_START, nanoseconds since 1970
	Stop     uint64      // CTA_TIMESTAMP_STOP
}

// Name returns the text of a NUL-padded name.
func Name(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// IsICMP reports whether the key's ports hold id and type<<8|code.
func (k *Key) IsICMP() bool {
	return k.Proto == ProtoICMP || k.Proto == ProtoICMPv6
}

// HasRealPorts reports whether the protocol has 16-bit ports.
func (k *Key) HasRealPorts() bool {
	switch k.Proto {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP:
		return true
	}
	return false
}

// Mirror returns the tuple of the opposite direction without NAT. ok is false
// for an ICMP type that has no answer.
func (k *Key) Mirror() (m Key, ok bool) {
	m = *k
	m.Src, m.Dst = k.Dst, k.Src
	if k.IsICMP() {
		t, ok := replyType(k.Proto, uint8(k.Dport>>8))
		m.Dport = uint16(t)<<8 | k.Dport&0xff
		return m, ok
	}
	m.Sport, m.Dport = k.Dport, k.Sport
	return m, true
}

// replyType maps an ICMP request type to its reply type and back.
func replyType(proto, t uint8) (uint8, bool) {
	if proto == ProtoICMPv6 {
		switch t {
		case 128, 139:
			return t + 1, true
		case 129, 140:
			return t - 1, true
		}
		return t, false
	}
	switch t {
	case 8:
		return 0, true
	case 0:
		return 8, true
	case 13, 15, 17:
		return t + 1, true
	case 14, 16, 18:
		return t - 1, true
	}
	return t, false
}

// Reply returns the reply tuple: the mirrored original tuple with the NAT
// differences applied. ok is false for an ICMP type that has no answer.
func (f *Flow) Reply() (r Key, ok bool) {
	r, ok = f.Mirror()
	if f.Has.Has(HasSNAT) {
		r.Dst = f.NAT.Src
	}
	if f.Has.Has(HasDNAT) {
		r.Src = f.NAT.Dst
	}
	if f.IsICMP() {
		if f.Has.Has(HasSPAT) {
			r.Sport = f.NAT.Sport
		}
		return r, ok
	}
	if f.Has.Has(HasSPAT) {
		r.Dport = f.NAT.Sport
	}
	if f.Has.Has(HasDPAT) {
		r.Sport = f.NAT.Dport
	}
	return r, ok
}

// SetReply stores the reply tuple as differences from the mirrored original
// tuple: HasReply is set and the four NAT bits say exactly what differs.
func (f *Flow) SetReply(r *Key) {
	f.Has = f.Has&^HasNAT | HasReply
	f.NAT = NAT{}
	if r.Dst != f.Src {
		f.Has |= HasSNAT
		f.NAT.Src = r.Dst
	}
	if r.Src != f.Dst {
		f.Has |= HasDNAT
		f.NAT.Dst = r.Src
	}
	if f.IsICMP() {
		if r.Sport != f.Sport {
			f.Has |= HasSPAT
			f.NAT.Sport = r.Sport
		}
		return
	}
	if r.Dport != f.Sport {
		f.Has |= HasSPAT
		f.NAT.Sport = r.Dport
	}
	if r.Sport != f.Dport {
		f.Has |= HasDPAT
		f.NAT.Dport = r.Sport
	}
}

// Merge updates f with what src knows: attributes known to src replace, the
// others stay, and the tuple of f is never touched (docs/protocol.md 6.1). If
// src knows its reply tuple, that settles all of NAT.
func (f *Flow) Merge(src *Flow) {
	if src.Has.Has(HasReply) {
		f.Has &^= HasNAT
		f.NAT = src.NAT
	} else {
		f.NAT.merge(&src.NAT, src.Has)
	}
	f.mergeScalars(src)
	f.mergeRare(src)
	const tuple = HasAddr | HasProto | HasPorts | HasZone | HasZoneOrig
	f.Has |= src.Has &^ tuple
}

func (n *NAT) merge(src *NAT, has Has) {
	if has.Has(HasSNAT) {
		n.Src = src.Src
	}
	if has.Has(HasDNAT) {
		n.Dst = src.Dst
	}
	if has.Has(HasSPAT) {
		n.Sport = src.Sport
	}
	if has.Has(HasDPAT) {
		n.Dport = src.Dport
	}
}

func (f *Flow) mergeScalars(src *Flow) {
	if src.Has.Has(HasStatus) {
		f.Status = src.Status
	}
	if src.Has.Has(HasState) {
		f.State = src.State
	}
	if src.Has.Has(HasTimeout) {
		f.Timeout = src.Timeout
	}
	if src.Has.Has(HasMark) {
		f.Mark = src.Mark
	}
	if src.Has.Has(HasID) {
		f.ID = src.ID
	}
	if src.Has.Has(HasWScaleOrig) {
		f.WScale[0] = src.WScale[0]
	}
	if src.Has.Has(HasWScaleRepl) {
		f.WScale[1] = src.WScale[1]
	}
	if src.Has.Has(HasVtag) {
		f.Vtag = src.Vtag
	}
	if src.Has.Has(HasRole) {
		f.Role = src.Role
	}
}

func (f *Flow) mergeRare(src *Flow) {
	const rare = HasMaster | HasMasterPort | HasSeqOrig | HasSeqRepl | HasHelper | HasLabels |
		HasSynproxy | HasZoneRepl | HasUse | HasCounters | HasStart | HasStop
	if !src.Has.Any(rare) {
		return
	}
	if src.Has.Has(HasMaster) {
		f.Master = src.Master
	}
	if src.Has.Has(HasSeqOrig) {
		f.SeqAdj[0] = src.SeqAdj[0]
	}
	if src.Has.Has(HasSeqRepl) {
		f.SeqAdj[1] = src.SeqAdj[1]
	}
	if src.Has.Has(HasHelper) {
		f.Helper = src.Helper
	}
	if src.Has.Has(HasLabels) {
		f.Labels = src.Labels
	}
	if src.Has.Has(HasSynproxy) {
		f.Synproxy = src.Synproxy
	}
	if src.Has.Has(HasZoneRepl) {
		f.ZoneRepl = src.ZoneRepl
	}
	if src.Has.Has(HasUse) {
		f.Use = src.Use
	}
	if src.Has.Has(HasCounters) {
		f.Counters = src.Counters
	}
	if src.Has.Has(HasStart) {
		f.Start = src.Start
	}
	if src.Has.Has(HasStop) {
		f.Stop = src.Stop
	}
}
