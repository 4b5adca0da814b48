package daemon

import (
	"testing"
	"time"
)

// paced gives a pacer events and datagrams every gap of a second and returns
// the rests after the turns of its second half, shortest and longest.
func paced(p pacer, events, datagrams int, gap time.Duration) (least, most time.Duration) {
	least = time.Hour
	for now := gap; now < time.Second; now += gap {
		pause := p.rest(now, &turn{events: events, datagrams: datagrams})
		if now > time.Second/2 {
			least, most = min(least, pause), max(most, pause)
		}
	}
	return least, most
}

func TestPacer(t *testing.T) {
	const (
		ms    = time.Millisecond
		us    = time.Microsecond
		large = 8 << 20
	)
	for _, c := range []struct {
		name              string
		bound             time.Duration
		events, datagrams int
		gap               time.Duration
		buffer            int
		least, most       time.Duration
	}{
		{"one event now and then", ms, 1, 0, 10 * ms, large, 0, 0},
		{"1,000 events a second", ms, 1, 0, ms, large, 0, 0},
		{"5,000 a second", ms, 1, 0, 200 * us, large, ms, ms},
		{"50,000 a second in batches", ms, 50, 0, ms, large, ms, ms},
		{"300,000 a second", ms, 10, 0, 33 * us, large, ms, ms},
		{"send at once", 0, 10, 0, 33 * us, large, 0, 0},
		{"longer", 5 * ms, 10, 0, 100 * us, large, 5 * ms, 5 * ms},
		{"a rest that would fill the buffer", ms, 10, 0, 100 * us, 212992, 300 * us, 400 * us},
		{"a buffer that is too small to rest", ms, 10, 0, 33 * us, 212992, 0, 0},
		{"datagrams", ms, 0, 1, 250 * us, large, 3 * ms, 3 * ms},
		{"datagrams, a default buffer", ms, 0, 1, 250 * us, 212992, 2 * ms, 3 * ms},
		{"datagrams and events", ms, 1, 1, 250 * us, 212992, ms, ms},
		{"a bulk", ms, 0, 40, ms, 8 * large, 0, 0},
		{"a bulk into a small buffer", ms, 0, 10, 100 * us, 212992, 0, 0},
		{"events leave room, datagrams do not", ms, 50, 10, 100 * us, large / 32, 0, 0},
	} {
		p := pacer{bound: c.bound, eventRoom: room(c.buffer, eventSize), datagramRoom: room(c.buffer, datagramSize)}
		least, most := paced(p, c.events, c.datagrams, c.gap)
		if least < c.least || most > c.most {
			t.Errorf("%s: rests of %v to %v, want %v to %v", c.name, least, most, c.least, c.most)
		}
	}
}

// It takes less to stay busy than to become so.
func TestPacerDoesNotFlutter(t *testing.T) {
	p := pacer{bound: time.Millisecond, eventRoom: 1 << 20}
	now := time.Duration(0)
	run := func(rate int) (pause time.Duration) {
		for range 1000 {
			now += time.Second / time.Duration(rate)
			pause = p.rest(now, &turn{events: 1})
		}
		return pause
	}
	for _, c := range []struct {
		rate  int
		rests bool
	}{{1500, false}, {3000, true}, {1500, true}, {500, false}, {1500, false}} {
		if got := run(c.rate) > 0; got != c.rests {
			t.Errorf("%d a second: rests %v, want %v", c.rate, got, c.rests)
		}
	}
}

func TestPacerAfterAStorm(t *testing.T) {
	p := pacer{bound: time.Millisecond, eventRoom: 1 << 20}
	now := time.Duration(0)
	for range 1000 {
		now += 10 * time.Microsecond
		p.rest(now, &turn{events: 1})
	}
	if p.rest(now, &turn{events: 1}) == 0 {
		t.Fatal("no rest in a storm")
	}
	if p.rest(now, &turn{events: 1, more: true}) != 0 {
		t.Error("a rest although there is more")
	}
	if got := p.rest(now+time.Second, &turn{events: 1}); got != 0 {
		t.Errorf("a lone event a second later waits %v", got)
	}
}
