package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// A scenario measures some rows with one kind of daemon.
type scenario struct {
	name  string
	rows  []string // ids of what it can measure
	quick bool     // part of -quick
	only  []nettest.Kind
	once  bool // in the first round only
	run   func(context.Context, *trial) error
}

// A trial is one run of a scenario.
type trial struct {
	kind  nettest.Kind
	round int
	bench *bench
	ids   []string
}

// bench is a run of everything that was asked for.
type bench struct {
	options
	rec     *record
	machine machine
	chosen  map[string]bool
}

func newBench(o options) *bench {
	b := &bench{options: o, rec: newRecord(), machine: describeMachine(), chosen: map[string]bool{}}
	for _, s := range sections() {
		for _, r := range s.rows {
			b.chosen[r.id] = b.matches(r)
		}
	}
	return b
}

func (b *bench) matches(r row) bool {
	if len(b.only) == 0 {
		return true
	}
	return slices.ContainsFunc(b.only, func(word string) bool {
		return strings.Contains(r.id, word) || strings.Contains(r.name, word)
	})
}

// wants reports whether a row of these was asked for.
func (t *trial) wants(ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return t.bench.chosen[id] })
}

// chosen are the scenario's rows that were asked for.
func (t *trial) chosen() (ids []string) {
	for _, id := range t.ids {
		if t.wants(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// add notes a value of a row.
func (t *trial) add(id string, v float64) {
	if t.wants(id) {
		c := t.bench.rec.cell(id, t.kind)
		c.values = append(c.values, v)
	}
}

// count notes one attempt of a whole row.
func (t *trial) count(id string, ok bool) {
	t.bench.rec.cell(id, t.kind).of++
	v := 0.0
	if ok {
		v = 1
	}
	t.add(id, v)
}

// step notes whether the pair was in step at the end of rows; err says how it
// was not. Ours being out of step fails the row.
func (t *trial) step(err error, ids ...string) {
	for _, id := range ids {
		if !t.wants(id) {
			continue
		}
		c := t.bench.rec.cell(id, t.kind)
		c.steps++
		if err == nil {
			c.inStep++
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "  %s: not in step: %v\n", t.kind, err)
	}
}

// fail notes why rows have no value.
func (t *trial) fail(err error, ids ...string) {
	var u unsupported
	for _, id := range ids {
		if !t.wants(id) {
			continue
		}
		c := t.bench.rec.cell(id, t.kind)
		if errors.As(err, &u) {
			c.missing = firstLine(u.text)
			continue
		}
		c.wrong = append(c.wrong, firstLine(err.Error()))
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// measure runs the scenarios, each kind in turn in each round.
func (b *bench) measure(ctx context.Context) error {
	rounds := b.rounds
	for round := range rounds {
		for _, s := range scenarios() {
			if b.quick && !s.quick || s.once && round > 0 {
				continue
			}
			for _, k := range b.turn(round) {
				if s.only != nil && !slices.Contains(s.only, k) {
					continue
				}
				if err := b.once(ctx, s, k, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// turn lets the kinds take turns in being first.
func (b *bench) turn(round int) []nettest.Kind {
	kinds := slices.Clone(b.kinds)
	if round%2 == 1 {
		slices.Reverse(kinds)
	}
	return kinds
}

// once runs a scenario. An error of it is a result of the rows it has not
// measured; only the end of the run is returned.
func (b *bench) once(ctx context.Context, s scenario, k nettest.Kind, round int) error {
	t := &trial{kind: k, round: round, bench: b, ids: s.rows}
	if !t.wants(s.rows...) {
		return nil
	}
	if err := stayRaised(tableLimits); err != nil {
		return err
	}
	begin := time.Now()
	had := map[string]int{}
	for _, id := range t.chosen() {
		had[id] = b.rec.has(id, k)
	}
	err := s.run(ctx, t)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Fprintf(os.Stderr, "round %d, %-2s %-24s %4.0f s", round+1, k, s.name, time.Since(begin).Seconds())
	if err != nil {
		fmt.Fprintf(os.Stderr, ": %v", err)
		for _, id := range t.chosen() {
			if b.rec.has(id, k) == had[id] {
				t.fail(err, id)
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	return nil
}

// failures is an error if a row of ours failed.
func (b *bench) failures() error {
	var failed []string
	for _, s := range sections() {
		for _, r := range s.rows {
			if l, ok := r.lineOf(b.rec); ok && b.chosen[r.id] && slices.Contains(b.kinds, nettest.Go) && l.Verdict == verdictFailed {
				failed = append(failed, r.name)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}

// heading says where and how it was measured.
func (b *bench) heading() string {
	m := b.machine
	return fmt.Sprintf("%d CPUs (%s), %d GB, Linux %s, %s; conntrackd %s; both SCHED_OTHER, nice %d; medians of %d",
		m.CPUs, m.Model, m.MemoryGB, m.Kernel, m.Go, m.C, nice, b.rounds)
}
