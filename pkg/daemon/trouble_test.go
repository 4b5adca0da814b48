package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A trouble is said when it begins, once a period with its count while it goes
// on, and anew when it comes back.
func TestTroubleNews(t *testing.T) {
	n := uint64(0)
	tr := trouble{
		count: func(*health) uint64 { return n },
		text:  func(_ *health, fresh uint64) string { return fmt.Sprint(fresh) },
	}
	steps := []struct {
		at   time.Duration
		n    uint64
		want string
	}{
		{0, 0, ""},
		{time.Second, 5, "5"},
		{2 * time.Second, 500, ""},
		{saidPeriod, 700, ""},
		{saidPeriod + time.Second, 700, "695"},
		{saidPeriod + 2*time.Second, 701, ""},
		{2*saidPeriod + time.Second, 701, "1"},
		{3*saidPeriod + time.Second, 701, ""}, // over
		{3*saidPeriod + 2*time.Second, 702, "1"},
		{3*saidPeriod + 3*time.Second, 703, ""},
	}
	for _, s := range steps {
		n = s.n
		if got := tr.news(new(health), s.at); got != s.want {
			t.Errorf("at %v with %d: %q, want %q", s.at, s.n, got, s.want)
		}
	}
}

// What a full disk did not take is missed in the file, once it takes lines again.
func TestLogFileCountsWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := l.f
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
	l.f = full
	for range 3 {
		line("lost", false)
	}
	if n, why := l.unwritten(); n != 3 || why == nil || !strings.Contains(why.Error(), "no space left") {
		t.Errorf("%d lines unwritten, %v", n, why)
	}
	l.f = good
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
