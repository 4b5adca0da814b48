package alarm

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

func testEngine(refresh, expire time.Duration) *Engine {
	return New(Config{FirstSeq: 100, Refresh: refresh, Expire: expire, Seed: 7})
}

func pop(t *testing.T, e *Engine) engine.Frame {
	t.Helper()
	f, ok := e.Pop(0)
	if !ok {
		t.Fatal("nothing to send")
	}
	return f
}

func TestObjectsOnlyAndOnce(t *testing.T) {
	e := testEngine(time.Minute, time.Minute)
	if !e.Enqueue(5) || e.Enqueue(5) || !e.Enqueue(9) {
		t.Fatal("an object is pinned when it enters the queue, and only then")
	}
	for i, want := range []engine.Ref{5, 9} {
		f := pop(t, e)
		if f.Ref != want || !f.Object || f.Header.Seq != 100+uint32(i) || f.Header.Flags != 0 {
			t.Errorf("message %d: %+v", i, f)
		}
	}
	if f, ok := e.Pop(0); ok {
		t.Errorf("something else to send: %+v", f)
	}
	var released []engine.Ref
	e.Released(func(r engine.Ref) { released = append(released, r) })
	if !slices.Equal(released, []engine.Ref{5, 9}) {
		t.Errorf("released %v", released)
	}
	if tx, resend := e.Pending(); tx != 0 || resend != 0 {
		t.Errorf("%d and %d are pending", tx, resend)
	}
}

// No control message ever, whatever is asked for.
func TestKnowsNoControlMessages(t *testing.T) {
	e := testEngine(time.Minute, time.Minute)
	e.RequestResync()
	for now := range 100 {
		e.Tick(time.Duration(now) * time.Second)
		e.Flushed(time.Duration(now) * time.Second)
	}
	e.BulkDone()
	if f, ok := e.Pop(0); ok {
		t.Errorf("sends %+v", f)
	}
	if ev, ok := e.NextEvent(); ok {
		t.Errorf("raises %+v", ev)
	}
	if e.ResendQueue() != nil {
		t.Error("has a resend queue")
	}
}

// docs/protocol.md 2.2: any flag makes a message ignored, numbers mean nothing.
func TestReceive(t *testing.T) {
	e := testEngine(time.Minute, time.Minute)
	tests := []struct {
		h    wire.Header
		want engine.Verdict
	}{
		{wire.Header{Type: wire.CTNew, Seq: 50}, engine.Deliver},
		{wire.Header{Type: wire.CTUpd, Seq: 50}, engine.Deliver},
		{wire.Header{Type: wire.CTDel, Seq: 7}, engine.Deliver},
		{wire.Header{Type: wire.ExpNew, Seq: 1 << 31}, engine.Deliver},
		{wire.Header{Type: 9}, engine.Deliver}, // the owner's bad type
		{wire.Header{Type: wire.Control}, engine.Deliver},
		{wire.Header{Type: wire.CTNew, Flags: wire.FlagHELLO}, engine.Drop},
		{wire.Header{Type: wire.CTNew, Flags: wire.FlagHELLOBack}, engine.Drop},
		{wire.Header{Type: wire.CTNew, Flags: 1}, engine.Drop},
		{wire.Header{Type: wire.Control, Flags: wire.FlagALIVE}, engine.Drop},
		{wire.Header{Type: wire.Control, Flags: wire.FlagRESYNC}, engine.Drop},
		{wire.Header{Type: wire.Control, Flags: wire.FlagACK, From: 5, To: 1}, engine.Drop},
	}
	for _, tt := range tests {
		if got := e.Receive(0, tt.h); got != tt.want {
			t.Errorf("%+v: verdict %d, want %d", tt.h, got, tt.want)
		}
	}
	if s := e.Stats(); s.Lost != 0 || s.Before != 0 || s.Ignored != 6 {
		t.Errorf("counted %+v", s)
	}
}

// refreshes runs an engine with n objects for a while as its owner does and
// returns the times each was due.
func refreshes(e *Engine, n int, until time.Duration) [][]time.Duration {
	due := make([][]time.Duration, n+1)
	for r := 1; r <= n; r++ {
		e.Watch(0, engine.Ref(r))
	}
	for now := time.Duration(0); now < until; now = max(e.Deadline(), now+1) {
		for r := e.DueRefresh(now); r != 0; r = e.DueRefresh(now) {
			due[r] = append(due[r], now)
		}
	}
	return due
}

