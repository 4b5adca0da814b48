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
	`-s ""`, "-f internal", "-f external", "-f ct", "-i ct -x", "-e ct -x", "-i expect", "-e expect", "-c ct", "-c expect", "-F ct", "-F expect",
	"-R ct", "-R expect", "-s network", "-s cache", "-s runtime", "-s link", "-s rsqueue", "-s process", "-s queue", "-s expect", "-d",
	"-s ct -x", "-k -x", "-B ct", "-t -B",
	"-C /nonexistent -s", "-s -C /nonexistent", "-C /nonexistent -d", "-C " + broken + " -s", "-C " + broken + " -k",
}

// broken is a configuration that nobody reads.
const broken = "../../../pkg/confparse/testdata/configs/invalid/i01-unknown-keyword.conf"

// fields are the words of a command line; "" is an empty one.
func fields(line string) []string {
	words := strings.Fields(line)
	for i, w := range words {
		words[i] = strings.Trim(w, `"`)
	}
	return words
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
			s.ask(p, line, fields(line)...)
			if strings.Contains(line, "F") {
				s.quiet(p)
			}
		}
		s.ask(p, "-k", "-k")
		<-p.Done()
		for _, line := range append([]string{"-k"}, commandLines...) {
			if line == "-d" {
				continue // would start one
			}
			s.ask(p, "no daemon: "+line, fields(line)...)
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
