package link

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// feed puts bytes into a stream in pieces and cuts after each.
func feed(s *stream, size int, pieces ...[]byte) (datagrams [][]byte, ok bool) {
	for _, p := range pieces {
		for len(p) > 0 {
			n := copy(s.space(), p)
			s.got(n)
			p = p[n:]
			for {
				d, ok := s.cut(size)
				if len(d) > 0 {
					datagrams = append(datagrams, bytes.Clone(d))
				}
				if !ok {
					return datagrams, false
				}
				if len(d) == 0 {
					break
				}
			}
		}
	}
	return datagrams, true
}

func TestStreamCuts(t *testing.T) {
	bad := []byte{0x10, 0, 0, 7, 0, 0, 0, 1, 9, 9}
	large := message(string(bytes.Repeat([]byte{'x'}, maxMessage-header)))
	a, b, c := message("a"), message("bb"), message("ccc")
	abc := slices.Concat(a, b, c)
	for _, test := range []struct {
		name   string
		size   int
		pieces [][]byte
		want   [][]byte
		ok     bool
		left   int
	}{
		{"one message", 100, [][]byte{a}, [][]byte{a}, true, 0},
		{"several at once", 100, [][]byte{abc}, [][]byte{abc}, true, 0},
		{"a limit of size", len(a) + len(b), [][]byte{abc}, [][]byte{slices.Concat(a, b), c}, true, 0},
		{"larger than the limit", 1, [][]byte{abc}, [][]byte{a, b, c}, true, 0},
		{"in single bytes", 100, slices.Collect(slices.Chunk(abc, 1)), [][]byte{a, b, c}, true, 0},
		{"cut within a message", 100, [][]byte{abc[:12], abc[12:]}, [][]byte{a, slices.Concat(b, c)}, true, 0},
		{"part of a header", 100, [][]byte{a, b[:7]}, [][]byte{a}, true, 7},
		{"the largest", 100, [][]byte{a, large, b}, [][]byte{a, large, b}, true, 0},
		{"no length can be less than a header", 100, [][]byte{bad}, [][]byte{bad[:8]}, false, 0},
		{"a bad one after good ones", 100, [][]byte{abc, slices.Concat(a, bad)}, [][]byte{abc, slices.Concat(a, bad[:8])}, false, 0},
		{"length zero", 100, [][]byte{make([]byte, 20)}, [][]byte{make([]byte, 8)}, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s stream
			got, ok := feed(&s, test.size, test.pieces...)
			if ok != test.ok || !slices.EqualFunc(got, test.want, bytes.Equal) {
				t.Errorf("got %v, %v", got, ok)
			}
			if left := s.end - s.start; left != test.left {
				t.Errorf("%d bytes left", left)
			}
		})
	}
}

// FuzzStream compares a stream that comes in pieces with the same bytes read
// at once by a plain loop.
func FuzzStream(f *testing.F) {
	f.Add(slices.Concat(message("a"), message("bb")), uint8(3), uint16(100))
	f.Add(slices.Concat(message("a"), make([]byte, 9)), uint8(1), uint16(8))
	f.Add(message("")[:5], uint8(2), uint16(0))
	// From a capture: an ALIVE with HELLO, and a RESYNC.
	f.Add([]byte("\x1a\x20\x00\x08\x12\x34\x56\x78\x1a\x02\x00\x10\x12\x34\x56\x79\x00\x00\x00\x00\x00\x00\x00\x00"), uint8(5), uint16(1460))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8, size uint16) {
		var want [][]byte
		rest, good := b, true
		for good && len(rest) >= messageHeader {
			n := int(binary.BigEndian.Uint16(rest[2:]))
			switch {
			case n < messageHeader:
				good = false
			case n > len(rest):
				n = 0
			}
			if n == 0 || !good {
				break
			}
			want, rest = append(want, rest[:n]), rest[n:]
		}
		var s stream
		got, ok := feed(&s, int(size), slices.Collect(slices.Chunk(b, int(piece)+1))...)
		joined := bytes.Join(got, nil)
		if !good {
			want = append(want, rest[:messageHeader])
		}
		if ok != good || !bytes.Equal(joined, bytes.Join(want, nil)) {
			t.Fatalf("%x in pieces of %d: got %x, %v; want %x, %v", b, piece+1, got, ok, want, good)
		}
		for i, d := range got {
			first := int(binary.BigEndian.Uint16(d[2:]))
			if len(d) > int(size) && len(d) > first && (ok || i < len(got)-1) {
				t.Fatalf("%d bytes in a datagram of at most %d", len(d), size)
			}
		}
	})
}

func TestQueue(t *testing.T) {
	q := queue{limit: 3}
	contents := func() (s string) {
		for i := range q.n {
			s += string(q.slots[(q.head+i)%len(q.slots)])
		}
		return s
	}
	check := func(lost, wantLost bool, want string) {
		t.Helper()
		if got := contents(); lost != wantLost || got != want {
			t.Errorf("%q, lost %v; want %q, %v", got, lost, want, wantLost)
		}
	}
	for i, want := range []string{"a", "ab", "abc", "bcd", "cde"} {
		check(q.push([]byte{'a' + byte(i)}, 0), i >= 3, want)
	}
	q.pop()
	check(false, false, "de")
	q = queue{limit: 3}
	check(q.push([]byte("12345"), 2), false, "12345")
	if string(q.first()) != "345" || string(q.whole()) != "12345" {
		t.Errorf("%q of %q", q.first(), q.whole())
	}
	check(q.push([]byte("a"), 0), false, "12345a")
	check(q.push([]byte("b"), 0), false, "12345ab")
	// What was begun must be ended: the oldest after it is lost.
	check(q.push([]byte("c"), 0), true, "12345bc")
	if string(q.first()) != "345" {
		t.Errorf("%q is left of the first", q.first())
	}
	q.restart()
	check(q.push([]byte("d"), 0), true, "bcd")
	none := queue{}
	if !none.push([]byte("a"), 0) || none.n != 0 {
		t.Error("a queue without room keeps something")
	}
}
