package difftest_test

import (
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// commandLines are tried with a daemon that answers, and without.
var commandLines = []string{
	"-h", "-v", "-V", "-S", "--dump", "-q",
	"-x", "-x -i", "-s -x", "-B -x", "-s nonsense", "-f nonsense", "-i nonsense", "-e nonsense", "-c nonsense", "-F nonsense", "-R nonsense",
	"-d -s", "-s -d", "-B -n", "-i -e", "-s network -i", "-e expect -x", "-i expect -x", "-stats", "-ix",
	"-s m", "-s multicast", "-s e", "-s exp", "-s ct", "-s c", "-s ca", "-s r", "-s rs", "-s q", "-s p", "-s n", "-s l",
	"-f i", "-f int", "-f e", "-i e", "-i exp", "-i c", "-e e", "-e c", "-c exp", "-c c", "-R exp", "-R c", "-F exp", "-F c",
	"-B", "-n", "-t", "-f", "-c", "-R", "-F",
}

// TestCommandLine compares usage, errors and exit codes.
func TestCommandLine(t *testing.T) {
	nettest.Need(t, nettest.Go)
	sc := scenes(t)[0]
	sc.name = "command line"
	runs := map[nettest.Kind][]record{}
	for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
		s := newStage(t)
		p := s.launch(s.self, kind, sc.text)
		for _, line := range commandLines {
			s.ask(p, line, strings.Fields(line)...)
			if strings.Contains(line, "F") {
				s.quiet(p)
			}
		}
		s.ask(p, "-k", "-k")
		<-p.Done()
		for _, line := range commandLines {
			s.ask(p, "no daemon: "+line, strings.Fields(line)...)
		}
		runs[kind] = s.records
	}
	for _, f := range compare(sc, runs[nettest.C], runs[nettest.Go], cmdlineDifferences) {
		t.Error(f)
	}
	for _, d := range cmdlineDifferences {
		if d.seen.Load() == 0 && !d.rare {
			t.Errorf("no longer different, remove the row: %q %q %q", d.step, d.aspect, d.text)
		}
	}
}
