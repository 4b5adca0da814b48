package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRaiseTablesRestores(t *testing.T) {
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	for path, n := range map[string]int{small: 1000, large: 5000} {
		if err := writeNumber(path, n); err != nil {
			t.Fatal(err)
		}
	}
	restore, err := raise([]limit{{small, 2000}, {large, 2000}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, wantSmall, wantLarge int) {
		t.Helper()
		a, err1 := readNumber(small)
		b, err2 := readNumber(large)
		if a != wantSmall || b != wantLarge || err1 != nil || err2 != nil {
			t.Errorf("%s: %d and %d, %v, %v", when, a, b, err1, err2)
		}
	}
	check("raised", 2000, 5000)
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	check("restored", 1000, 5000)
	// A second call, after a signal, does nothing.
	if err := writeNumber(small, 7); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	check("restored twice", 7, 5000)
}

func TestRaiseTablesUndoesAHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "first")
	if err := writeNumber(path, 1000); err != nil {
		t.Fatal(err)
	}
	_, err := raise([]limit{{path, 2000}, {path + "-missing", 2000}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if n, err := readNumber(path); n != 1000 || err != nil {
		t.Errorf("left at %d, %v", n, err)
	}
}