// Every object comes again and again, between 1.2 s and RefreshTime + 1 s
// after the last time, and they do not come together.
func TestRefreshSpread(t *testing.T) {
	const n, refresh = 3000, 10 * time.Second
	e := testEngine(refresh, time.Minute)
	seconds := map[time.Duration]int{}
	shortest, longest := never, time.Duration(0)
	for r, times := range refreshes(e, n, 200*time.Second)[1:] {
		last := time.Duration(0)
		if len(times) < 200/11 {
			t.Fatalf("object %d came %d times in 200 s", r+1, len(times))
		}
		for _, at := range times {
			shortest, longest = min(shortest, at-last), max(longest, at-last)
			seconds[at/time.Second]++
			last = at
		}
	}
	if shortest != 1200*time.Millisecond || longest != refresh+time.Second {
		t.Errorf("intervals from %v to %v", shortest, longest)
	}
	// The mean interval is 6.1 s: about 490 a second once they are spread.
	for s := 30 * time.Second; s < 190*time.Second; s += time.Second {
		if got := seconds[s/time.Second]; got < 350 || got > 650 {
			t.Errorf("%d refreshes in second %d", got, s/time.Second)
		}
	}
	if got := e.Stats().Refreshed; got < 3000*200/7 {
		t.Errorf("%d refreshes counted", got)
	}
}

// A change sets the timer anew: what changes every second is never refreshed.
func TestChangePutsOffRefresh(t *testing.T) {
	e := testEngine(3*time.Second, time.Minute)
	for now := time.Duration(0); now < time.Minute; now += time.Second {
		e.Watch(now, 1)
		if r := e.DueRefresh(now); r != 0 {
			t.Fatalf("due at %v", now)
		}
	}
	e.Unwatch(1)
	if r := e.DueRefresh(time.Hour); r != 0 {
		t.Error("due after its end")
	}
	if e.Deadline() != never {
		t.Errorf("deadline %v with nothing to do", e.Deadline())
	}
}

func TestExpiry(t *testing.T) {
	e := testEngine(time.Minute, 8*time.Second)
	e.Heard(0, 1)
	e.Heard(0, 2)
	e.Heard(3*time.Second, 2)
	e.Heard(3*time.Second, 3)
	e.Gone(3)
	for _, step := range []struct {
		at   time.Duration
		want engine.Ref
	}{{7900 * time.Millisecond, 0}, {8 * time.Second, 1}, {8 * time.Second, 0}, {10900 * time.Millisecond, 0}, {11 * time.Second, 2}, {time.Hour, 0}} {
		if got := e.NextExpired(step.at); got != step.want {
			t.Errorf("at %v expired %d, want %d", step.at, got, step.want)
		}
	}
	e.Heard(2*time.Hour, 4)
	if got := e.Left(2*time.Hour+2*time.Second, 4); got != 6*time.Second {
		t.Errorf("%v left", got)
	}
	e.Gone(4)
	if got := e.Left(0, 4); got != 0 {
		t.Errorf("%v left of what is gone", got)
	}
	if r := e.NextExpired(3 * time.Hour); r != 0 {
		t.Error("expired although gone")
	}
}

// The wheel against a map of due times, at random, over more than a turn.
func TestWheelLikeItsModel(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		w, model := newWheel(), map[engine.Ref]uint32{}
		now := time.Duration(0)
		for step := range 3000 {
			r := engine.Ref(1 + rnd.IntN(60)*100)
			switch rnd.IntN(4) {
			case 0, 1:
				at := now + tick + time.Duration(rnd.Int64N(int64(600*time.Second)))
				w.set(r, at)
				model[r] = ticks(at)
			case 2:
				w.stop(r)
				delete(model, r)
			case 3:
				now += time.Duration(rnd.Int64N(int64(20 * time.Second)))
				if rnd.IntN(40) == 0 {
					now += 500 * time.Second
				}
				for got := w.due(now); got != 0; got = w.due(now) {
					at, ok := model[got]
					if !ok || at > ticks(now) {
						t.Fatalf("seed %d step %d: %d is due at %v, model says %v %v", seed, step, got, now, at, ok)
					}
					delete(model, got)
					if rnd.IntN(2) == 0 {
						w.stop(got)
					} else {
						again := now + tick + time.Duration(rnd.Int64N(int64(300*time.Second)))
						w.set(got, again)
						model[got] = ticks(again)
					}
				}
				for r, at := range model {
					if at <= ticks(now) {
						t.Fatalf("seed %d step %d: %d was due at tick %d and is not named at %v", seed, step, r, at, now)
					}
				}
			}
			if w.count != len(model) {
				t.Fatalf("seed %d step %d: %d timers, want %d", seed, step, w.count, len(model))
			}
		}
	}
}

func TestTimersAllocateNothing(t *testing.T) {
	e := testEngine(10*time.Second, 20*time.Second)
	now := time.Duration(0)
	cycle := func() {
		now += 100 * time.Millisecond
		for r := engine.Ref(1); r < 2000; r += 3 {
			e.Watch(now, r)
			e.Heard(now, r)
			e.Enqueue(r)
		}
		for r := e.DueRefresh(now); r != 0; r = e.DueRefresh(now) {
			e.Enqueue(r)
		}
		for r := e.NextExpired(now); r != 0; r = e.NextExpired(now) {
			e.Gone(r)
		}
		for _, ok := e.Pop(now); ok; _, ok = e.Pop(now) {
		}
		e.Released(func(engine.Ref) {})
	}
	for range 300 {
		cycle()
	}
	if got := testing.AllocsPerRun(50, cycle); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
