package itest_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// modeRow is one way to synchronise.
type modeRow struct {
	name  string
	mode  string
	lines []string // further lines of the Mode section
	// bypass: no internal cache; inject: no external cache.
	bypass, inject bool
	// rights are the kinds whose cache is right again by itself after the
	// other side restarted. The others lack what began meanwhile until they
	// ask for everything, and keep what ended until they are flushed.
	rights []nettest.Kind
}

// unaided reports whether a survivor is right again by itself.
func (m *modeRow) unaided(survivor nettest.Kind) bool { return slices.Contains(m.rights, survivor) }

const (
	noInternal = "DisableInternalCache on"
	noExternal = "DisableExternalCache on"
)

var alarmRow = modeRow{name: "ALARM", mode: "ALARM", lines: []string{"RefreshTime 1", "CacheTimeout 8"}, rights: []nettest.Kind{nettest.C, nettest.Go}}

var modeRows = []modeRow{
	{name: "FTFW", mode: "FTFW", rights: []nettest.Kind{nettest.Go}},
	alarmRow,
	{name: "NOTRACK", mode: "NOTRACK"},
	{name: "NOTRACK-bypass", mode: "NOTRACK", lines: []string{noInternal}, bypass: true},
	{name: "NOTRACK-inject", mode: "NOTRACK", lines: []string{noExternal}, inject: true},
	{name: "NOTRACK-none", mode: "NOTRACK", lines: []string{noInternal, noExternal}, bypass: true, inject: true},
	{name: "FTFW-inject", mode: "FTFW", lines: []string{noExternal}, inject: true},
}

// forModes runs a test for each mode in each pairing, over UDP and IPv4.
func forModes(t *testing.T, rows []modeRow, f func(*testing.T, modeRow, *rig)) {
	for _, m := range rows {
		t.Run(m.name, func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) { f(t, m, newRig(t, p, m.both)) })
		})
	}
}

// configure adds the mode to a configuration.
func (m *modeRow) configure(c *nettest.Config) {
	c.Mode, c.ModeLines = m.mode, m.lines
	c.StartupResync = m.resyncs()
}

// both configures both daemons.
func (m *modeRow) both(a, b *nettest.Config) {
	m.configure(a)
	m.configure(b)
}

func (m *modeRow) resyncs() bool { return m.mode != "ALARM" }

// arrives waits until B has exactly the flows of A's kernel that keep accepts:
// in its kernel if they are injected, else in its external cache.
func (r *rig) arrives(m modeRow, what string, keep func(*nettest.Entry) bool) {
	r.Helper()
	r.eventually(what, func() error {
		kernel, err := r.two.A.Kernel()
		if err != nil {
			return err
		}
		kernel = kernel.Only(keep)
		if m.inject {
			standby, err := r.two.B.Kernel()
			if err != nil {
				return err
			}
			// Messages carry the timeout of the last event, which may be old.
			return nettest.KernelDiff{Tolerance: -1, Committer: r.b.Kind}.Tables(kernel, standby.Only(keep)).Err()
		}
		external, err := r.b.External(r.Context())
		if err != nil {
			return err
		}
		return nettest.DiffCaches(kernel, external.Only(keep)).Err()
	})
}

func all(*nettest.Entry) bool { return true }

// TestModeRequests holds what the requests print and do where there is no
// cache, or no RESYNC.
func TestModeRequests(t *testing.T) {
	forModes(t, modeRows, func(t *testing.T, m modeRow, r *rig) {
		r.start()
		if m.resyncs() {
			r.handshake() // and the exchange at the start, of nothing
		}
		r.must(r.flood(r.two.A).Create, load(0, 10, 0, 0, nil))
		r.arrives(m, "flows on B", all)
		for _, d := range []*nettest.Daemon{r.a, r.b} {
			for _, request := range []string{"-s", "-s cache"} {
				r.cacheBlocks(d, request, m)
			}
			if text := r.request(d, "-s", "rsqueue"); (text == "") == (m.mode == "FTFW") {
				t.Errorf("%s: -s rsqueue prints %q", d, text)
			}
			if text := r.request(d, "-s", "queue"); strings.Contains(text, "queue rsqueue:") != (m.mode == "FTFW") {
				t.Errorf("%s: -s queue prints\n%s", d, text)
			}
			for _, request := range []string{"-R", "-B", "-n", "-f external"} {
				if text := r.request(d, strings.Fields(request)...); text != "" {
					t.Errorf("%s: %s prints %q", d, request, text)
				}
			}
		}
		if m.inject {
			for _, request := range [][]string{{"-e"}, {"-e", "-x"}, {"-c"}} {
				if text := r.request(r.b, request...); text != "" {
					t.Errorf("%v prints %q", request, text)
				}
			}
		}
		if m.bypass {
			r.showsKernel(r.a)
		}
	})
}

