package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a full disk did not take is missed in the file, once it takes lines again.
func TestLogFileCountsWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := l.w
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	line := func(text string, written bool) {
		t.Helper()
		if _, err := l.Write([]byte(text + "\n")); (err == nil) != written {
			t.Errorf("%s: %v", text, err)
		}
	}
	line("one", true)
	l.w = full
	for range 3 {
		line("lost", false)
	}
	if n, why := l.unwritten(); n != 3 || why == nil || !strings.Contains(why.Error(), "no space left") {
		t.Errorf("%d lines unwritten, %v", n, why)
	}
	l.w = good
	line("two", true)
	line("three", true)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `^one\n\[[^]]*\] \(pid=\d+\) \[warning\] 3 lines are missing here: .*no space left on device\ntwo\nthree\n$`
	if !regexp.MustCompile(want).Match(text) {
		t.Errorf("the file has %q", text)
	}
	if n, _ := l.unwritten(); n != 3 {
		t.Errorf("%d lines unwritten", n)
	}
}

// A line of which only a part fitted ends before the next.
func TestLogFileTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(l.f, "half a li")
	l.torn, l.missing, l.why = true, 1, os.ErrClosed
	if _, err := l.Write([]byte("next\n")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^half a li\n\[.*1 lines are missing.*\nnext\n$`).Match(text) {
		t.Errorf("the file has %q", text)
	}
}

// A pipe that nobody reads takes what fits; then nobody waits for it, and who
// reads in the end learns that lines are missing.
func TestUnreadPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	l := newTerminal(w)
	line := []byte(strings.Repeat("x", 99) + "\n")
	written := 0
	unhindered(t, 3000*terminalPatience/10, 3000, func() {
		switch _, err := l.Write(line); {
		case err == nil:
			written++
		case !errors.Is(err, errUnread):
			t.Error(err)
		}
	})
	if written == 0 || written == 3000 {
		t.Fatalf("%d lines written: the test shows nothing", written)
	}
	if _, err := io.ReadFull(r, make([]byte, 100*written)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("next\n")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	rest, err := io.ReadAll(r)
	want := fmt.Sprintf(`^\[.*\[warning\] %d lines are missing here: nobody reads them\nnext\n$`, 3000-written)
	if err != nil || !regexp.MustCompile(want).Match(rest) {
		t.Errorf("%q, %v, want %s", rest, err, want)
	}
}

// A log file that is a named pipe needs no reader, neither at the start nor when
// it is opened anew, and whoever comes reads what the pipe held, and how much is
// missing.
func TestLogFileIsAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var l *logFile
	line := []byte(strings.Repeat("x", 99) + "\n")
	const many = 3000
	unhindered(t, 10*time.Second, 1, func() {
		var err error
		if l, err = openLogFile(path); err != nil {
			t.Error(err)
		}
	})
	unhindered(t, 3000*terminalPatience/10, many, func() { _, _ = l.Write(line) })
	unhindered(t, 10*time.Second, 1, func() {
		if err := l.reopen(); err != nil {
			t.Error(err)
		}
	})
	lost, why := l.unwritten()
	if lost == 0 || lost == many || !errors.Is(why, errUnread) {
		t.Fatalf("%d lines of %d unwritten: %v", lost, many, why)
	}
	r, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, len(line)*(many-int(lost)))); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("next\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := r.Read(b)
	want := fmt.Sprintf(`^\[.*\[warning\] %d lines are missing here: nobody reads them\nnext\n$`, lost)
	if err != nil || !regexp.MustCompile(want).Match(b[:n]) {
		t.Errorf("%q, %v, want %s", b[:n], err, want)
	}
}

// A closed output fails at once.
func TestClosedTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	if _, err := newTerminal(w).Write([]byte("x\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// Nor does anybody wait for a terminal that shows nothing.
func TestLogFileIsATerminal(t *testing.T) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	defer screen.Close()
	fd := int(screen.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	l, err := openLogFile(fmt.Sprintf("/dev/pts/%d", number))
	if err != nil {
		t.Fatal(err)
	}
	line, many := []byte(strings.Repeat("x", 99)+"\n"), 3000
	unhindered(t, 3000*terminalPatience/10, many, func() { _, _ = l.Write(line) })
	if lost, why := l.unwritten(); lost == 0 || lost == uint64(many) {
		t.Errorf("%d lines of %d unwritten: %v", lost, many, why)
	}
}
