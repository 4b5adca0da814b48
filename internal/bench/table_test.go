package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what was written; got:\n%s", path, got)
	}
}

// sample is a run with a row of every fate.
func sample() *bench {
	b := &bench{options: options{rounds: 3}, rec: newRecord(), chosen: map[string]bool{}, machine: machine{
		CPUs: 2, Rest: 1, Model: "Some CPU", MemoryGB: 24, Kernel: "6.1", Go: "go1.26", C: "1.4.7",
	}}
	set := func(id string, k nettest.Kind, steps, inStep int, values ...float64) *cell {
		b.chosen[id] = true
		c := b.rec.cell(id, k)
		c.values, c.steps, c.inStep = values, steps, inStep
		return c
	}
	both := func(id string, c, ours float64) {
		set(id, nettest.C, 1, 1, c)
		set(id, nettest.Go, 1, 1, ours)
	}
	set("sender-max", nettest.C, 3, 1, 4.2, 4, 4.4)
	set("sender-max", nettest.Go, 3, 3, 1.5, 1.4, 1.8)
	both("lost-max", 12.5, 0)
	both("reached-max", 301, 322)
	both("sender-1k", 10, 11)
	set("receiver-inject", nettest.C, 1, 1, 11.2)
	set("receiver-inject", nettest.Go, 0, 0).missing = "DisableExternalCache is not supported"
	set("receiver-external", nettest.C, 1, 1, 1.3)
	set("receiver-external", nettest.Go, 1, 0, 0.5)
	set("complete-500k", nettest.C, 0, 0, 1, 0, 1).of = 3
	set("complete-500k", nettest.Go, 0, 0, 1, 1, 1).of = 3
	set("resync-500k", nettest.C, 0, 0).wrong = []string{"440000 of 500000 entries", "440000 of 500000 entries"}
	set("resync-500k", nettest.Go, 0, 0, 0.4)
	both("sweep-wait", 2300, 51)
	both("stall-100k", 3.4, 0.9)
	b.rec.cell("stall-100k", nettest.C).wrong = []string{"3 of 8 connections are dead"}
	for _, x := range []float64{1000, 20_000, 300_000} {
		b.rec.point(curveRate, nettest.C, x, 30/x*1000+4)
		b.rec.point(curveRate, nettest.Go, x, 20/x*1000+1.2)
	}
	return b
}

func TestTable(t *testing.T) { golden(t, "table.txt", textTable(sections(), sample().rec)) }

func TestMarkdown(t *testing.T) {
	b := sample()
	text, err := b.markdown([]drawn{{"CPU time", "benchmarks/rate.svg"}}, 20*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.md", text)
}

func TestVerdicts(t *testing.T) {
	b := sample()
	want := map[string]verdict{
		"sender-max": verdictOK, "lost-max": verdictOK, "reached-max": verdictNone, "sender-1k": verdictMissed,
		"receiver-inject":   verdictMissing, // not there yet
		"receiver-external": verdictFailed,  // out of step
		"complete-500k":     verdictOK,
		"resync-500k":       verdictOK, // C never managed
		"sweep-wait":        verdictMissed,
		"stall-100k":        verdictOK,
	}
	seen := 0
	for _, s := range sections() {
		for _, r := range s.rows {
			if l, ok := r.lineOf(b.rec); ok {
				seen++
				if l.Verdict != want[r.id] {
					t.Errorf("%s: %q, want %q", r.id, l.Verdict, want[r.id])
				}
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d rows, want %d", seen, len(want))
	}
}

// TestOnlyOursFails: what C can't do is a result, what ours can't is an error.
func TestOnlyOursFails(t *testing.T) {
	b := sample()
	b.kinds = []nettest.Kind{nettest.C, nettest.Go}
	if err := b.failures(); err == nil || !strings.Contains(err.Error(), "receiver CPU, external cache on") || strings.Contains(err.Error(), ";") {
		t.Errorf("got %v", err)
	}
	b.rec.cell("receiver-external", nettest.Go).inStep = 1
	if err := b.failures(); err != nil {
		t.Errorf("nothing of ours failed: %v", err)
	}
	b.rec.cell("complete-500k", nettest.Go).values[1] = 0
	if err := b.failures(); err == nil {
		t.Error("an incomplete resync of ours is no failure")
	}
	b.rec.cell("complete-500k", nettest.Go).values[1] = 1
	b.rec.cell("sweep-wait", nettest.Go).wrong = []string{"no answer"}
	if err := b.failures(); err == nil {
		t.Error("a row of ours that failed once is no failure")
	}
}

// TestRowsAndScenariosAgree: every row is measured, by exactly one scenario,
// unless a large table's start also comes with its other rows.
func TestRowsAndScenariosAgree(t *testing.T) {
	measured := map[string]int{}
	for _, s := range scenarios() {
		if s.name == "" || len(s.rows) == 0 {
			t.Errorf("scenario %+v", s)
		}
		for _, id := range s.rows {
			measured[id]++
		}
	}
	for _, s := range sections() {
		for _, r := range s.rows {
			if measured[r.id] != 1 {
				t.Errorf("row %s is measured by %d scenarios", r.id, measured[r.id])
			}
			if r.name == "" || r.target > 0 && r.limit >= 0 {
				t.Errorf("row %+v", r)
			}
			delete(measured, r.id)
		}
	}
	if len(measured) > 0 {
		t.Errorf("no rows for %v", measured)
	}
}

func TestNotesNameRows(t *testing.T) {
	ids := map[string]bool{}
	for _, s := range sections() {
		for _, r := range s.rows {
			ids[r.id] = true
		}
	}
	for id, text := range parseNotes(notesText) {
		if !ids[id] || text == "" {
			t.Errorf("notes.md: row %q, text %q", id, text)
		}
	}
	got := parseNotes("intro\n\n## a\nfirst\nline\n\n## b\nsecond\n")
	if len(got) != 2 || got["a"] != "first line" || got["b"] != "second" {
		t.Errorf("got %q", got)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1234.5: "1234", 99.96: "100.0", 12.34: "12.3", 1.234: "1.23", 0.1234: "0.123", 0.0001234: "0.0001", -3.456: "-3.46"} {
		if got := figure(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1k", 1500: "1500", 500_000: "500k", 4_000_000: "4M"} {
		if got := short(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
