package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// A verdict is the last word of a line.
type verdict string

const (
	verdictOK      verdict = "ok"
	verdictMissed  verdict = "missed"
	verdictFailed  verdict = "FAILED"
	verdictMissing verdict = "not supported yet"
	verdictNone    verdict = "" // no target
)

// line is a row as it is shown.
type line struct {
	Name, Unit, C, Ours, Ratio, Target, Spread, Step string
	Verdict                                          verdict
	Notes                                            []string // why something failed
}

// lineOf makes a line of a row's cells; ok is false if nothing was measured.
func (r *row) lineOf(rec *record) (l line, ok bool) {
	cells, ok := rec.cells[r.id]
	if !ok {
		return line{}, false
	}
	c, ours := cells[nettest.C], cells[nettest.Go]
	if c == nil {
		c = &cell{}
	}
	if ours == nil {
		ours = &cell{}
	}
	l = line{
		Name: r.name, Unit: r.unit, C: r.show(c), Ours: r.show(ours), Target: r.goal(),
		Spread: spreads(c, ours), Step: c.step() + "/" + ours.step(), Ratio: "-",
	}
	if l.Step == "-/-" {
		l.Step = "-"
	}
	ratio := ours.value(r) / c.value(r)
	if !r.whole && len(c.values) > 0 && len(ours.values) > 0 && !math.IsNaN(ratio) && !math.IsInf(ratio, 0) {
		l.Ratio = fmt.Sprintf("%.2f", ratio)
	}
	l.Verdict = r.judge(c, ours, ratio)
	for _, x := range []struct {
		name string
		*cell
	}{{"C", c}, {"ours", ours}} {
		for i, w := range x.wrong {
			if i == 0 || w != x.wrong[i-1] {
				l.Notes = append(l.Notes, x.name+": "+w)
			}
		}
		if x.missing != "" {
			l.Notes = append(l.Notes, x.name+": "+x.missing)
		}
	}
	return l, true
}

func (r *row) judge(c, ours *cell, ratio float64) verdict {
	switch {
	case ours.missing != "":
		return verdictMissing
	case ours.failed() || ours.inStep < ours.steps:
		return verdictFailed
	case len(ours.values) == 0:
		return verdictNone
	case r.whole && int(sum(ours.values)) != ours.of:
		return verdictFailed
	case r.whole:
		return verdictOK
	case r.limit >= 0:
		return okIf(ours.value(r) <= r.limit)
	case r.target == 0:
		return verdictNone
	case len(c.values) == 0:
		return verdictOK // C can't do it at all
	}
	// A value both have as zero is no reason to miss.
	return okIf(ratio <= r.target || ours.value(r) == 0)
}

func okIf(ok bool) verdict {
	if ok {
		return verdictOK
	}
	return verdictMissed
}

func (r *row) goal() string {
	switch {
	case r.whole:
		return "all"
	case r.limit >= 0:
		return fmt.Sprintf("<= %g", r.limit)
	case r.target > 0:
		return fmt.Sprintf("%.2f", r.target)
	}
	return ""
}

func (r *row) show(c *cell) string {
	switch {
	case c.missing != "":
		return "-"
	case len(c.values) == 0 && c.failed():
		return "fails"
	case len(c.values) == 0:
		return "-"
	case r.whole:
		return fmt.Sprintf("%d of %d", int(sum(c.values)), c.of)
	}
	s := figure(median(c.values))
	if c.failed() {
		s += fmt.Sprintf(" (%d failed)", len(c.wrong))
	}
	return s
}

// figure writes a number with three significant digits.
func figure(v float64) string {
	a := math.Abs(v)
	switch {
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	case a >= 0.001:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1g", v)
}

func spreads(c, ours *cell) string {
	one := func(c *cell) string {
		if len(c.values) < 2 || c.of > 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f", 100*spread(c.values))
	}
	s := one(c) + "/" + one(ours)
	if s == "-/-" {
		return "-"
	}
	return "±" + s + " %"
}

// step says whether the pair was in step each time it was looked at.
func (c *cell) step() string {
	switch {
	case c.steps == 0:
		return "-"
	case c.inStep == c.steps:
		return "yes"
	}
	return "no"
}

var columns = []string{"", "unit", "C", "ours", "ours/C", "at most", "spread", "in step", ""}

func (l *line) fields() []string {
	return []string{l.Name, l.Unit, l.C, l.Ours, l.Ratio, l.Target, l.Spread, l.Step, string(l.Verdict)}
}

// textTable is the table for a terminal. The notes stand below it.
func textTable(secs []section, rec *record) string {
	var b strings.Builder
	var notes []string
	format := func(f []string) {
		s := fmt.Sprintf("%-46s %-12s %14s %10s %7s %8s %10s %8s  %s", f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8])
		b.WriteString(strings.TrimRight(s, " ") + "\n")
	}
	format(columns)
	for _, s := range secs {
		titled := false
		for _, r := range s.rows {
			l, ok := r.lineOf(rec)
			if !ok {
				continue
			}
			if !titled {
				b.WriteString("\n" + s.title + "\n")
				titled = true
			}
			l.Name = "  " + l.Name
			format(l.fields())
			for _, n := range l.Notes {
				notes = append(notes, r.name+": "+n)
			}
		}
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for _, n := range notes {
		b.WriteString("  " + n + "\n")
	}
	return b.String()
}
