package failover

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Sample is what a process held at a time.
type Sample struct {
	RSS         int // KiB
	Descriptors int
	Threads     int
}

var statusPattern = regexp.MustCompile(`(?s)VmRSS:\s+(\d+) kB.*Threads:\s+(\d+)`)

func sampleOf(pid int) (s Sample, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, fmt.Errorf("read usage: %w", err)
	}
	m := statusPattern.FindSubmatch(text)
	if m == nil {
		return s, fmt.Errorf("read usage: process %d has ended", pid)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return s, fmt.Errorf("read usage: %w", err)
	}
	s.Descriptors = len(open)
	s.RSS, _ = strconv.Atoi(string(m[1]))
	s.Threads, _ = strconv.Atoi(string(m[2]))
	return s, nil
}

// Usage is what a daemon held in the course of a soak, sample after sample.
type Usage struct {
	Firewall string
	PID      int
	Samples  []Sample
}

// What a daemon may hold more at the end than at the begin. In twenty minutes
// 6 MiB are two bytes for each change and 400 KiB for each failover.
const (
	rssSlack        = 6 << 10 // KiB
	rssSlackPercent = 15
	countSlack      = 2
)

const enoughSamples = 12

// sampleEvery leaves enough samples in the shortest soak.
const sampleEvery = time.Second

// periods cuts the samples into the warm-up, a fifth, and four more fifths, of
// which it returns the first two and the last two, each as one typical sample:
// the median of the memory, which breathes with the collector, and the lowest
// of the counts, which rise for a moment with each client.
func (u *Usage) periods() (begin, end Sample, err error) {
	if len(u.Samples) < enoughSamples {
		return begin, end, fmt.Errorf("daemon of %s: only %d samples", u.Firewall, len(u.Samples))
	}
	fifth := len(u.Samples) / 5
	middle := fifth + (len(u.Samples)-fifth)/2
	return typical(u.Samples[fifth:middle]), typical(u.Samples[middle:]), nil
}

func typical(samples []Sample) Sample {
	s := samples[0]
	var rss []int
	for _, x := range samples {
		rss = append(rss, x.RSS)
		s.Descriptors = min(s.Descriptors, x.Descriptors)
		s.Threads = min(s.Threads, x.Threads)
	}
	slices.Sort(rss)
	s.RSS = rss[len(rss)/2]
	return s
}

// Flat is nil if the daemon does not hold more and more. Goroutines count as
// memory: each has a stack.
func (u *Usage) Flat() error {
	begin, end, err := u.periods()
	if err != nil {
		return err
	}
	var errs []error
	for _, x := range []struct {
		what              string
		begin, end, slack int
	}{
		{"KiB", begin.RSS, end.RSS, max(rssSlack, begin.RSS*rssSlackPercent/100)},
		{"descriptors", begin.Descriptors, end.Descriptors, countSlack},
		{"threads", begin.Threads, end.Threads, countSlack},
	} {
		if x.end > x.begin+x.slack {
			errs = append(errs, fmt.Errorf("daemon of %s: %d %s, then %d: more than %d more", u.Firewall, x.begin, x.what, x.end, x.slack))
		}
	}
	return errors.Join(errs...)
}
