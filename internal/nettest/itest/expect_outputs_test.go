package itest_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestExpectOutputs reads the same expectations with both kinds of daemons, at
// their start, sends them to a peer of the same kind, and gives the same orders
// to both: outputs, log lines and effects on the kernel must be the same.
func TestExpectOutputs(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.C, nettest.Go)
	for _, helpers := range [][]string{nil, {"sip", "FT"}} {
		t.Run(fmt.Sprintf("helpers %v", helpers), func(t *testing.T) {
			t.Parallel()
			r, tftp := newHelperRig(t, pairing{nettest.C, nettest.C}, true, func(a, b *nettest.Config) {
				expectSync(a, b)
				a.ExpectHelpers, b.ExpectHelpers = helpers, helpers
			})
			want := 0
			for _, s := range r.announce(tftp) {
				if helpers == nil || strings.HasPrefix(s.name, "FTP") {
					want++
				}
			}
			r.ok(r.a.Stop())
			r.ok(r.b.Stop())
			var seen [2]map[string]string
			for i, kind := range []nettest.Kind{nettest.C, nettest.Go} {
				seen[i] = r.observeExpects(kind, want)
			}
			for what, text := range seen[0] {
				if d := cmp.Diff(strings.Split(text, "\n"), strings.Split(seen[1][what], "\n")); d != "" {
					t.Errorf("%s (-C +Go):\n%s", what, d)
				}
			}
		})
	}
}

// observeExpects runs two daemons of a kind on the rig's nodes and returns what
// there is to be seen of expectations, by name.
func (r *rig) observeExpects(kind nettest.Kind, want int) map[string]string {
	r.Helper()
	seen := map[string]string{}
	for _, d := range []**nettest.Daemon{&r.a, &r.b} {
		next, err := r.lab.NewDaemon((*d).Node, kind, (*d).Config)
		r.ok(err)
		next.Config.LogFile += "-" + string(kind)
		*d = next
		r.ok(next.Start(r.Context()))
	}
	r.handshake()
	ask := func(name string, d *nettest.Daemon, args ...string) {
		seen[name+" "+strings.Join(args, " ")] = normalExpects(r.request(d, args...))
	}
	ask("a", r.a, "-i", "expect")
	ask("a", r.a, "-i", "expect", "-x")
	ask("a", r.a, "-s", "expect")
	r.request(r.a, "-B")
	r.expectationsArrive(want)
	ask("b", r.b, "-e", "expect")
	ask("b", r.b, "-e", "expect", "-x")
	ask("b", r.b, "-i", "expect")
	ask("b", r.b, "-s", "expect")
	// Our nodes have sent each other everything at the start already.
	seen["b -s expect"] = historyPattern.ReplaceAllString(seen["b -s expect"], "")
	r.request(r.b, "-c")
	r.eventually("the committed expectations to be in the internal cache", func() error {
		if got := len(r.expectDump(r.b, "-i")); got != want {
			return fmt.Errorf("%d, want %d", got, want)
		}
		return nil
	})
	seen["the kernel's"] = r.expectTable()
	r.request(r.b, "-c", "expect")
	seen["the kernel's again"] = r.expectTable()
	r.requests(r.a, "-R")
	r.request(r.a, "-R", "expect")
	ask("a again", r.a, "-i", "expect")
	r.request(r.b, "-F", "expect")
	r.eventually("the kernel to forget", func() error {
		if text := r.expectTable() + r.request(r.b, "-i", "expect"); text != "" {
			return fmt.Errorf("still there: %s", text)
		}
		return nil
	})
	r.request(r.b, "-f")
	ask("b after -f", r.b, "-e", "expect")
	ask("b after -f", r.b, "-e", "expect", "-x")
	for name, d := range map[string]*nettest.Daemon{"a": r.a, "b": r.b} {
		seen["counters of "+name] = r.runtimeCounters(d)
		seen["log of "+name] = expectLog(d)
	}
	r.ok(r.a.Stop())
	r.ok(r.b.Stop())
	r.ok(r.two.B.FlushKernel())
	return seen
}

var (
	agesPattern    = regexp.MustCompile(`\[active since \d+s\]`)
	numbersPattern = regexp.MustCompile(` +\d+ (Bytes|Pckts|Error)`)
	historyPattern = regexp.MustCompile(`(?m)^connections (created|destroyed):.*\n`)
	runtimePattern = regexp.MustCompile(`(?m)^\s+(flush kernel table|resync with kernel table):\s+\d+`)
	noticePattern  = regexp.MustCompile(`\[(?:notice|warning|ERROR)\] (.*)`)
	tookPattern    = regexp.MustCompile(`[\d.]+ seconds`)
)

// normalExpects leaves out ages and link counters, and sorts: caches have no
// order.
func normalExpects(text string) string {
	text = agesPattern.ReplaceAllString(text, "[active since Ns]")
	text = numbersPattern.ReplaceAllString(text, " N $1")
	lines := strings.Split(text, "\n")
	if strings.Contains(text, "src") {
		slices.Sort(lines)
	}
	return strings.Join(lines, "\n")
}

// expectTable is what B's kernel expects, as people see it.
func (r *rig) expectTable() string {
	r.Helper()
	var lines []string
	for _, family := range []string{"ipv4", "ipv6"} {
		text, err := r.two.B.Run("conntrack", "-L", "expect", "-f", family)
		r.ok(err)
		for line := range strings.Lines(text) {
			_, line, _ = strings.Cut(line, " ") // the timeout
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (r *rig) runtimeCounters(d *nettest.Daemon) string {
	r.Helper()
	return strings.Join(runtimePattern.FindAllString(r.request(d, "-s", "runtime"), -1), "\n")
}

// expectLog is what the log says about expectations and commits.
func expectLog(d *nettest.Daemon) string {
	var lines []string
	text, _, _ := strings.Cut(d.Log(200), "-- output --")
	for _, m := range noticePattern.FindAllStringSubmatch(text, -1) {
		line := tookPattern.ReplaceAllString(m[1], "N seconds")
		if strings.Contains(line, "commit verified") { // ours, some seconds later, if that is before the end
			continue
		}
		if strings.Contains(line, "expect") || strings.Contains(strings.ToLower(line), "commit") || strings.Contains(line, "resync with") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
