package itest_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// requestFlows is how many flows the request tests work with.
const requestFlows = 20

// purgeTimeout leaves a slow machine the time to look before it has passed.
const purgeTimeout = 3 * time.Second

// newRequestRig has flows on A that B knows.
func newRequestRig(t *testing.T, p pairing) *rig {
	t.Helper()
	r := newRig(t, p, func(a, b *nettest.Config) {
		a.PurgeTimeout = int(purgeTimeout / time.Second)
		b.PurgeTimeout = a.PurgeTimeout
	}).start()
	r.must(r.flood(r.two.A).Create, load(0, requestFlows, 0, 7, nil))
	r.cachesAgree(r.a, r.b, requestFlows)
	return r
}

// cached fails unless a daemon's caches hold so many entries.
func (r *rig) cached(d *nettest.Daemon, internal, external int) {
	r.Helper()
	i, err := d.Internal(r.Context())
	r.ok(err)
	e, err := d.External(r.Context())
	r.ok(err)
	if len(i) != internal || len(e) != external {
		r.Errorf("%s has %d internal and %d external entries, want %d and %d", d, len(i), len(e), internal, external)
	}
}

// TestTransferRequests takes the caches apart and has them filled again by
// each request that does so.
func TestTransferRequests(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)

		r.request(r.b, "-f", "external")
		r.cached(r.b, 0, 0)
		r.cached(r.a, requestFlows, 0)
		r.request(r.b, "-n")
		r.cachesAgree(r.a, r.b, requestFlows)

		r.request(r.b, "-f")
		r.cached(r.b, 0, 0)
		r.request(r.a, "-B")
		r.cachesAgree(r.a, r.b, requestFlows)

		// Flushing the internal cache tells the peer nothing.
		r.request(r.a, "-f", "internal")
		r.cached(r.a, 0, 0)
		r.cached(r.b, 0, requestFlows)
		r.request(r.a, "-R")
		r.cachesAgree(r.a, r.b, requestFlows)
	})
}

// TestFlushKernel empties the kernel table by request: at once (-F) and after
// the PurgeTimeout (-t). Neither is told to the peer. A commit cancels a purge.
func TestFlushKernel(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)
		r.request(r.b, "-c")
		r.empties(r.b, "-F")
		r.cached(r.b, 0, requestFlows)

		// A purge, and one cancelled by a commit.
		r.request(r.b, "-c")
		r.request(r.b, "-t")
		if n := r.count(r.b); n != requestFlows {
			t.Errorf("%d entries right after -t, want %d", n, requestFlows)
		}
		r.request(r.b, "-c")
		r.ok(nettest.Throughout(t.Context(), purgeTimeout+500*time.Millisecond, func() error {
			if n := r.count(r.b); n != requestFlows {
				return fmt.Errorf("%d entries although the commit cancelled the purge, want %d", n, requestFlows)
			}
			return nil
		}))
		r.empties(r.b, "-t")

		r.empties(r.a, "-F")
		r.cached(r.b, 0, requestFlows)
	})
}

// empties makes a request and waits until the kernel and the internal cache
// are empty.
func (r *rig) empties(d *nettest.Daemon, request string) {
	r.Helper()
	r.request(d, request)
	r.eventually(request+" to empty the kernel", func() error {
		n, err := d.Node.Count()
		if err != nil {
			return err
		}
		internal, err := d.Internal(r.Context())
		if err != nil {
			return err
		}
		if n+len(internal) > 0 {
			return fmt.Errorf("%d entries in the kernel, %d in the internal cache", n, len(internal))
		}
		return nil
	})
}

// TestPrimaryTwice runs the stock primary sequence twice in
// a row; the second must not be "in progress" and changes nothing.
func TestPrimaryTwice(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)
		for range 2 {
			r.primary(r.b)
			r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 10, Committer: p.b})
			r.cachesAgree(r.b, r.a, requestFlows)
			r.request(r.b, "-n")
			r.cachesAgree(r.a, r.b, requestFlows)
		}
	})
}

// TestStatistics asks for every form of -s, with its own client and the other
// kind's.
func TestStatistics(t *testing.T) {
	forms := []struct {
		args    []string
		pattern string
	}{
		{[]string{"-s"}, `(?s)^cache internal:\ncurrent active connections:\t +20\n.*\ncache external:\n.*\ntraffic processed:\n.*UDP traffic \(active device=sy0\):\n.*message tracking:\n`},
		{[]string{"-s", "ct"}, `(?s)^cache internal:.*message tracking:\n`},
		{[]string{"-s", "network"}, `(?s)^network statistics:\n.*sequence tracking statistics:\n.*UDP traffic \(active device=sy0\):`},
		{[]string{"-s", "n"}, `^network statistics:\n`},
		{[]string{"-s", "cache"}, `(?s)^cache:internal\tactive objects:\t\t +20\n.*cache:external\t`},
		{[]string{"-s", "c"}, `^cache:internal`},
		{[]string{"-s", "runtime"}, `(?s)^daemon uptime: \d+ min\n\nnetlink stats:\n\tevents received:\t +\d+\n.*runtime stats:\n`},
		{[]string{"-s", "link"}, `^UDP traffic device=sy0 status=RUNNING role=ACTIVE:\n`},
		{[]string{"-s", "rsqueue"}, `^resent queue \(len=\d+\)\n`},
		{[]string{"-s", "queue"}, `(?s)^allocated queue nodes:\t\t +\d+\n\nqueue txqueue:\n.*queue rsqueue:\n`},
		{[]string{"-s", "process"}, `^(PID=\d+ type=\w+\n)*$`},
		{[]string{"-s", "expect"}, `^$`},
		{[]string{"-s", "exp"}, `^$`},
	}
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)
		r.handshake()
		for _, client := range []nettest.Kind{p.a, p.b} {
			for _, f := range forms {
				out, err := r.a.ForeignClient(t.Context(), client, f.args...)
				r.ok(err)
				if !regexp.MustCompile(f.pattern).MatchString(out) {
					t.Errorf("%s client, %v: got %q, want %s", client, f.args, out, f.pattern)
				}
			}
		}
	})
}

