package failover_test

import (
	"os"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

// inCI is how long the soak lasts there if SOAK does not say it.
const inCI = 75 * time.Second

// soakLength is SOAK of the environment.
func soakLength(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	switch {
	case text == "" && os.Getenv("CI") == "true":
		return inCI
	case text == "":
		t.Skip("no soak: SOAK does not say how long (make soak)")
	}
	length, err := time.ParseDuration(text)
	if err != nil || length < inCI/2 {
		t.Fatalf("SOAK is %q, want a time of %v or more", text, inCI/2)
	}
	return length
}

// TestSoak is what `make soak` runs: nothing is lost, nothing grows, and the
// tables are equal at the end.
func TestSoak(t *testing.T) {
	length := soakLength(t)
	ours := failover.Setup{Kind: nettest.Go, Script: ourScript}
	r := newRig(t, failover.Options{A: ours, B: ours, Drift: 2000})
	s := &failover.Soak{Rig: r, Length: length, Rate: 5000, Shortest: 20 * time.Second, Longest: 40 * time.Second}
	if length < 5*time.Minute {
		s.Shortest, s.Longest = 8*time.Second, 14*time.Second
	}
	p := &failover.SoakPrinter{W: os.Stdout}
	s.Report = p.Failover
	p.Intro(s)
	result, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Summary(result)
	if err := result.Err(); err != nil {
		t.Error(err)
	}
	checkDaemons(t, r)
}
