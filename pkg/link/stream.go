package link

import "encoding/binary"

// A stream cuts what comes from a connection into datagrams of whole messages.
// Messages follow each other without anything in between; each begins with its
// length in bytes 2 and 3 (docs/protocol.md 1.1 and 2).
type stream struct {
	buf        []byte
	start, end int // of what was received and not handed out yet
}

const (
	messageHeader = 8
	maxMessage    = 1<<16 - 1
	streamBuffer  = 4 * (maxMessage + 1)
)

// space returns where to receive to: there is always room for the rest of a
// message. What cut has returned before is void then.
func (s *stream) space() []byte {
	if s.buf == nil {
		s.buf = make([]byte, streamBuffer)
	}
	if s.start > 0 {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	return s.buf[s.end:]
}

// got says that n more bytes are in space.
func (s *stream) got(n int) { s.end += n }

// cut returns the next whole messages, as many as fit into size bytes, at
// least one; empty if none is complete. ok is false when the length after them
// cannot be one: from there on nothing has a meaning. That header is returned
// too, so that whoever parses it counts it.
func (s *stream) cut(size int) (datagram []byte, ok bool) {
	rest := s.buf[s.start:s.end]
	n := 0
	for len(rest)-n >= messageHeader {
		length := int(binary.BigEndian.Uint16(rest[n+2:]))
		if length < messageHeader {
			s.start = s.end
			n += messageHeader
			return rest[:n:n], false
		}
		if n+length > len(rest) || n > 0 && n+length > size {
			break
		}
		n += length
	}
	s.start += n
	return rest[:n:n], true
}

// reset forgets the rest of a message that will not come.
func (s *stream) reset() { s.start, s.end = 0, 0 }
