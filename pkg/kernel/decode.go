package kernel

import (
	"encoding/binary"
	"errors"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Reasons why a message is not understood. The kernel sends none of these;
// they are counted, not logged one by one.
var (
	errNoHeader  = errors.New("decode message: shorter than nfgenmsg")
	errCut       = errors.New("decode message: attribute cut short")
	errShort     = errors.New("decode message: attribute value too short")
	errLong      = errors.New("decode message: name too long")
	errFamily    = errors.New("decode message: addresses of two families")
	errNoTuple   = errors.New("decode message: no original tuple")
	errHalfTuple = errors.New("decode message: tuple without both addresses")
	errOrder     = errors.New("decode message: reply tuple before original tuple")
)

// DecodeFlow reads an IPCTNL_MSG_CT_NEW or _DELETE message, from nfgenmsg on,
// into f, which is overwritten and keeps no reference to msg. Attributes and
// families we do not know are skipped. It does not allocate. After an error f
// holds nothing of use.
func DecodeFlow(msg []byte, f *flow.Flow) error {
	*f = flow.Flow{}
	if len(msg) < nfgenLen {
		return errNoHeader
	}
	if err := decodeRows(msg[nfgenLen:], f, flowAttrs[:]); err != nil {
		return err
	}
	if !f.Has.Has(flow.HasAddr) {
		return errNoTuple
	}
	return nil
}

// DecodeExpect reads an IPCTNL_MSG_EXP_NEW or _DELETE message, from nfgenmsg
// on, into e. Otherwise as DecodeFlow.
func DecodeExpect(msg []byte, e *flow.Expect) error {
	*e = flow.Expect{}
	if len(msg) < nfgenLen {
		return errNoHeader
	}
	if err := decodeRows(msg[nfgenLen:], e, expectAttrs[:]); err != nil {
		return err
	}
	if !e.Has.Has(flow.HasAddr) {
		return errNoTuple
	}
	return nil
}

// decodeTuple reads a tuple attribute into k and says what it held: HasAddr,
// HasProto, HasPorts, HasZone.
func decodeTuple(b []byte, k *flow.Key) (has flow.Has, err error) {
	if decodePlainTuple(b, k) {
		return flow.HasAddr | flow.HasProto | flow.HasPorts, nil
	}
	return decodeAnyTuple(b, k)
}

func decodeAnyTuple(b []byte, k *flow.Key) (has flow.Has, err error) {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			break
		}
		b = rest
		var h flow.Has
		switch t {
		case ctaTupleIP:
			h, err = decodeIP(v, k)
		case ctaTupleProto:
			h, err = decodeProto(v, k)
		case ctaTupleZone:
			if len(v) < 2 {
				return has, errShort
			}
			k.Zone, h = be16(v), flow.HasZone
		}
		if err != nil {
			return has, err
		}
		has |= h
	}
	if len(b) >= nlattrLen {
		return has, errCut
	}
	return has, nil
}

// A plain tuple is what the kernel writes for protocols with ports, nothing
// more and in this order. plain4 and plain6 are the headers of its attributes
// as 32-bit words of the machine.
var (
	plain4 = [...]uint32{attrWord(nlaNested|ctaTupleIP, 16), attrWord(ctaIPv4Src, 4), attrWord(ctaIPv4Dst, 4)}
	plain6 = [...]uint32{attrWord(nlaNested|ctaTupleIP, 40), attrWord(ctaIPv6Src, 16), attrWord(ctaIPv6Dst, 16)}

	plainProto = [...]uint32{attrWord(nlaNested|ctaTupleProto, 24),
		attrWord(ctaProtoNum, 1), attrWord(ctaProtoSrcPort, 2), attrWord(ctaProtoDstPort, 2)}
)

const (
	plainSize4 = 48 // of a plain tuple without its own header
	plainSize6 = 72
)

// attrWord is the header of an attribute with size bytes of payload.
func attrWord(t attr, size int) uint32 {
	var b [nlattrLen]byte
	binary.NativeEndian.PutUint16(b[:], uint16(nlattrLen+size))
	binary.NativeEndian.PutUint16(b[2:], uint16(t))
	return binary.NativeEndian.Uint32(b[:])
}

