package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The size of the kernel's tables is one number for the whole machine.
const (
	sysctlMax  = "/proc/sys/net/netfilter/nf_conntrack_max"
	sysctlHash = "/sys/module/nf_conntrack/parameters/hashsize"
)

// What the largest row needs: its entries in two namespaces.
const (
	needMax  = 10_000_000
	needHash = 2_097_152
)

// A limit is a number in a file that must not be too small.
type limit struct {
	path string
	need int
}

// lockFile is shared by all benches that run. It holds what was there before
// the first of them, also if that one was killed.
const lockFile = "/run/conntrackgo-bench"

var tableLimits = []limit{{sysctlMax, needMax}, {sysctlHash, needHash}}

// raiseTables makes room and returns what undoes it.
func raiseTables() (restore func() error, err error) { return raise(lockFile, tableLimits) }

// stayRaised raises again what somebody else has lowered meanwhile.
func stayRaised(limits []limit) error {
	for _, x := range limits {
		now, err := readNumber(x.path)
		if err == nil && now < x.need {
			err = writeNumber(x.path, x.need)
		}
		if err != nil {
			return fmt.Errorf("raise table size: %w", err)
		}
	}
	return nil
}

// raise raises the limits unless another bench has, and returns what restores
// them unless another one still runs.
func raise(lock string, limits []limit) (restore func() error, err error) {
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("raise table size: %w", err)
	}
	if err := begin(f, limits); err != nil {
		return nil, errors.Join(fmt.Errorf("raise table size: %w", err), f.Close())
	}
	// A signal may come while the end is near.
	return sync.OnceValue(func() error { return errors.Join(end(f), f.Close()) }), nil
}

func begin(f *os.File, limits []limit) error {
	fd := int(f.Fd())
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			if err := raiseAll(f, limits); err != nil {
				return errors.Join(err, end(f))
			}
			return unix.Flock(fd, unix.LOCK_SH)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		// Others run: they have raised the limits, unless the last of
		// them ended just now.
		if err := unix.Flock(fd, unix.LOCK_SH); err != nil {
			return err
		}
		if was, err := readWas(f); err != nil || len(was) > 0 {
			return err
		}
		if err := unix.Flock(fd, unix.LOCK_UN); err != nil {
			return err
		}
	}
}

// raiseAll writes down each number before it changes it. What stands there
// already was left by a bench that was killed, and is the older truth.
func raiseAll(f *os.File, limits []limit) error {
	was, err := readWas(f)
	if err != nil {
		return err
	}
	for _, x := range limits {
		now, err := readNumber(x.path)
		if err != nil {
			return err
		}
		if _, ok := was[x.path]; !ok {
			if _, err := fmt.Fprintf(f, "%s %d\n", x.path, now); err != nil {
				return err
			}
		}
		if now < x.need {
			if err := writeNumber(x.path, x.need); err != nil {
				return err
			}
		}
	}
	return nil
}

// end restores what was, if nobody else needs what is.
func end(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	was, err := readWas(f)
	if err != nil {
		return err
	}
	var errs []error
	for path, n := range was {
		if now, err := readNumber(path); err != nil || now != n {
			errs = append(errs, err, writeNumber(path, n))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("restore table size: %w", err)
	}
	return f.Truncate(0)
}

// readWas reads the lines of a lock file.
func readWas(f *os.File) (map[string]int, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	was := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var path string
		var n int
		if _, err := fmt.Sscan(line, &path, &n); err != nil {
			return nil, fmt.Errorf("read %s: line %q: %w", f.Name(), line, err)
		}
		was[path] = n
	}
	return was, nil
}

// onSignal runs f as soon as the process is told to end. What ends the process
// are the labs, when they have removed their namespaces.
func onSignal(f func() error) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-c
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}()
}

func readNumber(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func writeNumber(path string, n int) error {
	return os.WriteFile(path, []byte(strconv.Itoa(n)), 0)
}
