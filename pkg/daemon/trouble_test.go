package daemon

import (
	"fmt"
	"testing"
	"time"
)

// A trouble is said when it begins, once a period with its count while it goes
// on, and anew when it comes back.
func TestTroubleNews(t *testing.T) {
	n := uint64(0)
	tr := trouble{
		count: func(*health) uint64 { return n },
		text:  func(_ *health, fresh uint64) string { return fmt.Sprint(fresh) },
	}
	steps := []struct {
		at   time.Duration
		n    uint64
		want string
	}{
		{0, 0, ""},
		{time.Second, 5, "5"},
		{2 * time.Second, 500, ""},
		{saidPeriod, 700, ""},
		{saidPeriod + time.Second, 700, "695"},
		{saidPeriod + 2*time.Second, 701, ""},
		{2*saidPeriod + time.Second, 701, "1"},
		{3*saidPeriod + time.Second, 701, ""}, // over
		{3*saidPeriod + 2*time.Second, 702, "1"},
		{3*saidPeriod + 3*time.Second, 703, ""},
		{5 * saidPeriod, 703, "1"},
		{6*saidPeriod + time.Second, 100, ""}, // who counted the others has gone
		{6*saidPeriod + 2*time.Second, 101, "1"},
	}
	for _, s := range steps {
		n = s.n
		if got := tr.news(new(health), s.at); got != s.want {
			t.Errorf("at %v with %d: %q, want %q", s.at, s.n, got, s.want)
		}
	}
}
