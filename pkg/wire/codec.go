package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// The codecs below are made from an accessor, so that reading and writing
// cannot disagree about the field. Their payloads are those of
// docs/protocol.md 3.3.

// u8 is one byte.
func u8[T any](at func(*T) *uint8) codec[T] {
	return codec[T]{
		min: 1, max: 1,
		read: func(v *T, p []byte, _ *Options) error { *at(v) = p[0]; return nil },
		put:  func(dst []byte, v *T, _ *Options) []byte { return append(dst, *at(v)) },
	}
}

// u16 is a big-endian 16-bit number.
func u16[T any](at func(*T) *uint16) codec[T] {
	return codec[T]{
		min: 2, max: 2,
		read: func(v *T, p []byte, _ *Options) error { *at(v) = binary.BigEndian.Uint16(p); return nil },
		put:  func(dst []byte, v *T, _ *Options) []byte { return binary.BigEndian.AppendUint16(dst, *at(v)) },
	}
}

// u16Swapped is a 16-bit number that C senders convert once too often: on the
// wire it has the byte order opposite to the sending host's network order,
// little-endian for nearly every peer (docs/protocol.md 3.2).
func u16Swapped[T any](at func(*T) *uint16) codec[T] {
	return codec[T]{
		min: 2, max: 2,
		read: func(v *T, p []byte, o *Options) error {
			*at(v) = binary.LittleEndian.Uint16(p)
			if o.BigEndian {
				*at(v) = bits.ReverseBytes16(*at(v))
			}
			return nil
		},
		put: func(dst []byte, v *T, o *Options) []byte {
			if o.BigEndian {
				return binary.BigEndian.AppendUint16(dst, *at(v))
			}
			return binary.LittleEndian.AppendUint16(dst, *at(v))
		},
	}
}

// u32 is a big-endian 32-bit number.
func u32[T any](at func(*T) *uint32) codec[T] {
	return codec[T]{
		min: 4, max: 4,
		read: func(v *T, p []byte, _ *Options) error { *at(v) = binary.BigEndian.Uint32(p); return nil },
		put:  func(dst []byte, v *T, _ *Options) []byte { return binary.BigEndian.AppendUint32(dst, *at(v)) },
	}
}

// words is n big-endian 32-bit numbers in the order at lists them.
func words[T any](n int, at func(v *T, i int) *uint32) codec[T] {
	return codec[T]{
		min: 4 * n, max: 4 * n,
		read: func(v *T, p []byte, _ *Options) error {
			for i := range n {
				*at(v, i) = binary.BigEndian.Uint32(p[4*i:])
			}
			return nil
		},
		put: func(dst []byte, v *T, _ *Options) []byte {
			for i := range n {
				dst = binary.BigEndian.AppendUint32(dst, *at(v, i))
			}
			return dst
		},
	}
}

// addrs is the source and destination address of a tuple of the family, which
// the attribute's number implies.
func addrs[T any](family uint8, at func(*T) *flow.Key) codec[T] {
	n := addrLen(family)
	return codec[T]{
		min: 2 * n, max: 2 * n,
		read: func(v *T, p []byte, _ *Options) error {
			k := at(v)
			k.Family = family
			k.Src, k.Dst = flow.Addr{}, flow.Addr{}
			copy(k.Src[:], p[:n])
			copy(k.Dst[:], p[n:])
			return nil
		},
		put: func(dst []byte, v *T, _ *Options) []byte {
			k := at(v)
			dst = append(dst, k.Src[:n]...)
			return append(dst, k.Dst[:n]...)
		},
	}
}

func addrLen(family uint8) int {
	if family == flow.IPv4 {
		return 4
	}
	return 16
}

// ports is the two ports of a tuple, or what the protocol keeps there.
func ports[T any](at func(*T) *flow.Key) codec[T] {
	return codec[T]{
		min: 4, max: 4,
		read: func(v *T, p []byte, _ *Options) error {
			k := at(v)
			k.Sport = binary.BigEndian.Uint16(p)
			k.Dport = binary.BigEndian.Uint16(p[2:])
			return nil
		},
		put: func(dst []byte, v *T, _ *Options) []byte {
			k := at(v)
			dst = binary.BigEndian.AppendUint16(dst, k.Sport)
			return binary.BigEndian.AppendUint16(dst, k.Dport)
		},
	}
}

// natAddr4 is a translated IPv4 address, reversed for old peers.
func natAddr4[T any](at func(*T) *flow.Addr) codec[T] {
	return codec[T]{
		min: 4, max: 4,
		read: func(v *T, p []byte, o *Options) error {
			a := at(v)
			*a = flow.Addr{}
			copy(a[:], p)
			if o.reversedNAT() {
				reverse(a[:])
			}
			return nil
		},
		put: func(dst []byte, v *T, o *Options) []byte {
			dst = append(dst, at(v)[:4]...)
			if o.reversedNAT() {
				reverse(dst[len(dst)-4:])
			}
			return dst
		},
	}
}

// natAddr6 is a translated IPv6 address.
func natAddr6[T any](at func(*T) *flow.Addr) codec[T] {
	return codec[T]{
		min: 16, max: 16,
		read: func(v *T, p []byte, _ *Options) error { copy(at(v)[:], p); return nil },
		put:  func(dst []byte, v *T, _ *Options) []byte { return append(dst, at(v)[:]...) },
	}
}

// name is text with its NUL, limit bytes in all. at returns the whole field,
// which is longer than limit; what follows the first NUL is dropped.
func name[T any](limit int, at func(*T) []byte) codec[T] {
	return codec[T]{
		min: 0, max: limit,
		read: func(v *T, p []byte, _ *Options) error {
			n := bytes.IndexByte(p, 0)
			if n < 0 {
				return ErrName
			}
			field := at(v)
			clear(field[copy(field, p[:n]):])
			return nil
		},
		put: func(dst []byte, v *T, _ *Options) []byte {
			field := at(v)
			return append(dst, field[:bytes.IndexByte(field, 0)+1]...)
		},
	}
}

// fits reports whether a name is there and, with its NUL, within limit.
func fits(field []byte, limit int) bool {
	n := bytes.IndexByte(field[:min(limit, len(field))], 0)
	return n > 0
}

// labels is the connlabel bit set as 32-bit words. A payload of another shape
// is ignored, and so are words beyond the 128 bits of Linux.
func labels[T any](at func(*T) *[4]uint32) codec[T] {
	return codec[T]{
		min: 0, max: 1024,
		read: func(v *T, p []byte, _ *Options) error {
			if len(p) == 0 || len(p)%4 != 0 {
				return errIgnore
			}
			w := at(v)
			*w = [4]uint32{}
			for i := range min(len(w), len(p)/4) {
				w[i] = binary.BigEndian.Uint32(p[4*i:])
			}
			return nil
		},
		put: func(dst []byte, v *T, _ *Options) []byte {
			for _, w := range at(v) {
				dst = binary.BigEndian.AppendUint32(dst, w)
			}
			return dst
		},
	}
}
