package main

import (
	"math"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{5}, 5},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{-1, 1000, 2, 3, 4}, 3},
	} {
		before := slices.Clone(test.values)
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v: %v, want %v", test.values, got, test.want)
		}
		if !slices.Equal(before, test.values) {
			t.Errorf("median reordered %v to %v", before, test.values)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 0},
		{[]float64{2, 2, 2}, 0},
		{[]float64{9, 10, 13}, 0.2},
		{[]float64{-9, -10, -13}, 0.2},
		{[]float64{0, 0, 5}, 0}, // of nothing
	} {
		if got := spread(test.values); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("spread of %v: %v, want %v", test.values, got, test.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // 100 down to 1
	}
	for _, test := range []struct {
		p    float64
		want float64
	}{{50, 50}, {99, 99}, {100, 100}, {1, 1}, {0, 1}, {99.5, 100}} {
		if got := percentile(hundred, test.p); got != test.want {
			t.Errorf("%vth percentile of 1 to 100: %v, want %v", test.p, got, test.want)
		}
	}
	if got := percentile([]float64{7}, 99); got != 7 {
		t.Errorf("99th percentile of one value 7: %v", got)
	}
	if got := percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("percentile of nothing: %v", got)
	}
}
