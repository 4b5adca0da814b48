package garbage

import (
	"bytes"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// The same seed says the same, another something else.
func TestSeed(t *testing.T) {
	a, b, c := New(1), New(1), New(2)
	differ := false
	for i := range 5000 {
		x := bytes.Clone(a.Next())
		if !bytes.Equal(x, b.Next()) {
			t.Fatalf("datagram %d differs", i)
		}
		differ = differ || !bytes.Equal(x, c.Next())
	}
	if !differ {
		t.Error("the seed is of no consequence")
	}
}

// Each kind is what it says, judged by pkg/wire: some must be refused, some
// must get as far as the parser of attributes, and none may name a flow.
func TestKinds(t *testing.T) {
	const rounds = 3000
	refused := map[string]bool{"short": true, "wrong version": true}
	for i := range Kinds {
		k := &Kinds[i]
		s := New(uint64(i))
		good, largest := 0, 0
		for range rounds {
			b := s.Of(k)
			largest = max(largest, len(b))
			good += messages(t, k.Name, b)
		}
		switch {
		case largest > maxDatagram:
			t.Errorf("%s: %d bytes", k.Name, largest)
		case refused[k.Name] && good > 0:
			t.Errorf("%s: %d good messages", k.Name, good)
		case k.Name == "control" && good != rounds, k.Name == "many" && good < 10*rounds:
			t.Errorf("%s: %d good messages of %d", k.Name, good, rounds)
		}
	}
}

// messages counts those that are well framed.
func messages(t *testing.T, kind string, b []byte) (good int) {
	t.Helper()
	for len(b) > 0 {
		m, rest, err := wire.Next(b)
		b = rest
		if err != nil {
			continue
		}
		good++
		var f flow.Flow
		if m.Type <= wire.CTDel && new(wire.Options).ParseFlow(m.Body, &f) == nil {
			t.Errorf("%s: names a flow: %+v", kind, f.Key)
		}
	}
	return good
}
