package daemontest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestCommandLine runs the program without a daemon: what it prints where,
// and its exit code, which is 0 or 1 and nothing else.
func TestCommandLine(t *testing.T) {
	nettest.Need(t, nettest.Go)
	binary, err := nettest.GoBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.conf", "General {\nLockFile "+dir+"/lock\nUNIX {\nPath "+dir+"/ctl\n}\n}\n")
	odd := write("odd.conf", "General {\nLockFile "+dir+"/lock\nNonsense yes\n}\n")
	const noDaemon = `^\[\w.*\] \(pid=\d+\) \[ERROR\] can't connect: is conntrackd running\? appropriate permissions\?\n$`
	const usage = `(?s)^Connection tracking userspace daemon v1\.4\.7\nUsage: \S+ \[commands\] \[options\]\n\n.*\n$`
	tests := []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"-v", 0, `^.*1\.4\.7.*\n.*\n$`, `^$`},
		{"-h", 0, usage, `^$`},
		{"-hv", 0, usage, `^$`},
		{"-C " + good + " -s", 1, `^$`, noDaemon},
		{"-C " + good + " -k", 1, `^$`, noDaemon},
		{"-s network -C " + good, 1, `^$`, noDaemon},
		{"-C " + good + " -c ct", 1, `^$`, noDaemon},
		{"-C " + good + " -s nonsense", 1, ``, `unknown parameter`},
		{"-C " + good + " -s -x", 1, ``, `[Ii]nvalid parameters`},
		{"-C " + good + " -d -s", 1, ``, `[Ii]nvalid parameters`},
		{"-C " + good + " -Z", 1, ``, `[Uu]nknown option: -Z`},
		{"-C", 1, ``, `\[ERROR\]`},
		{"-C " + dir + "/none.conf -s", 1, `^$`, `none\.conf: no such file or directory`},
		{"-C " + odd + " -s", 1, `^$`, `odd\.conf:3:\d+: .*Nonsense`},
		{"-C " + odd + " -d", 1, `^$`, `odd\.conf:3:\d+: .*Nonsense`},
	}
	for _, test := range tests {
		cmd := exec.Command(binary, strings.Fields(test.args)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: exit code %d, want %d", test.args, code, test.code)
		}
		if !regexp.MustCompile(test.stdout).Match(stdout.Bytes()) {
			t.Errorf("%s: stdout %q, want %s", test.args, &stdout, test.stdout)
		}
		if !regexp.MustCompile(test.stderr).Match(stderr.Bytes()) {
			t.Errorf("%s: stderr %q, want %s", test.args, &stderr, test.stderr)
		}
	}
}
