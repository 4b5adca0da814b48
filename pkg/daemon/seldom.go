package daemon

import (
	"sync"
	"time"
)

// Lines that a peer or the kernel can cause at will are written only so often:
// saidLines in saidPeriod of each kind, so that nobody fills the disk.
const (
	saidLines  = 10
	saidPeriod = time.Minute
)

// The kinds of such lines; those of the node follow.
const (
	saidOverrun = iota
	saidManager
	saidPoll
	saidRefused
	saidLink
	saidNotice
)

// seldom counts the lines of each kind.
type seldom struct {
	mu    sync.Mutex
	kinds map[int]*saidCount
}

type saidCount struct {
	since time.Duration // start of the period
	lines int
}

// allow reports whether a line of this kind may be written, and whether it is
// the last of its period.
func (s *seldom) allow(kind int, now time.Duration) (ok, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.kinds[kind]
	if c == nil || now-c.since >= saidPeriod {
		if s.kinds == nil {
			s.kinds = make(map[int]*saidCount)
		}
		c = &saidCount{since: now}
		s.kinds[kind] = c
	}
	c.lines++
	return c.lines <= saidLines, c.lines == saidLines
}

// say writes a line of a kind, unless there were too many of them.
func (d *Daemon) say(kind int, line func()) {
	ok, last := d.seldom.allow(kind, d.now())
	if ok {
		line()
	}
	if last {
		d.log.Warnf("the last line came %d times: it is left out for up to %v", saidLines, saidPeriod)
	}
}
