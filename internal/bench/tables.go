package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// raiseTables makes room and returns what undoes it.
func raiseTables() (restore func() error, err error) {
	return raise([]limit{{sysctlMax, needMax}, {sysctlHash, needHash}})
}

func raise(limits []limit) (restore func() error, err error) {
	var mu sync.Mutex // a signal may come while the end is near
	var undo []func() error
	restore = func() error {
		mu.Lock()
		defer mu.Unlock()
		var errs []error
		for _, f := range undo { // the quick one first: the process may be about to end
			errs = append(errs, f())
		}
		undo = nil
		return errors.Join(errs...)
	}
	for _, x := range limits {
		was, err := readNumber(x.path)
		if err == nil && was < x.need {
			err = writeNumber(x.path, x.need)
			undo = append(undo, func() error { return writeNumber(x.path, was) })
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("raise table size: %w", err), restore())
		}
	}
	return restore, nil
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
