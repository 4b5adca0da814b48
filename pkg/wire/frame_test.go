package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestNext has the checks of docs/protocol.md 1.3 one by one, and what the
// same bytes mean in a stream.
func TestNext(t *testing.T) {
	var ok error
	for _, tt := range []struct {
		name, datagram string
		err, stream    error
		length         int // of the message, when there is one
	}{
		{"1: nothing", "", Truncated, Incomplete, 0},
		{"1: seven bytes", "10000008000000", Truncated, Incomplete, 0},
		{"2: length 0", "1000000000000001", BadSize, BadSize, 0},
		{"3: length beyond the datagram", "1000000900000001", BadSize, Incomplete, 0},
		{"4: ACK in eight bytes", "1a08000800000001", Truncated, Incomplete, 0},
		{"4: RESYNC in fifteen bytes", "1a02000800000001aabbccddeeff00", Truncated, Incomplete, 0},
		{"5: NACK of length 15", "1a04000f0000000100000002000000030000", BadSize, BadSize, 0},
		{"6: length 7", "1000000700000001", BadSize, BadSize, 0},
		{"6: length 7, ALIVE", "1a10000700000001", BadSize, BadSize, 0},
		{"7: version 0", "0000000800000001", BadVersion, BadVersion, 8},
		{"7: version 15, odd length", "f000000b00000001aaaaaa", BadVersion, BadVersion, 11},
		{"3 before 7", "2000000900000001", BadSize, Incomplete, 0},
		{"5 before 7", "2a04000f0000000100000002000000030000", BadSize, BadSize, 0},
		{"shortest", "1000000800000001", ok, ok, 8},
		{"type 15 is not the framing's", "1fff000800000001", ok, ok, 8},
		{"ACK flag on data has no range", "1008000800000001", ok, ok, 8},
		{"ALIVE with a body", "1a10000a00000001aabb", ok, ok, 10},
		{"ACK with a body", "1a080012000000010000000200000003aabb", ok, ok, 18},
		{"not rounded", "1000000900000001aa1000000800000002", ok, ok, 9},
	} {
		b, err := hex.DecodeString(tt.datagram)
		if err != nil {
			t.Fatal(err)
		}
		m, rest, err := Next(b)
		checkNext(t, tt.name, b, m, rest, err, tt.err, tt.length)
		m, rest, err = NextStream(b)
		checkNext(t, tt.name+" (stream)", b, m, rest, err, tt.stream, tt.length)
	}
}

func checkNext(t *testing.T, name string, b []byte, m Message, rest []byte, err, want error, n int) {
	t.Helper()
	if err != want {
		t.Errorf("%s: %v, want %v", name, err, want)
		return
	}
	if !bytes.Equal(m.Raw, b[:n]) {
		t.Errorf("%s: message %x", name, m.Raw)
	}
	if err == nil || !err.(FrameError).RestLost() {
		if !bytes.Equal(rest, b[n:]) {
			t.Errorf("%s: rest %x", name, rest)
		}
	} else if rest != nil {
		t.Errorf("%s: rest %x though it is lost", name, rest)
	}
}

func TestNextReadsTheHeader(t *testing.T) {
	b, _ := hex.DecodeString("1a6c00120102030405060708090a0b0ccafe" + "1a100008000000ff")
	m, rest, err := Next(b)
	want := Header{Type: Control, Flags: FlagACK | FlagNACK | FlagHELLO | FlagHELLOBack,
		Seq: 0x01020304, From: 0x05060708, To: 0x090a0b0c}
	if err != nil || m.Header != want || !bytes.Equal(m.Body, []byte{0xca, 0xfe}) {
		t.Errorf("got %+v, body %x, %v", m.Header, m.Body, err)
	}
	m, rest, err = Next(rest)
	if err != nil || m.Header != (Header{Type: Control, Flags: FlagALIVE, Seq: 255}) || len(m.Body)+len(rest) != 0 {
		t.Errorf("got %+v, body %x, rest %x, %v", m.Header, m.Body, rest, err)
	}
}

// TestMessageCannotGrow: appending to a message does not write over the next.
func TestMessageCannotGrow(t *testing.T) {
	b, _ := hex.DecodeString("1000000800000001" + "1000000800000002")
	m, rest, _ := Next(b)
	_ = append(m.Raw, 0xff)
	_ = append(m.Body, 0xff)
	if rest[0] != 0x10 {
		t.Error("the next message was overwritten")
	}
}

// TestStreamInPieces cuts a stream at every byte: the messages stay the same.
func TestStreamInPieces(t *testing.T) {
	stream, _ := hex.DecodeString("1a3000086b0336d3" + "1a0800106b0336d46b0336d46b0336d4" + "1000000a00000003aabb" + "1a10000800000004")
	var want []Header
	for b := stream; len(b) > 0; {
		m, rest, err := Next(b)
		if err != nil {
			t.Fatal(err)
		}
		want, b = append(want, m.Header), rest
	}
	if len(want) != 4 {
		t.Fatalf("%d messages", len(want))
	}
	for cut := range stream {
		var got []Header
		var buf []byte
		for _, piece := range [][]byte{stream[:cut], stream[cut:]} {
			buf = append(buf, piece...)
			for {
				m, rest, err := NextStream(buf)
				if err == Incomplete {
					break
				}
				if err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				got, buf = append(got, m.Header), rest
			}
		}
		if len(buf) != 0 || len(got) != len(want) {
			t.Fatalf("cut at %d: %d messages, %d bytes left", cut, len(got), len(buf))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("cut at %d: message %d is %+v", cut, i, got[i])
			}
		}
	}
}
