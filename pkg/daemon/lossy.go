package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// lossy writes lines to what may not take them, a full disk for one. Those it
// did not take are missed there: when it takes lines again, the first says how
// many.
type lossy struct {
	mu sync.Mutex
	w  io.Writer

	missing int    // lines since the last one that was written
	torn    bool   // that one was not written whole
	lost    uint64 // lines, since the start
	why     error
}

func (l *lossy) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing > 0 && !l.put(l.gap()) {
		return 0, l.why
	}
	l.missing = 0
	if !l.put(b) {
		return 0, l.why
	}
	return len(b), nil
}

// put reports whether all of b was written; if not, a line is missing.
func (l *lossy) put(b []byte) bool {
	n, err := l.w.Write(b)
	if err == nil {
		l.torn = false
		return true
	}
	l.torn = l.torn || n > 0
	l.missing++
	l.lost++
	l.why = err
	return false
}

func (l *lossy) gap() []byte {
	line, _ := Formatter{}.Format(&logrus.Entry{Time: time.Now(), Level: logrus.WarnLevel,
		Message: fmt.Sprintf("%d lines are missing here: %v", l.missing, l.why)})
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	return line
}

// unwritten returns how many lines could not be written, and why the last.
func (l *lossy) unwritten() (lines uint64, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost, l.why
}

// terminal is a standard output, or a log file that is none. Where it is a pipe,
// a socket or a line that nobody reads, the daemon must not wait: it gives up
// lines instead.
type terminal struct {
	f    *os.File
	deaf bool // the last line was given up
}

// terminalPatience is for a reader who is only slow.
const terminalPatience = 100 * time.Millisecond

var errUnread = errors.New("nobody reads them")

// newTerminal makes w lossy, and if it is a file one that nobody waits for.
func newTerminal(w io.Writer) *lossy {
	if f, ok := w.(*os.File); ok {
		w = &terminal{f: f}
	}
	return &lossy{w: w}
}

func (t *terminal) Write(b []byte) (int, error) {
	patience := terminalPatience
	if t.deaf {
		patience = 0
	}
	if t.deaf = !writable(t.f, patience); t.deaf {
		return 0, errUnread
	}
	// There was room, but maybe not for all of it.
	_ = t.f.SetWriteDeadline(time.Now().Add(terminalPatience)) // a standard output has none
	n, err := t.f.Write(b)
	if t.deaf = errors.Is(err, os.ErrDeadlineExceeded); t.deaf {
		err = errUnread
	}
	return n, err
}

// writable reports whether a line can be written without waiting, within a
// while.
func writable(f *os.File, patience time.Duration) (ready bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return true // and the write fails
	}
	end := time.Now().Add(patience)
	closed := raw.Control(func(fd uintptr) {
		for {
			p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			n, err := unix.Poll(p[:], int(max(time.Until(end), 0).Milliseconds()))
			if !errors.Is(err, unix.EINTR) {
				ready = err != nil || n > 0
				return
			}
		}
	})
	return ready || closed != nil
}
