package main

import (
	"slices"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// cell is what one kind of daemon showed in one row.
type cell struct {
	values  []float64
	of      int      // whole rows: attempts
	wrong   []string // what failed, one for each failure
	missing string   // what our daemon can't do yet
	steps   int      // how often the pair was looked at
	inStep  int      // how often it was in step
}

// failed reports whether there is nothing good to show, or something bad.
func (c *cell) failed() bool { return len(c.wrong) > 0 }

func (c *cell) value(r *row) float64 {
	if r.whole {
		return sum(c.values)
	}
	return median(c.values)
}

// A record collects the cells of a run.
type record struct {
	cells map[string]map[nettest.Kind]*cell
	// curves are points of the plots: name, kind, x.
	curves map[string]map[nettest.Kind]map[float64][]float64
}

func newRecord() *record {
	return &record{cells: map[string]map[nettest.Kind]*cell{}, curves: map[string]map[nettest.Kind]map[float64][]float64{}}
}

func (r *record) cell(id string, k nettest.Kind) *cell {
	if r.cells[id] == nil {
		r.cells[id] = map[nettest.Kind]*cell{}
	}
	if r.cells[id][k] == nil {
		r.cells[id][k] = &cell{}
	}
	return r.cells[id][k]
}

// has counts the values noted so far.
func (r *record) has(id string, k nettest.Kind) int {
	if c := r.cells[id][k]; c != nil {
		return len(c.values)
	}
	return 0
}

func (r *record) point(curve string, k nettest.Kind, x, y float64) {
	if r.curves[curve] == nil {
		r.curves[curve] = map[nettest.Kind]map[float64][]float64{}
	}
	if r.curves[curve][k] == nil {
		r.curves[curve][k] = map[float64][]float64{}
	}
	r.curves[curve][k][x] = append(r.curves[curve][k][x], y)
}

// line returns a curve's medians, left to right.
func (r *record) line(curve string, k nettest.Kind) (points [][2]float64) {
	for x, y := range r.curves[curve][k] {
		points = append(points, [2]float64{x, median(y)})
	}
	slices.SortFunc(points, func(a, b [2]float64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	return points
}
