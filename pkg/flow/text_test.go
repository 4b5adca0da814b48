package flow

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// textCase is a flow and the name of its lines in testdata.
type textCase struct {
	name   string
	flow   Flow
	cState string // what conntrackd wrongly calls the state in XML
}

// tuple is a key from text; ports are what the protocol keeps there.
func tuple(t testing.TB, proto uint8, src, dst string, sport, dport uint16) Key {
	t.Helper()
	k := Key{Proto: proto, Sport: sport, Dport: dport}
	k.Src, k.Dst, k.Family = addr(src), addr(dst), familyOf(src)
	return k
}

const (
	seen    = StatusConfirmed | StatusSeenReply
	assured = seen | StatusAssured
)

// kernelFlow is a flow as a dump shows it, with a mark of 0.
func kernelFlow(t testing.TB, k Key, status uint32) Flow {
	t.Helper()
	f := Flow{Key: k, Status: StatusConfirmed | status, Timeout: 298, Use: 1}
	f.Has = HasAddr | HasProto | HasPorts | HasStatus | HasTimeout | HasMark | HasReply | HasID
	return f
}

func stateFlow(t testing.TB, k Key, status uint32, state uint8) Flow {
	t.Helper()
	f := kernelFlow(t, k, status)
	f.Has |= HasState
	f.State = state
	return f
}

// textCases are the flows of testdata/conntrackd.txt.
func textCases(t testing.TB) []textCase {
	key := func(proto uint8, src string, sport, dport uint16) Key {
		return tuple(t, proto, src, "10.2.2.2", sport, dport)
	}
	udp := func(src string) Key { return key(ProtoUDP, src, 5, 53) }
	natted := stateFlow(t, key(ProtoTCP, "10.1.1.5", 1027, 80), assured, 3)
	reply := tuple(t, ProtoTCP, "10.3.3.3", "10.9.9.9", 8080, 61000)
	natted.SetReply(&reply)
	return []textCase{
		{"tcp-established", stateFlow(t, key(ProtoTCP, "10.1.1.1", 45522, 80), assured, 3), ""},
		{"tcp-syn-sent", stateFlow(t, key(ProtoTCP, "10.1.1.2", 1024, 80), 0, 1), ""},
		{"tcp-none", stateFlow(t, key(ProtoTCP, "10.1.1.3", 1025, 80), 0, 0), ""},
		{"tcp-time-wait", stateFlow(t, key(ProtoTCP, "10.1.1.4", 1026, 80), assured, 7).with(func(f *Flow) { f.Mark = 4294967295 }), ""},
		{"tcp-nat", natted, ""},
		{"udp-unreplied", kernelFlow(t, udp("10.1.1.1"), 0), ""},
		{"udp-mark", kernelFlow(t, udp("10.1.1.2"), seen).with(func(f *Flow) { f.Mark = 6 }), ""},
		{"udp-zone", kernelFlow(t, udp("10.1.1.3"), assured).with(func(f *Flow) { f.Zone = 7; f.Has |= HasZone }), ""},
		{"udp-zone-orig", kernelFlow(t, udp("10.1.1.4"), 0).with(func(f *Flow) { f.Zone = 8; f.Has |= HasZoneOrig }), ""},
		{"udp-zone-reply", kernelFlow(t, udp("10.1.1.5"), 0).with(func(f *Flow) { f.ZoneRepl = 9; f.Has |= HasZoneRepl }), ""},
		{"icmp-echo", kernelFlow(t, key(ProtoICMP, "10.1.1.1", 4711, 8<<8), seen), ""},
		{"icmp-timestamp", kernelFlow(t, key(ProtoICMP, "10.1.1.2", 65535, 13<<8), 0), ""},
		{"icmpv6-echo", kernelFlow(t, tuple(t, ProtoICMPv6, "fd00:1::10", "fd00:5::20", 4712, 128<<8), seen), ""},
		{"tcp6-close", stateFlow(t, tuple(t, ProtoTCP, "fd00:1::10", "fd00:5:0:0:1::20", 53930, 443), assured, 8), ""},
		{"udp6-mapped", kernelFlow(t, tuple(t, ProtoUDP, "::1", "::ffff:1.2.3.4", 1, 2), 0), ""},
		{"udp6-compatible", kernelFlow(t, tuple(t, ProtoUDP, "::1.2.3.4", "1:0:0:2::3", 1, 2), 0), ""},
		{"udp6-single-zero", kernelFlow(t, tuple(t, ProtoUDP, "0:1:2:3:4:5:6:7", "fe80::1", 1, 2), 0), ""},
		{"sctp-established", stateFlow(t, key(ProtoSCTP, "10.1.1.1", 100, 200), 0, 4), "FIN_WAIT"},
		{"sctp-shutdown", stateFlow(t, key(ProtoSCTP, "10.1.1.2", 100, 200), assured, 5), "CLOSE_WAIT"},
		{"gre-unreplied", kernelFlow(t, key(ProtoGRE, "10.1.1.1", 1, 2), 0), ""},
		{"gre-assured", kernelFlow(t, key(ProtoGRE, "10.1.1.2", 0xabcd, 0), assured), ""},
		{"udplite", kernelFlow(t, key(ProtoUDPLite, "10.1.1.1", 5, 6), 0), ""},
		{"esp", kernelFlow(t, key(50, "10.1.1.1", 0, 0), 0), ""},
		{"proto255-v6", kernelFlow(t, tuple(t, 255, "fd00::1", "fd00::2", 0, 0), seen), ""},
	}
}

