package wire

import (
	"bytes"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// seedBodies adds the bodies of all captured messages of the types and of the
// malformed vectors.
func seedBodies(f *testing.F, low, high uint8) {
	seen := map[string]bool{}
	add := func(m Message) {
		if m.Type >= low && m.Type <= high && !seen[string(m.Body)] {
			seen[string(m.Body)] = true
			f.Add(bytes.Clone(m.Body), false, uint8(0))
		}
	}
	for _, base := range captures(f) {
		for _, m := range pcapMessages(f, base+".pcap") {
			add(m)
		}
	}
	for _, v := range readVectors(f) {
		if m, _, err := Next(v.bytes(f)); err == nil {
			add(m)
		}
	}
}

func FuzzNext(f *testing.F) {
	for _, base := range captures(f) {
		for _, seg := range readPcap(f, base+".pcap") {
			f.Add(seg.data)
		}
	}
	for _, v := range readVectors(f) {
		f.Add(v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := Next(b)
			ms, rests, errs := NextStream(b)
			if err == nil != (errs == nil) || m.Header != ms.Header || len(rest) != len(rests) {
				t.Fatalf("datagram %v, stream %v", err, errs)
			}
			if err != nil && err.(FrameError).RestLost() {
				if m.Raw != nil || rest != nil || err == Incomplete {
					t.Fatalf("%v with message %x, rest %x", err, m.Raw, rest)
				}
				return
			}
			if len(m.Raw) < 8 || len(m.Raw)+len(rest) != len(b) || !bytes.HasSuffix(m.Raw, m.Body) {
				t.Fatalf("%d bytes into %d and %d", len(b), len(m.Raw), len(rest))
			}
			if err == nil && m.Class() != Data && m.Type == Control {
				if again := AppendControl(nil, m.Header); len(m.Body) == 0 && !bytes.Equal(again, m.Raw) {
					t.Fatalf("control message %x appended as %x", m.Raw, again)
				}
			}
			b = rest
		}
	})
}

func FuzzParseFlow(f *testing.F) {
	seedBodies(f, CTNew, CTDel)
	f.Fuzz(func(t *testing.T, body []byte, bigEndian bool, peer uint8) {
		o := Options{WindowScale: true, BigEndian: bigEndian, Peer: Version(peer) % (Since142 + 1)}
		fuzzParse(t, body, o.ParseFlow, func(v *flow.Flow) []byte { return o.AppendFlow(nil, Header{}, v) })
	})
}

func FuzzParseExpect(f *testing.F) {
	seedBodies(f, ExpNew, ExpDel)
	f.Fuzz(func(t *testing.T, body []byte, bigEndian bool, peer uint8) {
		o := Options{BigEndian: bigEndian, Peer: Version(peer) % (Since142 + 1)}
		if before, behind := AroundTimeout(body); !bytes.HasPrefix(body, before) || !bytes.HasSuffix(body[len(before):], behind) {
			t.Fatalf("%x is %x and %x around its timeout", body, before, behind)
		}
		fuzzParse(t, body, o.ParseExpect, func(v *flow.Expect) []byte { return o.AppendExpect(nil, Header{}, v) })
	})
}

// fuzzParse parses body and checks that the value keeps no reference to it,
// and that one round through our encoder makes it canonical: another round
// changes nothing.
func fuzzParse[T comparable](t *testing.T, body []byte, parse func([]byte, *T) error, append func(*T) []byte) {
	t.Helper()
	var first, second, third T
	if parse(body, &first) != nil {
		return
	}
	before := first
	clear(body)
	if first != before {
		t.Fatal("the value refers to its input")
	}
	raw := append(&first)
	if first != before {
		t.Fatal("appending changed the value")
	}
	if len(raw) > MaxMessage {
		t.Fatalf("message of %d bytes", len(raw))
	}
	m, rest, err := Next(raw)
	if err != nil || len(rest) != 0 {
		t.Fatalf("our own message: %v, %d bytes left", err, len(rest))
	}
	if err := parse(m.Body, &second); err != nil {
		t.Fatalf("our own message %x: %v", raw, err)
	}
	again := append(&second)
	if !bytes.Equal(again, raw) {
		t.Fatalf("not stable:\n%x\n%x", raw, again)
	}
	if err := parse(again[shortHeader:], &third); err != nil || third != second {
		t.Fatalf("not stable:\n%+v\n%+v", second, third)
	}
}
