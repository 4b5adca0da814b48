package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// Requests of the control socket (docs/protocol.md 8). The bench asks by
// itself where a client program's start would be measured too.
const (
	askCommit   = 18
	askFlushExt = 34
	askResync   = 23 // -n
	askStats    = 21 // -s
	askRuntime  = 30 // -s runtime
	askSweep    = 1  // -R ct
	askFlushCt  = 0  // -F ct
)

// patience is how long an answer may take: C commits a million entries and
// answers nobody meanwhile.
const patience = 90 * time.Second

// ask sends a request and reads the whole answer.
func ask(ctx context.Context, d *nettest.Daemon, request int32) (string, error) {
	var b strings.Builder
	err := askTo(ctx, d, request, &b)
	return b.String(), err
}

func askTo(ctx context.Context, d *nettest.Daemon, request int32, w io.Writer) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", d.Config.Socket)
	if err != nil {
		return fmt.Errorf("ask %s: %w", d, err)
	}
	defer c.Close()
	until := time.Now().Add(patience)
	if t, ok := ctx.Deadline(); ok && t.Before(until) {
		until = t
	}
	if err := c.SetDeadline(until); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err = c.Write(binary.NativeEndian.AppendUint32(nil, uint32(request))); err == nil {
		_, err = io.Copy(w, c)
	}
	if err != nil {
		return fmt.Errorf("ask %s for %d: %w", d, request, err)
	}
	return nil
}

// cacheSizes reads how many entries a daemon's caches have; without external
// cache external is 0.
func cacheSizes(ctx context.Context, d *nettest.Daemon) (internal, external int, err error) {
	text, err := ask(ctx, d, askStats)
	if err != nil {
		return 0, 0, err
	}
	return parseCacheSizes(text)
}

func parseCacheSizes(stats string) (internal, external int, err error) {
	size := func(name string) (int, error) {
		_, block, ok := strings.Cut(stats, "cache "+name+":")
		if !ok {
			return 0, fmt.Errorf("no %s cache in the statistics", name)
		}
		n, err := number(block, "active connections:")
		return int(n), err
	}
	if internal, err = size("internal"); err != nil {
		return 0, 0, err
	}
	if strings.Contains(stats, "external inject:") {
		return internal, 0, nil
	}
	external, err = size("external")
	return internal, external, err
}

// poll calls check until it returns nil, every few milliseconds: the pauses of
// nettest.Eventually, up to 100 ms, are too long to measure with.
func poll(ctx context.Context, timeout time.Duration, what string, check func() error) error {
	const pause = 5 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, timeout, err)
		case <-tick.C:
		}
	}
}
