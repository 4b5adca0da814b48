package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

func TestPlot(t *testing.T) {
	p, ok := sample().rec.drawing(0)
	if !ok || len(p.Series) != 2 {
		t.Fatalf("got %+v", p)
	}
	golden(t, "rate.svg", p.svg())
}

// TestPlotIsXML: a title with markup must not break the file.
func TestPlotIsXML(t *testing.T) {
	p := plot{Title: "a < b & c > d", X: "<x>", Y: "&", Series: []series{{Name: "<C>", Points: [][2]float64{{10, 1}}}}}
	d := xml.NewDecoder(strings.NewReader(p.svg()))
	var words []string
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := token.(xml.CharData); ok {
			words = append(words, strings.TrimSpace(string(s)))
		}
	}
	all := strings.Join(words, "\n")
	for _, want := range []string{p.Title, p.X, "<C>"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in the text", want)
		}
	}
}

func TestBounds(t *testing.T) {
	p := plot{Series: []series{{Points: [][2]float64{{1000, 3.9}, {330_000, 15.5}}}, {Points: [][2]float64{{5000, 0.1}}}}}
	if low, high, top := p.bounds(); low != 1000 || high != 1e6 || top != 20 {
		t.Errorf("got %v to %v, up to %v", low, high, top)
	}
	one := plot{Series: []series{{Points: [][2]float64{{100, 0}}}}}
	if low, high, top := one.bounds(); low != 100 || high != 1000 || top != 1 {
		t.Errorf("one point: %v to %v, up to %v", low, high, top)
	}
	if low, high, top := (&plot{}).bounds(); !(low < high) || top <= 0 {
		t.Errorf("no points: %v to %v, up to %v", low, high, top)
	}
}

func TestNiceStep(t *testing.T) {
	for top, want := range map[float64]float64{1: 0.2, 6: 1, 6.5: 2, 20: 5, 530: 100, 0.07: 0.02} {
		if got := niceStep(top); math.Abs(got-want) > 1e-12 {
			t.Errorf("up to %v: %v, want %v", top, got, want)
		}
	}
}

func TestScale(t *testing.T) {
	s := scale{3, 6, 20}
	if x := s.x(1000); x != marginLeft {
		t.Errorf("left end at %v", x)
	}
	if x := s.x(1e6); math.Abs(x-(marginLeft+innerWidth)) > 1e-9 {
		t.Errorf("right end at %v", x)
	}
	if a, b := s.y(0), s.y(20); a != baseline || b != marginTop {
		t.Errorf("bottom at %v, top at %v", a, b)
	}
}

// TestLineIsInOrder: points of several rounds become medians from left to
// right.
func TestLineIsInOrder(t *testing.T) {
	r := newRecord()
	for _, q := range [][2]float64{{100, 3}, {10, 1}, {100, 9}, {100, 5}} {
		r.point("c", nettest.Go, q[0], q[1])
	}
	got := r.line("c", nettest.Go)
	if len(got) != 2 || got[0] != [2]float64{10, 1} || got[1] != [2]float64{100, 5} {
		t.Errorf("got %v", got)
	}
	if got := r.line("c", nettest.C); len(got) != 0 {
		t.Errorf("nothing of C was noted: %v", got)
	}
}
