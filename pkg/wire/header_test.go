package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestClass walks every type and flag byte against the rules of
// docs/protocol.md 2.2, written the other way round.
func TestClass(t *testing.T) {
	for typ := range uint8(16) {
		for flags := range 256 {
			h := Header{Type: typ, Flags: uint8(flags)}
			want := Bad
			if typ <= 5 && flags&0x9f == 0 {
				want = Data
			}
			if typ == 10 {
				for _, c := range []struct {
					flag  int
					class Class
				}{{0x10, ALIVE}, {0x02, RESYNC}, {0x04, NACK}, {0x08, ACK}} {
					if flags&c.flag != 0 {
						want = c.class
					}
				}
			}
			if got := h.Class(); got != want {
				t.Errorf("type %d, flags %#02x: %v, want %v", typ, flags, got, want)
			}
		}
	}
}

func TestSerialOrder(t *testing.T) {
	for _, tt := range []struct {
		a, b   uint32
		before bool
	}{
		{1, 2, true},
		{2, 1, false},
		{5, 5, false},
		{0xffffffff, 0, true},
		{0, 0xffffffff, false},
		{0xfffffff0, 0x10, true},
		{0, 0x7fffffff, true},
		{0, 0x80000001, false},
		{0x80000001, 0, true},
	} {
		if got := Before(tt.a, tt.b); got != tt.before {
			t.Errorf("Before(%#x, %#x) = %v", tt.a, tt.b, got)
		}
		if got := After(tt.b, tt.a); got != tt.before {
			t.Errorf("After(%#x, %#x) = %v", tt.b, tt.a, got)
		}
	}
}

func TestAppendControl(t *testing.T) {
	for _, tt := range []struct {
		h    Header
		want string
	}{
		{Header{Type: Control, Flags: FlagALIVE | FlagHELLO, Seq: 0x6b0336d3}, "1a3000086b0336d3"},
		{Header{Flags: FlagALIVE, Seq: 1, From: 2, To: 3}, "1a10000800000001"},
		{Header{Type: Control, Flags: FlagACK | FlagHELLOBack, Seq: 1, From: 2, To: 3}, "1a480010000000010000000200000003"},
		{Header{Type: Control, Flags: FlagNACK, Seq: 0xffffffff, From: 0xfffffff0, To: 0}, "1a040010fffffffffffffff000000000"},
		{Header{Type: Control, Flags: FlagRESYNC | FlagHELLO, Seq: 9}, "1a220010000000090000000000000000"},
	} {
		got := AppendControl([]byte{0xee}, tt.h)
		if want, _ := hex.DecodeString("ee" + tt.want); !bytes.Equal(got, want) {
			t.Errorf("%+v: %x, want %x", tt.h, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for typ, want := range map[uint8]string{CTNew: "CT_NEW", ExpDel: "EXP_DEL", Control: "CTL", 6: "?", 9: "?", 11: "?", 255: "?"} {
		if got := TypeName(typ); got != want {
			t.Errorf("type %d: %q", typ, got)
		}
	}
	for c, want := range map[Class]string{Bad: "BAD", Data: "DATA", ALIVE: "ALIVE", 6: "?"} {
		if got := c.String(); got != want {
			t.Errorf("class %d: %q", c, got)
		}
	}
	seen := map[string]bool{}
	for e := FrameError(0); e < Incomplete+2; e++ {
		seen[e.Error()] = true
	}
	if len(seen) != 5 {
		t.Errorf("frame errors: %v", seen)
	}
}
