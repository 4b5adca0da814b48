package related

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

const tftpPort = 69

// The operations of TFTP (RFC 1350).
const (
	tftpRead uint16 = iota + 1
	_
	tftpData
	tftpAck
)

// A TFTPServer answers one read request after the other, each when told to.
type TFTPServer struct {
	node *nettest.Node
	conn net.PacketConn
}

// ServeTFTP opens the server's port. The caller closes the server.
func ServeTFTP(n *nettest.Node) (*TFTPServer, error) {
	c, err := listenPacket(n, ":"+strconv.Itoa(tftpPort))
	if err != nil {
		return nil, fmt.Errorf("serve TFTP on %s: %w", n.Name, err)
	}
	return &TFTPServer{n, c}, nil
}

// Close ends the server.
func (s *TFTPServer) Close() error { return s.conn.Close() }

// Request waits for a read request and returns where the data are to be sent.
func (s *TFTPServer) Request() (from netip.AddrPort, err error) {
	buf := make([]byte, 1500)
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return from, err
	}
	n, addr, err := s.conn.ReadFrom(buf)
	if err != nil {
		return from, fmt.Errorf("wait for TFTP request: %w", err)
	}
	if n < 4 || binary.BigEndian.Uint16(buf) != tftpRead {
		return from, fmt.Errorf("TFTP request %q is not a read request", buf[:n])
	}
	return addr.(*net.UDPAddr).AddrPort(), nil
}

// Answer sends the content from a port of its own, again and again, until the
// client has acknowledged it.
func (s *TFTPServer) Answer(to netip.AddrPort) error {
	c, err := listenPacket(s.node, ":0")
	if err != nil {
		return fmt.Errorf("answer TFTP request: %w", err)
	}
	defer func() { _ = c.Close() }()
	block := append(tftpHeader(tftpData), Content...)
	buf := make([]byte, 1500)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := c.WriteTo(block, net.UDPAddrFromAddrPort(to)); err != nil {
			return fmt.Errorf("answer TFTP request: %w", err)
		}
		if err := c.SetReadDeadline(time.Now().Add(patience / 16)); err != nil {
			return err
		}
		if n, _, err := c.ReadFrom(buf); err == nil && bytes.Equal(buf[:n], tftpHeader(tftpAck)) {
			return nil
		}
	}
	return fmt.Errorf("answer TFTP request: %v does not acknowledge", to)
}

func tftpHeader(op uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, op), 1)
}

// A TFTP is the client's side of one transfer.
type TFTP struct{ conn net.PacketConn }

// RequestTFTP asks a server for its file. From here on the firewall expects
// the data.
func RequestTFTP(n *nettest.Node, server netip.Addr) (*TFTP, error) {
	c, err := listenPacket(n, ":0")
	if err != nil {
		return nil, fmt.Errorf("request by TFTP: %w", err)
	}
	request := append(binary.BigEndian.AppendUint16(nil, tftpRead), "file\x00octet\x00"...)
	if _, err := c.WriteTo(request, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, tftpPort))); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("request by TFTP: %w", err)
	}
	return &TFTP{c}, nil
}

// Close ends the transfer.
func (t *TFTP) Close() error { return t.conn.Close() }

// Receive waits for the data and acknowledges them.
func (t *TFTP) Receive() (string, error) {
	if err := t.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, from, err := t.conn.ReadFrom(buf)
	if err != nil {
		return "", fmt.Errorf("receive by TFTP: %w", err)
	}
	text, ok := bytes.CutPrefix(buf[:n], tftpHeader(tftpData))
	if !ok {
		return "", fmt.Errorf("receive by TFTP: %q is not the first block", buf[:n])
	}
	_, err = t.conn.WriteTo(tftpHeader(tftpAck), from)
	return string(text), err
}
