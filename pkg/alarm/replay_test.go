package alarm

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/capture"
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// TestReplayCapture puts the engine in the place of a C daemon with RefreshTime
// 3: it is given the daemon's changes and must send the same numbers and
// flags. What C refreshed must lie where the engine's dice can fall: the
// dice themselves are its own.
func TestReplayCapture(t *testing.T) {
	ms := capture.Read(t, "alarm-udp")
	const refresh = 3 * time.Second
	e := New(Config{FirstSeq: ms[0].Seq, Refresh: refresh, Expire: 8 * time.Second})
	peer := New(Config{Expire: 8 * time.Second})
	refs, last := map[string]engine.Ref{}, map[engine.Ref]time.Duration{}
	refreshed := 0
	for _, m := range ms {
		now := time.Duration((m.TS - ms[0].TS) * 1e9)
		r, known := refs[m.Object()]
		if !known {
			r = engine.Ref(len(refs) + 1)
			refs[m.Object()] = r
		}
		if since := now - last[r]; known && m.Type != wire.CTDel && since > time.Second {
			refreshed++
			// C's clock is up to a second old when it sets a timer.
			if since < 200*time.Millisecond || since > refresh+1100*time.Millisecond {
				t.Errorf("C refreshed after %v", since)
			}
		}
		last[r] = now
		if peer.NextExpired(now) != 0 {
			t.Errorf("at %v an object expires that C refreshes", now)
		}
		e.Enqueue(r)
		f, ok := e.Pop(now)
		if want := (wire.Header{Flags: m.Flags, Seq: m.Seq}); !ok || f.Ref != r || f.Header != want {
			t.Fatalf("C sent %+v, the engine %+v", want, f)
		}
		e.Released(func(engine.Ref) {})
		if v := peer.Receive(now, wire.Header{Type: m.Type, Flags: m.Flags, Seq: m.Seq}); v != engine.Deliver {
			t.Errorf("verdict %d", v)
		}
		peer.Heard(now, r)
	}
	if refreshed < 5 {
		t.Errorf("only %d refreshes seen", refreshed)
	}
}
