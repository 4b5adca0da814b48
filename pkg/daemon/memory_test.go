package daemon

import (
	"runtime/debug"
	"slices"
	"testing"
)

func TestTidier(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name  string
		sizes [][2]int // now and at most since the last time, MiB
		due   []int    // which of them
	}{
		{"nothing", [][2]int{{0, 0}, {0, 0}}, nil},
		{"growing", [][2]int{{1, 1}, {50, 50}, {100, 100}, {100, 100}}, nil},
		{"a flood", [][2]int{{1, 1}, {100, 100}, {10, 100}, {10, 10}, {10, 10}}, []int{3}},
		{"a flood between two looks", [][2]int{{1, 1}, {1, 100}, {1, 1}, {1, 1}}, []int{2}},
		{"waves", [][2]int{{1, 100}, {1, 100}, {1, 100}, {1, 1}, {1, 1}}, []int{3}},
		{"smaller", [][2]int{{100, 100}, {60, 100}, {60, 60}, {60, 60}}, nil},
		{"slowly", [][2]int{{100, 100}, {70, 100}, {40, 70}, {40, 40}, {10, 40}, {10, 10}}, []int{3, 5}},
		{"small", [][2]int{{4, 4}, {1, 4}, {1, 1}, {1, 1}}, nil},
	} {
		var due []int
		var x tidier
		for i, size := range c.sizes {
			if x.due(size[0]*mb, size[1]*mb) {
				due = append(due, i)
			}
		}
		if !slices.Equal(due, c.due) {
			t.Errorf("%s: due at %v, want %v", c.name, due, c.due)
		}
	}
}

func TestLimitGarbage(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	t.Setenv("GOGC", "70")
	limitGarbage()
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC is 70, and it became %d all the same", got)
	}
	t.Setenv("GOGC", "")
	limitGarbage()
	if got := debug.SetGCPercent(100); got != gcPercent {
		t.Errorf("%d, want %d", got, gcPercent)
	}
}
