package daemontest_test

import (
	"regexp"
	"strings"
	"testing"
)

// peers are the lines that come when the other node pleases, and the one that
// depends on the limit of the machine.
var peers = regexp.MustCompile(`the other node has \(re\)started|resync completed|is less than net.netfilter.nf_conntrack_max`)

// wantLines holds the other lines to those expected, in order.
func wantLines(t *testing.T, got, want []string) {
	t.Helper()
	var same []string
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
	for i := range max(len(same), len(want)) {
		if i >= len(same) || i >= len(want) || !regexp.MustCompile("^"+want[i]+"$").MatchString(same[i]) {
			t.Fatalf("line %d is not as expected; the log:\n%s\nwant:\n%s", i+1, strings.Join(same, "\n"), strings.Join(want, "\n"))
		}
	}
}
