package ctl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCallWithoutDaemon(t *testing.T) {
	stale := socketPath(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	file := socketPath(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		cause      error
	}{
		{"nothing there", socketPath(t), fs.ErrNotExist},
		{"stale socket", stale, syscall.ECONNREFUSED},
		{"plain file", file, syscall.ECONNREFUSED},
		{"no path", "", nil},
		{"long path", strings.Repeat("x", 200), nil},
	}
	for _, test := range tests {
		err := Call(test.path, 21, io.Discard)
		var connect *ConnectError
		if !errors.As(err, &connect) || connect.Path != test.path {
			t.Errorf("%s: got %#v", test.name, err)
			continue
		}
		if err.Error() != "can't connect: is conntrackd running? appropriate permissions?" {
			t.Errorf("%s: text %q", test.name, err)
		}
		if test.cause != nil && !errors.Is(err, test.cause) {
			t.Errorf("%s: caused by %v, want %v", test.name, connect.Err, test.cause)
		}
	}
}

// The request is one number, and nothing follows it until the reply ends.
func TestCallSendsOneNumber(t *testing.T) {
	path := socketPath(t)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := make([]byte, 16)
		n, _ := conn.Read(b)
		got <- b[:n]
		io.WriteString(conn, "in several\n")
		io.WriteString(conn, "pieces, with a \x00 inside\n")
	}()
	var reply bytes.Buffer
	if err := Call(path, -2, &reply); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, native(-2)) {
		t.Errorf("sent % x", b)
	}
	if reply.String() != "in several\npieces, with a \x00 inside\n" {
		t.Errorf("got %q", reply.String())
	}
}

// What is always answered and is not was asked of somebody who does not know
// it, as conntrackd.
func TestCallWithoutAnswer(t *testing.T) {
	s := startServer(t, []Request{{Code: 7, Handle: write("text\n")}}, Config{})
	for _, test := range []struct {
		cmd  Command
		text string
		err  error
	}{
		{Command{Code: 7, Answered: true}, "text\n", nil},
		{Command{Code: 8, Answered: true}, "", ErrUnanswered},
		{Command{Code: 8}, "", nil},
	} {
		var text strings.Builder
		if err := test.cmd.Call(s.path, &text); !errors.Is(err, test.err) || text.String() != test.text {
			t.Errorf("%+v: %v, %q", test.cmd, err, text.String())
		}
	}
	cmd, err := ParseArgs([]string{"-s", "health"}, []Request{{Code: 7, Flag: "-s health", Answered: true}})
	if err != nil || !cmd.Answered || cmd.Code != 7 {
		t.Errorf("%+v, %v", cmd, err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestCallTellsWhenOutputFails(t *testing.T) {
	s := startServer(t, []Request{{Code: 16, Handle: write("line\n")}}, Config{})
	err := Call(s.path, 16, fullDisk{})
	var connect *ConnectError
	if !errors.Is(err, syscall.ENOSPC) || errors.As(err, &connect) {
		t.Errorf("got %v", err)
	}
}

// A full backlog is no reason to give up.
func TestCallWaitsForTheBacklog(t *testing.T) {
	path := socketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	first, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := net.Dial("unix", path); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("the backlog is not full: %v", err)
	}
	done := make(chan error)
	go func() { done <- Call(path, 21, io.Discard) }()
	select {
	case err := <-done:
		t.Fatalf("the call gave up: %v", err)
	case <-time.After(3 * dialPause): // nothing to wait for but nothing
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- Serve(ctx, ln, []Request{{Code: 21, Handle: write("here")}}, Config{}) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
