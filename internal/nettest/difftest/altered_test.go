package difftest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// alterations are what a script would notice, one at a time.
var alterations = []struct {
	step, aspect string
	alter        func(text string) string
}{
	{"-s", "stdout", replace("current active connections:", "active connections:")},
	{"-s", "stdout", replace("connections created:\t\t", "connections created:\t")},
	{"-s", "stdout", replace("\n\n", "\n")},
	{"-s network", "stdout", replace("Packets lost:\t\t                   0", "Packets lost:\t\t                   1")},
	{"-s cache", "stdout", replace("creation OK/failed:\t\t          5", "creation OK/failed:\t\t          6")},
	{"-s runtime", "stdout", replace("netlink overrun:\t\t           0", "netlink overrun:\t\t           1")},
	{"-s link", "stdout", replace("role=ACTIVE", "role=BACKUP")},
	{"-s rsqueue", "stdout", func(string) string { return "" }},
	{"-s queue", "stdout", replace("maximum elements", "Maximum elements")},
	{"-s nonsense", "exit", replace("1", "0")},
	{"-i", "stdout", replace("FIN_WAIT", "CLOSE_WAIT")},
	{"-i", "stdout", replace(" [ASSURED]", "")},
	{"-i", "stdout", replace("sport=1003", "sport=1004")},
	{"-i", "stdout", withoutLine},
	{"-i", "stdout", func(text string) string { return text + text[:strings.Index(text, "\n")+1] }},
	{"-i -x", "stdout", replace("<assured/>", "")},
	{"-i -x", "stdout", replace("</flow>\n", "</flow>")},
	{"-e", "exit", replace("0", "1")},
	{"8: -c", "kernel", replace("timeout 60000", "timeout 58000")},
	{"8: -c", "kernel", replace("mark 9", "mark 8")},
	{"8: -c", "kernel", replace("status 0xe", "status 0xa")},
	{"8: -c", "kernel", withoutLine},
	{"9: -f external", "stderr", func(string) string { return "[Sun Nov 22 18:32:21 2026] (pid=1) [ERROR] no\n" }},
	{"15: -F expect", "stdout", func(string) string { return "done\n" }},
	{"end", "exit", replace("<nil>", "signal: killed")},
	{"end", "log", replace("committing all external caches", "committing")},
	{"end", "log", replace("[notice] flushing caches", "[warning] flushing caches")},
	{"end", "log", func(text string) string {
		return text + "[Sun Nov 22 18:32:21 2026] (pid=1) [notice] of no interest\n"
	}},
	{"end", "files", func(text string) string { return text + "/lock\n" }},
}

func replace(old, next string) func(string) string {
	return func(text string) string { return strings.Replace(text, old, next, 1) }
}

// withoutLine drops the second line.
func withoutLine(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(slices.Delete(lines, 1, 2), "")
}

// TestAltered: what the C daemon said is compared with itself, in which one
// thing is altered. Each alteration has to be found, and nothing else.
func TestAltered(t *testing.T) {
	nettest.Need(t)
	all := scenes(t)
	sc := all[slices.IndexFunc(all, func(sc scene) bool { return sc.name == "alone" })]
	s := newStage(t)
	c := append(s.play(sc, nettest.C), record{"-s nonsense", "exit", "1\n"})
	for _, f := range compare(sc, c, slices.Clone(c), differences) {
		t.Error("nothing is altered: ", f)
	}
	for _, a := range alterations {
		found := false
		for i, r := range c {
			if r.step != a.step || r.aspect != a.aspect {
				continue
			}
			found = true
			altered := record{r.step, r.aspect, a.alter(r.text)}
			if altered.text == r.text {
				t.Errorf("%q %s: not altered:\n%s", a.step, a.aspect, r.text)
			}
			if got := compare(sc, c[i:i+1], []record{altered}, differences); len(got) == 0 {
				t.Errorf("%q %s: not found:\n%s", a.step, a.aspect, altered.text)
			}
		}
		if !found {
			t.Errorf("no step %q %s", a.step, a.aspect)
		}
	}
	// No row is so wide that a line nobody knows passes, wherever it is.
	for i, r := range c {
		one := c[i : i+1]
		for _, got := range [][]finding{compare(sc, one, nil, differences), compare(sc, nil, one, differences)} {
			if len(got) != 1 || got[0].aspect != "course" {
				t.Errorf("%q %s: only one side has it, found %v", r.step, r.aspect, got)
			}
		}
		r.text += "something else\n"
		if got := compare(sc, one, []record{r}, differences); len(got) != 1 {
			t.Errorf("%q %s: a further line gives %v", r.step, r.aspect, got)
		}
	}
}
