package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const (
	resyncRuns = 4 // in each round
	resyncTime = 10 * time.Second
	standstill = 3 * time.Second
)

// startScenario measures a start with a full table.
func startScenario(n int) scenario {
	id := "start-" + short(n)
	return scenario{name: id, rows: []string{id}, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{big: true})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.fill(n); err != nil {
			return err
		}
		return p.timedStart(ctx, t, n)
	}}
}

func (p *pair) fill(n int) error {
	_, err := p.load.Create(flood.Load{To: n, Flow: flows})
	return err
}

func (p *pair) timedStart(ctx context.Context, t *trial, n int) error {
	took, err := p.start(ctx, 0)
	if err != nil {
		return err
	}
	t.add("start-"+short(n), took.Seconds())
	got, _, err := cacheSizes(ctx, p.a)
	if err == nil && got != n {
		err = fmt.Errorf("%d entries after the start, %d in the kernel", got, n)
	}
	t.step(err, "start-"+short(n))
	return nil
}

// largeScenario measures the requests of an operator or of a failover with n
// entries in the first kernel.
func largeScenario(n int) scenario {
	s := short(n)
	ids := []string{"start-" + s, "resync-" + s, "complete-" + s, "commit-" + s, "recommit-" + s}
	if n == holdSize {
		ids = append(ids, "dump-e", "dump-i", "hold-e", "hold-i", "sweep", "sweep-wait", "flush", "flush-wait")
	}
	return scenario{name: "table of " + s, rows: ids, quick: n == 100_000, run: func(ctx context.Context, t *trial) error {
		p, err := newPair(t.kind, setup{big: true})
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.fill(n); err != nil {
			return err
		}
		if err := p.timedStart(ctx, t, n); err != nil {
			return err
		}
		if _, err := p.start(ctx, 1); err != nil {
			return err
		}
		if err := p.greeted(ctx); err != nil {
			return err
		}
		for _, step := range []func(context.Context, *trial, int) error{p.resyncs, p.complete, p.dumps, p.commits, p.sweep, p.flush} {
			if err := step(ctx, t, n); err != nil {
				return err
			}
		}
		return nil
	}}
}

// holdSize is the table of the rows that watch the loop.
const holdSize = 500_000

// resyncs asks for everything again and again.
func (p *pair) resyncs(ctx context.Context, t *trial, n int) error {
	resync, whole := "resync-"+short(n), "complete-"+short(n)
	if !t.wants(resync, whole) {
		return nil
	}
	runs := resyncRuns
	if t.bench.quick {
		runs = 2
	}
	var took []float64
	for range runs {
		d, err := p.resync(ctx, n)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			took = append(took, d.Seconds())
		} else {
			fmt.Fprintf(os.Stderr, "  %s: %v\n", p.kind, err)
		}
		t.count(whole, err == nil)
	}
	if len(took) > 0 {
		t.add(resync, median(took))
	}
	return nil
}

// resync empties the external cache and asks for everything.
func (p *pair) resync(ctx context.Context, n int) (time.Duration, error) {
	if err := p.settle(ctx); err != nil {
		return 0, err
	}
	if _, err := ask(ctx, p.b, askFlushExt); err != nil {
		return 0, err
	}
	if err := p.settle(ctx); err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := ask(ctx, p.b, askResync); err != nil {
		return 0, err
	}
	var err error
	for was := -1; ; {
		// Whoever makes no progress for a while has finished.
		if err = p.external(ctx, standstill, n); err == nil || ctx.Err() != nil {
			return time.Since(begin), err
		}
		_, now, e := cacheSizes(ctx, p.b)
		if e != nil || now == was || time.Since(begin) > resyncTime {
			return 0, errors.Join(err, e)
		}
		was = now
	}
}

// external waits until the second external cache has n entries.
func (p *pair) external(ctx context.Context, timeout time.Duration, n int) error {
	return poll(ctx, timeout, "the external cache", func() error {
		_, external, err := cacheSizes(ctx, p.b)
		if err == nil && external != n {
			err = fmt.Errorf("%d of %d entries", external, n)
		}
		return err
	})
}

// complete makes sure the external cache has everything, whatever the resyncs
// did: entries are made anew until it has. The rows that follow need it.
func (p *pair) complete(ctx context.Context, t *trial, n int) error {
	if !t.wants("commit-"+short(n), "recommit-"+short(n), "dump-e", "hold-e") {
		return nil
	}
	return p.catchUp(ctx, n, flows)
}

// catchUp brings n entries into the external cache, all at once if that does
// it. C often can't; in pieces it can.
func (p *pair) catchUp(ctx context.Context, n int, of func(int, *flood.Flow)) error {
	const piece, tries = 50_000, 2
	err := p.external(ctx, time.Second, n)
	for i := 0; err != nil && i < tries; i++ {
		for from := 0; from < n; from += piece {
			if _, err := p.load.Update(flood.Load{From: from, To: min(from+piece, n), Rate: piece, Flow: of}); err != nil {
				return err
			}
			if err := p.settle(ctx); err != nil {
				return err
			}
		}
		err = p.external(ctx, time.Second, n)
	}
	return err
}