// cacheBlocks holds the first two blocks of a report.
func (r *rig) cacheBlocks(d *nettest.Daemon, request string, m modeRow) {
	r.Helper()
	names := map[string][2]string{"-s": {"cache internal:", "cache external:"}, "-s cache": {"cache:internal", "cache:external"}}[request]
	if m.bypass {
		names[0] = "internal bypass:"
	}
	if m.inject {
		names[1] = "external inject:"
	}
	blocks := strings.Split(r.request(d, strings.Fields(request)...), "\n\n")
	for i, name := range names {
		if len(blocks) <= i || !strings.HasPrefix(blocks[i], name) {
			r.Errorf("%s: block %d of %s does not begin with %q:\n%s", d, i, request, name, strings.Join(blocks, "\n\n"))
			return
		}
	}
	if d != r.b {
		return
	}
	// A flow may have come several times: by itself and with a bulk.
	if !countedPattern.MatchString(blocks[1]) {
		r.Errorf("%s: no multiple of ten flows, none failed, in\n%s", d, blocks[1])
	}
}

var countedPattern = regexp.MustCompile(`(connections created:\s+[1-9]0\s+failed:\s+0\n|creation OK/failed:\s+[1-9]0/\s+0\n)`)

// showsKernel: without an internal cache -i shows the kernel's table, with
// timeouts and without ages.
func (r *rig) showsKernel(d *nettest.Daemon) {
	r.Helper()
	text := r.request(d, "-i")
	table, err := nettest.ParseTable(text)
	r.ok(err)
	if err := nettest.DiffInternal(r.kernel(d.Node), table).Err(); err != nil {
		r.Errorf("-i: %v", err)
	}
	for k, e := range table {
		if e.Timeout < 0 || e.Active >= 0 || e.Use == 0 {
			r.Errorf("-i shows %v with timeout %d, age %d, use %d", k, e.Timeout, e.Active, e.Use)
		}
	}
	// C prints plain text here too, which is of no use to who asked for XML.
	if xml := r.request(d, "-i", "-x"); d.Kind == nettest.Go && strings.Count(xml, "<flow>") != len(table) {
		r.Errorf("-i -x prints\n%s", xml)
	}
}

// TestALARMExpires stops A for good: B drops what is no longer refreshed after
// CacheTimeout, and shows until then how long that is.
func TestALARMExpires(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRig(t, p, alarmRow.both).start()
		r.must(r.flood(r.two.A).Create, load(0, 20, 0, 0, nil))
		r.arrives(alarmRow, "flows on B", all)
		for line := range strings.Lines(r.request(r.b, "-e")) {
			var left, age int
			_, rest, _ := strings.Cut(line, "[expires in ")
			if _, err := fmt.Sscanf(rest, "%ds] [active since %ds]\n", &left, &age); err != nil || left > 8 || left < 3 {
				t.Errorf("-e shows %q (%v)", line, err)
			}
		}
		r.ok(r.a.Stop())
		r.eventually("the flows to expire on B", func() error {
			external, err := r.b.External(r.Context())
			if err == nil && len(external) > 0 {
				err = fmt.Errorf("%d flows", len(external))
			}
			return err
		})
	})
}

// TestInjectedNAT carries connections with every kind of translation over to a
// node that has them in its kernel already: no commit.
func TestInjectedNAT(t *testing.T) {
	for _, m := range modeRows {
		if !m.inject {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) {
				r := newFirewallRig(t, p, m.both)
				if m.mode == "FTFW" {
					r.handshake()
				}
				conns := r.connect()
				r.trackedOnly(r.a, len(conns)+2)
				r.arrives(m, "the connections in B's kernel", all)

				r.ok(r.pair.MoveVIPs(r.two.B))
				r.roundTrips(conns, "on the standby")
				r.trackedOnly(r.b, len(conns)+2)
				// A's own entries know nothing of the segments that went
				// through B: no event told.
				r.ok(r.two.A.Sysctls([]string{"net.netfilter.nf_conntrack_tcp_be_liberal=1"}))
				r.ok(r.pair.MoveVIPs(r.two.A))
				r.roundTrips(conns, "back again")
				for _, c := range conns {
					_ = c.Close()
				}
			})
		})
	}
}
