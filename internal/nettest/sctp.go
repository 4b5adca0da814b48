package nettest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"time"
)

// Kernels without an SCTP stack still track SCTP, so the lab speaks as much of
// it as an association needs, over raw sockets: the four-way handshake, and
// heartbeats as round trips.

// SCTP chunk types.
const (
	sctpInit         = 1
	sctpInitAck      = 2
	sctpHeartbeat    = 4
	sctpHeartbeatAck = 5
	sctpCookieEcho   = 10
	sctpCookieAck    = 11
)

// sctpAnswers maps what a server receives to what it sends back.
var sctpAnswers = map[uint8]uint8{
	sctpInit: sctpInitAck, sctpCookieEcho: sctpCookieAck, sctpHeartbeat: sctpHeartbeatAck,
}

// serverTag is the verification tag of every server.
const serverTag = 0x51525354

// An sctpPacket is a packet of one chunk. For INIT and INIT ACK body is the
// sender's tag.
type sctpPacket struct {
	sport, dport uint16
	tag          uint32
	chunk        uint8
	body         uint32
}

const sctpHeader = 12

func (p *sctpPacket) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, p.sport)
	b = binary.BigEndian.AppendUint16(b, p.dport)
	b = binary.BigEndian.AppendUint32(b, p.tag)
	b = append(b, 0, 0, 0, 0) // checksum
	b = append(b, p.chunk, 0)
	switch p.chunk {
	case sctpInit, sctpInitAck:
		b = binary.BigEndian.AppendUint16(b, 20)
		b = binary.BigEndian.AppendUint32(b, p.body)
		b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1) // window, streams, first TSN
	default:
		b = binary.BigEndian.AppendUint16(b, 8)
		b = binary.BigEndian.AppendUint32(b, p.body)
	}
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(b[8:], sum)
	return b
}

func (p *sctpPacket) parse(b []byte) bool {
	if len(b) < sctpHeader+8 {
		return false
	}
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.tag, p.chunk, p.body = binary.BigEndian.Uint32(b[4:]), b[sctpHeader], binary.BigEndian.Uint32(b[sctpHeader+4:])
	return true
}

// ServeSCTP answers on an SCTP port of the node, IPv4 and IPv6, until the lab
// closes.
func (n *Node) ServeSCTP(port uint16) error {
	for _, network := range []string{"ip4:132", "ip6:132"} {
		pc, err := n.rawSocket(network)
		if err != nil {
			return fmt.Errorf("serve sctp on %s: %w", n.Name, err)
		}
		go answerSCTP(pc, port)
	}
	return nil
}

func (n *Node) rawSocket(network string) (pc net.PacketConn, err error) {
	err = n.Do(func() error {
		pc, err = net.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	n.lab.OnClose(pc.Close)
	return pc, nil
}

func answerSCTP(pc net.PacketConn, port uint16) {
	tags := map[string]uint32{} // of the client, by address and port
	buf := make([]byte, 2048)
	for {
		size, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var in sctpPacket
		if err != nil || !in.parse(buf[:size]) || in.dport != port || sctpAnswers[in.chunk] == 0 {
			continue
		}
		client := fmt.Sprint(from, in.sport)
		out := sctpPacket{sport: port, dport: in.sport, chunk: sctpAnswers[in.chunk], body: in.body}
		if in.chunk == sctpInit {
			tags[client], out.body = in.body, serverTag
		}
		out.tag = tags[client]
		_, _ = pc.WriteTo(out.append(nil), from)
	}
}

// SCTPConn is a client's association with ServeSCTP.
type SCTPConn struct {
	pc     net.PacketConn
	local  uint16
	remote netip.AddrPort
	tag    uint32
	count  uint32
}

// DialSCTP opens an association from a port of the node.
func (n *Node) DialSCTP(local uint16, remote netip.AddrPort, timeout time.Duration) (*SCTPConn, error) {
	network := "ip4:132"
	if remote.Addr().Is6() {
		network = "ip6:132"
	}
	pc, err := n.rawSocket(network)
	if err != nil {
		return nil, fmt.Errorf("dial sctp from %s: %w", n.Name, err)
	}
	c := &SCTPConn{pc: pc, local: local, remote: remote, tag: uint32(local)<<16 | 1}
	if err := c.ask(sctpInit, 0, c.tag, timeout); err != nil {
		return nil, err
	}
	return c, c.ask(sctpCookieEcho, serverTag, 0, timeout)
}

// RoundTrip sends a heartbeat, again and again, until it is answered.
func (c *SCTPConn) RoundTrip(timeout time.Duration) error {
	c.count++
	return c.ask(sctpHeartbeat, serverTag, c.count, timeout)
}

func (c *SCTPConn) ask(chunk uint8, tag, body uint32, timeout time.Duration) error {
	out := sctpPacket{sport: c.local, dport: c.remote.Port(), tag: tag, chunk: chunk, body: body}
	want := sctpPacket{sport: out.dport, dport: out.sport, tag: c.tag, chunk: sctpAnswers[chunk], body: body}
	if chunk == sctpInit {
		want.body = serverTag
	}
	to := &net.IPAddr{IP: c.remote.Addr().AsSlice()}
	for end := time.Now().Add(timeout); time.Now().Before(end); {
		_, _ = c.pc.WriteTo(out.append(nil), to) // refused ones are sent again
		if c.await(want, time.Now().Add(resend)) {
			return nil
		}
	}
	return fmt.Errorf("round trip %s: chunk %d not answered within %v", c, chunk, timeout)
}

func (c *SCTPConn) await(want sctpPacket, until time.Time) bool {
	_ = c.pc.SetReadDeadline(until)
	buf := make([]byte, 2048)
	for {
		size, _, err := c.pc.ReadFrom(buf)
		if err != nil {
			return false
		}
		var in sctpPacket
		if in.parse(buf[:size]) && in == want {
			return true
		}
	}
}

func (c *SCTPConn) String() string {
	return fmt.Sprintf("sctp port %d > %v", c.local, c.remote)
}