// dumps writes the caches to files and watches the loop meanwhile.
func (p *pair) dumps(ctx context.Context, t *trial, n int) error {
	for _, x := range []struct {
		option, dump, hold string
		of                 *nettest.Daemon
		from, to           *nettest.Node
	}{
		{"-i", "dump-i", "hold-i", p.a, p.nodes.A, p.nodes.B},
		{"-e", "dump-e", "hold-e", p.b, p.nodes.B, p.nodes.A},
	} {
		if n != holdSize || !t.wants(x.dump, x.hold) {
			continue
		}
		took, lines, err := p.dump(ctx, x.of, x.option)
		if err != nil {
			return err
		}
		if lines != n {
			t.fail(fmt.Errorf("%d lines of %d entries", lines, n), x.dump)
			continue
		}
		t.add(x.dump, took.Seconds())
		worst, err := p.worstMarker(ctx, x.from, x.to, func() error {
			_, _, err := p.dump(ctx, x.of, x.option)
			return err
		})
		if err != nil {
			return err
		}
		t.add(x.hold, worst)
	}
	return nil
}

// dump runs a client as a person does and counts what it wrote.
func (p *pair) dump(ctx context.Context, d *nettest.Daemon, option string) (took time.Duration, lines int, err error) {
	binary, err := p.kind.Binary()
	if err != nil {
		return 0, 0, err
	}
	file, err := os.Create(filepath.Join(p.lab.Dir(), "dump"))
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, binary, "-C", d.ConfigPath, option)
	cmd.Stdout = file
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("dump %s: %w", option, err)
	}
	took = time.Since(begin)
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	lines, err = countLines(file)
	return took, lines, err
}

func countLines(r io.Reader) (n int, err error) {
	buf := make([]byte, 1<<20)
	for {
		k, err := r.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// worstMarker returns the longest time in milliseconds that a marker took from
// one node to the other while f ran: that long its sender's loop did not look.
func (p *pair) worstMarker(ctx context.Context, from, to *nettest.Node, f func() error) (float64, error) {
	probe, err := newProbe(from, to)
	if err != nil {
		return 0, err
	}
	defer probe.close()
	marking, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- probe.every(marking, time.Millisecond) }()
	err = f()
	cancel()
	if err = errors.Join(err, <-done); err != nil {
		return 0, err
	}
	if err := p.settle(ctx); err != nil {
		return 0, err
	}
	ms, err := probe.datagrams()
	if err != nil {
		return 0, err
	}
	return slices.Max(ms), probe.clean()
}

// commits writes the external cache into the second kernel, twice.
func (p *pair) commits(ctx context.Context, t *trial, n int) error {
	for _, id := range []string{"commit-" + short(n), "recommit-" + short(n)} {
		if !t.wants("commit-"+short(n), "recommit-"+short(n)) {
			return nil
		}
		took, err := p.commit(ctx, n)
		if err != nil {
			return err
		}
		t.add(id, took.Seconds())
		t.step(nil, id)
	}
	return nil
}

func (p *pair) commit(ctx context.Context, n int) (time.Duration, error) {
	if err := p.settle(ctx); err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := ask(ctx, p.b, askCommit); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	got, err := p.nodes.B.Held()
	if err == nil && got != n {
		err = fmt.Errorf("%d of %d entries committed", got, n)
	}
	return took, err
}

// sweep compares the internal cache with the kernel.
func (p *pair) sweep(ctx context.Context, t *trial, n int) error {
	return p.beside(ctx, t, n, "sweep", func() error {
		_, err := ask(ctx, p.a, askSweep)
		return err
	})
}

// flush empties the first kernel's table through its daemon.
func (p *pair) flush(ctx context.Context, t *trial, n int) error {
	return p.beside(ctx, t, n, "flush", func() error {
		if _, err := ask(ctx, p.a, askFlushCt); err != nil {
			return err
		}
		// C answers before it has done it.
		return poll(ctx, patience, "the kernel's table to be empty", func() error {
			left, err := p.nodes.A.Held()
			if err == nil && left > 0 {
				err = fmt.Errorf("%d left", left)
			}
			return err
		})
	})
}

// beside measures how long f takes of the first daemon, and how long another
// client of it waits meanwhile.
func (p *pair) beside(ctx context.Context, t *trial, n int, id string, f func() error) error {
	if n != holdSize || !t.wants(id, id+"-wait") {
		return nil
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	var took time.Duration
	wait, err := longestWait(ctx, p.a, func() error {
		begin := time.Now()
		err := f()
		took = time.Since(begin)
		return err
	})
	if err != nil {
		return err
	}
	t.add(id, took.Seconds())
	t.add(id+"-wait", wait)
	return nil
}

// longestWait returns the milliseconds another client waited for its answer
// at worst while f ran.
func longestWait(ctx context.Context, d *nettest.Daemon, f func() error) (ms float64, err error) {
	done := make(chan error, 1)
	go func() {
		// f goes first.
		done <- f()
	}()
	for {
		begin := time.Now()
		if _, err := ask(ctx, d, askStats); err != nil {
			return 0, errors.Join(err, <-done)
		}
		ms = max(ms, float64(time.Since(begin).Microseconds())/1000)
		select {
		case err := <-done:
			return ms, err
		case <-time.After(time.Millisecond):
		}
	}
}
