package difftest_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A rewrite makes equal what may differ.
type rewrite struct {
	aspect string // a regular expression
	peered bool   // only in scenes with a peer: who sends what when is its affair too
	from   string
	to     string
}

// rewrites are about times, process ids and counters of traffic, which no two
// runs have in common.
var rewrites = []rewrite{
	{aspect: "stdout", from: `\[active since \d+s\]`, to: "[active since Ns]"},
	{aspect: "stdout", from: `\[expires in \d+s\]`, to: "[expires in Ns]"},
	{aspect: "stdout", from: `<id>\d+</id>`, to: "<id>N</id>"},
	{aspect: "stdout", from: `(?m)^(tcp|udp|udplite|icmp|icmpv6|sctp|gre|dccp|unknown)( +\d+) \d+ `, to: "$1$2 TIMEOUT "},
	{aspect: "stdout", from: `daemon uptime: .*`, to: "daemon uptime: N"},
	{aspect: "stdout", from: ` +\d+ (Bytes|Pckts|Error) (sent|send) +\d+ (Bytes|Pckts|Error) recv`, to: " N $1 $2 N $3 recv"},
	{aspect: "stdout", from: `seq:\d+( flags:\d+)?\n`, to: "seq:N\n"},
	{aspect: "stdout", from: `(?m)^(object|control) -> seq:N\n`, to: ""},
	{aspect: "stdout", from: `resent queue \(len=\d+\)`, to: "resent queue (len=N)"},
	{aspect: "stdout", from: `(allocated queue nodes|current elements):\s+\d+`, to: "$1: N"},
	{aspect: "stdout", from: `PID=\d+`, to: "PID=N"},
	{aspect: "stdout", peered: true, from: `((?:connections|creation|update|deletion) [\w /]+:\t+) +\d+(/|\tfailed)`, to: "${1}N$2"},
	{aspect: "stdout", peered: true, from: `(internal\tactive objects:\t+) +\d+`, to: "${1}N"}, // with what the peer is yet to acknowledge
	{aspect: "stdout", peered: true, from: `(active/total entries:\t+ +\d+/) +\d+`, to: "${1}N"},
	{aspect: "stdout", peered: true, from: `(events received:\t) +\d+`, to: "${1}N"},
	{aspect: "stdout", peered: true, from: `\d+ (Malformed msgs|Lost msgs)`, to: "N $1"},
	{aspect: "log", from: `\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] \(pid=\d+\) `, to: ""},
	{aspect: "log", from: `commit has taken \d+\.\d{6} seconds`, to: "commit has taken N seconds"},
	{aspect: "log", from: `\(pid=\d+\) received`, to: "(pid=N) received"},
	{aspect: "log|stderr|stdout", from: `/tmp/\S*/(self|peer)\d+`, to: "DIR"},
	{aspect: "log|stderr|stdout", from: `/\S*/conntrack(d|go)\b`, to: "PROGRAM"},
	// Of what goes to stderr the levels count: texts about a configuration name its lines in our own words.
	{aspect: "stderr", from: `(?m)^\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] \(pid=\d+\) (\[\w+\]).*$`, to: "$1"},
}

var compiled = map[string]*regexp.Regexp{}

func init() {
	for _, r := range rewrites {
		for _, s := range []string{r.aspect, r.from} {
			if compiled[s] == nil {
				compiled[s] = regexp.MustCompile(s)
			}
		}
	}
}

// unordered are the steps that print entries, which come in no particular order.
var unordered = regexp.MustCompile(`^-[ie]\b`)

// normal is a record's text in lines without what may differ.
func normal(r *record, alone bool) []string {
	text := r.text
	for _, w := range rewrites {
		if w.peered && alone {
			continue
		}
		if compiled[w.aspect].FindString(r.aspect) == r.aspect {
			text = compiled[w.from].ReplaceAllString(text, w.to)
		}
	}
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if r.aspect == "stdout" && unordered.MatchString(r.step) {
		slices.Sort(lines)
	}
	if r.aspect == "stderr" {
		lines = slices.Compact(slices.DeleteFunc(lines, func(l string) bool { return l == "" }))
	}
	return lines
}

// A finding is a line that only one of them has.
type finding struct {
	scene, step, aspect string
	ours                bool // else C's
	line                string
}

func (f finding) String() string {
	who := "C only:  "
	if f.ours {
		who = "ours only:"
	}
	return fmt.Sprintf("%s, %q, %s: %s %q", f.scene, f.step, f.aspect, who, f.line)
}

// compare finds the differences between two runs of a scene that no row of
// known explains, and notes which rows did.
func compare(sc scene, c, ours []record, known []*difference) (all []finding) {
	for i := range max(len(c), len(ours)) {
		if i >= len(c) || i >= len(ours) || c[i].step != ours[i].step || c[i].aspect != ours[i].aspect {
			r, side := c, false
			if i >= len(c) {
				r, side = ours, true
			}
			return append(all, explain(finding{sc.name, r[i].step, "course", side, "the runs went apart here"}, known)...)
		}
		a, b := normal(&c[i], sc.alone), normal(&ours[i], sc.alone)
		if !slices.Equal(a, b) {
			all = append(all, lines(sc.name, &c[i], a, b, known)...)
		}
	}
	return all
}

// lines finds what is different between two texts.
func lines(name string, r *record, c, ours []string, known []*difference) (all []finding) {
	onlyC, onlyOurs := without(c, ours), without(ours, c)
	if len(onlyC)+len(onlyOurs) == 0 {
		return explain(finding{name, r.step, r.aspect, true, "the same lines in another order"}, known)
	}
	for _, d := range known {
		if d.to == "" || !d.concerns(name, r.step, r.aspect) {
			continue
		}
		changed := d.rewrite(onlyC)
		if d.rewrite(onlyOurs) || changed {
			d.seen.Add(1)
		}
	}
	for _, line := range without(onlyC, onlyOurs) {
		all = append(all, explain(finding{name, r.step, r.aspect, false, line}, known)...)
	}
	for _, line := range without(onlyOurs, onlyC) {
		all = append(all, explain(finding{name, r.step, r.aspect, true, line}, known)...)
	}
	return all
}

// explain returns the finding, or nothing if a row is about it.
func explain(f finding, known []*difference) []finding {
	for _, d := range known {
		if d.to == "" && d.ours == f.ours && d.concerns(f.scene, f.step, f.aspect) && d.line().MatchString(f.line) {
			d.seen.Add(1)
			return nil
		}
	}
	return []finding{f}
}

// without returns the lines of a that b has not, each as often as it is missing.
func without(a, b []string) (rest []string) {
	count := map[string]int{}
	for _, line := range b {
		count[line]++
	}
	for _, line := range a {
		if count[line]--; count[line] < 0 {
			rest = append(rest, line)
		}
	}
	return rest
}
