package notrack

import (
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/capture"
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// TestReplayCaptures puts the engine in the place of one C daemon: it hears
// what that one heard and is given its changes. It must send the same messages,
// and say ALIVE when C did.
func TestReplayCaptures(t *testing.T) {
	for _, c := range []struct {
		name    string
		objects bool // the daemons have an internal cache
	}{{"notrack-udp", true}, {"notrack-nocache-udp", false}, {"notrack-tcp", true}} {
		for _, side := range []string{"192.168.100.1", "192.168.100.2"} {
			t.Run(c.name+"/"+side, func(t *testing.T) { replay(t, capture.Read(t, c.name), side, c.objects) })
		}
	}
}

func replay(t *testing.T, ms []capture.Message, side string, objects bool) {
	start := ms[0].TS
	clock := func(m *capture.Message) time.Duration { return time.Duration((m.TS - start) * 1e9) }
	var e *Engine
	refs := map[string]engine.Ref{}
	compared, alives, heard := 0, 0, 0
	var flushed time.Duration
	for i := range ms {
		m := &ms[i]
		now := clock(m)
		if !strings.HasPrefix(m.Src, side+":") {
			if e == nil {
				continue
			}
			heard++
			v := e.Receive(now, m.Header())
			if want := e.want(m); v != want {
				t.Errorf("C heard %+v, verdict %d, want %d", m.Header(), v, want)
			}
			continue
		}
		h := m.Header()
		if e == nil {
			e = New(Config{FirstSeq: h.Seq}, now)
			flushed = now - time.Second
		}
		switch {
		case h.Class() == wire.RESYNC:
			e.RequestResync()
		case h.Class() == wire.ALIVE:
			// Within one datagram, or over TCP before the connection was
			// there, the times are those of the datagram.
			if idle := now - flushed; idle > 100*time.Millisecond && (idle < 950*time.Millisecond || idle > 1100*time.Millisecond) {
				t.Errorf("C says ALIVE after %v", idle)
			}
			alives++
			e.timer = now
			e.Tick(now)
		case !objects:
			if got := e.Number(); got != h.Seq {
				t.Fatalf("C sent number %d, the engine %d", h.Seq, got)
			}
			compared++
			continue
		default:
			name := m.Object()
			if refs[name] == 0 {
				refs[name] = engine.Ref(len(refs) + 1)
			}
			e.Enqueue(refs[name])
		}
		f, ok := e.Pop(now)
		if f.Object {
			if f.Ref != refs[m.Object()] {
				t.Fatalf("C sent %s, the engine object %d", m.Object(), f.Ref)
			}
			f.Header.Type = h.Type
		}
		if !ok || f.Header != h {
			t.Fatalf("C sent %+v, the engine %+v", h, f.Header)
		}
		e.Flushed(now)
		flushed = now
		e.Released(func(engine.Ref) {})
		compared++
	}
	if compared < 5 || alives < 3 || heard < 5 {
		t.Errorf("compared %d messages, %d ALIVEs, heard %d", compared, alives, heard)
	}
	if s := e.Stats(); s.Lost != 0 || s.Before != 0 {
		t.Errorf("lost %d, before %d in a capture without loss", s.Lost, s.Before)
	}
}

// want is the verdict C's capture shows: all it sends is good.
func (e *Engine) want(m *capture.Message) engine.Verdict {
	if m.Type == wire.Control {
		return engine.Control
	}
	return engine.Deliver
}
