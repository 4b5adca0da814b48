// Package flood writes connection-tracking entries into a namespace's kernel
// fast: batches of raw ctnetlink requests without acknowledgement. It makes
// the load of the loss test and of the benchmarks, and the entries no tool can
// make (labels without a label file, translated ICMP). It shares no code with
// pkg/kernel, so that a mistake there can't hide itself.
package flood

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// IP protocols the encoder knows.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
	SCTP   = 132
)

// Status bits (enum ip_conntrack_status).
const (
	SeenReply = 1 << 1
	Assured   = 1 << 2
	Confirmed = 1 << 3
)

// Flow is one entry to write. Create sends everything, Update the tuple with
// timeout, mark, status, state and labels, Delete the tuple only. The reply
// tuple is the mirrored original; the kernel applies the translation to it.
type Flow struct {
	Proto        uint8
	Src, Dst     netip.Addr
	Sport, Dport uint16 // TCP, UDP, SCTP; for ICMP the id is Sport
	Type, Code   uint8  // ICMP, ICMPv6
	Zone         uint16
	Timeout      uint32 // seconds
	Mark         uint32
	Status       uint32
	State        uint8          // TCP, SCTP: the kernel's number; 0 is left out
	Vtag         [2]uint32      // SCTP
	SNAT, DNAT   netip.AddrPort // invalid: none; port 0: keep the port
	Labels       []byte         // CTA_LABELS, a multiple of 4 bytes; nil: none
	Helper       string
}

// An op is a kind of request.
type op struct {
	command uint16
	flags   uint16
}

var (
	opCreate = op{0, unix.NLM_F_CREATE | unix.NLM_F_EXCL} // IPCTNL_MSG_CT_NEW
	opUpdate = op{0, 0}
	opDelete = op{2, 0} // IPCTNL_MSG_CT_DELETE
)

const (
	nlmsgHeader = 16
	nested      = unix.NLA_F_NESTED
	subsystem   = 1 << 8 // NFNL_SUBSYS_CTNETLINK
)

