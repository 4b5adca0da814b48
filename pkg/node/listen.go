package node

import (
	"math"
	"time"
)

// listen makes a node that holds say nothing about the table that it found when
// it started, until the other has said what it has: of the flows that are in
// both, the other one's are not ours to speak of. Else the standby would claim
// them after each start, and their end here would be the end of the
// connections there.
type listen struct {
	on     bool
	quiet  time.Duration // when it ends if nothing comes; 0: the own table is being read, or nobody has been heard yet
	latest time.Duration // when it ends in any case
}

const (
	listenQuiet = 3 * time.Second // as patient as with a hello
	listenMost  = time.Minute
)

// tick ends it in time.
func (l *listen) tick(now time.Duration, early bool) {
	switch {
	case !l.on:
	case early:
		l.quiet = 0
	case l.quiet == 0:
		l.quiet, l.latest = now+listenQuiet, now+listenMost
	case now >= l.deadline():
		*l = listen{}
	}
}

// data takes that a message about a flow has come.
func (l *listen) data(now time.Duration) {
	if l.quiet != 0 {
		l.quiet = now + listenQuiet
	}
}

func (l *listen) deadline() time.Duration {
	if !l.on || l.quiet == 0 {
		return math.MaxInt64
	}
	return min(l.quiet, l.latest)
}
