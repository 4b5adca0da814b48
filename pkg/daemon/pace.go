package daemon

import "time"

// A pacer lets the loop rest between two turns when there is much to do:
// waking up costs far more than an event does, and what comes meanwhile goes
// out in full datagrams, repeated updates of a flow as one. When it is quiet
// each event is read, and sent, at once.
type pacer struct {
	bound                   time.Duration // longest rest of a sender; 0 is none at all
	eventRoom, datagramRoom int           // how many may come during a rest

	since             time.Duration // begin of the window
	events, datagrams int           // in the window
	pause             time.Duration // what the last window calls for
}

const (
	paceWindow   = 4 * time.Millisecond
	paceBusy     = 2000                   // events and datagrams a second from which it is busy
	paceCalm     = 1000                   // and below which it no longer is
	paceBulk     = 25_000                 // datagrams a second; no kernel makes so many events
	paceReceiver = 3                      // a rest of one who only receives, in rests of a sender
	paceLeast    = 200 * time.Microsecond // a shorter rest is not worth its wake-up

	// What an item takes of a receive buffer, in bytes, and the part of the
	// buffer that a rest may fill: one in so many.
	eventSize    = 1536
	datagramSize = 4608
	paceHeadroom = 4
)

// room returns how many items of a size may come during a rest.
func room(buffer, size int) int { return buffer / size / paceHeadroom }

// rest returns how long to rest after a turn that ended at now.
func (p *pacer) rest(now time.Duration, t *turn) time.Duration {
	if p.bound == 0 {
		return 0
	}
	p.events += t.events
	p.datagrams += t.datagrams
	if elapsed := now - p.since; elapsed >= paceWindow {
		p.pause = p.judge(elapsed)
		p.since, p.events, p.datagrams = now, 0, 0
	}
	if t.more {
		return 0
	}
	return p.pause
}

// judge returns the rest that the rate of the window that has passed allows.
// It takes less to stay busy than to become so. Nobody waits for datagrams as
// for events, which still have to travel.
func (p *pacer) judge(elapsed time.Duration) time.Duration {
	busy := int64(paceBusy)
	if p.pause > 0 {
		busy = paceCalm
	}
	if int64(p.events+p.datagrams)*int64(time.Second) < busy*int64(elapsed) {
		return 0
	}
	pause := p.bound
	switch {
	case int64(p.datagrams)*int64(time.Second) > paceBulk*int64(elapsed):
		return 0 // the sender of a bulk waits for our acknowledgements
	case p.events == 0:
		pause *= paceReceiver
	}
	for _, x := range [2]struct{ n, room int }{{p.events, p.eventRoom}, {p.datagrams, p.datagramRoom}} {
		if x.n > 0 {
			pause = min(pause, elapsed*time.Duration(x.room)/time.Duration(x.n))
		}
	}
	if pause < paceLeast {
		return 0
	}
	return pause
}
