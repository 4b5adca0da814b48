package daemon

import (
	"os"
	"runtime/debug"
	"time"
)

// gcPercent is how much garbage may gather, in parts of what is in use. The
// caches have no pointers, so a collection takes the same milliseconds with a
// million entries as with none, and can come early: nobody wants the memory of
// the caches twice.
const gcPercent = 25

// limitGarbage sets gcPercent, unless the environment asks for another (GOGC).
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// Memory that the caches no longer need goes back to the system when the
// flood that took it is over. To give it back at once would cost page faults
// in the next wave.
const (
	tidyEvery = 10 * time.Second
	tidyLeast = 4 << 20 // bytes; less is not worth it
)

// tidy gives memory back when the caches have become smaller. The caller is
// inside the node, which is not held up: it takes some milliseconds.
func (l *loop) tidy(now time.Duration) {
	if now-l.tidied < tidyEvery {
		return
	}
	l.tidied = now
	if l.memory.due(l.d.sync.node.Bytes()) {
		go debug.FreeOSMemory()
	}
}

// A tidier knows how much memory the caches had.
type tidier struct {
	peak int // bytes, since memory was given back
}

// due takes what the caches have now and had at most since it was called
// before. It reports whether they have given up half of what they had some
// time before that: what was given up just now may be wanted again.
func (t *tidier) due(now, peak int) bool {
	before := t.peak
	t.peak = max(t.peak, peak)
	if peak >= before || before-peak < max(tidyLeast, before/2) {
		return false
	}
	t.peak = now
	return true
}