// append adds one request to b; its length is written last.
func (f *Flow) append(b []byte, o op, seq uint32, ack bool) []byte {
	start := len(b)
	flags := uint16(unix.NLM_F_REQUEST) | o.flags
	if ack {
		flags |= unix.NLM_F_ACK
	}
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, subsystem|o.command)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0)          // port id: ours
	b = append(b, f.family(), 0, 0, 0) // nfgenmsg: family, version, resource id

	b = f.appendTuple(b, 1 /* CTA_TUPLE_ORIG */, false)
	if f.Zone != 0 {
		b = attr16(b, 18 /* CTA_ZONE */, f.Zone)
	}
	switch o {
	case opCreate:
		b = f.appendTuple(b, 2 /* CTA_TUPLE_REPLY */, true)
		b = f.appendNAT(b, 6 /* CTA_NAT_SRC */, f.SNAT)
		b = f.appendNAT(b, 13 /* CTA_NAT_DST */, f.DNAT)
		b = f.appendHelper(b)
		b = f.appendState(b)
	case opUpdate:
		b = f.appendState(b)
	}
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func (f *Flow) family() uint8 {
	if f.Src.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// appendState adds what an update may change too.
func (f *Flow) appendState(b []byte) []byte {
	b = attr32(b, 7 /* CTA_TIMEOUT */, f.Timeout)
	b = attr32(b, 8 /* CTA_MARK */, f.Mark)
	if f.Status != 0 {
		b = attr32(b, 3 /* CTA_STATUS */, f.Status|Confirmed)
	}
	if f.Labels != nil {
		b = attr(b, 22 /* CTA_LABELS */, f.Labels)
	}
	if f.State == 0 {
		return b
	}
	b, info := open(b, 4 /* CTA_PROTOINFO */)
	if f.Proto == SCTP {
		var sctp int
		b, sctp = open(b, 3 /* CTA_PROTOINFO_SCTP */)
		b = attr8(b, 1, f.State)
		b = attr32(b, 2, f.Vtag[0])
		b = attr32(b, 3, f.Vtag[1])
		closeAt(b, sctp)
	} else {
		var tcp int
		b, tcp = open(b, 1 /* CTA_PROTOINFO_TCP */)
		b = attr8(b, 1, f.State)
		closeAt(b, tcp)
	}
	closeAt(b, info)
	return b
}

func (f *Flow) appendTuple(b []byte, kind uint16, reply bool) []byte {
	src, dst, sport, dport := f.Src, f.Dst, f.Sport, f.Dport
	if reply {
		src, dst, sport, dport = dst, src, dport, sport
	}
	b, tuple := open(b, kind)
	b, ip := open(b, 1 /* CTA_TUPLE_IP */)
	first := uint16(1) // CTA_IP_V4_SRC
	if src.Is6() {
		first = 3 // CTA_IP_V6_SRC
	}
	b = attrAddr(b, first, src)
	b = attrAddr(b, first+1, dst)
	closeAt(b, ip)
	b, proto := open(b, 2 /* CTA_TUPLE_PROTO */)
	b = attr8(b, 1, f.Proto)
	switch f.Proto {
	case ICMP, ICMPv6:
		b = f.appendICMP(b, reply)
	default:
		b = attr16(b, 2, sport)
		b = attr16(b, 3, dport)
	}
	closeAt(b, proto)
	closeAt(b, tuple)
	return b
}

// appendICMP knows echo only: the reply to 8 is 0, to 128 it is 129.
func (f *Flow) appendICMP(b []byte, reply bool) []byte {
	first, typ := uint16(4), f.Type // CTA_PROTO_ICMP_ID
	if f.Proto == ICMPv6 {
		first = 7 // CTA_PROTO_ICMPV6_ID
	}
	if reply {
		typ = map[uint8]uint8{8: 0, 128: 129}[f.Type]
	}
	b = attr16(b, first, f.Sport)
	b = attr8(b, first+1, typ)
	return attr8(b, first+2, f.Code)
}

func (f *Flow) appendNAT(b []byte, kind uint16, to netip.AddrPort) []byte {
	if !to.IsValid() {
		return b
	}
	b, nat := open(b, kind)
	low := uint16(1) // CTA_NAT_V4_MINIP
	if to.Addr().Is6() {
		low = 4 // CTA_NAT_V6_MINIP
	}
	b = attrAddr(b, low, to.Addr())
	b = attrAddr(b, low+1, to.Addr())
	if to.Port() != 0 {
		var proto int
		b, proto = open(b, 3 /* CTA_NAT_PROTO */)
		b = attr16(b, 1, to.Port())
		b = attr16(b, 2, to.Port())
		closeAt(b, proto)
	}
	closeAt(b, nat)
	return b
}

func (f *Flow) appendHelper(b []byte) []byte {
	if f.Helper == "" {
		return b
	}
	b, help := open(b, 5 /* CTA_HELP */)
	b = attr(b, 1, append([]byte(f.Helper), 0))
	closeAt(b, help)
	return b
}

// open begins a nested attribute; closeAt writes its length.
func open(b []byte, kind uint16) ([]byte, int) {
	at := len(b)
	b = append(b, 0, 0)
	return binary.NativeEndian.AppendUint16(b, kind|nested), at
}

func closeAt(b []byte, at int) {
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
}

func attr(b []byte, kind uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// attrAddr is attr of an address, without an allocation.
func attrAddr(b []byte, kind uint16, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return attr(b, kind, v[:])
	}
	v := a.As16()
	return attr(b, kind, v[:])
}

func attr8(b []byte, kind uint16, v uint8) []byte {
	b = binary.NativeEndian.AppendUint16(b, 5)
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, v, 0, 0, 0)
}

func attr16(b []byte, kind, v uint16) []byte {
	b = binary.NativeEndian.AppendUint16(b, 6)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, v)
	return append(b, 0, 0)
}

func attr32(b []byte, kind uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, kind)
	return binary.BigEndian.AppendUint32(b, v)
}
