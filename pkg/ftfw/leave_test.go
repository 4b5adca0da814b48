package ftfw

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// TestLeaveReleasesOnce: what is queued is released exactly once, and is a new
// object to the engine afterwards.
func TestLeaveReleasesOnce(t *testing.T) {
	e, _ := pair(t, Config{ACKWindow: 2, ResendQueue: 1000})
	for r := range Ref(10) {
		e.Enqueue(r + 1)
	}
	for range 5 {
		e.Pop(0)
	}
	released := map[Ref]int{}
	release := func() { e.Released(func(r Ref) { released[r]++ }) }
	e.Leave(time.Second)
	release()
	release()
	for r := range Ref(10) {
		if released[r+1] != 1 || e.Queued(r+1) {
			t.Errorf("object %d: released %d times, queued %v", r+1, released[r+1], e.Queued(r+1))
		}
	}
	if !e.Enqueue(1) || !e.Enqueue(6) {
		t.Error("not pinned anew")
	}
	if tx, resend := e.Pending(); tx != 2 || resend != 0 || e.InTouch() {
		t.Errorf("%d to send, %d to send again, in touch %v", tx, resend, e.InTouch())
	}
}

// TestLeftPeerTakesNoMemory: a day of a peer that talks and does not hear, with
// gaps, HELLOs and RESYNCs, takes a few nodes.
func TestLeftPeerTakesNoMemory(t *testing.T) {
	e, next := pair(t, Config{ACKWindow: 2, ResendQueue: 1000})
	e.Leave(0)
	used, sent := e.q.used, 0
	flags := [...]uint8{wire.FlagALIVE, 0, wire.FlagHELLO, wire.FlagRESYNC, 0, 0, wire.FlagRESYNC | wire.FlagHELLO}
	for i := range 24 * 3600 {
		now := time.Duration(i) * time.Second
		for range 3 {
			next(0, 0, 0) // lost
			h := next(flags[i%len(flags)], 0, 0)
			e.Receive(now, h)
			e.Receive(now, next(0, 0, 0))
		}
		for ev, ok := e.NextEvent(); ok; ev, ok = e.NextEvent() {
			if ev.Kind == PeerRestarted {
				e.RequestResync()
			}
		}
		e.Tick(now)
		sent += len(popAll(e))
		e.Flushed(now)
		if tx, resend := e.Pending(); tx+resend > 2 {
			t.Fatalf("%v: %d to send, %d to send again", now, tx, resend)
		}
	}
	if e.q.used > used+30 {
		t.Errorf("%d nodes, %d when it was left", e.q.used, used)
	}
	if sent < 24*3600 {
		t.Errorf("%d messages in a day", sent)
	}
}

// TestForeverDoesNotOverflow: neither at the start nor after.
func TestForeverDoesNotOverflow(t *testing.T) {
	e := New(Config{FirstSeq: 1, HelloHold: Forever}, time.Hour)
	e.Enqueue(1)
	for _, now := range []time.Duration{time.Hour, 1e6 * time.Hour} {
		e.Tick(now)
		for f, ok := e.Pop(now); ok; f, ok = e.Pop(now) {
			if f.Object {
				t.Errorf("%v: an object left", now)
			}
		}
	}
	if d := New(Config{HelloHold: Forever - 1}, time.Hour).Deadline(); d != time.Hour+aliveEvery {
		t.Errorf("deadline %v", d)
	}
}

// TestUnansweredSince is what an owner sets its alarm by.
func TestUnansweredSince(t *testing.T) {
	e, _ := pair(t, Config{})
	if _, waits := e.UnansweredSince(); waits {
		t.Error("something waits at rest")
	}
	e.Enqueue(1)
	e.Pop(7 * time.Second)
	if since, waits := e.UnansweredSince(); !waits || since != 7*time.Second {
		t.Errorf("since %v, waits %v", since, waits)
	}
	e.Leave(20 * time.Second)
	if _, waits := e.UnansweredSince(); waits || e.Deadline() > 20*time.Second {
		t.Errorf("a peer that was left is waited for; deadline %v", e.Deadline())
	}
}