// asReplicated is the flow after a trip over the wire: the original direction
// only, without kernel id, without the zones of single directions, and without
// the ports the protocol does not carry.
func asReplicated(f Flow) Flow {
	f.Has &^= HasReply | HasID | HasZoneOrig | HasZoneRepl | HasNAT
	if f.Proto == ProtoGRE || f.Proto == ProtoUDPLite {
		f.Sport, f.Dport = 0, 0
	}
	return f
}

// goldenLines reads blocks of a name and its lines.
func goldenLines(t testing.TB, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]string)
	for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n")[1:] {
		lines := strings.Split(block, "\n")
		blocks[lines[0]] = lines[1:]
	}
	return blocks
}

var (
	xmlID   = regexp.MustCompile(`<id>(\d+)</id>`)
	xmlICMP = regexp.MustCompile(`<type>\d+</type><code>\d+</code><id>\d+</id></layer4>`)
	age     = regexp.MustCompile(`\[active since (\d+)s\]`)
)

func TestTextEqualsConntrackd(t *testing.T) {
	golden := goldenLines(t, "testdata/conntrackd.txt")
	cases := textCases(t)
	if len(golden) != len(cases) {
		t.Errorf("%d blocks for %d flows", len(golden), len(cases))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			lines := golden[c.name]
			if len(lines) != 4 {
				t.Fatalf("%d lines in testdata", len(lines))
			}
			internal := c.flow
			id, _ := strconv.ParseUint(xmlID.FindStringSubmatch(lines[1])[1], 10, 32)
			internal.ID = uint32(id)
			external := asReplicated(internal)
			checkText(t, &internal, lines[0])
			checkXML(t, &internal, lines[1], c.cState)
			checkText(t, &external, lines[2])
			checkXML(t, &external, lines[3], c.cState)
		})
	}
}

