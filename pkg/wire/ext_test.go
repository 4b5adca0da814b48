package wire

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fullExt has every item.
func fullExt() Ext {
	x := Ext{
		Has:      1<<len(extRows) - 1,
		Node:     NodeName{0x0102030405060708, 0x1112131415161718},
		Heard:    NodeName{0x2122232425262728, 0x3132333435363738},
		Settings: Settings{CanMarks | CanDigest, 180, 65536, 1, SettingExpectations | SettingNoExternal},
		Begin:    7,
		End:      BulkEnd{8, 1000, 2000, 990, 3},
		Seen:     BulkSeen{9, true},
		Digest:   Digest{990, 0x4142434445464748},
		Expects:  Digest{3, 0x5152535455565758},
	}
	x.SetSoftware([]byte("1.4.7-g0123456"))
	return x
}

// The bytes are what nodes of other versions read: they must stay.
func TestExtGolden(t *testing.T) {
	x := fullExt()
	got := hex.EncodeToString(AppendExt(nil, Header{Seq: 5, Flags: FlagHELLO}, &x))
	want := "1a30009100000005" + "c70f6e800100" +
		"01100102030405060708" + "1112131415161718" +
		"02102122232425262728" + "3132333435363738" +
		"030e" + hex.EncodeToString([]byte("1.4.7-g0123456")) +
		"040e" + "00000003" + "000000b4" + "00010000" + "01" + "09" +
		"0504" + "00000007" +
		"0614" + "00000008" + "000003e8" + "000007d0" + "000003de" + "00000003" +
		"0705" + "00000009" + "01" +
		"080c" + "000003de" + "4142434445464748" +
		"090c" + "00000003" + "5152535455565758"
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestExtRoundTrip(t *testing.T) {
	for has := range ExtHas(1 << len(extRows)) {
		x := Ext{}
		full := fullExt()
		raw := AppendExt([]byte("before"), Header{Seq: 9}, &Ext{Has: has, Node: full.Node, Heard: full.Heard,
			Software: full.Software, Settings: full.Settings, Begin: full.Begin, End: full.End, Seen: full.Seen, Digest: full.Digest,
			Expects: full.Expects})
		m, rest, err := Next(raw[len("before"):])
		if err != nil || len(rest) != 0 || m.Class() != ALIVE || m.Seq != 9 {
			t.Fatalf("%x: %v %+v", has, err, m)
		}
		if len(m.Body) > MaxExt {
			t.Fatalf("%x: %d bytes", has, len(m.Body))
		}
		if err := ParseExt(m.Body, &x); err != nil || x.Has != has {
			t.Fatalf("%x: %v, has %x", has, err, x.Has)
		}
		if has == full.Has && x != full {
			t.Error(cmp.Diff(full, x))
		}
		if again := AppendExt(nil, Header{Seq: 9}, &x); !bytes.Equal(again, m.Raw) {
			t.Fatalf("%x: %x is %x the second time", has, m.Raw, again)
		}
	}
}

// Every row is where its number says. An older receiver skips all of them.
func TestExtRows(t *testing.T) {
	for i, r := range extRows {
		if int(r.num) != i+1 || r.has != 1<<i || r.num >= extCritical {
			t.Errorf("row %d has number %d, bit %x", i, r.num, r.has)
		}
	}
}

func extBody(items ...byte) []byte { return append([]byte{0xc7, 0x0f, 0x6e, 0x80, 1, 0}, items...) }

func TestExtRefused(t *testing.T) {
	begin := []byte{extBulkBegin, 4, 0, 0, 0, 7}
	for name, c := range map[string]struct {
		body []byte
		want error
		has  ExtHas
	}{
		"nothing":                    {nil, ErrNoExt, 0},
		"a few bytes":                {extBody()[:5], ErrNoExt, 0},
		"another magic":              {append([]byte{1}, extBody()[1:]...), ErrNoExt, 0},
		"another version":            {[]byte{0xc7, 0x0f, 0x6e, 0x80, 2, 0}, ErrNoExt, 0},
		"flags":                      {[]byte{0xc7, 0x0f, 0x6e, 0x80, 1, 1}, ErrNoExt, 0},
		"no items":                   {extBody(), nil, 0},
		"half an item's head":        {extBody(extBulkBegin), ErrExt, 0},
		"a value cut short":          {extBody(begin[:5]...), ErrExt, 0},
		"a value too short":          {extBody(extBulkBegin, 3, 0, 0, 7), ErrExt, 0},
		"a value with more to it":    {extBody(extBulkBegin, 5, 0, 0, 0, 7, 9), nil, ExtBulkBegin},
		"twice":                      {extBody(append(begin, begin...)...), ErrExt, 0},
		"an unknown item":            {extBody(append([]byte{0x7f, 2, 1, 2}, begin...)...), nil, ExtBulkBegin},
		"half a digest":              {extBody(extExpects, 11, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7), ErrExt, 0},
		"number zero":                {extBody(append([]byte{0, 0}, begin...)...), nil, ExtBulkBegin},
		"one that must be known":     {extBody(append([]byte{0x81, 8, 1, 2, 3, 4, 5, 6, 7, 8}, begin...)...), ErrNoExt, 0},
		"malformed before unknown":   {extBody(extBulkBegin, 3, 0, 0, 7, 0x81, 0), ErrExt, 0},
		"more than it ever is":       {extBody(append([]byte{0x7f, MaxExt}, make([]byte, MaxExt)...)...), ErrExt, 0},
		"a name that is no name":     {extBody(extSoftware, 3, 'a', 0x1b, 0xff), nil, ExtSoftware},
		"a name longer than we keep": {extBody(append([]byte{extSoftware, 60}, bytes.Repeat([]byte{'x'}, 60)...)...), nil, ExtSoftware},
	} {
		x := fullExt()
		if err := ParseExt(c.body, &x); err != c.want || err == nil && x.Has != c.has {
			t.Errorf("%s: %v with items %x, want %v with %x", name, err, x.Has, c.want, c.has)
		}
		for _, ch := range x.SoftwareName() {
			if ch < ' ' || ch > '~' {
				t.Errorf("%s: a byte %x in the name", name, ch)
			}
		}
	}
}

func TestExtDoesNotAllocate(t *testing.T) {
	x, got := fullExt(), new(Ext)
	dst := AppendExt(nil, Header{}, &x)
	if n := testing.AllocsPerRun(100, func() {
		dst = AppendExt(dst[:0], Header{Seq: 1}, &x)
		must(t, ParseExt(dst[shortHeader:], got))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Our own bodies with a bit turned are read as something, or refused, and what
// is read can be written again.
func TestExtBitFlips(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	full := fullExt()
	raw := AppendExt(nil, Header{}, &full)[shortHeader:]
	refused := 0
	for range 20000 {
		body := bytes.Clone(raw[:1+r.IntN(len(raw))])
		body[r.IntN(len(body))] ^= 1 << r.IntN(8)
		if !stableExt(t, body) {
			refused++
		}
	}
	if refused < 1000 || refused > 19900 {
		t.Errorf("%d of 20000 refused", refused)
	}
}

// stableExt reports whether a body is an extension, and checks that ours of the
// same content is one too.
func stableExt(t *testing.T, body []byte) bool {
	t.Helper()
	var x, again Ext
	if ParseExt(body, &x) != nil {
		return false
	}
	raw := AppendExt(nil, Header{}, &x)
	if len(raw) > shortHeader+MaxExt {
		t.Fatalf("%d bytes", len(raw))
	}
	m, rest, err := Next(raw)
	if err != nil || len(rest) != 0 || m.Class() != ALIVE {
		t.Fatalf("%x: %v", raw, err)
	}
	if err := ParseExt(m.Body, &again); err != nil || again != x {
		t.Fatalf("%x became %+v, and %x %+v: %v", body, x, m.Body, again, err)
	}
	return true
}

func FuzzParseExt(f *testing.F) {
	full := fullExt()
	f.Add(AppendExt(nil, Header{}, &full)[shortHeader:])
	f.Add(extBody())
	f.Add(extBody(0x81, 2, 0, 0, 0x7f, 0))
	f.Add(extBody(extExpects, 13, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9))
	f.Fuzz(func(t *testing.T, body []byte) { stableExt(t, body) })
}
