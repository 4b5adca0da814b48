package kernel

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// request is what a message asks the kernel to do.
type request uint8

const (
	reqCreate      request = 1 << iota // fails if the original or the reply tuple exists
	reqUpdate                          // of an existing entry, found by its original tuple
	reqProbe                           // reqUpdate that answers with the entry
	reqGet                             // by original tuple
	reqDelete                          // by original tuple, and ID if known
	reqGetReply                        // by reply tuple
	reqDeleteReply                     // by reply tuple, and ID if known
	reqRenew                           // sets the timeout of an existing entry and nothing else

	reqByOrig  = reqCreate | reqUpdate | reqProbe | reqGet | reqDelete | reqRenew
	reqByReply = reqGetReply | reqDeleteReply
	reqWrite   = reqCreate | reqUpdate | reqProbe
)

// header is the message type and the flags of a request.
func (r request) header() (msgType, flags uint16) {
	switch r {
	case reqCreate:
		return msgCtNew, unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	case reqUpdate, reqRenew:
		return msgCtNew, unix.NLM_F_REQUEST
	case reqProbe:
		return msgCtNew, unix.NLM_F_REQUEST | unix.NLM_F_ECHO
	case reqDelete, reqDeleteReply:
		return msgCtDelete, unix.NLM_F_REQUEST
	}
	return msgCtGet, unix.NLM_F_REQUEST
}

// encodeRow writes one attribute of a flow into the requests of in, if the flow
// has any of has; zero: always.
type encodeRow struct {
	in  request
	has flow.Has
	put func(*encoder, *flow.Flow)
}

// encodeRows are all attributes that the kernel takes. It refuses an update
// with a reply tuple, NAT, helper or master, so only a create has them.
var encodeRows = [...]encodeRow{
	{reqByOrig, 0, (*encoder).putOrig},
	{reqCreate, 0, (*encoder).putMirror},
	{reqByReply, 0, (*encoder).putReply},
	{reqByOrig | reqByReply, flow.HasZone, (*encoder).putZone},
	{reqWrite, flow.HasStatus, (*encoder).putStatus},
	{reqWrite | reqRenew, flow.HasTimeout, (*encoder).putTimeout},
	{reqWrite, flow.HasMark, (*encoder).putMark},
	{reqWrite, 0, (*encoder).putProtoinfo},
	{reqWrite, flow.HasSeqOrig, (*encoder).putSeqAdjOrig},
	{reqWrite, flow.HasSeqRepl, (*encoder).putSeqAdjReply},
	{reqWrite, flow.HasLabels, (*encoder).putLabels},
	{reqWrite, flow.HasSynproxy, (*encoder).putSynproxy},
	{reqCreate, flow.HasHelper, (*encoder).putHelper},
	{reqCreate, flow.HasMaster, (*encoder).putMaster},
	{reqCreate, flow.HasNAT, (*encoder).putNATSrc},
	{reqCreate, flow.HasNAT, (*encoder).putNATDst},
	{reqDelete | reqDeleteReply, flow.HasID, (*encoder).putID},
}

// encoder appends requests to a buffer that its owner reuses.
type encoder struct {
	buf     []byte
	liberal bool // set the be-liberal flag of TCP
}

// flow appends one request. What f.Has names is written, and of that what the
// request can carry.
func (e *encoder) flow(r request, seq uint32, f *flow.Flow) {
	msgType, flags := r.header()
	start := e.header(msgType, flags, seq, f.Family)
	for i := range encodeRows {
		row := &encodeRows[i]
		if row.in&r != 0 && (row.has == 0 || f.Has.Any(row.has)) {
			row.put(e, f)
		}
	}
	e.end(start)
}

// header starts a message (struct nlmsghdr, struct nfgenmsg); end finishes it.
func (e *encoder) header(msgType, flags uint16, seq uint32, family uint8) (start int) {
	start = len(e.buf)
	e.buf = append(e.buf, 0, 0, 0, 0)
	e.buf = binary.NativeEndian.AppendUint16(e.buf, msgType)
	e.buf = binary.NativeEndian.AppendUint16(e.buf, flags)
	e.buf = binary.NativeEndian.AppendUint32(e.buf, seq)
	e.buf = append(e.buf, 0, 0, 0, 0, family, unix.NFNETLINK_V0, 0, 0)
	return start
}

func (e *encoder) end(start int) {
	binary.NativeEndian.PutUint32(e.buf[start:], uint32(len(e.buf)-start))
}

// demandAck asks for an answer to the message at start even if it succeeds.
func (e *encoder) demandAck(start int) {
	flags := binary.NativeEndian.Uint16(e.buf[start+6:])
	binary.NativeEndian.PutUint16(e.buf[start+6:], flags|unix.NLM_F_ACK)
}

func (e *encoder) putOrig(f *flow.Flow) {
	e.tuple(ctaTupleOrig, &f.Key, f.Has.Has(flow.HasZoneOrig), f.Zone)
}

// putMirror writes the reply tuple without NAT: the kernel derives the true
// one from the NAT attributes, and would not know what to do to packets if it
// got it from here.
func (e *encoder) putMirror(f *flow.Flow) {
	m, _ := f.Mirror()
	e.tuple(ctaTupleReply, &m, f.Has.Has(flow.HasZoneRepl), f.ZoneRepl)
}

func (e *encoder) putReply(f *flow.Flow) {
	r, _ := f.Reply()
	e.tuple(ctaTupleReply, &r, f.Has.Has(flow.HasZoneRepl), f.ZoneRepl)
}