// decodePlainTuple reads a plain tuple into k; false: it is not one, and k is
// as it was. Nearly all tuples are, and it takes a fifth of the time.
func decodePlainTuple(b []byte, k *flow.Key) bool {
	word := binary.NativeEndian.Uint32
	switch {
	case len(b) == plainSize4 && k.Family != flow.IPv6:
		if word(b) != plain4[0] || word(b[4:]) != plain4[1] || word(b[12:]) != plain4[2] || !decodePlainProto(b[20:], k) {
			return false
		}
		k.Family = flow.IPv4
		copy(k.Src[:4], b[8:])
		copy(k.Dst[:4], b[16:])
		return true
	case len(b) == plainSize6 && k.Family != flow.IPv4:
		if word(b) != plain6[0] || word(b[4:]) != plain6[1] || word(b[24:]) != plain6[2] || !decodePlainProto(b[44:], k) {
			return false
		}
		k.Family = flow.IPv6
		copy(k.Src[:], b[8:])
		copy(k.Dst[:], b[28:])
		return true
	}
	return false
}

func decodePlainProto(b []byte, k *flow.Key) bool {
	word := binary.NativeEndian.Uint32
	_ = b[27]
	if word(b) != plainProto[0] || word(b[4:]) != plainProto[1] || word(b[12:]) != plainProto[2] || word(b[20:]) != plainProto[3] {
		return false
	}
	k.Proto, k.Sport, k.Dport = b[8], be16(b[16:]), be16(b[24:])
	return true
}

func decodeIP(b []byte, k *flow.Key) (flow.Has, error) {
	const src, dst = 1, 2
	seen := 0
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			break
		}
		b = rest
		family, size := flow.IPv4, 4
		if t == ctaIPv6Src || t == ctaIPv6Dst {
			family, size = flow.IPv6, 16
		}
		to := &k.Src
		switch t {
		case ctaIPv4Src, ctaIPv6Src:
			seen |= src
		case ctaIPv4Dst, ctaIPv6Dst:
			to = &k.Dst
			seen |= dst
		default:
			continue
		}
		if len(v) < size {
			return 0, errShort
		}
		if k.Family != 0 && k.Family != family {
			return 0, errFamily
		}
		k.Family = family
		copy(to[:size], v)
	}
	if len(b) >= nlattrLen {
		return 0, errCut
	}
	if seen != src|dst {
		return 0, errHalfTuple
	}
	return flow.HasAddr, nil
}

func decodeProto(b []byte, k *flow.Key) (has flow.Has, err error) {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			break
		}
		b = rest
		if int(t) >= len(protoSize) || protoSize[t] == 0 {
			continue
		}
		if len(v) < int(protoSize[t]) {
			return has, errShort
		}
		switch t {
		case ctaProtoNum:
			k.Proto = v[0]
			has |= flow.HasProto
			continue
		case ctaProtoSrcPort, ctaProtoICMPID, ctaProtoICMPv6ID:
			k.Sport = be16(v)
		case ctaProtoDstPort:
			k.Dport = be16(v)
		case ctaProtoICMPType, ctaProtoICMPv6Type:
			k.Dport = k.Dport&0xff | uint16(v[0])<<8
		case ctaProtoICMPCode, ctaProtoICMPv6Code:
			k.Dport = k.Dport&0xff00 | uint16(v[0])
		}
		has |= flow.HasPorts
	}
	if len(b) >= nlattrLen {
		return has, errCut
	}
	return has, nil
}

// protoSize is the size of each attribute inside CTA_TUPLE_PROTO.
var protoSize = [...]uint8{
	ctaProtoNum:        1,
	ctaProtoSrcPort:    2,
	ctaProtoDstPort:    2,
	ctaProtoICMPID:     2,
	ctaProtoICMPType:   1,
	ctaProtoICMPCode:   1,
	ctaProtoICMPv6ID:   2,
	ctaProtoICMPv6Type: 1,
	ctaProtoICMPv6Code: 1,
}

// decodeName copies text that may end in NUL into a fixed field that keeps
// room for a NUL.
func decodeName(b, to []byte) error {
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	if len(b) >= len(to) {
		return errLong
	}
	clear(to[copy(to, b):])
	return nil
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
