package nettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ExitError is a command that ran and failed.
type ExitError struct {
	Command string
	Code    int // exit code, -1 if a signal ended it
	Output  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("run %s: exit code %d: %s", e.Command, e.Code, strings.TrimSpace(e.Output))
}

// Run runs a command in the node and returns its standard output. A failure
// is an *ExitError holding standard output and error together.
func (n *Node) Run(name string, args ...string) (string, error) {
	return n.RunInput("", name, args...)
}

// RunInput is Run with text on standard input.
func (n *Node) RunInput(input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return n.RunContext(ctx, input, name, args...)
}

// RunContext is RunInput with the caller's deadline instead of the lab's.
func (n *Node) RunContext(ctx context.Context, input, name string, args ...string) (string, error) {
	out, err := runCommand(n.Do, exec.CommandContext(ctx, name, args...), input)
	if err != nil {
		return out, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return out, nil
}

// runHost runs a command outside every node.
func runHost(ctx context.Context, name string, args ...string) (string, error) {
	here := func(f func() error) error { return f() }
	return runCommand(here, exec.CommandContext(ctx, name, args...), "")
}

func runCommand(inside func(func() error) error, cmd *exec.Cmd, input string) (string, error) {
	var out output
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	cmd.Stdout, cmd.Stderr = stream{&out, true}, stream{&out, false}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second // a busy machine takes its time to copy the rest
	if err := inside(cmd.Start); err != nil {
		return "", fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.stdout.String(), &ExitError{strings.Join(cmd.Args, " "), exit.ExitCode(), out.both.String()}
	}
	if err != nil {
		return out.stdout.String(), fmt.Errorf("run %s: %w", strings.Join(cmd.Args, " "), err)
	}
	return out.stdout.String(), nil
}

// output collects both streams of a command, which os/exec copies in two
// goroutines.
type output struct {
	mu           sync.Mutex
	stdout, both bytes.Buffer
}

// stream writes to the common buffer and, for standard output, to its own.
type stream struct {
	*output
	isStdout bool
}

func (s stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isStdout {
		s.stdout.Write(b)
	}
	return s.both.Write(b)
}

// Proc is a long-running process in a node.
type Proc struct {
	Name string // base name of the program
	Log  string // file with its standard output and error
	cmd  *exec.Cmd
	done chan struct{} // closed after it ended
	err  error         // valid after done
}

var procCount atomic.Int64

// Start starts a program in the node with its output in a log file. env is
// added to the environment. The lab ends it at Close.
func (n *Node) Start(env []string, name string, args ...string) (*Proc, error) {
	base := filepath.Base(name)
	path := filepath.Join(n.lab.dir, fmt.Sprintf("%s-%s-%d.log", n.Name, base, procCount.Add(1)))
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", base, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", base, n.Name, err)
	}
	p := &Proc{Name: base, Log: path, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	n.lab.mu.Lock()
	n.lab.procs = append(n.lab.procs, p)
	n.lab.mu.Unlock()
	return p, nil
}

// PID is the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Err says how the process ended; nil while it runs or after exit code 0.
func (p *Proc) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Signal sends a signal; an ended process is not an error.
func (p *Proc) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Stop asks the process to end with SIGTERM and waits. It is killed, and
// an error returned, if it doesn't within the time.
func (p *Proc) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill9()
		return fmt.Errorf("stop %s: still running %v after SIGTERM\n%s", p.Name, timeout, p.Tail(20))
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w\n%s", p.Name, p.err, p.Tail(20))
	}
	return nil
}

// Kill9 ends the process with SIGKILL and waits until it is gone.
func (p *Proc) Kill9() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// Tail returns the last lines of the log.
func (p *Proc) Tail(lines int) string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text), lines)
}

func lastLines(text string, n int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
