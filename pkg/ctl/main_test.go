package ctl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Some tests need a second process: the test binary runs itself with the name
// of a role in this variable and the role's arguments after it.
const roleEnv = "CTL_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"lock": lockRole,
	"node": nodeRole,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// lockRole holds a lock until its standard input ends.
func lockRole(args []string) error {
	if _, err := Lock(args[0]); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// nodeRole is a daemon in little: lock, socket, kill request.
func nodeRole(args []string) error {
	lock, err := Lock(args[0])
	if err != nil {
		return err
	}
	defer lock.Unlock()
	ln, err := Listen(args[1])
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	kill := func(context.Context, io.Writer) error { stop(); return ErrHold }
	hello := func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "hello\n"); return err }
	fmt.Println("ready")
	err = Serve(ctx, ln, []Request{{Code: 20, Handle: kill}, {Code: 21, Handle: hello}}, Config{})
	if err == nil && len(args) > 2 {
		// The work of ending: whoever waits for the end must not see it yet.
		fmt.Println("ending")
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// process is a running role.
type process struct {
	cmd   *exec.Cmd
	out   *bufio.Reader
	stdin io.Closer
}

// startRole returns once the role has said something, and what it said.
func startRole(t *testing.T, role string, args ...string) (*process, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, bufio.NewReader(stdout), stdin}
	t.Cleanup(p.kill)
	return p, p.line(t)
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("read from child: %v", err)
	}
	return strings.TrimSpace(line)
}

// kill is a crash.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// need skips the test if a tool is missing, unless this is CI.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool+" is not installed")
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "must be root")
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// conntrackd is the C daemon and client.
const conntrackd = "/usr/sbin/conntrackd"

// socketPath is a short path, whatever the name of the test.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "ctl")
}

func write(s string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}
