package node

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"
)

// vector is one datagram that was sent to C conntrackd 1.4.7 and what it
// counted (pkg/wire/testdata/README.md).
type vector struct {
	Run      int
	Mode     string
	Name     string
	Expected uint64 `json:"expected_seq"`
	Datagram string
	Counters map[string]uint64
	Added    int `json:"external_entries_added"`
}

// better lists where we differ from C on purpose (docs/protocol.md 10): data
// without addresses or protocol is refused, not stored.
var better = map[string]struct {
	counters map[string]uint64
	added    int
}{
	"IPv4 tuple missing":                    {refusedBody, 0},
	"IPv6 addresses only":                   {refusedBody, 0},
	"expectation delete without attributes": {refusedBody, 0},
	"expectation create without attributes": {refusedBody, 0},
	"no attributes at all: the entry is stored and from then on the dump of the external cache shows nothing": {refusedBody, 0},
	// C's dump shows nothing after the poisoned entry, so its count is not
	// to be had; the message is good.
	"valid CT_NEW after it": {nil, 1},
}

var refusedBody = map[string]uint64{"malformed": 1, "bad_payload": 1}

func counters(n *Node) map[string]uint64 {
	s := n.Stats()
	return map[string]uint64{
		"malformed": s.Network.Malformed, "truncated": s.Network.Truncated, "bad_size": s.Network.BadSize,
		"bad_version": s.Network.BadVersion, "bad_header": s.Network.BadHeader, "bad_payload": s.Network.BadPayload,
		"bad_type": s.Network.BadType, "lost": s.Engine.Lost, "before": s.Engine.Before,
	}
}

// A whole node counts each malformed datagram as the C daemon does.
func TestMalformedVectors(t *testing.T) {
	text, err := os.ReadFile("../wire/testdata/malformed-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	var n *Node
	run, now := 0, time.Duration(0)
	tried := 0
	for _, v := range vectors {
		if v.Mode != "FTFW" {
			continue
		}
		if v.Run != run {
			run, now = v.Run, 0
			n = New(simConfig(), 1, [2]uint64{1, 2})
			if run == 8 { // the recording had one plain valid message before
				b, _ := hex.DecodeString("10000034000003e8000c00000a0909ff0a080001000800050000000800050002110000000008000303e900350008000600000064")
				n.Datagram(now, b)
			}
		}
		b, err := hex.DecodeString(v.Datagram)
		if err != nil {
			t.Fatal(err)
		}
		before, entries := counters(n), n.external.live()
		now += time.Millisecond
		n.Datagram(now, b)
		now += 2 * reorder // what came too early is waited for
		n.Tick(now)
		tried++

		want, added := v.Counters, v.Added
		if d, ok := better[v.Name]; ok && (v.Added < 0 || v.Run >= 3) {
			want, added = d.counters, d.added
		}
		for name, value := range counters(n) {
			w := want[name]
			if name == "lost" && w > 0 {
				w -= 2 // C adds two too many per gap
			}
			if got := value - before[name]; got != w {
				t.Errorf("run %d, %s: %s +%d, want +%d", v.Run, v.Name, name, got, w)
			}
		}
		if got := n.external.live() - entries; got != added {
			t.Errorf("run %d, %s: %d entries added, want %d", v.Run, v.Name, got, added)
		}
	}
	if tried != 71 {
		t.Errorf("%d vectors tried, want 71", tried)
	}
}
