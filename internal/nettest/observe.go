package nettest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
)

var activePattern = regexp.MustCompile(`current active connections:\s+(\d+)`)

// Sizes are the live entries of both caches, as "-s" says.
func (d *Daemon) Sizes(ctx context.Context) (internal, external int, err error) {
	out, err := d.Client(ctx, "-s")
	if err != nil {
		return 0, 0, err
	}
	m := activePattern.FindAllStringSubmatch(out, -1)
	if len(m) != 2 {
		return 0, 0, fmt.Errorf("two caches expected in %q", out)
	}
	internal, err = strconv.Atoi(m[0][1])
	if err != nil {
		return 0, 0, err
	}
	external, err = strconv.Atoi(m[1][1])
	return internal, external, err
}

var logLine = regexp.MustCompile(`^\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] \(pid=\d+\) (\[(?:notice|warning|ERROR)\] .*)\n$`)

// entryLine is a line about an entry: a date and a tab before it.
var entryLine = regexp.MustCompile(`^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\t(.*)\n$`)

// Messages returns the texts of the daemon's log file, oldest first, each with
// its level, and entries. Anything else in the file is an error.
func (d *Daemon) Messages() ([]string, error) {
	text, err := os.ReadFile(d.Config.LogFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		m := logLine.FindStringSubmatch(line)
		if m == nil {
			m = entryLine.FindStringSubmatch(line)
		}
		if m == nil {
			return nil, fmt.Errorf("no log line: %q", line)
		}
		all = append(all, m[1])
	}
	return all, nil
}

// InStep compares the kernel's table of a daemon's node, its internal cache
// and the external cache of the other node, by what flows there are.
func InStep(ctx context.Context, from, to *Daemon) error {
	kernel, err := from.Node.Kernel()
	if err != nil {
		return err
	}
	internal, err := from.Internal(ctx)
	if err != nil {
		return err
	}
	external, err := to.External(ctx)
	if err != nil {
		return err
	}
	if len(internal) != len(kernel) || len(external) != len(kernel) {
		return fmt.Errorf("%d entries in the kernel of %s, %d in the internal cache, %d at the other node",
			len(kernel), from.Node.Name, len(internal), len(external))
	}
	for key := range kernel {
		if internal[key] == nil || external[key] == nil {
			return fmt.Errorf("%v: in the internal cache: %v, at the other node: %v", key, internal[key] != nil, external[key] != nil)
		}
	}
	return nil
}

// RSS is the resident memory of the process in KiB.
func (p *Proc) RSS() (kib int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	m := rssPattern.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no VmRSS in %q", text)
	}
	return strconv.Atoi(string(m[1]))
}

var rssPattern = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// Descriptors is how many the process has open.
func (p *Proc) Descriptors() (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	return len(open), err
}
