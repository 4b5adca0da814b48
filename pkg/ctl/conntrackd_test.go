package ctl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests hold the package to C conntrackd 1.4.7: its client drives our
// server, our client its daemon.

func writeConfig(t *testing.T, sync string) (config, socket, lock string) {
	t.Helper()
	socket = socketPath(t)
	dir := filepath.Dir(socket)
	config, lock = filepath.Join(dir, "conf"), filepath.Join(dir, "lock")
	text := fmt.Sprintf("%s\nGeneral {\n\tLogFile off\n\tSyslog off\n\tHashSize 8193\n\tLockFile %s\n\tUNIX {\n\t\tPath %s\n\t}\n}\n", sync, lock, socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, socket, lock
}

// cClient runs the C client and returns its standard output and exit code.
func cClient(t *testing.T, config string, args []string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, conntrackd, append([]string{"-C", config}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestCClientDrivesOurServer(t *testing.T) {
	need(t, conntrackd)
	config, socket, _ := writeConfig(t, "")
	ln, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	var reqs []Request
	for _, r := range rows {
		reqs = append(reqs, Request{Code: r.Code, Handle: write(replyTo(r.Code))})
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, ln, reqs, Config{}) }()
	defer func() { stop(); <-done }()
	for _, c := range commandLines {
		stdout, stderr, code := cClient(t, config, split(c.args))
		if stdout != replyTo(c.code) || code != 0 {
			t.Errorf("%q: got %d bytes, exit code %d, %s; want the reply to %d", c.args, len(stdout), code, stderr, c.code)
		}
	}
}

// replyTo is text that tells the request and is longer than one read.
func replyTo(code int32) string {
	return strings.Repeat(fmt.Sprintf("reply to request %d\n", code), 400)
}

func TestCClientWithoutOurServer(t *testing.T) {
	need(t, conntrackd)
	config, socket, _ := writeConfig(t, "")
	_, stderr, code := cClient(t, config, []string{"-s"})
	err := Call(socket, 21, io.Discard)
	if code != 1 || err == nil || !strings.Contains(stderr, err.Error()) {
		t.Errorf("exit code %d, %q; we say %v", code, stderr, err)
	}
}

// cDaemon is the C daemon in a namespace of its own, where it sends to itself.
type cDaemon struct {
	config, socket, lock string
	netns                string
	cmd                  *exec.Cmd
	exited               chan struct{}
}

func startCDaemon(t *testing.T) *cDaemon {
	t.Helper()
	need(t, conntrackd, "ip", "conntrack")
	needRoot(t)
	d := &cDaemon{netns: fmt.Sprintf("ctl%d", os.Getpid()), exited: make(chan struct{})}
	d.config, d.socket, d.lock = writeConfig(t, `
Sync {
	Mode FTFW { }
	UDP {
		IPv4_address 127.0.0.1
		IPv4_Destination_Address 127.0.0.1
		Port 3780
		Interface lo
	}
}`)
	run(t, "ip", "netns", "add", d.netns)
	t.Cleanup(func() { run(t, "ip", "netns", "del", d.netns) })
	d.exec(t, "ip", "link", "set", "lo", "up")
	d.exec(t, "sysctl", "-q", "net.netfilter.nf_conntrack_events=1")
	d.start(t)
	return d
}

// start returns when the daemon says that it has started.
func (d *cDaemon) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.Command("ip", "netns", "exec", d.netns, conntrackd, "-C", d.config)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	d.cmd.Stdout, d.cmd.Stderr = w, w
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.cmd.Wait(); close(d.exited) }()
	t.Cleanup(func() { d.cmd.Process.Kill(); <-d.exited; r.Close() })
	w.Close()
	var said strings.Builder
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), "starting in console mode") {
			return
		}
	}
	t.Fatalf("conntrackd did not start:\n%s", said.String())
}

func (d *cDaemon) exec(t *testing.T, args ...string) {
	t.Helper()
	run(t, "ip", append([]string{"netns", "exec", d.netns}, args...)...)
}