func checkText(t *testing.T, f *Flow, want string) {
	t.Helper()
	seconds, _ := strconv.ParseUint(age.FindStringSubmatch(want)[1], 10, 32)
	got := string(f.AppendText(nil, TextOptions{Age: uint32(seconds), ShowAge: true}))
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// checkXML compares after undoing the two known differences.
func checkXML(t *testing.T, f *Flow, want, cState string) {
	t.Helper()
	got := string(f.AppendXML(nil, TextOptions{}))
	if f.IsICMP() {
		got = xmlICMP.ReplaceAllString(got, "</layer4>")
	}
	if cState != "" {
		want = strings.Replace(want, cState, sctpStates[f.State], 1)
	}
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// Lines of a daemon on a firewall, with what conntrack -I cannot make.
func TestTextSamples(t *testing.T) {
	ftp := stateFlow(t, tuple(t, ProtoTCP, "127.0.0.1", "127.0.0.1", 40021, 21), assured, 3)
	ftp.Has |= HasHelper | HasStart | HasCounters | HasUse
	copy(ftp.Helper[:], "ftp")
	ftp.Timeout = 431998
	ftp.Start = 1795382533 * nanosecond
	ftp.Counters = [2]Counters{{5, 299}, {4, 224}}
	now := time.Unix(1795382534, 203917499)

	cached := ftp
	cached.Has &^= HasCounters | HasUse
	cached.ID = 2086821541
	event := cached
	event.Has &^= HasMark | HasStart

	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"no cache", ftp.AppendText(nil, TextOptions{Now: now, Timeout: true}),
			"tcp      6 431998 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=40021 dport=21 packets=5 bytes=299 src=127.0.0.1 dst=127.0.0.1 sport=21 dport=40021 packets=4 bytes=224 [ASSURED] mark=0 delta-time=1 helper=ftp use=1"},
		{"cache", cached.AppendText(nil, TextOptions{Now: now, ShowAge: true}),
			"tcp      6 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=40021 dport=21 src=127.0.0.1 dst=127.0.0.1 sport=21 dport=40021 [ASSURED] mark=0 delta-time=1 helper=ftp [active since 0s]"},
		{"cache XML", cached.AppendXML(nil, TextOptions{Now: now}),
			`<flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>40021</sport><dport>21</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>21</sport><dport>40021</dport></layer4></meta><meta direction="independent"><state>ESTABLISHED</state><mark>0</mark><id>2086821541</id><assured/><deltatime>1</deltatime></meta><helper>ftp</helper></flow>`},
		{"learnt from an event", event.AppendText(nil, TextOptions{Age: 1, ShowAge: true}),
			"tcp      6 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=40021 dport=21 src=127.0.0.1 dst=127.0.0.1 sport=21 dport=40021 [ASSURED] helper=ftp [active since 1s]"},
	}
	for _, test := range tests {
		if string(test.got) != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, test.got, test.want)
		}
	}
}

