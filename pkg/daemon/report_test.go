package daemon

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files that are ours")

func readGolden(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "report", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func diffText(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	for i := range max(len(g), len(w)) {
		var gl, wl string
		if i < len(g) {
			gl = g[i]
		}
		if i < len(w) {
			wl = w[i]
		}
		if gl != wl {
			t.Fatalf("line %d:\n got %q\nwant %q", i+1, gl, wl)
		}
	}
}

// The files c-*.txt are what conntrackd 1.4.7 printed: in FTFW mode with five
// flows of which HashLimit let three in, one updated and one destroyed, and
// with both caches off over TCP.
var (
	cInternal = CacheStats{
		Objects: 3, Active: 2, Entries: 3,
		Created: 3, CreateFailed: 2, NoSpace: 2, Updated: 1, Destroyed: 1,
	}
	cLink = LinkStats{Kind: "UDP", Device: "vq0", Status: "RUNNING", Active: true, BytesSent: 428, PacketsSent: 6}
	cTCP  = LinkStats{Kind: "TCP", Device: "lo", Status: "RUNNING", Active: true, ErrorsSent: 1}
)

func TestReportsEqualConntrackd(t *testing.T) {
	tests := []struct {
		file string
		text func() []byte
	}{
		{"c-ftfw-general.txt", func() []byte {
			b := appendCache(nil, "internal", &cInternal)
			b = appendCache(b, "external", &CacheStats{})
			b = appendTraffic(b, &TrafficStats{})
			b = appendActiveLink(b, &cLink)
			return appendTracking(b, &TrackingStats{})
		}},
		{"c-ftfw-cache.txt", func() []byte {
			b := appendCacheDetail(nil, "internal", &cInternal)
			return appendCacheDetail(b, "external", &CacheStats{})
		}},
		{"c-ftfw-link.txt", func() []byte {
			b := appendLink(nil, &cLink)
			return appendLink(b, &LinkStats{Kind: "UDP", Device: "vr0", Status: "NO-CARRIER"})
		}},
		{"c-ftfw-network.txt", func() []byte {
			return appendActiveLink(appendNetwork(nil, &NetworkStats{}), &cLink)
		}},
		{"c-ftfw-runtime.txt", func() []byte {
			return appendRuntime(nil, &RuntimeStats{EventsReceived: 7, BufferSize: 212992})
		}},
		{"c-ftfw-rsqueue.txt", func() []byte {
			b := appendResendHead(nil, 3)
			for seq := uint32(1795382180); seq <= 1795382182; seq++ {
				b = appendResend(b, Resend{Seq: seq})
			}
			return b
		}},
		{"c-ftfw-queue.txt", func() []byte {
			return appendQueues(nil, 0, []QueueStats{
				{Name: "txqueue", Maximum: 2147483647},
				{Name: "errorq", Maximum: 128},
				{Name: "rsqueue", Length: 3, Maximum: 131072},
			})
		}},
		{"c-tcp-general.txt", func() []byte {
			b := appendBypass(nil, &BypassStats{New: 1, Destroyed: 5})
			b = appendInject(b, &InjectStats{})
			b = appendTraffic(b, &TrafficStats{})
			b = appendActiveLink(b, &cTCP)
			return appendTracking(b, &TrackingStats{})
		}},
		{"c-tcp-cache.txt", func() []byte {
			return appendInject(appendBypass(nil, &BypassStats{New: 1, Destroyed: 5}), &InjectStats{})
		}},
		{"c-tcp-link.txt", func() []byte {
			b := appendLink(nil, &cTCP)
			return appendLink(b, &LinkStats{Kind: "TCP", Device: "vq0", Status: "RUNNING"})
		}},
	}
	for _, test := range tests {
		t.Run(strings.TrimSuffix(test.file, ".txt"), func(t *testing.T) {
			diffText(t, string(test.text()), readGolden(t, test.file))
		})
	}
}

// fill gives every number of the struct a value of its own, so that a golden
// file shows each counter in its place.
func fill(v any, next *uint64) {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		if f := s.Field(i); f.Kind() == reflect.Uint64 {
			*next++
			f.SetUint(*next)
		}
	}
}

