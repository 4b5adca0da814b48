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
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// onSmallDisk makes a's daemon start with its log on a file system of some
// pages, in a mount namespace of its own.
func (r *rig) onSmallDisk() (dir string) {
	r.Helper()
	if _, err := os.Stat("/usr/bin/unshare"); err != nil {
		nettest.SkipUnlessCI(r, "no mount namespace: %v", err)
	}
	dir = filepath.Join(r.lab.Dir(), "disk")
	r.ok(os.Mkdir(dir, 0o700))
	r.a.Config.LogFile = filepath.Join(dir, "log")
	script := fmt.Sprintf(`mount -t tmpfs -o size=64k tmpfs %s && exec "$@"`, dir)
	r.a.Wrap = []string{"unshare", "--mount", "sh", "-c", script, "sh"}
	return dir
}

// logLines makes a's daemon write n lines.
func (r *rig) logLines(n int) {
	r.Helper()
	const bulk = 22
	for range n {
		conn := r.dial(request(bulk))
		_, err := io.ReadAll(conn)
		r.ok(err)
		conn.Close()
	}
}

// TestFullDisk fills the disk under the log file, and empties it again.
func TestFullDisk(t *testing.T) {
	r := newRig(t, nil)
	dir := r.onSmallDisk()
	r.start()
	root := fmt.Sprintf("/proc/%d/root", r.a.Proc().PID())
	r.a.Config.LogFile = root + r.a.Config.LogFile
	lines := len(r.lines(0))
	r.logLines(3)
	r.says(lines, "sending bulk update", 3, 10)

	filler := filepath.Join(root+dir, "filler")
	f, err := os.Create(filler)
	r.ok(err)
	for size := 4096; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
	r.ok(f.Close())

	const lost = 300 // more than go into the rest of the page
	r.logLines(lost)
	r.must(r.writer(r.two.A).Create(flood.UDPFlows(5, 0, 100)))
	r.must(r.writer(r.two.B).Create(flood.UDPFlows(6, 0, 100)))
	r.inStep()
	said := func() int {
		return strings.Count(r.output(r.a), "[warning] lines could not be written to the log file")
	}
	r.eventually("a word of it on standard error", func() error {
		if said() == 0 {
			return errors.New("nothing")
		}
		return nil
	})
	if n := said(); n != 1 {
		t.Errorf("said %d times", n)
	}

	r.ok(os.Remove(filler))
	r.logLines(3)
	text, err := os.ReadFile(r.a.Config.LogFile)
	r.ok(err)
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
	r.ok(err)
	return string(text)
}

// TestLogOnFullDevice has a log file that never takes anything.
func TestLogOnFullDevice(t *testing.T) {
	r := newRig(t, func(a, _ *nettest.Config) { a.LogFile = "/dev/full" })
	r.start()
	r.logLines(100)
	r.recovered()
	if n := strings.Count(r.output(r.a), "could not be written to the log file"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestUnreadTerminal has a pipe for standard output and error that nobody
// reads, until somebody does.
func TestUnreadTerminal(t *testing.T) {
	r := newRig(t, nil)
	fifo := filepath.Join(r.lab.Dir(), "fifo")
	r.ok(unix.Mkfifo(fifo, 0o600))
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0) // reads nothing yet
	r.ok(err)
	defer pipe.Close()
	r.a.Wrap = []string{"sh", "-c", fmt.Sprintf(`exec "$@" >%s 2>&1`, fifo), "sh"}
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
	r.eventually("the terminal to say what is missing", func() error {
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
