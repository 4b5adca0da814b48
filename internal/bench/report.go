package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

//go:embed report.md.tmpl
var reportText string

// notes.md says of a row what there is to say: how it is measured or, where it
// misses its target, what stands in the way. A paragraph "## id" each.
//
//go:embed notes.md
var notesText string

var reportTemplate = template.Must(template.New("").Funcs(template.FuncMap{"cells": cellsOf, "flat": flat}).Parse(reportText))

// plots are the figures of the report, in its order.
var plots = []struct {
	file, title, x, y string
	curves            []string
	names             []string // behind "C" and "ours"
}{
	{"rate", "CPU time of the sender per event", "events per second", "s per million events", []string{curveRate}, []string{""}},
	{"memory", "Memory per entry", "entries", "bytes per entry", []string{curveInternal, curveExternal}, []string{", internal", ", external"}},
	{"update", "CPU time of the sender per update", "entries", "s per million updates", []string{curveUpdate}, []string{""}},
	{"dump", "Dump of the internal cache", "entries", "s per million entries", []string{curveDump}, []string{""}},
	{"commit", "Commit into an empty table", "entries", "s per million entries", []string{curveCommit}, []string{""}},
}

// drawing is a plot made of what was measured; ok is false if nothing was.
func (r *record) drawing(i int) (p plot, ok bool) {
	x := plots[i]
	p = plot{Title: x.title, X: x.x, Y: x.y}
	for _, kind := range []struct {
		kind        nettest.Kind
		name, color string
	}{{nettest.C, "C", colorC}, {nettest.Go, "ours", colorOurs}} {
		for j, curve := range x.curves {
			points := r.line(curve, kind.kind)
			if len(points) > 0 {
				p.Series = append(p.Series, series{kind.name + x.names[j], kind.color, j > 0, points})
			}
		}
	}
	return p, len(p.Series) > 0
}

// A chapter is a section with its lines and remarks.
type chapter struct {
	Title string
	Lines []line
	Notes []string
}

// A drawn plot stands in the report by its file.
type drawn struct{ Title, File string }

// report writes benchmarks.md and its plots into a directory.
func (b *bench) report(dir string, took time.Duration) error {
	figures := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(figures, 0o755); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	var all []drawn
	for i, x := range plots {
		p, ok := b.rec.drawing(i)
		if !ok {
			continue
		}
		if err := os.WriteFile(filepath.Join(figures, x.file+".svg"), []byte(p.svg()), 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		all = append(all, drawn{x.title, "benchmarks/" + x.file + ".svg"})
	}
	text, err := b.markdown(all, took)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (b *bench) markdown(all []drawn, took time.Duration) (string, error) {
	var out strings.Builder
	err := reportTemplate.Execute(&out, map[string]any{
		"Machine": b.machine, "Rounds": b.rounds, "Nice": nice, "Minutes": int(took.Minutes() + 0.5),
		"Chapters": b.chapters(), "Plots": all, "Summary": b.summary(), "Only": b.only})
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	return out.String(), nil
}

func (b *bench) chapters() (all []chapter) {
	notes := parseNotes(notesText)
	for _, s := range sections() {
		c := chapter{Title: s.title}
		for _, r := range s.rows {
			l, ok := r.lineOf(b.rec)
			if !ok {
				continue
			}
			c.Lines = append(c.Lines, l)
			for _, n := range l.Notes {
				c.Notes = append(c.Notes, r.name+": "+n)
			}
			if n := notes[r.id]; n != "" && l.Verdict == verdictMissed {
				c.Notes = append(c.Notes, r.name+": "+n)
			}
		}
		if len(c.Lines) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// summary counts the verdicts.
func (b *bench) summary() string {
	count := map[verdict]int{}
	for _, s := range sections() {
		for _, r := range s.rows {
			if l, ok := r.lineOf(b.rec); ok {
				count[l.Verdict]++
			}
		}
	}
	var parts []string
	for _, v := range []verdict{verdictOK, verdictMissed, verdictFailed, verdictMissing} {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	return strings.Join(parts, ", ")
}

// parseNotes splits notes.md by its headings.
func parseNotes(text string) map[string]string {
	notes := map[string]string{}
	for i, part := range strings.Split("\n"+text, "\n## ") {
		id, body, _ := strings.Cut(part, "\n")
		if i > 0 {
			notes[strings.TrimSpace(id)] = flat(body)
		}
	}
	return notes
}

func flat(s string) string { return strings.Join(strings.Fields(s), " ") }

// cellsOf is a line of a Markdown table.
func cellsOf(l line) string {
	return "| " + strings.ReplaceAll(strings.Join(l.fields(), " | "), "  ", " ") + " |"
}