// blocks are all blocks that show a struct of counters.
var blocks = []struct {
	name string
	text func(next *uint64) []byte
	skip []string // fields that this block does not show
}{
	{"cache", func(n *uint64) []byte { s := filled[CacheStats](n); return appendCache(nil, "internal", &s) },
		[]string{"Objects", "Entries", "NoMemory", "NoSpace", "UpdateMissed", "DestroyMissed"}},
	{"cache-detail", func(n *uint64) []byte { s := filled[CacheStats](n); return appendCacheDetail(nil, "external", &s) }, nil},
	{"bypass", func(n *uint64) []byte { s := filled[BypassStats](n); return appendBypass(nil, &s) }, nil},
	{"inject", func(n *uint64) []byte { s := filled[InjectStats](n); return appendInject(nil, &s) }, nil},
	{"traffic", func(n *uint64) []byte { s := filled[TrafficStats](n); return appendTraffic(nil, &s) }, nil},
	{"tracking", func(n *uint64) []byte { s := filled[TrackingStats](n); return appendTracking(nil, &s) }, nil},
	{"network", func(n *uint64) []byte { s := filled[NetworkStats](n); return appendNetwork(nil, &s) }, nil},
	{"runtime", func(n *uint64) []byte { s := filled[RuntimeStats](n); return appendRuntime(nil, &s) }, nil},
	{"link", func(n *uint64) []byte {
		s := filled[LinkStats](n)
		s.Kind, s.Device, s.Status = "multicast", "eth2", "DOWN"
		return appendLink(nil, &s)
	}, nil},
	{"queue", func(n *uint64) []byte {
		s := filled[QueueStats](n)
		s.Name = "txqueue"
		return appendQueues(nil, 900, []QueueStats{s})
	}, nil},
}

func filled[T any](next *uint64) T {
	var s T
	fill(&s, next)
	return s
}

func TestEveryCounterHasItsPlace(t *testing.T) {
	next := uint64(100)
	var all strings.Builder
	for _, b := range blocks {
		first := next + 1
		text := string(b.text(&next))
		shown := 0
		for v := first; v <= next; v++ {
			switch strings.Count(text, fmt.Sprintf(" %d", v)) {
			case 0:
			case 1:
				shown++
			default:
				t.Errorf("%s: counter %d is shown twice", b.name, v)
			}
		}
		if want := int(next-first+1) - len(b.skip); shown != want {
			t.Errorf("%s: %d counters shown, want %d", b.name, shown, want)
		}
		if !strings.HasSuffix(text, "\n\n") {
			t.Errorf("%s: no empty line at the end", b.name)
		}
		all.WriteString(text)
	}
	if *update {
		if err := os.WriteFile("testdata/report/counters.txt", []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	diffText(t, all.String(), readGolden(t, "counters.txt"))
}

func TestLinkHeads(t *testing.T) {
	tests := []struct {
		link         LinkStats
		active, list string
	}{
		{LinkStats{Kind: "UDP", Device: "eth2", Status: "RUNNING", Active: true},
			"UDP traffic (active device=eth2):",
			"UDP traffic device=eth2 status=RUNNING role=ACTIVE:"},
		{LinkStats{Kind: "multicast", Device: "eth3", Status: "NO-CARRIER"},
			"multicast traffic (active device=eth3):",
			"multicast traffic device=eth3 status=NO-CARRIER role=BACKUP:"},
		{LinkStats{Kind: "TCP", Device: "eth2", Status: "DOWN", Active: true, Server: true},
			"TCP traffic (active device=eth2) server=connected client=disconnected:",
			"TCP traffic device=eth2 status=DOWN role=ACTIVE:"},
		{LinkStats{Kind: "TCP", Device: "eth2", Status: "DOWN", Client: true},
			"TCP traffic (active device=eth2) server=disconnected client=connected:",
			"TCP traffic device=eth2 status=DOWN role=BACKUP:"},
	}
	for _, test := range tests {
		active, _, _ := strings.Cut(string(appendActiveLink(nil, &test.link)), "\n")
		list, _, _ := strings.Cut(string(appendLink(nil, &test.link)), "\n")
		if active != test.active || list != test.list {
			t.Errorf("got %q and %q, want %q and %q", active, list, test.active, test.list)
		}
	}
}

func TestUptime(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		up   time.Duration
		want string
	}{
		{0, "0 min"},
		{59 * time.Second, "0 min"},
		{2*time.Minute + 59*time.Second, "2 min"},
		{time.Hour, "1 h 0 min"},
		{23*time.Hour + 59*time.Minute, "23 h 59 min"},
		{day, "1 day 0 min"},
		{day + 5*time.Minute, "1 day 5 min"},
		{2*day + 3*time.Hour + 4*time.Minute, "2 days 3 h 4 min"},
		{400 * day, "400 days 0 min"},
	}
	for _, test := range tests {
		if got := string(appendUptime(nil, test.up)); got != test.want {
			t.Errorf("%v: got %q, want %q", test.up, got, test.want)
		}
	}
}

func TestSmallLines(t *testing.T) {
	b := appendResendHead(nil, 2)
	b = appendResend(b, Resend{Seq: 4294967295})
	b = appendResend(b, Resend{Control: true, Seq: 1795373563, Flags: 34})
	b = appendProcess(b, Process{PID: 4711, Type: "any"})
	want := "resent queue (len=2)\nobject -> seq:4294967295\ncontrol -> seq:1795373563 flags:34\nPID=4711 type=any\n"
	diffText(t, string(b), want)
}

func TestWideNumbersShiftNothingElse(t *testing.T) {
	const huge = ^uint64(0)
	got := string(appendTraffic(nil, &TrafficStats{Bytes: huge, Packets: huge}))
	want := "traffic processed:\n18446744073709551615 Bytes      18446744073709551615 Pckts\n\n"
	diffText(t, got, want)
}
