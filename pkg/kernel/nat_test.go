package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// oldRules translate both ends; newRules translate nothing, know the NAT
// hooks, and let pass only what the table knows.
const (
	oldRules = `
flush ruleset
table inet t {
	chain pre {
		type nat hook prerouting priority -100;
		ip daddr 198.51.100.7 udp dport 53 dnat ip to 10.2.0.2:5353
		ip daddr 198.51.100.7 tcp dport 80 dnat ip to 10.2.0.2:8080
		ip6 daddr 2001:db8::7 udp dport 53 dnat ip6 to [fd02::2]:5353
		ip6 daddr 2001:db8::7 tcp dport 80 dnat ip6 to [fd02::2]:8080
	}
	chain post {
		type nat hook postrouting priority 100;
		oifname "wan" meta l4proto { tcp, udp } meta nfproto ipv4 snat ip to 10.2.0.1:61000-61999
		oifname "wan" meta l4proto { tcp, udp } meta nfproto ipv6 snat ip6 to [fd02::1]:61000-61999
	}
}`
	newRules = `
flush ruleset
table inet t {
	chain pre { type nat hook prerouting priority -100; }
	chain post { type nat hook postrouting priority 100; }
	chain in { type filter hook input priority 0; ct state invalid drop; meta l4proto udp ct state new drop; }
	chain pass { type filter hook forward priority 0; policy drop; ct state established,related accept; }
}`
)

// link is one connection through the firewall.
type link struct {
	name           string
	client, server net.Conn
	seen           string // the client's address as the server sees it
}