func (e *encoder) putZone(f *flow.Flow)    { e.u16(ctaZone, f.Zone) }
func (e *encoder) putStatus(f *flow.Flow)  { e.u32(ctaStatus, f.Status) }
func (e *encoder) putTimeout(f *flow.Flow) { e.u32(ctaTimeout, f.Timeout) }
func (e *encoder) putMark(f *flow.Flow)    { e.u32(ctaMark, f.Mark) }
func (e *encoder) putID(f *flow.Flow)      { e.u32(ctaID, f.ID) }

func (e *encoder) putSeqAdjOrig(f *flow.Flow)  { e.seqAdj(ctaSeqAdjOrig, &f.SeqAdj[0]) }
func (e *encoder) putSeqAdjReply(f *flow.Flow) { e.seqAdj(ctaSeqAdjReply, &f.SeqAdj[1]) }

func (e *encoder) seqAdj(t attr, s *flow.SeqAdj) {
	n := e.nest(t)
	e.u32(ctaSeqAdjPos, s.Pos)
	e.u32(ctaSeqAdjBefore, s.Before)
	e.u32(ctaSeqAdjAfter, s.After)
	e.endNest(n)
}

// putLabels needs no mask: without one the kernel replaces all labels.
func (e *encoder) putLabels(f *flow.Flow) {
	e.attr(ctaLabels, 4*len(f.Labels))
	for i := range f.Labels {
		e.buf = binary.NativeEndian.AppendUint32(e.buf, f.Labels[i^labelSwap])
	}
}

func (e *encoder) putSynproxy(f *flow.Flow) {
	n := e.nest(ctaSynproxy)
	e.u32(ctaSynproxyISN, f.Synproxy.ISN)
	e.u32(ctaSynproxyITS, f.Synproxy.ITS)
	e.u32(ctaSynproxyTSOff, f.Synproxy.TSOff)
	e.endNest(n)
}

func (e *encoder) putHelper(f *flow.Flow) {
	n := e.nest(ctaHelp)
	e.name(ctaHelpName, f.Helper[:])
	e.endNest(n)
}

func (e *encoder) putMaster(f *flow.Flow) {
	e.tuple(ctaTupleMaster, &f.Master, false, 0)
}

// tuple writes a nested tuple, with a zone of its own direction if zoned.
func (e *encoder) tuple(t attr, k *flow.Key, zoned bool, zone uint16) {
	n := e.nest(t)
	e.tupleIP(k)
	e.tupleProto(k)
	if zoned {
		e.u16(ctaTupleZone, zone)
	}
	e.endNest(n)
}

func (e *encoder) tupleIP(k *flow.Key) {
	n := e.nest(ctaTupleIP)
	if k.Family == flow.IPv6 {
		e.bytes(ctaIPv6Src, k.Src[:])
		e.bytes(ctaIPv6Dst, k.Dst[:])
	} else {
		e.bytes(ctaIPv4Src, k.Src[:4])
		e.bytes(ctaIPv4Dst, k.Dst[:4])
	}
	e.endNest(n)
}

func (e *encoder) tupleProto(k *flow.Key) {
	n := e.nest(ctaTupleProto)
	e.u8(ctaProtoNum, k.Proto)
	switch {
	case k.Proto == flow.ProtoICMP:
		e.u16(ctaProtoICMPID, k.Sport)
		e.u8(ctaProtoICMPType, uint8(k.Dport>>8))
		e.u8(ctaProtoICMPCode, uint8(k.Dport))
	case k.Proto == flow.ProtoICMPv6:
		e.u16(ctaProtoICMPv6ID, k.Sport)
		e.u8(ctaProtoICMPv6Type, uint8(k.Dport>>8))
		e.u8(ctaProtoICMPv6Code, uint8(k.Dport))
	case k.HasRealPorts() || k.Proto == flow.ProtoGRE:
		e.u16(ctaProtoSrcPort, k.Sport)
		e.u16(ctaProtoDstPort, k.Dport)
	}
	e.endNest(n)
}

// u8, u16, u32, bytes and name append one attribute with its padding.
func (e *encoder) u8(t attr, v uint8) {
	e.attr(t, 1)
	e.buf = append(e.buf, v, 0, 0, 0)
}

func (e *encoder) u16(t attr, v uint16) {
	e.attr(t, 2)
	e.buf = append(e.buf, byte(v>>8), byte(v), 0, 0)
}

func (e *encoder) u32(t attr, v uint32) {
	e.attr(t, 4)
	e.buf = binary.BigEndian.AppendUint32(e.buf, v)
}

func (e *encoder) bytes(t attr, b []byte) {
	e.attr(t, len(b))
	e.buf = append(e.buf, b...)
	for range -len(b) & 3 {
		e.buf = append(e.buf, 0)
	}
}

// name writes a NUL-padded name with exactly one NUL. A name that fills the
// array loses its last character, as the kernel's limit counts the NUL.
func (e *encoder) name(t attr, padded []byte) {
	n := bytes.IndexByte(padded[:len(padded)-1], 0)
	if n < 0 {
		n = len(padded) - 1
	}
	e.attr(t, n+1)
	e.buf = append(e.buf, padded[:n]...)
	for range 4 - n&3 {
		e.buf = append(e.buf, 0)
	}
}

// attr starts an attribute with size bytes of payload.
func (e *encoder) attr(t attr, size int) {
	e.buf = binary.NativeEndian.AppendUint16(e.buf, uint16(nlattrLen+size))
	e.buf = binary.NativeEndian.AppendUint16(e.buf, uint16(t))
}

// nest starts a nested attribute; endNest finishes it.
func (e *encoder) nest(t attr) (start int) {
	start = len(e.buf)
	e.attr(nlaNested|t, 0)
	return start
}

func (e *encoder) endNest(start int) {
	binary.NativeEndian.PutUint16(e.buf[start:], uint16(len(e.buf)-start))
}