func (d *cDaemon) call(t *testing.T, code int32) string {
	t.Helper()
	var b bytes.Buffer
	if err := Call(d.socket, code, &b); err != nil {
		t.Fatalf("request %d: %v", code, err)
	}
	return b.String()
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestOurClientDrivesCDaemon(t *testing.T) {
	d := startCDaemon(t)
	d.exec(t, "conntrack", "-I", "-p", "tcp", "-s", "10.1.1.1", "-d", "10.2.2.2", "--sport", "5", "--dport", "6",
		"--state", "ESTABLISHED", "-t", "300", "-u", "ASSURED,SEEN_REPLY")
	d.call(t, 44) // the event may still be on its way
	tests := []struct {
		code        int32
		first, last string
	}{
		{21, "cache internal:\n", "Lost msgs\n\n"},
		{28, "network statistics:\n", "Error recv\n\n"},
		{29, "cache:internal\tactive objects:\t\t", "\n\n"},
		{30, "daemon uptime: 0 min\n", "\n\n"},
		{31, "UDP traffic device=lo status=RUNNING role=ACTIVE:\n", "Error recv\n\n"},
		{32, "resent queue (len=", ""},
		{36, "allocated queue nodes:", "\n\n"},
		{35, "", ""},
		{16, "tcp      6 ESTABLISHED src=10.1.1.1 dst=10.2.2.2 sport=5 dport=6", "s]\n"},
		{24, `<flow><meta direction="original">`, "</flow>\n"},
		{37, "", ""},
		{33, "", ""},
		{-5, "", ""},
		{99, "", ""},
	}
	for _, test := range tests {
		got := d.call(t, test.code)
		if !strings.HasPrefix(got, test.first) || !strings.HasSuffix(got, test.last) || (test.first == "") != (got == "") {
			t.Errorf("%d: got %q", test.code, got)
		}
	}
	if got := d.call(t, 16); got != "" {
		t.Errorf("internal cache after its flush: %q", got)
	}
	var b bytes.Buffer
	if err := (Command{Code: 1000, Answered: true}).Call(d.socket, &b); !errors.Is(err, ErrUnanswered) || b.Len() > 0 {
		t.Errorf("health of conntrackd: %v, %q", err, b.String())
	}
	// It does not know of operands, and is none the worse for one.
	if err := Call(d.socket, 1001, &b, "192.0.2.1"); !errors.Is(err, ErrUnanswered) || b.Len() > 0 {
		t.Errorf("1001 with an operand: %q %v", b.String(), err)
	}
	if got := d.call(t, 21); !strings.HasPrefix(got, "cache internal:\n") {
		t.Errorf("after it: %q", got)
	}

	d.call(t, 20)
	for _, file := range []string{d.socket, d.lock} {
		if _, err := os.Lstat(file); !os.IsNotExist(err) {
			t.Errorf("%s is there after the end: %v", file, err)
		}
	}
	var connect *ConnectError
	if err := Call(d.socket, 21, io.Discard); !errors.As(err, &connect) {
		t.Errorf("after the end: %v", err)
	}
}

// A running C daemon keeps its socket and the file that is its lock. What a
// crash of it leaves behind is in nobody's way.
func TestCDaemonIsNotReplacedUnlessItCrashed(t *testing.T) {
	d := startCDaemon(t)
	lock, err := Lock(d.lock)
	if err != nil {
		t.Fatal(err)
	}
	var inUse *InUseError
	if _, err := Listen(d.socket); !errors.As(err, &inUse) {
		t.Errorf("got %v", err)
	}
	lock.Release()
	if got := d.call(t, 21); !strings.HasPrefix(got, "cache internal:") {
		t.Errorf("got %q", got)
	}

	d.cmd.Process.Kill()
	<-d.exited
	if lock, err = Lock(d.lock); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	lock.Unlock()
}

// While we run, C conntrackd refuses to start.
func TestCDaemonDoesNotStartBesideOurs(t *testing.T) {
	need(t, conntrackd)
	config, socket, lockPath := writeConfig(t, "")
	lock, err := Lock(lockPath)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	ln, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, stderr, code := cClient(t, config, nil); code != 1 || !strings.Contains(stderr, "lock") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Error(err)
	}
}
