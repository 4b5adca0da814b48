package daemon

import (
	"os"
	"slices"
	"testing"
)

func TestChildEnv(t *testing.T) {
	got := childEnv([]string{"A=1", "WATCHDOG_PID=7", "WATCHDOG_USEC=3", "XWATCHDOG_PID=1"})
	if want := []string{"A=1", "WATCHDOG_USEC=3", "XWATCHDOG_PID=1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOwnBinary must find this test, whatever argv[0] says.
func TestOwnBinary(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := t.TempDir() + "/conntrackd"
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	argv0 := os.Args[0]
	defer func() { os.Args[0] = argv0 }()
	for name, want := range map[string]string{link: link, own: own, "sh": own, "/bin/sh": own, "no-such-program": own, "": own} {
		os.Args[0] = name
		if got, err := ownBinary(); err != nil || got != want {
			t.Errorf("started as %q: got %q, %v, want %q", name, got, err, want)
		}
	}
}
