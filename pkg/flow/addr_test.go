package flow

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestAddrAppend(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "255.255.255.255", "10.0.0.1",
		"::", "::1", "1::", "::ffff:1.2.3.4", "::1.2.3.4", "::0.1.0.0", "::1:2", "1::2", "fe80::1:0:0:2", "1:0:0:2::3",
		"1:0:2:0:3:0:4:0", "0:1:2:3:4:5:6:7", "1:2:3:4:5:6:7:0", "2001:db8::ffff:0:1", "::ffff:0:0:1", "ffff::",
	} {
		a, family := addr(s), familyOf(s)
		want := s
		if s == "::1:2" { // six zero groups: inet_ntop takes it for IPv4
			want = "::0.1.0.2"
		}
		if got := string(a.Append(nil, family)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Random addresses with many zero groups read back as themselves, and are
// written as net/netip writes them wherever that has no dots.
func TestAddrAppendRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var a Addr
		for i := 0; i < 16; i += 2 {
			switch r.IntN(4) {
			case 0:
				a[i], a[i+1] = byte(r.Uint32()), byte(r.Uint32())
			case 1:
				a[i+1] = byte(r.Uint32())
			case 2:
				if i == 10 {
					a[i], a[i+1] = 0xff, 0xff
				}
			}
		}
		text := string(a.Append(nil, IPv6))
		back, err := netip.ParseAddr(text)
		if err != nil || back.As16() != [16]byte(a) {
			t.Fatalf("% x written as %s, read as %v %v", a, text, back, err)
		}
		if want := netip.AddrFrom16(a).String(); text != want && !a.holdsIPv4(a.zeroRun()) {
			t.Fatalf("% x: got %s, want %s", a, text, want)
		}
	}
}