// TestDumps compares the forms of -i and -e with each other.
func TestDumps(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)
		for _, client := range []nettest.Kind{p.a, p.b} {
			for _, d := range []struct {
				daemon *nettest.Daemon
				option string
			}{{r.a, "-i"}, {r.b, "-e"}} {
				ask := func(args ...string) string {
					out, err := d.daemon.ForeignClient(t.Context(), client, args...)
					r.ok(err)
					return out
				}
				plain, err := nettest.ParseTable(ask(d.option))
				r.ok(err)
				r.ok(nettest.DiffCaches(plain, r.parse(ask(d.option, "ct"))).Err())
				if len(plain) != requestFlows {
					t.Errorf("%s has %d lines", d.option, len(plain))
				}
				r.checkXML(ask(d.option, "-x"), requestFlows)
				r.checkXML(ask(d.option, "ct", "-x"), requestFlows)
				if out := ask(d.option, "expect"); out != "" {
					t.Errorf("%s expect printed %q", d.option, out)
				}
			}
		}
	})
}

func (r *rig) parse(text string) nettest.Table {
	r.Helper()
	t, err := nettest.ParseTable(text)
	r.ok(err)
	return t
}

// checkXML holds each line to being one complete document with an original, a
// reply and an independent part, as scripts read them.
func (r *rig) checkXML(text string, want int) {
	r.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != want {
		r.Errorf("%d lines of XML, want %d", len(lines), want)
	}
	for _, line := range lines {
		var flow struct {
			XMLName xml.Name `xml:"flow"`
			Meta    []struct {
				Direction string `xml:"direction,attr"`
				Layer3    struct {
					Src string `xml:"src"`
					Dst string `xml:"dst"`
				} `xml:"layer3"`
			} `xml:"meta"`
		}
		if err := xml.Unmarshal([]byte(line), &flow); err != nil {
			r.Errorf("line %q: %v", line, err)
			continue
		}
		if len(flow.Meta) != 3 || flow.Meta[0].Direction != "original" || flow.Meta[1].Direction != "reply" ||
			flow.Meta[2].Direction != "independent" || flow.Meta[0].Layer3.Src == "" {
			r.Errorf("line %q: parts %+v", line, flow.Meta)
		}
	}
}

// TestForeignClient drives every daemon with the other kind's client.
func TestForeignClient(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)
		ask := func(d *nettest.Daemon, client nettest.Kind, args ...string) {
			_, err := d.ForeignClient(t.Context(), client, args...)
			r.ok(err)
		}
		ask(r.b, p.a, "-f", "external")
		r.cached(r.b, 0, 0)
		ask(r.b, p.a, "-n")
		r.cachesAgree(r.a, r.b, requestFlows)
		ask(r.b, p.a, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 5, Committer: p.b})
		ask(r.a, p.b, "-R")
		ask(r.a, p.b, "-B")
		r.cachesAgree(r.a, r.b, requestFlows)
		ask(r.a, p.b, "-k")
		if r.a.Running() {
			r.eventually("the end", func() error {
				if r.a.Running() {
					return errors.New("still running")
				}
				return nil
			})
		}
	})
}

// TestKill ends each daemon with -k: orderly, with exit code 0 and nothing
// left behind. Requests then fail with exit code 1, which scripts test for.
func TestKill(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRequestRig(t, p)
		for _, d := range []*nettest.Daemon{r.a, r.b} {
			r.request(d, "-k")
			select {
			case <-d.Proc().Done():
			case <-time.After(convergence):
				t.Fatalf("%s runs on after -k", d)
			}
			if err := d.Proc().Err(); err != nil {
				t.Errorf("%s: %v", d, err)
			}
			for _, path := range []string{d.Config.Lock, d.Config.Socket} {
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left after -k: %v", path, err)
				}
			}
			for _, request := range []string{"-s", "-c", "-i", "-k"} {
				_, err := d.Client(t.Context(), request)
				var exit *nettest.ExitError
				if !errors.As(err, &exit) || exit.Code != 1 {
					t.Errorf("%s without a daemon: %v, want exit code 1", request, err)
				}
			}
		}
	})
}
