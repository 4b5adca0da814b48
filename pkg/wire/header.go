package wire

import "encoding/binary"

// The version of the protocol, the high four bits of a message's first byte.
const version = 1

// Sizes of the two header forms in bytes (docs/protocol.md 2).
const (
	shortHeader = 8
	longHeader  = 16
)

// Message types (docs/protocol.md 2.1). The numbers between ExpDel and
// Control and those above Control are unused.
const (
	CTNew   uint8 = 0
	CTUpd   uint8 = 1
	CTDel   uint8 = 2
	ExpNew  uint8 = 3
	ExpUpd  uint8 = 4
	ExpDel  uint8 = 5
	Control uint8 = 10
)

// Header flags (docs/protocol.md 2.2). HELLO and HELLO_BACK go with every
// type, the others with Control only.
const (
	FlagRESYNC    uint8 = 0x02
	FlagNACK      uint8 = 0x04
	FlagACK       uint8 = 0x08
	FlagALIVE     uint8 = 0x10
	FlagHELLO     uint8 = 0x20
	FlagHELLOBack uint8 = 0x40
)

// flagsRange are the flags that make a control message carry a range.
const flagsRange = FlagACK | FlagNACK | FlagRESYNC

// Header is what every message starts with. From and To travel only with
// control messages that have ACK, NACK or RESYNC, and are zero otherwise. The
// length field belongs to the framing: see Message.Raw.
type Header struct {
	Type, Flags uint8
	Seq         uint32
	From, To    uint32 // first and last sequence number of the range, inclusive
}

// Class is what a receiver makes of a header.
type Class uint8

// The classes, in the words of docs/protocol.md 2.2.
const (
	Bad Class = iota
	Data
	ACK
	NACK
	RESYNC
	ALIVE
)

var classNames = [...]string{"BAD", "DATA", "ACK", "NACK", "RESYNC", "ALIVE"}

// String returns the name of the class in capitals.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "?"
}

// Class classifies the header as FTFW does; the first match wins
// (docs/protocol.md 2.2). NOTRACK differs in one point that is its own to
// make: there ACK and NACK are bad.
func (h Header) Class() Class {
	switch {
	case h.Type <= ExpDel:
		if h.Flags&^(FlagHELLO|FlagHELLOBack) == 0 {
			return Data
		}
	case h.Type != Control:
	case h.Flags&FlagACK != 0:
		return ACK
	case h.Flags&FlagNACK != 0:
		return NACK
	case h.Flags&FlagRESYNC != 0:
		return RESYNC
	case h.Flags&FlagALIVE != 0:
		return ALIVE
	}
	return Bad
}

// hasRange reports whether the long header form is used.
func (h Header) hasRange() bool {
	return h.Type == Control && h.Flags&flagsRange != 0
}

var typeNames = [...]string{
	CTNew: "CT_NEW", CTUpd: "CT_UPD", CTDel: "CT_DEL",
	ExpNew: "EXP_NEW", ExpUpd: "EXP_UPD", ExpDel: "EXP_DEL", Control: "CTL",
}

// TypeName returns the name of a message type in transcripts, "?" for an
// unused number.
func TypeName(t uint8) string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return "?"
}

// Before reports whether sequence number a comes before b, across the wrap
// from 2^32-1 to 0 (docs/protocol.md 4). Numbers 2^31 apart come before each
// other.
func Before(a, b uint32) bool { return int32(a-b) < 0 }

// After reports whether sequence number a comes after b.
func After(a, b uint32) bool { return int32(b-a) < 0 }

// AppendControl appends the control message of h to dst: 16 bytes with ACK,
// NACK or RESYNC, else 8. The type written is always Control.
func AppendControl(dst []byte, h Header) []byte {
	h.Type = Control
	if !h.hasRange() {
		return appendHeader(dst, h, shortHeader)
	}
	dst = appendHeader(dst, h, longHeader)
	dst = binary.BigEndian.AppendUint32(dst, h.From)
	return binary.BigEndian.AppendUint32(dst, h.To)
}

// appendHeader appends the short form with a length field of n bytes.
func appendHeader(dst []byte, h Header, n uint16) []byte {
	dst = append(dst, version<<4|h.Type, h.Flags, byte(n>>8), byte(n))
	return binary.BigEndian.AppendUint32(dst, h.Seq)
}
