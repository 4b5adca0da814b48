package wire

import "encoding/binary"

// Message is one message of a datagram. Body and Raw alias the datagram and
// live as long as it does.
type Message struct {
	Header
	Body []byte // what follows the header
	Raw  []byte // the whole message
}

// FrameError says why Next found no acceptable message. Each value stands for
// one of the counters of docs/protocol.md 1.3; all of them but Incomplete
// also count as malformed.
type FrameError uint8

const (
	// Truncated: the rest is shorter than a header.
	Truncated FrameError = iota + 1
	// BadSize: the length field cannot be true.
	BadSize
	// BadVersion: the message is of another protocol version. It is well
	// framed, so the messages after it are good.
	BadVersion
	// Incomplete: more bytes are needed. Only NextStream says so; nothing is
	// counted.
	Incomplete
)

var frameErrors = [...]string{
	Truncated:  "parse message: truncated",
	BadSize:    "parse message: bad size",
	BadVersion: "parse message: unknown protocol version",
	Incomplete: "parse message: incomplete",
}

func (e FrameError) Error() string {
	if int(e) < len(frameErrors) && e != 0 {
		return frameErrors[e]
	}
	return "parse message: unknown error"
}

// RestLost reports whether nothing after the message can be read: the caller
// drops the rest of the datagram. It is false for BadVersion, which skips one
// message.
func (e FrameError) RestLost() bool { return e != BadVersion }

// Next takes the first message off the datagram b, which must not be empty:
// an empty datagram means nothing and is not an error. It makes the checks 1
// to 7 of docs/protocol.md 1.3; err is nil or a FrameError. After BadVersion m and
// rest are valid and the caller goes on with rest; after the others both are
// zero. The next message starts exactly where the length field says, without
// rounding.
func Next(b []byte) (m Message, rest []byte, err error) {
	m, rest, err = NextStream(b)
	if err == Incomplete {
		err = Truncated
		if n := fieldLen(b); n > len(b) {
			err = BadSize
		}
	}
	return m, rest, err
}

// NextStream is Next for a byte stream: where a datagram would be cut short it
// returns Incomplete, and the caller tries again with b and more bytes. Any
// other error but BadVersion means the framing is lost for good.
func NextStream(b []byte) (m Message, rest []byte, err error) {
	n := fieldLen(b)
	switch {
	case len(b) < shortHeader:
		return m, nil, Incomplete
	case n == 0:
		return m, nil, BadSize
	case n > len(b):
		return m, nil, Incomplete
	}
	h := Header{Type: b[0] & 0xf, Flags: b[1], Seq: binary.BigEndian.Uint32(b[4:])}
	size := shortHeader
	if h.hasRange() {
		size = longHeader
		if len(b) < size {
			return m, nil, Incomplete
		}
	}
	if n < size {
		return m, nil, BadSize
	}
	if size == longHeader {
		h.From = binary.BigEndian.Uint32(b[8:])
		h.To = binary.BigEndian.Uint32(b[12:])
	}
	m = Message{Header: h, Body: b[size:n:n], Raw: b[:n:n]}
	if b[0]>>4 != version {
		return m, b[n:], BadVersion
	}
	return m, b[n:], nil
}

// fieldLen is the length field of the message at the start of b, 0 when b is
// too short to have a header.
func fieldLen(b []byte) int {
	if len(b) < shortHeader {
		return 0
	}
	return int(binary.BigEndian.Uint16(b[2:]))
}
