// Package garbage makes datagrams that no sync link should carry: noise, what
// is cut short, what lies about its length or version, and messages that are
// well-formed and senseless. A seed makes the same ones again. It shares no
// code with pkg/wire, so that a mistake there can't hide itself.
//
// What it makes names no flow: no message has the addresses of one (IPV4, IPV6,
// docs/protocol.md 3.3), as whoever may speak for the other node could also say
// that a flow exists, and be believed.
package garbage

import (
	"encoding/binary"
	"math/rand/v2"
)

// Source makes datagrams. It is used by one goroutine.
type Source struct {
	rng  *rand.Rand
	buf  []byte
	next int
	// Seq is near the sequence numbers in use, if somebody knows them.
	Seq uint32
}

// New makes a source; the same seed says the same.
func New(seed uint64) *Source {
	return &Source{rng: rand.New(rand.NewPCG(seed, 0x6a09e667f3bcc909)), buf: make([]byte, 0, maxDatagram)}
}

// maxDatagram is the most that UDP over IPv4 carries.
const maxDatagram = 65507

// A Kind is one sort of garbage.
type Kind struct {
	Name string
	// make appends a datagram to the empty b.
	make func(s *Source, b []byte) []byte
	// rare ones are large: one in so many rounds. 0 is in each.
	rare int
}

// Kinds are all there are.
var Kinds = []Kind{
	{"empty", func(_ *Source, b []byte) []byte { return b }, 0},
	{"noise", (*Source).noise, 0},
	{"short", (*Source).short, 0},
	{"truncated", (*Source).truncated, 0},
	{"lying length", (*Source).lying, 0},
	{"wrong version", (*Source).version, 0},
	{"types and flags", (*Source).typed, 0},
	{"control", (*Source).control, 0},
	{"control nearby", (*Source).controlNear, 0},
	{"data with noise", (*Source).data, 0},
	{"data with attributes", (*Source).attributes, 0},
	{"attributes that lie", (*Source).badAttributes, 0},
	{"many", (*Source).many, 16},
	{"oversize", (*Source).oversize, 256},
}

// Next returns the next datagram, valid until the one after. All kinds come in
// turn.
func (s *Source) Next() []byte {
	for {
		k := &Kinds[s.next%len(Kinds)]
		round := s.next / len(Kinds)
		s.next++
		if k.rare == 0 || round%k.rare == 0 {
			s.buf = k.make(s, s.buf[:0])
			return s.buf
		}
	}
}

// Of returns a datagram of one kind, valid until the next.
func (s *Source) Of(k *Kind) []byte {
	s.buf = k.make(s, s.buf[:0])
	return s.buf
}

const (
	control   = 10
	shortSize = 8
	longSize  = 16
	rangeBits = 0x02 | 0x04 | 0x08 // RESYNC, NACK, ACK
)