// TestCommittedFlowTranslates moves live connections, translated at both ends,
// from a firewall that has the rules for it to one that has none: what keeps
// them alive is what we write into its table.
func TestCommittedFlowTranslates(t *testing.T) {
	for _, liberal := range []bool{true, false} {
		t.Run(fmt.Sprintf("liberal %v", liberal), func(t *testing.T) {
			pair, err := nettest.Get(t).NewPair()
			check(t, err)
			check(t, pair.A.NFT(oldRules))
			check(t, pair.B.NFT(newRules))
			check(t, pair.MoveVIPs(pair.A))
			links := connect(t, pair)
			for _, l := range links {
				l.talk(t)
			}

			flows := carried(t, pair.A)
			check(t, pair.MoveVIPs(pair.B))
			for _, l := range links {
				l.silent(t)
			}
			inject(t, pair.B, WriterConfig{BeLiberal: liberal}, flows)
			for _, l := range links {
				for range 3 {
					l.talk(t)
				}
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connect opens TCP and UDP over IPv4 and IPv6 to the address that the
// firewall translates.
func connect(t *testing.T, pair *nettest.Pair) (links []*link) {
	t.Helper()
	for _, c := range []struct{ network, to, listen, seen string }{
		{"udp4", "198.51.100.7:53", "10.2.0.2:5353", "10.2.0.1"},
		{"tcp4", "198.51.100.7:80", "10.2.0.2:8080", "10.2.0.1"},
		{"udp6", "[2001:db8::7]:53", "[fd02::2]:5353", "fd02::1"},
		{"tcp6", "[2001:db8::7]:80", "[fd02::2]:8080", "fd02::1"},
	} {
		l := &link{name: c.network, seen: c.seen}
		accept := listen(t, pair.Server, c.network, c.listen)
		check(t, pair.Client.Do(func() (err error) {
			l.client, err = net.DialTimeout(c.network, c.to, 5*time.Second)
			return err
		}))
		t.Cleanup(func() { l.client.Close() })
		if c.network[:3] == "udp" {
			l.client.Write([]byte("first"))
		}
		l.server = accept()
		if host, _, err := net.SplitHostPort(l.server.RemoteAddr().String()); err != nil || host != c.seen {
			t.Fatalf("%s: server sees %v, want %s", l.name, l.server.RemoteAddr(), c.seen)
		}
		links = append(links, l)
	}
	return links
}

// listen opens the server's end; accept returns the connection with the first
// peer that comes.
func listen(t *testing.T, n *nettest.Node, network, at string) (accept func() net.Conn) {
	t.Helper()
	if network[:3] == "tcp" {
		var l net.Listener
		check(t, n.Do(func() (err error) { l, err = net.Listen(network, at); return err }))
		t.Cleanup(func() { l.Close() })
		return func() net.Conn {
			l.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
			c, err := l.Accept()
			check(t, err)
			t.Cleanup(func() { c.Close() })
			return c
		}
	}
	var p net.PacketConn
	check(t, n.Do(func() (err error) { p, err = net.ListenPacket(network, at); return err }))
	t.Cleanup(func() { p.Close() })
	return func() net.Conn {
		p.SetDeadline(time.Now().Add(5 * time.Second))
		_, peer, err := p.ReadFrom(make([]byte, 64))
		check(t, err)
		return &packetPeer{p, peer}
	}
}

// packetPeer is a net.Conn of a listening UDP socket with one peer.
type packetPeer struct {
	net.PacketConn
	peer net.Addr
}

func (p *packetPeer) RemoteAddr() net.Addr        { return p.peer }
func (p *packetPeer) Write(b []byte) (int, error) { return p.WriteTo(b, p.peer) }
func (p *packetPeer) Read(b []byte) (n int, err error) {
	n, from, err := p.ReadFrom(b)
	if err == nil && from.String() != p.peer.String() {
		return n, fmt.Errorf("packet from %v, the peer is %v", from, p.peer)
	}
	return n, err
}

// talk sends a word each way. Sockets are connected, so a packet with any
// other address or port than before does not arrive.
func (l *link) talk(t *testing.T) {
	t.Helper()
	for _, way := range []struct {
		name     string
		from, to net.Conn
	}{{"to server", l.client, l.server}, {"to client", l.server, l.client}} {
		word := fmt.Sprint(time.Now().UnixNano())
		if _, err := way.from.Write([]byte(word)); err != nil {
			t.Fatalf("%s %s: %v", l.name, way.name, err)
		}
		way.to.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 64)
		n, err := way.to.Read(buf)
		if err != nil || string(buf[:n]) != word {
			t.Fatalf("%s %s: read %q, %v, want %q", l.name, way.name, buf[:n], err, word)
		}
	}
}

// silent is the control: without the entry nothing passes. Only UDP can tell
// without leaving something to be sent again later.
func (l *link) silent(t *testing.T) {
	t.Helper()
	if l.name[:3] != "udp" {
		return
	}
	if _, err := l.client.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	l.server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := l.server.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%s: %d bytes passed a firewall that should know nothing: %v", l.name, n, err)
	}
}

// carried is what a peer would get to know of the firewall's table.
func carried(t *testing.T, n *nettest.Node) (flows []flow.Flow) {
	t.Helper()
	const local = flow.HasID | flow.HasUse | flow.HasCounters | flow.HasStart | flow.HasStop | flow.HasReply
	check(t, n.Do(func() error {
		return Dump(context.Background(), func(f *flow.Flow) error {
			if f.Proto == flow.ProtoTCP || f.Proto == flow.ProtoUDP {
				if !f.Has.Has(flow.HasSNAT | flow.HasDNAT | flow.HasSPAT | flow.HasDPAT) {
					return fmt.Errorf("flow of %v is not translated at both ends", show(&f.Key))
				}
				c := *f
				c.Has &^= local
				flows = append(flows, c)
			}
			return nil
		})
	}))
	if len(flows) != 4 {
		t.Fatalf("%d flows on the old firewall, want 4", len(flows))
	}
	return flows
}

func inject(t *testing.T, n *nettest.Node, config WriterConfig, flows []flow.Flow) {
	t.Helper()
	check(t, n.Do(func() error {
		w := openWriter(t, config)
		commit(t, w, Created, flows...)
		commit(t, w, Updated, flows...)
		return nil
	}))
}
