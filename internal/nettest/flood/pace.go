package flood

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// tick is how often a paced load sends. Real traffic comes in small groups: at
// 5,000 events a second this is five at a time.
const tick = time.Millisecond

// A pacer spreads requests over time, on a thread of its own: a sleep of the
// Go runtime is a millisecond late when the machine is busy.
type pacer struct {
	rate  int // a second; 0: no pause
	start time.Time
	clock unix.Timespec // of start
	slack int
}

func newPacer(rate int) *pacer {
	p := &pacer{rate: rate}
	if rate > 0 {
		runtime.LockOSThread()
		p.slack, _ = unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &p.clock)
	}
	p.start = time.Now()
	return p
}

func (p *pacer) stop() {
	if p.rate > 0 {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(p.slack), 0, 0, 0)
		runtime.UnlockOSThread()
	}
}

// wait returns how many requests to send now, at least one and at most
// batchSize, when sent of them are out.
func (p *pacer) wait(sent int) int {
	if p.rate == 0 {
		return batchSize
	}
	for {
		now := time.Since(p.start)
		if n := due(p.rate, now) - sent; n > 0 {
			return min(n, batchSize)
		}
		p.sleepUntil(next(p.rate, sent, now))
	}
}

// due is how many requests are to be out after a time; the first is at once.
func due(rate int, after time.Duration) int {
	return 1 + int(after.Seconds()*float64(rate))
}

// next is when to look again: the next tick, or when the next request is due
// if that is later.
func next(rate, sent int, now time.Duration) time.Duration {
	at := time.Duration(float64(sent) / float64(rate) * float64(time.Second))
	return max(at, now.Truncate(tick)+tick)
}

func (p *pacer) sleepUntil(after time.Duration) {
	at := unix.NsecToTimespec(p.clock.Nano() + int64(after))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil) == unix.EINTR {
		continue
	}
}
