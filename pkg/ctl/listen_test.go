package ctl

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestListenMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := socketPath(t)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), os.ModeSocket|0o600; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := socketPath(t)
	crash, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	crash.SetUnlinkOnClose(false)
	crash.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("no stale socket to begin with")
	}
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket still there after Close: %v", err)
	}
}

func TestListenDoesNotStealSocket(t *testing.T) {
	s := startServer(t, []Request{{Code: 21, Handle: write("mine")}}, Config{})
	_, err := Listen(s.path)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.Path != s.path || !strings.Contains(err.Error(), s.path) {
		t.Fatalf("got %v", err)
	}
	if got := s.call(t, 21); got != "mine" {
		t.Errorf("got %q", got)
	}
}

// A daemon that accepts nobody, so that even its backlog is full, is alive.
func TestListenDoesNotStealBusySocket(t *testing.T) {
	path := socketPath(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	var inUse *InUseError
	for range 3 {
		if _, err := Listen(path); !errors.As(err, &inUse) {
			t.Fatalf("got %v", err)
		}
		conn, err := net.Dial("unix", path)
		if err == nil {
			defer conn.Close()
		}
	}
}

func TestListenLeavesOtherFilesAlone(t *testing.T) {
	tests := []struct {
		name string
		make func(path string) error
	}{
		{"file", func(p string) error { return os.WriteFile(p, []byte("precious"), 0o644) }},
		{"directory", func(p string) error { return os.Mkdir(p, 0o755) }},
		{"link", func(p string) error { return os.Symlink("/nonexistent", p) }},
		{"pipe", func(p string) error { return syscall.Mkfifo(p, 0o600) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := socketPath(t)
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			ln, err := Listen(path)
			if err == nil {
				ln.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not a socket") {
				t.Errorf("unclear error: %v", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("the file was touched: %v", err)
			}
		})
	}
}

func TestListenBadPaths(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ path, want string }{
		{"", "no path"},
		{"/tmp/" + strings.Repeat("x", MaxPath-4), "longer than 107"},
		{dir + "/no/such/directory", "no such file or directory"},
	} {
		if _, err := Listen(test.path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %q", test.path, err, test.want)
		}
	}
	longest := "/tmp/" + strings.Repeat("x", MaxPath-5)
	ln, err := Listen(longest)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(longest), err)
	}
	ln.Close()
}

// A name with @ is a file like any other and not in the abstract name space,
// where everybody could connect.
func TestListenAtSign(t *testing.T) {
	t.Chdir(t.TempDir())
	ln, err := Listen("@ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Lstat("@ctl"); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("got %v %v", info, err)
	}
	go func() {
		if conn, err := ln.Accept(); err == nil {
			io.ReadFull(conn, make([]byte, 4))
			io.WriteString(conn, "here")
			conn.Close()
		}
	}()
	var b bytes.Buffer
	if err := Call("@ctl", 1, &b); b.String() != "here" {
		t.Errorf("got %q %v", b.String(), err)
	}
}

// Whoever has replaced our socket keeps theirs.
func TestCloseLeavesForeignSocket(t *testing.T) {
	path := socketPath(t)
	ours, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	theirs, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("Close removed a foreign socket: %v", err)
	}
	if err := ours.Close(); err == nil {
		t.Error("closed twice without an error")
	}
}
