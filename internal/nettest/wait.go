package nettest

import (
	"context"
	"fmt"
	"time"
)

// Eventually calls check until it returns nil, starting at once and then with
// growing pauses between 5 and 100 ms. When the timeout passes or ctx ends it
// returns the last error of check, so check should describe the state it saw.
func Eventually(ctx context.Context, timeout time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	pause := 5 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: not within %v: %w", what, time.Since(start).Round(time.Millisecond), err)
		case <-timer.C:
		}
		pause = min(2*pause, 100*time.Millisecond)
		timer.Reset(pause)
	}
}

// Throughout calls check every 50 ms for the whole duration and returns its
// first error: it is for what must not happen.
func Throughout(ctx context.Context, duration time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := check(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
