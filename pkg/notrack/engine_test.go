package notrack

import (
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// headers pulls all there is to send.
func headers(e *Engine, now time.Duration) (hs []wire.Header) {
	for f, ok := e.Pop(now); ok; f, ok = e.Pop(now) {
		hs = append(hs, f.Header)
	}
	if len(hs) > 0 {
		e.Flushed(now)
	}
	e.Released(func(engine.Ref) {})
	return hs
}

func control(flag uint8, seq uint32) wire.Header {
	return wire.Header{Type: wire.Control, Flags: flag, Seq: seq}
}

func check(t *testing.T, what string, got []wire.Header, want ...wire.Header) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestSending(t *testing.T) {
	e := New(Config{FirstSeq: 0xfffffffe}, 0)
	check(t, "at the start", headers(e, 0))
	e.Tick(999 * time.Millisecond)
	check(t, "before a second", headers(e, 999*time.Millisecond))
	if e.Deadline() != time.Second {
		t.Errorf("deadline %v", e.Deadline())
	}
	e.Tick(time.Second)
	e.Tick(2 * time.Second)
	e.Tick(3 * time.Second)
	check(t, "one ALIVE waits", headers(e, 3*time.Second), control(wire.FlagALIVE, 0xfffffffe))

	e.Enqueue(1)
	e.Enqueue(2)
	e.Enqueue(1)
	check(t, "objects", headers(e, 3500*time.Millisecond), wire.Header{Seq: 0xffffffff}, wire.Header{Seq: 0})
	e.Tick(4 * time.Second)
	check(t, "no second since the objects", headers(e, 4*time.Second))
	e.Tick(4500 * time.Millisecond)
	e.Enqueue(3)
	check(t, "an object says that we live", headers(e, 4500*time.Millisecond), wire.Header{Seq: 1})

	e.RequestResync()
	e.RequestResync()
	check(t, "one RESYNC", headers(e, 5*time.Second), control(wire.FlagRESYNC, 2))
	if n := e.Number(); n != 3 {
		t.Errorf("the next number is %d", n)
	}
	if s := e.Stats(); s.Sent != 6 || s.ResyncsSent != 1 {
		t.Errorf("counted %+v", s)
	}
}

func TestStartupResync(t *testing.T) {
	e := New(Config{FirstSeq: 9, StartupResync: true}, 0)
	if tx, _ := e.Pending(); tx != 1 {
		t.Errorf("%d messages pending", tx)
	}
	check(t, "first message", headers(e, 0), control(wire.FlagRESYNC, 9))
}

// docs/protocol.md 4: counted, and taken all the same.
func TestReceive(t *testing.T) {
	const deliver, ctl, bad = engine.Deliver, engine.Control, engine.Bad
	steps := []struct {
		h            wire.Header
		want         engine.Verdict
		lost, before uint64
	}{
		{wire.Header{Type: wire.CTNew, Seq: 100}, deliver, 0, 0},
		{wire.Header{Type: wire.CTUpd, Seq: 101}, deliver, 0, 0},
		{wire.Header{Type: wire.CTDel, Seq: 105}, deliver, 3, 0},
		{wire.Header{Type: wire.CTNew, Seq: 103}, deliver, 3, 1}, // backwards, and followed
		{wire.Header{Type: wire.CTNew, Seq: 104}, deliver, 3, 1},
		{wire.Header{Type: wire.CTNew, Seq: 104}, deliver, 3, 2},
		{wire.Header{Type: wire.CTNew, Flags: wire.FlagHELLO, Seq: 105}, deliver, 3, 2},
		{wire.Header{Type: wire.CTNew, Flags: wire.FlagHELLOBack, Seq: 106}, deliver, 3, 2},
		{control(wire.FlagALIVE, 107), ctl, 3, 2},
		{control(wire.FlagRESYNC, 108), ctl, 3, 2},
		{control(wire.FlagACK, 109), bad, 3, 2},
		{control(wire.FlagNACK, 109), bad, 3, 2},
		{control(wire.FlagHELLO, 109), bad, 3, 2},
		{wire.Header{Type: 9, Seq: 119}, bad, 13, 2}, // counted before it is bad
		{wire.Header{Type: wire.CTNew, Flags: 1, Seq: 109}, bad, 13, 2},
		{wire.Header{Type: wire.CTNew, Seq: 109}, deliver, 13, 2},
	}
	e := New(Config{}, 0)
	for i, s := range steps {
		if got := e.Receive(0, s.h); got != s.want {
			t.Errorf("step %d %+v: verdict %d, want %d", i, s.h, got, s.want)
		}
		if st := e.Stats(); st.Lost != s.lost || st.Before != s.before {
			t.Errorf("step %d %+v: lost %d before %d, want %d and %d", i, s.h, st.Lost, st.Before, s.lost, s.before)
		}
	}
}

func bulks(e *Engine) (n int) {
	for ev, ok := e.NextEvent(); ok; ev, ok = e.NextEvent() {
		if ev.Kind == engine.BulkWanted {
			n++
		}
	}
	return n
}

func TestResyncWantsABulk(t *testing.T) {
	e := New(Config{}, 0)
	if bulks(e) != 0 {
		t.Fatal("a bulk at the start")
	}
	e.Receive(0, control(wire.FlagRESYNC, 1))
	if got := bulks(e); got != 1 {
		t.Errorf("%d bulks wanted", got)
	}
	e.BulkDone()
	if got := bulks(e); got != 0 {
		t.Errorf("%d more bulks wanted", got)
	}
}

// A flood of RESYNC costs five bulks at once and then one a second, and the
// last one asked for comes.
func TestResyncFlood(t *testing.T) {
	e := New(Config{}, 0)
	total := 0
	for i := range 1000 {
		now := time.Duration(i) * 10 * time.Millisecond // ten seconds
		e.Receive(now, control(wire.FlagRESYNC, uint32(i)))
		e.Tick(now)
		total += bulks(e)
	}
	if total < 14 || total > 16 {
		t.Errorf("%d bulks in ten seconds", total)
	}
	if !e.bulks.Due {
		t.Fatal("the last RESYNC is forgotten")
	}
	for now := 10 * time.Second; e.bulks.Due; now = e.Deadline() {
		if now > 12*time.Second {
			t.Fatal("the bulk owed does not come")
		}
		e.Tick(now)
		headers(e, now)
	}
	if bulks(e) != 1 {
		t.Error("the bulk owed was not wanted")
	}
}

func TestObjectIsKeptUntilReleased(t *testing.T) {
	e := New(Config{}, 0)
	e.Enqueue(4)
	if _, ok := e.Pop(0); !ok {
		t.Fatal("nothing to send")
	}
	if e.Queued(4) {
		t.Error("still queued")
	}
	if e.Enqueue(4) {
		t.Error("pinned again although it was not released")
	}
	e.Released(func(r engine.Ref) { t.Errorf("%d was released although it waits again", r) })
}

func TestAllocatesNothing(t *testing.T) {
	e := New(Config{}, 0)
	seq := uint32(0)
	cycle := func() {
		for r := engine.Ref(1); r < 500; r++ {
			e.Enqueue(r)
			e.Receive(0, wire.Header{Seq: seq})
			seq++
		}
		for _, ok := e.Pop(0); ok; _, ok = e.Pop(0) {
		}
		e.Released(func(engine.Ref) {})
	}
	if got := testing.AllocsPerRun(50, cycle); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
