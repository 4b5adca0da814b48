package wire

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
)

// segment is what one packet carries above UDP or TCP.
type segment struct {
	tcp      bool
	src, dst netip.AddrPort
	seq      uint32 // TCP
	syn      bool   // TCP
	data     []byte
}

// readPcap returns the UDP and TCP segments of a classic little-endian pcap
// file with Ethernet or Linux cooked headers.
func readPcap(t testing.TB, path string) (segs []segment) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint32(b) != 0xa1b2c3d4 {
		t.Fatalf("%s: not a little-endian pcap file", path)
	}
	link := le.Uint32(b[20:])
	for b = b[24:]; len(b) >= 16; {
		n := le.Uint32(b[8:])
		if s, ok := readNetwork(t, readLink(t, link, b[16:16+n])); ok {
			segs = append(segs, s)
		}
		b = b[16+n:]
	}
	return segs
}

// readLink strips the link header.
func readLink(t testing.TB, link uint32, p []byte) []byte {
	t.Helper()
	switch link {
	case 1: // Ethernet
		return p[14:]
	case 113: // Linux cooked
		return p[16:]
	case 276: // Linux cooked, version 2
		return p[20:]
	}
	t.Fatalf("link type %d not known", link)
	return nil
}

func readNetwork(t testing.TB, p []byte) (segment, bool) {
	t.Helper()
	be := binary.BigEndian
	switch {
	case p[0]>>4 == 4 && be.Uint16(p[6:])&0x3fff == 0:
		hl := int(p[0]&15) * 4
		return readTransport(p[9], p[12:16], p[16:20], p[hl:be.Uint16(p[2:])])
	case p[0]>>4 == 6:
		return readTransport(p[6], p[8:24], p[24:40], p[40:40+be.Uint16(p[4:])])
	}
	return segment{}, false
}

func readTransport(proto byte, src, dst, p []byte) (s segment, ok bool) {
	be := binary.BigEndian
	from, _ := netip.AddrFromSlice(src)
	to, _ := netip.AddrFromSlice(dst)
	if proto != 6 && proto != 17 {
		return s, false
	}
	s.src = netip.AddrPortFrom(from, be.Uint16(p))
	s.dst = netip.AddrPortFrom(to, be.Uint16(p[2:]))
	if proto == 17 {
		s.data = p[8:be.Uint16(p[4:])]
		return s, true
	}
	s.tcp, s.seq, s.syn = true, be.Uint32(p[4:]), p[13]&2 != 0
	s.data = p[p[12]>>4*4:]
	return s, true
}

// tcpStream puts the segments of one direction of a connection in order.
type tcpStream struct {
	next    uint32
	buf     []byte
	pending map[uint32][]byte
}

// add takes a segment; the new bytes are at the end of buf.
func (s *tcpStream) add(seg segment) {
	if seg.syn {
		*s = tcpStream{next: seg.seq + 1, pending: map[uint32][]byte{}}
		return
	}
	if s.pending == nil || len(seg.data) == 0 {
		return
	}
	s.pending[seg.seq] = seg.data
	for d, ok := s.pending[s.next]; ok; d, ok = s.pending[s.next] {
		delete(s.pending, s.next)
		s.buf = append(s.buf, d...)
		s.next += uint32(len(d))
	}
}

// pcapMessages returns every message of a capture in the order of completion.
func pcapMessages(t testing.TB, path string) (msgs []Message) {
	t.Helper()
	type ends struct{ src, dst netip.AddrPort }
	streams := map[ends]*tcpStream{}
	for _, seg := range readPcap(t, path) {
		if !seg.tcp {
			for b := seg.data; len(b) > 0; {
				m, rest, err := Next(b)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				msgs, b = append(msgs, m), rest
			}
			continue
		}
		s := streams[ends{seg.src, seg.dst}]
		if s == nil {
			s = &tcpStream{}
			streams[ends{seg.src, seg.dst}] = s
		}
		s.add(seg)
		for {
			m, rest, err := NextStream(s.buf)
			if err == Incomplete {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			msgs, s.buf = append(msgs, m), rest
		}
	}
	return msgs
}
