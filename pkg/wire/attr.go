package wire

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// attrHeader is the size of an attribute's length and number.
const attrHeader = 4

// row is everything there is to know about one attribute of T.
type row[T any] struct {
	num   uint8
	name  string
	needs flow.Has // sent when all of these hold; see the conditions below
	sets  flow.Has // known once the attribute has been read
	codec[T]
}

// codec reads and writes the payload of an attribute.
type codec[T any] struct {
	min, max int // payload bytes accepted
	read     func(v *T, p []byte, o *Options) error
	put      func(dst []byte, v *T, o *Options) []byte
}

// errIgnore is read's way to leave v alone: the attribute counts as absent.
var errIgnore = errors.New("ignore attribute")

// table is a set of rows in emission order, and the same by number.
type table[T any] struct {
	order []row[T]
	needs []flow.Has // of order, kept close together for the scan
	byNum []row[T]
	kinds uint64 // the numbers that belong to one kind of flow only
}

// newTable indexes rows, whose numbers must be 0 to len(rows)-1.
func newTable[T any](rows []row[T]) *table[T] {
	t := &table[T]{order: rows, byNum: make([]row[T], len(rows)), needs: make([]flow.Has, len(rows))}
	for i, r := range rows {
		t.byNum[r.num] = r
		t.needs[i] = r.needs
		if r.needs&anyKind != 0 {
			t.kinds |= bit(r.num)
		}
	}
	return t
}

func bit(num uint8) uint64 { return 1 << num }

// append appends the message of h and the rows of v whose needs are in have.
func (t *table[T]) append(dst []byte, h Header, o *Options, v *T, have flow.Has) []byte {
	start := len(dst)
	dst = appendHeader(dst, h, 0)
	for i, needs := range t.needs {
		if have&needs == needs {
			dst = t.order[i].append(dst, o, v)
		}
	}
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst
}

// append appends one attribute with its padding.
func (r *row[T]) append(dst []byte, o *Options, v *T) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, r.num)
	dst = r.put(dst, v, o)
	n := len(dst) - start
	binary.BigEndian.PutUint16(dst[start:], uint16(n))
	switch n & 3 {
	case 1:
		dst = append(dst, 0, 0, 0)
	case 2:
		dst = append(dst, 0, 0)
	case 3:
		dst = append(dst, 0)
	}
	return dst
}

// parse reads the attributes of body into v, except those with their bit in
// skip, and returns what is known then and which numbers were read. Four
// trailing bytes or fewer mean nothing, and the last attribute may lack its
// padding (docs/protocol.md 3.1).
func (t *table[T]) parse(o *Options, body []byte, v *T, skip uint64) (has flow.Has, seen uint64, err error) {
	for len(body) > attrHeader {
		n := int(binary.BigEndian.Uint16(body))
		num := int(binary.BigEndian.Uint16(body[2:]))
		if n > len(body) || n < attrHeader {
			return 0, 0, ErrAttrLength
		}
		if num >= len(t.byNum) {
			return 0, 0, ErrUnknownAttr
		}
		r := &t.byNum[num]
		if size := n - attrHeader; size < r.min || size > r.max {
			return 0, 0, ErrAttrSize
		}
		if skip>>num&1 == 0 {
			switch err := r.read(v, body[attrHeader:n], o); err {
			case nil:
				has |= r.sets
				seen |= bit(r.num)
			case errIgnore:
			default:
				return 0, 0, err
			}
		}
		body = body[min((n+3)&^3, len(body)):]
	}
	return has, seen, nil
}

// alien returns the numbers in seen that do not belong to a flow of this kind.
func (t *table[T]) alien(seen uint64, kind flow.Has) (alien uint64) {
	for s := seen & t.kinds; s != 0; s &= s - 1 {
		num := uint8(bits.TrailingZeros64(s))
		if t.byNum[num].needs&anyKind&^kind != 0 {
			alien |= bit(num)
		}
	}
	return alien
}

// Conditions that join the bits of flow.Has in row.needs, from the top down.
// The kinds are properties of the original tuple alone.
const (
	isIPv4 flow.Has = 1 << (63 - iota)
	isIPv6
	isTCP
	isSCTP
	isDCCP
	isICMP
	isPorted   // the wire has a place for its ports or keys
	masterIPv4 // the master tuple is IPv4
	masterIPv6
	masterPorted // expectations: the master's protocol lets ports travel
	natTuple     // expectations: something of the NAT tuple is known
	natIPv4      // expectations: its addresses have a number

	anyKind      = isIPv4 | isIPv6 | isTCP | isSCTP | isDCCP | isICMP | isPorted
	anyCondition = anyKind | masterIPv4 | masterIPv6 | masterPorted | natTuple | natIPv4
	always       = flow.Has(0)
)

// protoKind is the kind of each protocol that has attributes of its own.
var protoKind = [256]flow.Has{
	flow.ProtoTCP:     isTCP | isPorted,
	flow.ProtoUDP:     isPorted,
	flow.ProtoUDPLite: isPorted,
	flow.ProtoGRE:     isPorted,
	flow.ProtoSCTP:    isSCTP | isPorted,
	flow.ProtoDCCP:    isDCCP | isPorted,
	flow.ProtoICMP:    isICMP,
	flow.ProtoICMPv6:  isICMP,
}

// kindOf returns the kind bits of a tuple.
func kindOf(k *flow.Key) flow.Has {
	return protoKind[k.Proto] | family(k, isIPv4, isIPv6)
}

// family returns v4 or v6 after the family of the tuple.
func family(k *flow.Key, v4, v6 flow.Has) flow.Has {
	switch k.Family {
	case flow.IPv4:
		return v4
	case flow.IPv6:
		return v6
	}
	return 0
}

// sendsPorts reports whether C senders always send the ports of the protocol,
// known or not (docs/protocol.md 3.4).
func sendsPorts(proto uint8) bool {
	switch proto {
	case flow.ProtoTCP, flow.ProtoUDP, flow.ProtoSCTP, flow.ProtoDCCP:
		return true
	}
	return false
}
