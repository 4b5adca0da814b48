package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
