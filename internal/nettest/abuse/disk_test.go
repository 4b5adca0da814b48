package abuse_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// onSmallDisk makes a's daemon start with its log on a file system of some
// pages, in a mount namespace of its own.
func (r *rig) onSmallDisk() (dir string) {
	r.Helper()
	if _, err := os.Stat("/usr/bin/unshare"); err != nil {
		nettest.SkipUnlessCI(r, "no mount namespace: %v", err)
	}
	dir = filepath.Join(r.Lab.Dir(), "disk")
	r.OK(os.Mkdir(dir, 0o700))
	r.A.Config.LogFile = filepath.Join(dir, "log")
	script := fmt.Sprintf(`mount -t tmpfs -o size=64k tmpfs %s && exec "$@"`, dir)
	r.A.Wrap = []string{"unshare", "--mount", "sh", "-c", script, "sh"}
	return dir
}

// logLines makes a's daemon write n lines.
func (r *rig) logLines(n int) {
	r.Helper()
	const bulk = 22
	for range n {
		conn := r.Dial(r.A, duo.Ask(bulk))
		_, err := io.ReadAll(conn)
		r.OK(err)
		conn.Close()
	}
}

// TestFullDisk fills the disk under the log file, and empties it again.
func TestFullDisk(t *testing.T) {
	r := newRig(t, nil)
	dir := r.onSmallDisk()
	r.start()
	root := fmt.Sprintf("/proc/%d/root", r.A.Proc().PID())
	r.A.Config.LogFile = root + r.A.Config.LogFile
	lines := len(r.lines(0))
	r.logLines(3)
	r.says(lines, "sending bulk update", 3, 10)

	filler := filepath.Join(root+dir, "filler")
	f, err := os.Create(filler)
	r.OK(err)
	for size := 4096; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
	r.OK(f.Close())

	const lost = 300 // more than go into the rest of the page
	r.logLines(lost)
	r.Must(r.Writer(r.Two.A).Create(flood.UDPFlows(5, 0, 100)))
	r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(6, 0, 100)))
	r.inStep()
	said := func() int {
		return strings.Count(r.output(r.A), "[warning] lines could not be written to the log file")
	}
	r.Eventually("a word of it on standard error", func() error {
		if said() == 0 {
			return errors.New("nothing")
		}
		return nil
	})
	if n := said(); n != 1 {
		t.Errorf("said %d times", n)
	}

	r.OK(os.Remove(filler))
	r.logLines(3)
	text, err := os.ReadFile(r.A.Config.LogFile)
	r.OK(err)
	if n := strings.Count(string(text), " lines are missing here: "); n != 1 {
		t.Errorf("%d gaps in the log", n)
	}
	_, after, _ := strings.Cut(string(text), " lines are missing here: ")
	if n := strings.Count(after, "sending bulk update\n"); n < 3 {
		t.Errorf("after the gap the log has %q", after)
	}
	r.recovered()
}

// output is what a daemon wrote to its terminal.
func (r *rig) output(d *nettest.Daemon) string {
	r.Helper()
	text, err := os.ReadFile(d.Proc().Log)
	r.OK(err)
	return string(text)
}

// TestLogOnFullDevice has a log file that never takes anything.
func TestLogOnFullDevice(t *testing.T) {
	r := newRig(t, func(a, _ *nettest.Config) { a.LogFile = "/dev/full" })
	r.start()
	r.logLines(100)
	r.recovered()
	if n := strings.Count(r.output(r.A), "could not be written to the log file"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestUnreadTerminal has a pipe for standard output and error that nobody
// reads, until somebody does.
func TestUnreadTerminal(t *testing.T) {
	r := newRig(t, nil)
	fifo := filepath.Join(r.Lab.Dir(), "fifo")
	r.OK(unix.Mkfifo(fifo, 0o600))
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0) // reads nothing yet
	r.OK(err)
	defer pipe.Close()
	r.A.Wrap = []string{"sh", "-c", fmt.Sprintf(`exec "$@" >%s 2>&1`, fifo), "sh"}
	r.start()
	const many = 1500 // more than a pipe holds
	lines := len(r.lines(0))
	r.logLines(many)
	r.answers("nobody reads the terminal")
	r.inStep()
	r.says(lines, "sending bulk update", many, many+20)

	read := make(chan string)
	go func() {
		all := bufio.NewScanner(pipe)
		for all.Scan() {
			if strings.Contains(all.Text(), "lines are missing here: ") {
				read <- all.Text()
				return
			}
		}
		read <- fmt.Sprintf("the end: %v", all.Err())
	}()
	r.Eventually("the terminal to say what is missing", func() error {
		r.logLines(1)
		select {
		case text := <-read:
			t.Log(text)
			return nil
		default:
			return errors.New("not yet")
		}
	})
	r.recovered()
}
