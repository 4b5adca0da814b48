package daemon

import (
	"fmt"
	"sync"
	"time"
)

// Lines that a peer or the kernel can cause at will are written only so often
// in saidPeriod, so that nobody fills the disk. Then it is said how many were
// left out.
const saidPeriod = time.Minute

// The kinds of such lines; those of the node follow.
const (
	saidOverrun = iota
	saidManager
	saidPoll
	saidRefused
	saidLink
	saidReady
	saidReadiness
	saidDrift
	saidCompare
	saidNotice
)

// saidKinds says how many lines of a kind a period may have, and what they are
// about. Those of the node have the last row, each for itself.
var saidKinds = [...]struct {
	lines int
	about string
}{
	saidOverrun:   {3, "lost kernel events"},
	saidManager:   {3, "the service manager"},
	saidPoll:      {3, "polling the conntrack table"},
	saidRefused:   {5, "entries that the kernel refused"},
	saidLink:      {10, "the dedicated link"},
	saidReady:     {3, "the ready file"},
	saidReadiness: {5, "being ready to take over"},
	saidDrift:     {5, "differences to the conntrack table"},
	saidCompare:   {3, "comparing with the conntrack table"},
	saidNotice:    {5, "the other node"},
}

// seldom counts the lines of each kind.
type seldom struct {
	mu    sync.Mutex
	kinds map[int]*saidCount
}

type saidCount struct {
	since   time.Duration // start of the period
	lines   int           // written
	leftOut int
}

// allow reports whether a line of this kind may be written.
func (s *seldom) allow(kind int, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.kinds[kind]
	if c == nil {
		if s.kinds == nil {
			s.kinds = make(map[int]*saidCount)
		}
		c = &saidCount{since: now}
		s.kinds[kind] = c
	}
	if now-c.since >= saidPeriod && c.leftOut == 0 {
		*c = saidCount{since: now}
	}
	if c.lines >= saidKinds[min(kind, saidNotice)].lines {
		c.leftOut++
		return false
	}
	c.lines++
	return true
}

// leftOut returns a line for each kind whose period is over and that had too
// many, and begins a new period for it.
func (s *seldom) leftOut(now time.Duration) (lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, c := range s.kinds {
		if c.leftOut > 0 && now-c.since >= saidPeriod {
			about := saidKinds[min(kind, saidNotice)].about
			lines = append(lines, fmt.Sprintf("left out %d more lines about %s", c.leftOut, about))
			*c = saidCount{since: now}
		}
	}
	return lines
}

// say writes a line of a kind, unless there were too many of them.
func (d *Daemon) say(kind int, line func()) {
	if d.seldom.allow(kind, d.now()) {
		line()
	}
}