func TestTextExpires(t *testing.T) {
	f := stateFlow(t, tuple(t, ProtoTCP, "1.1.1.2", "2.2.2.2", 5, 6), assured, 3)
	f.Has &^= HasReply
	got := string(f.AppendText(nil, TextOptions{Expires: 4, ShowExpires: true, Age: 2, ShowAge: true}))
	want := "tcp      6 ESTABLISHED src=1.1.1.2 dst=2.2.2.2 sport=5 dport=6 [ASSURED] mark=0 [expires in 4s] [active since 2s]"
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestTextOfUnknownAttributes(t *testing.T) {
	f := Flow{Key: tuple(t, ProtoTCP, "1.1.1.2", "2.2.2.2", 5, 6), State: 3, Status: assured, Mark: 9, Use: 1, ID: 3}
	f.Has = HasAddr | HasProto | HasPorts
	if got, want := string(f.AppendText(nil, TextOptions{Timeout: true})),
		"tcp      6 src=1.1.1.2 dst=2.2.2.2 sport=5 dport=6"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := string(f.AppendXML(nil, TextOptions{Timeout: true})); strings.Contains(got, "independent") {
		t.Errorf("a block of nothing: %s", got)
	}
}

func TestTextStatus(t *testing.T) {
	for _, test := range []struct {
		status uint32
		want   string
	}{
		{0, "[UNREPLIED]"},
		{StatusSeenReply, ""},
		{StatusAssured, "[UNREPLIED] [ASSURED]"},
		{seen | StatusAssured, "[ASSURED]"},
		{assured | StatusOffload, "[OFFLOAD]"},
		{assured | StatusOffload | StatusHWOffload, "[HW_OFFLOAD]"},
	} {
		f := Flow{Key: tuple(t, 50, "1.1.1.2", "2.2.2.2", 0, 0), Status: test.status, Has: HasStatus}
		got := strings.TrimSpace(strings.TrimPrefix(string(f.AppendText(nil, TextOptions{})), "unknown  50 src=1.1.1.2 dst=2.2.2.2"))
		if got != test.want {
			t.Errorf("%#x: got %q, want %q", test.status, got, test.want)
		}
	}
}

func TestStateNames(t *testing.T) {
	for _, test := range []struct {
		proto, state uint8
		want         string
	}{
		{ProtoTCP, 3, "ESTABLISHED"},
		{ProtoTCP, 9, "SYN_SENT2"},
		{ProtoTCP, 10, "NONE"},
		{ProtoTCP, 255, "NONE"},
		{ProtoSCTP, 1, "CLOSED"},
		{ProtoSCTP, 9, "HEARTBEAT_ACKED"},
		{ProtoDCCP, 4, "OPEN"},
		{ProtoDCCP, 9, "INVALID"},
		{ProtoUDP, 3, ""},
	} {
		if got := stateName(test.proto, test.state); got != test.want {
			t.Errorf("%d %d: got %q, want %q", test.proto, test.state, got, test.want)
		}
	}
}

func TestDeltaTime(t *testing.T) {
	const start = 1795382533
	for _, test := range []struct {
		name string
		now  int64
		stop uint64
		want uint64
	}{
		{"alive", start + 61, 0, 61},
		{"stopped", start + 61, start + 9, 9},
		{"clock set back", start - 5, 0, 0},
		{"before 1970", -5, 0, 0},
	} {
		f := Flow{Has: HasStart, Start: start*nanosecond + 999}
		if test.stop != 0 {
			f.Has |= HasStop
			f.Stop = test.stop * nanosecond
		}
		if got := f.deltaTime(time.Unix(test.now, 0)); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func TestXMLOfICMP(t *testing.T) {
	f := kernelFlow(t, tuple(t, ProtoICMP, "10.0.0.1", "10.0.0.2", 4711, 8<<8), seen)
	got := string(f.AppendXML(nil, TextOptions{}))
	for _, want := range []string{
		`protoname="icmp"><type>8</type><code>0</code><id>4711</id></layer4></meta><meta direction="reply">`,
		`protoname="icmp"><type>0</type><code>0</code><id>4711</id></layer4></meta><meta direction="independent">`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

// A peer chooses the helper's name; it must not be able to forge lines.
func TestNamesStayInTheirLine(t *testing.T) {
	f := kernelFlow(t, tuple(t, ProtoTCP, "10.0.0.1", "10.0.0.2", 1, 2), seen)
	f.Has |= HasHelper
	copy(f.Helper[:], "a\n</flow>&\x01\xff")
	if got := string(f.AppendText(nil, TextOptions{})); !strings.HasSuffix(got, "helper=a?</flow>&??") {
		t.Errorf("text: %q", got)
	}
	if got := string(f.AppendXML(nil, TextOptions{})); !strings.HasSuffix(got, "<helper>a?&lt;/flow&gt;&amp;??</helper></flow>") {
		t.Errorf("XML: %q", got)
	}
	copy(f.Helper[:], "sixteen-bytes-16")
	if got := string(f.AppendText(nil, TextOptions{})); !strings.HasSuffix(got, "helper=sixteen-bytes-16") {
		t.Errorf("text: %q", got)
	}
}

func TestTextDoesNotAllocate(t *testing.T) {
	cases := textCases(t)
	e := ftpExpectation(t)
	buf := make([]byte, 0, 8<<10)
	o := TextOptions{Now: time.Unix(1795382534, 0), Timeout: true, ShowAge: true}
	n := testing.AllocsPerRun(100, func() {
		for i := range cases {
			f := &cases[i].flow
			buf = f.AppendText(buf[:0], o)
			buf = f.AppendXML(buf, o)
		}
		buf = e.AppendText(buf[:0], o)
		buf = e.AppendXML(buf, o)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkText(b *testing.B) {
	cases := textCases(b)
	buf := make([]byte, 0, 8<<10)
	b.ReportAllocs()
	for i := range b.N {
		buf = cases[i%len(cases)].flow.AppendText(buf[:0], TextOptions{ShowAge: true})
	}
}
