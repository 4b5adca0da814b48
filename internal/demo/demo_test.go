package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/failover"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestParse(t *testing.T) {
	standard := settings{bin: "bin/conntrackgo", script: "contrib/primary-backup.sh", a: nettest.Go, b: nettest.Go, connections: 220}
	change := func(f func(*settings)) settings {
		s := standard
		f(&s)
		return s
	}
	for _, test := range []struct {
		args string
		want settings
		err  string
	}{
		{"", standard, ""},
		{"-a c -b Go", change(func(s *settings) { s.a = nettest.C }), ""},
		{"-bin /x -entries 5 -connections 20", change(func(s *settings) { s.bin, s.entries, s.connections = "/x", 5, 20 }), ""},
		{"-script stock", change(func(s *settings) { s.script = failover.StockScript }), ""},
		{"-b rust", settings{}, `daemon "rust" is neither go nor c`},
		{"-connections 19", settings{}, "-connections must be at least 20"},
		{"-entries -1", settings{}, "-entries must not be negative"},
		{"now", settings{}, `unexpected argument "now"`},
	} {
		got, err := parse(strings.Fields(test.args))
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%q: error %v, want %s", test.args, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%q: %+v, error %v, want %+v", test.args, got, err, test.want)
		}
	}
}

func result(c *failover.Cause, alive, held int) *failover.Result {
	ms := time.Millisecond
	return &failover.Result{
		Cause: c.Name, From: "a", To: "b", TakeOver: 700 * ms, Script: 50 * ms, Before: 220, Held: held,
		Stalls: map[failover.Role][]time.Duration{failover.Busy: {210 * ms, 220 * ms, 860 * ms}, failover.UDP: {40 * ms, 90 * ms}},
		Count: map[failover.Role]failover.Count{
			failover.Busy: {Alive: min(alive, 20), Asked: 20}, failover.Idle: {Alive: max(alive-20, 0), Asked: 200}, failover.UDP: {Alive: 12, Asked: 12},
		},
	}
}

// TestText tells a whole demo from made-up results.
func TestText(t *testing.T) {
	var b strings.Builder
	n := newNarrator(&b)
	s := settings{a: nettest.Go, b: nettest.C, connections: 220, entries: 1000}
	n.intro(s)
	n.chapter(s, true)
	n.started()
	n.connected(s, true)
	var with []*failover.Result
	for i, c := range []*failover.Cause{failover.Stop, failover.Crash, failover.LanDown, failover.WanDown, failover.PowerCut} {
		with = append(with, result(c, 220, 220))
		n.failover(i+1, with[i])
		n.recovered(with[i])
	}
	n.chapter(s, false)
	n.connected(s, false)
	without := []*failover.Result{result(failover.Stop, 0, 0)}
	n.failover(1, without[0])
	n.summary(with, without)

	file := filepath.Join("testdata", "demo.txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("text differs (-update rewrites it):\n%s", diff)
	}
	if strings.Contains(b.String(), "%!") {
		t.Error("a format is wrong")
	}
}

func TestVerdict(t *testing.T) {
	s := settings{connections: 220}
	good, dead := result(failover.Stop, 220, 220), result(failover.Stop, 0, 0)
	for name, test := range map[string]struct {
		with, without *failover.Result
		err           string
	}{
		"as it should be":    {good, dead, ""},
		"one lost":           {result(failover.Crash, 219, 220), dead, "1 connections were lost when keepalived crashes on a (kill -9)"},
		"none held":          {result(failover.Stop, 220, 0), dead, "220 of 220 connections were not in the table of b when keepalived is stopped on a"},
		"control shows none": {good, result(failover.Stop, 3, 0), "3 TCP connections lived without a daemon; this shows nothing"},
	} {
		err := verdict(s, []*failover.Result{test.with}, []*failover.Result{test.without})
		if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
}

// TestCheck names what is missing.
func TestCheck(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := check(settings{}); err == nil || !strings.Contains(err.Error(), "need root. Try: sudo make demo") {
			t.Errorf("without root: %v", err)
		}
		return
	}
	if err := nettest.Available(); err != nil {
		nettest.SkipUnlessCI(t, "no lab: %v", err)
	}
	if err := check(settings{bin: "/nowhere/conntrackgo"}); err == nil || !strings.Contains(err.Error(), "/nowhere/conntrackgo") {
		t.Errorf("without our daemon: %v", err)
	}
}
