package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxPath is the longest path of a UNIX socket, in bytes.
const MaxPath = 107

// socketMode lets only the daemon's user connect.
const socketMode = 0o600

// InUseError tells that a running daemon answers at the path.
type InUseError struct{ Path string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("listen on %s: a running daemon answers there", e.Path)
}

// Listen opens the control socket at path with mode 0600. A socket that a
// crash has left behind is replaced; one that somebody answers is not, and
// gives an *InUseError; anything but a socket is left alone and refused. Take
// the lock file first: between two daemons starting at the same moment only
// the lock decides. Close removes the socket if it is still this one.
func Listen(path string) (net.Listener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: restrictMode}
	ln, err := lc.Listen(context.Background(), "unix", address(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, cause(err))
	}
	ul := ln.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	info, err := os.Lstat(path)
	if err != nil {
		ul.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, cause(err))
	}
	return &listener{UnixListener: ul, path: path, info: info}, nil
}

func checkPath(path string) error {
	if path == "" {
		return errors.New("listen: no path for the control socket")
	}
	if len(path) > MaxPath {
		return fmt.Errorf("listen on %s: path of %d bytes is longer than %d", path, len(path), MaxPath)
	}
	return nil
}

// address keeps a relative name that starts with @ out of the abstract name
// space, which has no file mode.
func address(path string) string {
	if path[0] == '@' {
		return "./" + path
	}
	return path
}

// restrictMode runs between socket and bind: the file that bind makes takes
// its mode from the socket, so it is never open to others.
func restrictMode(_, _ string, c syscall.RawConn) error {
	var modeErr error
	err := c.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), socketMode) })
	return errors.Join(err, modeErr)
}

// removeStale clears the way for bind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, cause(err))
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: the file there is not a socket and was left alone", path)
	}
	conn, err := net.Dial("unix", address(path))
	switch {
	case err == nil:
		conn.Close()
		return &InUseError{path}
	case errors.Is(err, unix.EAGAIN): // its backlog is full
		return &InUseError{path}
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("listen on %s: probe the socket there: %w", path, cause(err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen on %s: %w", path, cause(err))
	}
	return nil
}

// cause strips the operation and path that our own errors already tell.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

type listener struct {
	*net.UnixListener
	path string
	info os.FileInfo // of the socket file as we made it

	once sync.Once
}

// Close removes the socket file before the socket: while the socket is open
// its inode cannot be reused, so the comparison cannot be fooled.
func (l *listener) Close() error {
	l.once.Do(func() {
		info, err := os.Lstat(l.path)
		if err == nil && os.SameFile(info, l.info) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
