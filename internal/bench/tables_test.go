package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// numbers are files with limits: one too small, one large enough.
type numbers struct {
	t                  *testing.T
	small, large, lock string
}

func newNumbers(t *testing.T) *numbers {
	dir := t.TempDir()
	n := &numbers{t, filepath.Join(dir, "small"), filepath.Join(dir, "large"), filepath.Join(dir, "lock")}
	n.set(1000, 5000)
	return n
}

func (n *numbers) set(small, large int) {
	n.t.Helper()
	if err := errors.Join(writeNumber(n.small, small), writeNumber(n.large, large)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *numbers) raise() func() error {
	n.t.Helper()
	restore, err := raise(n.lock, []limit{{n.small, 2000}, {n.large, 2000}})
	if err != nil {
		n.t.Fatal(err)
	}
	return restore
}

func (n *numbers) check(when string, small, large int) {
	n.t.Helper()
	a, err1 := readNumber(n.small)
	b, err2 := readNumber(n.large)
	if a != small || b != large || err1 != nil || err2 != nil {
		n.t.Errorf("%s: %d and %d, want %d and %d; %v, %v", when, a, b, small, large, err1, err2)
	}
}

func (n *numbers) restore(f func() error) {
	n.t.Helper()
	if err := f(); err != nil {
		n.t.Fatal(err)
	}
}

func TestRaiseRestores(t *testing.T) {
	n := newNumbers(t)
	restore := n.raise()
	n.check("raised", 2000, 5000)
	n.set(1000, 4000)
	if err := stayRaised([]limit{{n.small, 2000}, {n.large, 2000}}); err != nil {
		t.Fatal(err)
	}
	n.check("raised again", 2000, 4000)
	n.set(2000, 5000)
	n.restore(restore)
	n.check("restored", 1000, 5000)
	// A second call, after a signal, does nothing.
	n.set(7, 7)
	n.restore(restore)
	n.check("restored twice", 7, 7)
	// And what was before is that of now.
	n.restore(n.raise())
	n.check("another time", 7, 7)
}

// TestLastBenchRestores: two benches at a time, ending in either order.
func TestLastBenchRestores(t *testing.T) {
	for _, firstEndsFirst := range []bool{true, false} {
		n := newNumbers(t)
		a := n.raise()
		b := n.raise()
		if !firstEndsFirst {
			a, b = b, a
		}
		n.restore(a)
		n.check("one still runs", 2000, 5000)
		n.restore(b)
		n.check("none runs", 1000, 5000)
	}
}

// TestKilledBenchIsUndone: the next bench knows what was before the killed one.
func TestKilledBenchIsUndone(t *testing.T) {
	n := newNumbers(t)
	f, err := os.OpenFile(n.lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := begin(f, []limit{{n.small, 2000}}); err != nil {
		t.Fatal(err)
	}
	f.Close() // and with it the lock
	n.check("killed", 2000, 5000)
	n.restore(n.raise())
	n.check("restored by the next", 1000, 5000)
}

func TestRaiseUndoesAHalf(t *testing.T) {
	n := newNumbers(t)
	_, err := raise(n.lock, []limit{{n.small, 2000}, {n.small + "-missing", 2000}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	n.check("undone", 1000, 5000)
}
