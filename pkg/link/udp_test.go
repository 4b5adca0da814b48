package link

import (
	"net/netip"
	"testing"
)

func TestLoopback(t *testing.T) {
	a, err := Open(Config{Transport: UDP, Interface: "lo", Local: netip.MustParseAddr("127.0.0.1"), Peer: netip.MustParseAddr("127.0.0.2"), Port: 39901})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Open(Config{Transport: UDP, Interface: "lo", Local: netip.MustParseAddr("127.0.0.2"), Peer: netip.MustParseAddr("127.0.0.1"), Port: 39901})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n, err := a.Send([][]byte{[]byte("one"), []byte("two")})
	if n != 2 || err != nil {
		t.Fatalf("sent %d: %v", n, err)
	}
	batch := NewBatch(8, 2048)
	n, err = b.Recv(batch)
	if err != nil || string(batch.Datagram(0)) != "one" {
		t.Fatalf("got %d %v", n, err)
	}
	t.Log(n, batch.From(0), a.Stats(), b.Stats(), a.MTU(), a.Status())
}
