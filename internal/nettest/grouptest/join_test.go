package grouptest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestJoin starts a fourth node when three have 20,000 flows. It gets them all,
// and until then says that it is not ready; the others were ready before and
// stay so all the time.
func TestJoin(t *testing.T) {
	for _, over := range []transport{multicast4, udp4} {
		t.Run(over.String(), func(t *testing.T) {
			t.Parallel()
			var lab string
			file := func(i int) string { return filepath.Join(lab, fmt.Sprintf("ready-%d", i)) }
			lab = t.TempDir()
			r := newRig(t, setup{over: over, kinds: ours(4), change: func(i int, cfg *nettest.Config) {
				cfg.Ours = append(cfg.Ours, "ReadyFile "+file(i))
			}})
			three, joiner := r.members[:3], r.members[3]
			r.start(three...)
			for i, n := range []int{9_900, 9_900, 200} {
				r.ok(three[i].begin(n))
			}
			r.eventually("three to be in step", func() error {
				for i, m := range three {
					if err := r.knows(m, three[(i+1)%3], three[(i+2)%3]); err != nil {
						return err
					}
					if got := ready(file(i)); got != "0" {
						return fmt.Errorf("the ready file of %s says %q", m, got)
					}
				}
				return nil
			})

			stop := watch(func() error {
				for i, m := range three {
					if got := ready(file(i)); got != "0" {
						return fmt.Errorf("while %s joins, the ready file of %s says %q", joiner, m, got)
					}
				}
				return nil
			})
			became := watch(func() error {
				if got := ready(file(3)); got != "0" {
					return nil
				}
				_, external, err := joiner.Sizes(context.Background())
				if err == nil && external < 20_000 {
					err = fmt.Errorf("the joiner is ready with %d of 20000 flows", external)
				}
				return err
			})
			r.start(joiner)
			r.ok(joiner.begin(100))
			r.each(three, func(m *member) error { return m.change(100) })
			r.exact("all", r.members...)
			r.eventually("the ready file of the joiner", func() error {
				if got := ready(file(3)); got != "0" {
					return fmt.Errorf("it says %q", got)
				}
				return nil
			})
			r.ok(errors.Join(stop(), became()))
		})
	}
}

// ready is what a ready file says: 0 is ready, 1 is not.
func ready(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// watch calls check every ten milliseconds until its first error or until
// stop, which returns that error.
func watch(check func() error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := check(); err != nil {
				result <- err
				return
			}
			select {
			case <-ctx.Done():
				result <- nil
				return
			case <-tick.C:
			}
		}
	}()
	return func() error {
		cancel()
		return <-result
	}
}
