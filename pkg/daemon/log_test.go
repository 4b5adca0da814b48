package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

func TestFormat(t *testing.T) {
	at := time.Date(2026, 11, 2, 8, 7, 6, 0, time.Local)
	tests := []struct {
		level logrus.Level
		text  string
		want  string
	}{
		{logrus.InfoLevel, "flushing caches", "[notice] flushing caches"},
		{logrus.WarnLevel, "x", "[warning] x"},
		{logrus.ErrorLevel, "x", "[ERROR] x"},
		{logrus.FatalLevel, "x", "[ERROR] x"},
		{logrus.DebugLevel, "x", "[info] x"},
		{logrus.InfoLevel, "a\tb é", "[notice] a\tb é"},
		{logrus.InfoLevel, "helper=\n[Mon] forged\x1b[2J\x00", "[notice] helper=?[Mon] forged?[2J?"},
		{logrus.InfoLevel, "not UTF-8: \xff", "[notice] not UTF-8: \ufffd"},
	}
	for _, test := range tests {
		got, err := Formatter{}.Format(&logrus.Entry{Time: at, Level: test.level, Message: test.text})
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("[Mon Nov  2 08:07:06 2026] (pid=%d) %s\n", os.Getpid(), test.want)
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// brokenWriter is a terminal that has gone.
type brokenWriter struct{ writes int }

func (w *brokenWriter) Write([]byte) (int, error) {
	w.writes++
	return 0, errors.New("broken pipe")
}

func TestBrokenOutputSilencesNothing(t *testing.T) {
	gone := &brokenWriter{}
	log := NewLogger(gone, gone)
	path := filepath.Join(t.TempDir(), "log")
	if _, err := addDestinations(log, &confparse.Config{LogFile: path}); err != nil {
		t.Fatal(err)
	}
	log.Info("one")
	log.Error("two")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n != 2 || gone.writes != 2 {
		t.Errorf("%d writes to the broken output; the file has %q", gone.writes, text)
	}
}

func TestOutputsByLevel(t *testing.T) {
	var stdout, stderr bytes.Buffer
	log := NewLogger(&stdout, &stderr)
	log.Info("a notice")
	log.Warn("a warning")
	log.Error("an error")
	log.Debug("a detail")
	if got := stdout.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "[notice] a notice") {
		t.Errorf("stdout: %q", got)
	}
	if got := stderr.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "[warning] a warning") || !strings.Contains(got, "[ERROR] an error") {
		t.Errorf("stderr: %q", got)
	}
}

func TestReopenKeepsTheOldFileOnFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := openLogFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.reopen(); err == nil || !strings.HasPrefix(err.Error(), "open log file: ") {
		t.Errorf("reopen without the directory: %v", err)
	}
	if _, err := l.Write([]byte("x\n")); err != nil {
		t.Errorf("write after a failed reopen: %v", err)
	}
}

// TestSyslogFacilities reads what syslog gets for each facility and level:
// the text without our prefix, conntrackd's identifier, the process id.
func TestSyslogFacilities(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	codes := map[string]int{"daemon": 3, "local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23}
	if len(codes) != len(syslogFacilities) {
		t.Fatalf("%d facilities", len(syslogFacilities))
	}
	b := make([]byte, 4096)
	for facility, code := range codes {
		hook, err := newSyslogHook("unixgram", path, facility)
		if err != nil {
			t.Fatal(err)
		}
		log := NewLogger(io.Discard, io.Discard)
		log.AddHook(hook)
		for _, level := range []struct {
			say      func(...any)
			severity int
		}{{log.Info, 5}, {log.Warn, 4}, {log.Error, 3}} {
			level.say("a text\nof two lines")
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`^<%d>.* conntrack-tools\[%d\]: a text\?of two lines\n?$`, 8*code+level.severity, os.Getpid())
			if !regexp.MustCompile(want).Match(b[:n]) {
				t.Errorf("%s: %q, want %s", facility, b[:n], want)
			}
		}
		log.WithField(peerField, "192.0.2.1").Warn("a text")
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.TrimSpace(string(b[:n])); !strings.HasSuffix(text, "]: 192.0.2.1: a text") {
			t.Errorf("%s: %q about a peer of a group", facility, text)
		}
		if err := hook.Writer.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSyslogComesLater starts without a syslog, and has one that starts anew:
// lines arrive as soon as it is there.
func TestSyslogComesLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	hook, err := newSyslogHook("unixgram", path, "daemon")
	if err == nil {
		t.Fatal("reached what is not there")
	}
	log := NewLogger(io.Discard, io.Discard)
	log.AddHook(hook)
	log.Info("into the void")
	for i := range 2 {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		hook.tried = time.Time{} // as if syslogRetry had passed
		log.Info("a line")
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		if n, err := conn.Read(b); err != nil || !strings.Contains(string(b[:n]), ": a line") {
			t.Errorf("run %d: %q, %v", i, b[:n], err)
		}
		if err := errors.Join(conn.Close(), os.RemoveAll(path)); err != nil {
			t.Fatal(err)
		}
		log.Info("into the void")
	}
}

// TestUnreadSyslog has a syslog that is stuck, as journald may be: nobody waits
// for it, and when it reads again it learns how many lines are missing.
func TestUnreadSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	fatal(t, err)
	defer conn.Close()
	hook, err := newSyslogHook("unixgram", path, "daemon")
	fatal(t, err)
	log := NewLogger(io.Discard, io.Discard)
	log.AddHook(hook)

	const many = 5000
	start := time.Now()
	unhindered(t, 20*time.Second, many, func() { log.Info("a line") })
	stuck := hook.patient.busy
	if stuck == nil {
		t.Fatalf("syslog took %d lines unread, within %v: the test shows nothing", many, time.Since(start))
	}
	read := make(chan []string)
	go func() {
		var got []string
		b := make([]byte, 4096)
		for len(got) == 0 || got[len(got)-1] != "the last" {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := conn.Read(b)
			if err != nil {
				t.Error(err)
				break
			}
			_, text, _ := strings.Cut(string(b[:n]), "]: ")
			got = append(got, strings.TrimSpace(text))
		}
		read <- got
	}()
	<-stuck // until somebody reads
	log.Info("the last")
	got := <-read
	want := fmt.Sprintf("%d lines are missing here: nobody reads them", many-(len(got)-2))
	if n := len(got); n < 3 || got[n-3] != "a line" || got[n-2] != want {
		t.Errorf("%d lines, at the end %q, want %q before the last", n, got[max(0, n-3):], want)
	}
}

// TestLogFileEntry is conntrackd's line about an entry: a date, a tab, the
// entry.
func TestLogFileEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.entry(time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC), []byte("tcp      6 9 helper=a\x1bb"))
	text, err := os.ReadFile(path)
	if want := "Mon Nov  2 03:04:05 2026\ttcp      6 9 helper=a?b\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
}
