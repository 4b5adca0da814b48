package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// LockFile is a held lock. The kernel gives it up when the process ends, in
// whatever way, so a file left by a crash blocks nobody.
type LockFile struct {
	path string
	file *os.File
}

// LockedError tells that another daemon holds the lock file.
type LockedError struct {
	Path string
	PID  int // 0: not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock %s: another daemon holds it", e.Path)
	}
	return fmt.Sprintf("lock %s: another daemon (pid %d) holds it", e.Path, e.PID)
}

// errLockGone tells that the file locked is no longer the one at the path.
var errLockGone = errors.New("the file is removed again and again")

// lockAttempts bounds the races with others that remove the file just locked.
const lockAttempts = 16

// Lock takes the lock file at path, creating it with mode 0600, and writes the
// process id into it. It does not wait: a lock held elsewhere is a
// *LockedError. A file that is not a lock file is left alone and refused.
//
// The lock belongs to the open file, so it must be taken by the process that
// will serve, after any re-execution.
func Lock(path string) (*LockFile, error) {
	err := errLockGone
	for i := 0; i < lockAttempts && errors.Is(err, errLockGone); i++ {
		var file *os.File
		if file, err = openLock(path); err != nil {
			continue
		}
		if err = take(file, path); err == nil {
			return &LockFile{path, file}, nil
		}
		file.Close()
	}
	var held *LockedError
	if errors.As(err, &held) {
		return nil, err
	}
	return nil, fmt.Errorf("lock %s: %w", path, cause(err))
}

// openLock opens or creates the file. It follows no link, because the
// directory may be writable for everybody.
func openLock(path string) (*os.File, error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	file, err := os.OpenFile(path, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	file, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, socketMode)
	if errors.Is(err, fs.ErrExist) {
		return nil, errLockGone
	}
	return file, err
}

// take locks the open file and makes it ours.
func take(file *os.File, path string) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	pid, isLock := readPID(file)
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &LockedError{path, pid}
	}
	if err != nil {
		return err
	}
	if !isLock {
		return errors.New("the file holds something else and was left alone")
	}
	if !isAt(path, info) {
		return errLockGone
	}
	return writePID(file)
}

// maxPIDText is longer than any process id with its line end.
const maxPIDText = 16

// readPID reads what a holder has written. ok is false if the file holds
// anything else; an empty file is a lock file of C conntrackd.
func readPID(file *os.File) (pid int, ok bool) {
	b := make([]byte, maxPIDText)
	n, _ := file.ReadAt(b, 0)
	text := bytes.TrimSpace(b[:n])
	if len(text) == 0 {
		return 0, n < maxPIDText
	}
	pid, err := strconv.Atoi(string(text))
	return pid, err == nil && n < maxPIDText && pid > 0
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	return err
}

// isAt reports whether the file of info is the one at path.
func isAt(path string, info os.FileInfo) bool {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(now, info)
}

// Unlock removes the file, if it is still ours, and gives up the lock. The
// order matters: whoever locked the removed file in between finds that it is
// gone from the path.
func (l *LockFile) Unlock() error {
	info, err := l.file.Stat()
	if err == nil && isAt(l.path, info) {
		err = os.Remove(l.path)
	}
	err = errors.Join(err, l.file.Close())
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.path, cause(err))
	}
	return nil
}

// Release gives up the lock and leaves the file: for a daemon that finds, with
// the lock in its hands, that conntrackd is running. C conntrackd's lock is
// the mere existence of the file.
func (l *LockFile) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release %s: %w", l.path, cause(err))
	}
	return nil
}
