package main

import (
	"fmt"
	"math"
	"strings"
)

// A plot is lines over a logarithmic x axis; y begins at 0.
type plot struct {
	Title, X, Y string
	Series      []series
}

type series struct {
	Name   string
	Color  string
	Dashed bool
	Points [][2]float64 // x > 0, in order
}

// Sizes in pixels.
const (
	plotWidth, plotHeight           = 640, 360
	marginLeft, marginRight         = 64, 16
	marginTop, marginBottom         = 44, 76
	innerWidth                      = plotWidth - marginLeft - marginRight
	innerHeight                     = plotHeight - marginTop - marginBottom
	baseline                        = marginTop + innerHeight
	colorC, colorOurs, colorOfLines = "#c2571a", "#1f6fb2", "#d8d8d8"
)

// svg draws the plot.
func (p *plot) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", plotWidth, plotHeight)
	text(&b, plotWidth/2, 24, "middle", 15, p.Title)
	low, high, top := p.bounds()
	s := scale{math.Log10(low), math.Log10(high), top}
	p.axes(&b, s)
	for i := range p.Series {
		p.Series[i].draw(&b, s)
	}
	p.legend(&b)
	b.WriteString("</svg>\n")
	return b.String()
}

// bounds are the ends of the axes: whole powers of ten that hold all x, and a
// round number above all y.
func (p *plot) bounds() (low, high, top float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, s := range p.Series {
		for _, q := range s.Points {
			low, high, top = min(low, q[0]), max(high, q[0]), max(top, q[1])
		}
	}
	if math.IsInf(low, 0) {
		return 1, 10, 1
	}
	low = math.Pow(10, math.Floor(math.Log10(low)))
	high = math.Pow(10, math.Ceil(math.Log10(high)))
	if high == low {
		high *= 10
	}
	step := niceStep(top)
	return low, high, max(step, math.Ceil(top/step)*step)
}

// niceStep is the distance of about five marks up to a value: 1, 2 or 5 times
// a power of ten.
func niceStep(top float64) float64 {
	if top <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(top/5)))
	for _, f := range []float64{1, 2, 5} {
		if top/(f*unit) <= 6 {
			return f * unit
		}
	}
	return 10 * unit
}

// A scale turns values into pixels.
type scale struct{ low, high, top float64 } // logarithms of x; y

func (s scale) x(v float64) float64 {
	return marginLeft + innerWidth*(math.Log10(v)-s.low)/(s.high-s.low)
}

func (s scale) y(v float64) float64 { return baseline - innerHeight*v/s.top }

func (p *plot) axes(b *strings.Builder, s scale) {
	step := niceStep(s.top)
	for i := 0; float64(i)*step <= s.top*1.0001; i++ {
		v := float64(i) * step
		stroke(b, marginLeft, s.y(v), marginLeft+innerWidth, s.y(v))
		text(b, marginLeft-8, s.y(v)+4, "end", 12, fmt.Sprintf("%.6g", v))
	}
	for e := s.low; e <= s.high; e++ {
		v := math.Pow(10, e)
		stroke(b, s.x(v), marginTop, s.x(v), baseline)
		text(b, s.x(v), baseline+18, "middle", 12, short(int(v)))
	}
	text(b, marginLeft+innerWidth/2, baseline+38, "middle", 12, p.X)
	fmt.Fprintf(b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle" fill="#333333">%s</text>`+"\n",
		marginTop+innerHeight/2, escape(p.Y))
}

func (s *series) draw(b *strings.Builder, sc scale) {
	var path []string
	for _, q := range s.Points {
		path = append(path, fmt.Sprintf("%.1f,%.1f", sc.x(q[0]), sc.y(q[1])))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", strings.Join(path, " "), s.Color, s.dashes())
	for _, q := range s.Points {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s: %s at %s</title></circle>`+"\n",
			sc.x(q[0]), sc.y(q[1]), s.Color, escape(s.Name), figure(q[1]), short(int(q[0])))
	}
}

func (s *series) dashes() string {
	if s.Dashed {
		return ` stroke-dasharray="6 4"`
	}
	return ""
}

func (p *plot) legend(b *strings.Builder) {
	const sample, gap = 28, 8
	each := innerWidth / max(1, len(p.Series))
	for i, s := range p.Series {
		x, y := float64(marginLeft+i*each), float64(plotHeight-16)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="2"%s/>`+"\n", x, y, x+sample, y, s.Color, s.dashes())
		text(b, x+sample+gap, y+4, "start", 12, s.Name)
	}
}

func stroke(b *strings.Builder, x1, y1, x2, y2 float64) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colorOfLines)
}

func text(b *strings.Builder, x, y float64, anchor string, size int, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" fill="#333333">%s</text>`+"\n", x, y, anchor, size, escape(s))
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace
