package nettest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// TB is the part of testing.TB the lab needs.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Failed() bool
}

// Tools are the programs every lab test needs.
var Tools = []string{"ip", "nft", "conntrack"}

// Available says what the machine lacks for a lab, nil if nothing.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for _, tool := range append([]string{CBinary()}, Tools...) {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("program missing: %w", err)
		}
	}
	return nil
}

// Get makes a lab that is closed at the end of the test. Without what a lab
// needs the test is skipped, or fails if CI=true is in the environment.
func Get(t TB) *Lab {
	t.Helper()
	if err := Available(); err != nil {
		SkipUnlessCI(t, "no lab: %v", err)
	}
	l, err := New(Options{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

// SkipUnlessCI skips the test with a reason, or fails it if CI=true.
func SkipUnlessCI(t TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
		return
	}
	t.Skipf(format, args...)
}

// Need skips the test (fails it if CI=true) when a daemon of one of the kinds
// can't be had, which for ours means that it doesn't build.
func Need(t TB, kinds ...Kind) {
	t.Helper()
	for _, k := range kinds {
		if _, err := k.Binary(); err != nil {
			SkipUnlessCI(t, "no %s daemon: %v", k, err)
		}
	}
}
