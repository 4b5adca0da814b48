package nettest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultPrefix starts the names of namespaces made without Options.Prefix.
const DefaultPrefix = "cgo"

const netnsDir = "/run/netns"

// Options of a lab. The zero value is usable.
type Options struct {
	Prefix string // start of namespace names, without '-'; default DefaultPrefix
	Dir    string // configurations, sockets, logs; default a new directory under os.TempDir
}

// Lab owns namespaces, processes and a directory, and removes them in Close.
// Its methods may be called from several goroutines.
type Lab struct {
	base string // PREFIX-PID-N
	dir  string
	own  bool // the directory is ours to remove

	mu      sync.Mutex
	nodes   []*Node
	procs   []*Proc
	closers []func() error
	closing sync.Once
	signals chan os.Signal
}

var labs atomic.Int64

// New makes an empty lab after removing what dead runs with the same prefix
// left behind. The caller must Close it.
func New(o Options) (*Lab, error) {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if strings.ContainsAny(o.Prefix, "-/ ") {
		return nil, fmt.Errorf("make lab: prefix %q holds '-', '/' or a blank", o.Prefix)
	}
	if err := Sweep(o.Prefix); err != nil {
		return nil, err
	}
	l := &Lab{base: fmt.Sprintf("%s-%d-%d", o.Prefix, os.Getpid(), labs.Add(1)), dir: o.Dir}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", l.base+"-")
		if err != nil {
			return nil, fmt.Errorf("make lab: %w", err)
		}
		l.dir, l.own = dir, true
	}
	l.watchSignals()
	return l, nil
}

// Dir is the lab's directory for configurations, sockets and logs.
func (l *Lab) Dir() string { return l.dir }

// Nodes lists the namespaces in order of creation.
func (l *Lab) Nodes() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Node(nil), l.nodes...)
}

// OnClose registers f to run at the start of Close, last registered first.
func (l *Lab) OnClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// Close ends every process started in the lab, removes the namespaces and the
// directory. It may be called more than once; whoever calls it, even while a
// signal's handler does, returns when everything is gone.
func (l *Lab) Close() error {
	var err error
	l.closing.Do(func() { err = l.close() })
	return err
}

func (l *Lab) close() error {
	l.mu.Lock()
	closers, procs, nodes := l.closers, l.procs, l.nodes
	l.mu.Unlock()

	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	for i := len(procs) - 1; i >= 0; i-- {
		procs[i].Kill9()
	}
	for _, n := range nodes {
		errs = append(errs, n.remove())
	}
	l.removeDir()
	l.unwatchSignals()
	return errors.Join(errs...)
}

func (l *Lab) removeDir() {
	if os.Getenv("KEEP_LAB") != "" {
		fmt.Fprintf(os.Stderr, "lab %s kept in %s\n", l.base, l.dir)
		return
	}
	if l.own {
		_ = os.RemoveAll(l.dir)
	}
}

// watchSignals closes the lab when the process is told to end, and then lets
// the signal have its usual effect.
func (l *Lab) watchSignals() {
	l.signals = make(chan os.Signal, 1)
	signal.Notify(l.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s, ok := <-l.signals
		if !ok {
			return
		}
		_ = l.Close()
		signal.Reset(s)
		_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
		// It may have none: nohup, or "&" in a script.
		<-time.After(time.Second)
		os.Exit(1)
	}()
}

// unwatchSignals ends the goroutine of watchSignals. Stop returns only when no
// signal can be delivered any more, so closing the channel is safe.
func (l *Lab) unwatchSignals() {
	signal.Stop(l.signals)
	close(l.signals)
}

// Sweep removes the namespaces with this prefix whose process is gone, and
// kills what still runs inside them.
func Sweep(prefix string) error {
	names, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep namespaces: %w", err)
	}
	for _, e := range names {
		if !isLeftover(prefix, e.Name()) {
			continue
		}
		if err := removeNetNS(e.Name()); err != nil {
			return fmt.Errorf("sweep namespaces: %w", err)
		}
	}
	return nil
}

// isLeftover reports whether name is PREFIX-PID-... of a process that no
// longer exists.
func isLeftover(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix+"-")
	if !ok {
		return false
	}
	pid, _, ok := strings.Cut(rest, "-")
	if !ok {
		return false
	}
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join("/proc", pid))
	return errors.Is(err, os.ErrNotExist)
}

// removeNetNS kills the processes of a namespace and removes its name. A name
// that is already gone (another sweep was faster) is not an error.
func removeNetNS(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	pids, err := runHost(ctx, "ip", "netns", "pids", name)
	if err == nil {
		for _, p := range strings.Fields(pids) {
			if pid, err := strconv.Atoi(p); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	if _, err := runHost(ctx, "ip", "netns", "delete", name); err != nil {
		if _, statErr := os.Stat(filepath.Join(netnsDir, name)); statErr == nil {
			return err
		}
	}
	return nil
}
