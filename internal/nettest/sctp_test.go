package nettest

import (
	"net/netip"
	"testing"
	"time"
)

func TestSCTPRoundTrips(t *testing.T) {
	lab := Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	if err := two.B.ServeSCTP(4000); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []netip.Addr{SyncB, SyncB6} {
		c, err := two.A.DialSCTP(3000, netip.AddrPortFrom(addr, 4000), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.RoundTrip(5 * time.Second); err != nil {
			t.Error(err)
		}
		if _, err := two.A.DialSCTP(3001, netip.AddrPortFrom(addr, 4001), 300*time.Millisecond); err == nil {
			t.Error("an association with a port nobody serves")
		}
	}
}

// TestSCTPPacket holds the checksum to one computed by another implementation.
func TestSCTPPacket(t *testing.T) {
	p := sctpPacket{sport: 3000, dport: 4000, tag: 0x01020304, chunk: sctpHeartbeat, body: 7}
	b := p.append(nil)
	want := "\x0b\xb8\x0f\xa0\x01\x02\x03\x04\xf4\x1e\x82\x17\x04\x00\x00\x08\x00\x00\x00\x07"
	if string(b) != want {
		t.Errorf("got %x, want %x", b, want)
	}
	var back sctpPacket
	if !back.parse(b) || back != p {
		t.Errorf("read back as %+v", back)
	}
	if back.parse(b[:19]) {
		t.Error("a cut packet is accepted")
	}
}