// header appends a header with a length field of n.
func (s *Source) header(b []byte, typ, flags uint8, n int, seq uint32) []byte {
	b = append(b, 1<<4|typ, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	return binary.BigEndian.AppendUint32(b, seq)
}

func (s *Source) bytes(b []byte, n int) []byte {
	for ; n >= 8; n -= 8 {
		b = binary.NativeEndian.AppendUint64(b, s.rng.Uint64())
	}
	for range n {
		b = append(b, byte(s.rng.Uint32()))
	}
	return b
}

func (s *Source) noise(b []byte) []byte { return s.bytes(b, 1+s.rng.IntN(1400)) }

func (s *Source) short(b []byte) []byte { return s.bytes(b, 1+s.rng.IntN(shortSize-1)) }

// truncated is a good message without its end.
func (s *Source) truncated(b []byte) []byte {
	b = s.data(b)
	return b[:1+s.rng.IntN(len(b)-1)]
}

// lying is a message whose length field is anything but true.
func (s *Source) lying(b []byte) []byte {
	size := shortSize + s.rng.IntN(200)
	says := [...]int{0, 1, shortSize - 1, size - 1, size + 1, 2 * size, 0xffff, s.rng.IntN(1 << 16)}[s.rng.IntN(8)]
	return s.bytes(s.header(b, s.dataType(), 0, says, s.rng.Uint32()), size-shortSize)
}

func (s *Source) version(b []byte) []byte {
	b = s.data(b)
	b[0] = uint8(2+s.rng.IntN(15))<<4 | b[0]&0xf // 2 to 15, and 0
	return b
}

// typed is any type with any flags, well framed. A body that says much has
// little chance to be true.
func (s *Source) typed(b []byte) []byte {
	size := longSize + s.rng.IntN(100)
	return s.bytes(s.header(b, uint8(s.rng.IntN(16)), uint8(s.rng.IntN(256)), size, s.rng.Uint32()), size-shortSize)
}

// control is a good control message out of nowhere.
func (s *Source) control(b []byte) []byte {
	return s.controlMessage(b, s.rng.Uint32(), s.rng.Uint32(), s.rng.Uint32())
}

// controlNear is the same with numbers that might be in use.
func (s *Source) controlNear(b []byte) []byte {
	near := func() uint32 { return s.Seq + uint32(s.rng.IntN(20000)) - 10000 }
	from := near()
	return s.controlMessage(b, near(), from, from+uint32(s.rng.IntN(1000)))
}

func (s *Source) controlMessage(b []byte, seq, from, to uint32) []byte {
	flags := uint8(s.rng.IntN(256))
	if flags&rangeBits == 0 {
		return s.header(b, control, flags, shortSize, seq)
	}
	b = s.header(b, control, flags, longSize, seq)
	b = binary.BigEndian.AppendUint32(b, from)
	return binary.BigEndian.AppendUint32(b, to)
}

func (s *Source) dataType() uint8 { return uint8(s.rng.IntN(6)) }

// data is a good header of a data message with noise after it.
func (s *Source) data(b []byte) []byte {
	n := s.rng.IntN(300)
	return s.bytes(s.header(b, s.dataType(), 0, shortSize+n, s.rng.Uint32()), n)
}

// sizes are those of attributes with one size; see docs/protocol.md 3.3.
var sizes = map[uint16]int{
	2: 1, 3: 4, 4: 1, 5: 4, 6: 4, 7: 4, 10: 1, 11: 4, 12: 4, 13: 4, 14: 2, 15: 2, 16: 24,
	17: 1, 18: 4, 19: 4, 20: 1, 21: 1, 22: 1, 23: 1, 24: 2, 25: 1, 26: 1, 27: 8, 28: 16, 29: 16, 30: 16, 31: 12, 32: 2,
}

// attributes is a message with attributes of the right sizes, but for the
// addresses.
func (s *Source) attributes(b []byte) []byte {
	b = s.header(b, s.dataType(), uint8(s.rng.IntN(4))<<5, 0, s.rng.Uint32())
	for range s.rng.IntN(12) {
		number := uint16(2 + s.rng.IntN(31))
		size, ok := sizes[number]
		if !ok {
			continue
		}
		b = s.attribute(b, number, 4+size, size)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// badAttributes is one whose attributes lie about number or length.
func (s *Source) badAttributes(b []byte) []byte {
	b = s.header(b, s.dataType(), 0, 0, s.rng.Uint32())
	for range 1 + s.rng.IntN(8) {
		size := s.rng.IntN(40)
		b = s.attribute(b, uint16(s.rng.IntN(1<<16)), s.rng.IntN(2*size+8), size)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func (s *Source) attribute(b []byte, number uint16, says, size int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(says))
	b = binary.BigEndian.AppendUint16(b, number)
	b = s.bytes(b, size)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// many is a datagram full of small messages.
func (s *Source) many(b []byte) []byte {
	for len(b) < 1400 {
		if s.rng.IntN(2) == 0 {
			b = s.control(b)
		} else {
			b = s.header(b, s.dataType(), 0, shortSize, s.rng.Uint32())
		}
	}
	return b
}

func (s *Source) oversize(b []byte) []byte { return s.bytes(b, 1500+s.rng.IntN(maxDatagram-1500)) }
