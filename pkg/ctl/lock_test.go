package ctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestLockAndUnlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		l, err := Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v %v", info.Mode(), err)
		}
		if text, _ := os.ReadFile(path); string(text) != strconv.Itoa(os.Getpid()) {
			t.Errorf("the file holds %q", text)
		}
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("still there: %v", err)
		}
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	p, ready := startRole(t, "lock", path)
	if ready != "ready" {
		t.Fatal(ready)
	}
	_, err := Lock(path)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Path != path || locked.PID != p.cmd.Process.Pid {
		t.Fatalf("got %#v", err)
	}
	for _, word := range []string{path, fmt.Sprint(p.cmd.Process.Pid)} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("no %s in: %v", word, err)
		}
	}
	// Another one in the same process is a second daemon too.
	p.kill()
	l, err := Lock(path)
	if err != nil {
		t.Fatalf("after the holder's death: %v", err)
	}
	defer l.Unlock()
	if _, err := Lock(path); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("got %v", err)
	}
}

func TestCrashBlocksNobody(t *testing.T) {
	path := socketPath(t)
	lock := path + ".lock"
	for range 3 {
		p, ready := startRole(t, "node", lock, path)
		if ready != "ready" {
			t.Fatal(ready)
		}
		if _, second := startRole(t, "node", lock, path); !strings.Contains(second, "another daemon (pid "+fmt.Sprint(p.cmd.Process.Pid)+") holds it") {
			t.Errorf("second daemon: %s", second)
		}
		var b strings.Builder
		if err := Call(path, 21, &b); err != nil || b.String() != "hello\n" {
			t.Errorf("got %q %v", b.String(), err)
		}
		p.kill()
		for _, file := range []string{lock, path} {
			if _, err := os.Lstat(file); err != nil {
				t.Errorf("a crash leaves both files: %v", err)
			}
		}
		var connect *ConnectError
		if err := Call(path, 21, io.Discard); !errors.As(err, &connect) {
			t.Errorf("after the crash: %v", err)
		}
	}
}

// What C conntrackd leaves behind is an empty file.
func TestLockTakesOverStaleFiles(t *testing.T) {
	for _, content := range []string{"", "\n", "4711", "4711\n"} {
		path := filepath.Join(t.TempDir(), "lock")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Lock(path)
		if err != nil {
			t.Errorf("%q: %v", content, err)
			continue
		}
		if text, _ := os.ReadFile(path); string(text) != strconv.Itoa(os.Getpid()) {
			t.Errorf("%q: the file holds %q", content, text)
		}
		l.Unlock()
	}
}

func TestLockLeavesOtherFilesAlone(t *testing.T) {
	const precious = "Sync {\n\tMode FTFW { }\n}\n"
	tests := []struct {
		name, want string
		make       func(path string) error
	}{
		{"configuration", "something else", func(p string) error { return os.WriteFile(p, []byte(precious), 0o644) }},
		{"many digits", "something else", func(p string) error { return os.WriteFile(p, []byte("123456789012345678"), 0o644) }},
		{"not a pid", "something else", func(p string) error { return os.WriteFile(p, []byte("-1"), 0o644) }},
		{"directory", "is a directory", func(p string) error { return os.Mkdir(p, 0o755) }},
		{"pipe", "not a regular file", func(p string) error { return syscall.Mkfifo(p, 0o600) }},
		{"link", "too many levels of symbolic links", func(p string) error {
			if err := os.WriteFile(p+".target", nil, 0o600); err != nil {
				return err
			}
			return os.Symlink(p+".target", p)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before := contents(path)
			_, err := Lock(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if after := contents(path); after != before {
				t.Errorf("the file holds %q", after)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		})
	}
}

// contents reads regular files only: a pipe would block.
func contents(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	b, _ := os.ReadFile(path)
	return string(b)
}

func TestLockWithoutDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "lock")
	if _, err := Lock(path); err == nil || !strings.Contains(err.Error(), "lock "+path+": no such file or directory") {
		t.Errorf("got %v", err)
	}
}

// A script that takes the lock for stale removes the file under a running
// daemon: the daemon must not remove its successor's.
func TestUnlockLeavesForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Unlock(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("removed a foreign lock: %v", err)
	}
	var locked *LockedError
	if _, err := Lock(path); !errors.As(err, &locked) {
		t.Errorf("got %v", err)
	}
	if err := second.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestReleaseLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if l, err = Lock(path); err != nil {
		t.Fatalf("after Release: %v", err)
	}
	l.Unlock()
}

// Many lock and unlock at once: never do two hold it.
func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var holders, taken atomic.Int32
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for range 300 {
				l, err := Lock(path)
				var locked *LockedError
				if errors.As(err, &locked) || errors.Is(err, errLockGone) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d holders", n)
				}
				taken.Add(1)
				holders.Add(-1)
				if err := l.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if taken.Load() == 0 {
		t.Error("nobody ever had the lock")
	}
}
