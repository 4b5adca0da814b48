package daemontest_test

import (
	"regexp"
	"strings"
	"testing"
)

// peers are the lines that come when the other node pleases, and the one that
// depends on the limit of the machine.
var peers = regexp.MustCompile(`the other node (has \(re\)started|is silent|is heard again)|resync completed|ready to take over|is less than net.netfilter.nf_conntrack_max`)

// own are the other lines.
func own(got []string) (same []string) {
	asked := 0
	for _, line := range got {
		switch {
		case strings.HasSuffix(line, "resync requested by other node"):
			asked++
		case asked > 0 && strings.HasSuffix(line, "sending bulk update"):
			asked--
		case !peers.MatchString(line):
			same = append(same, line)
		}
	}
	return same
}

// wantLines holds lines to those expected, in order.
func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !regexp.MustCompile("^"+want[i]+"$").MatchString(got[i]) {
			t.Fatalf("line %d is not as expected; the log:\n%s\nwant:\n%s", i+1, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
