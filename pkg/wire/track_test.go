package wire

import "testing"

func TestTracker(t *testing.T) {
	steps := []struct {
		seq          uint32
		want         Order
		lost, before uint64
	}{
		{0xfffffffe, InSync, 0, 0}, // the first, whatever it is
		{0xffffffff, InSync, 0, 0},
		{0, InSync, 0, 0}, // across the wrap
		{2, AfterGap, 1, 0},
		{13, AfterGap, 11, 0},
		{13, BeforeNow, 11, 1},
		{0xffffffff, BeforeNow, 11, 2},
		{14, InSync, 11, 2},
	}
	var tr Tracker
	for i, s := range steps {
		if got := tr.Track(s.seq); got != s.want || tr.Lost != s.lost || tr.Before != s.before {
			t.Fatalf("step %d: order %d, lost %d, before %d, want %d, %d, %d", i, got, tr.Lost, tr.Before, s.want, s.lost, s.before)
		}
		if s.want != BeforeNow {
			tr.Accept(s.seq)
		}
	}
}
