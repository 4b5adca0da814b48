package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/google/go-cmp/cmp"
)

// oldMessages are messages as releases before 1.4.7 send and accept them.
//
// None of those releases was at hand. Each message here is one that was seen on
// a wire, from 1.4.7, changed as docs/protocol.md 9 says: capture and seq name
// what was seen, derived says in which attributes raw differs from that and how,
// and the test holds raw to it. An empty derived is not nothing: that an old
// release sends these very bytes is derived as well.
var oldMessages = []struct {
	name     string
	releases []string
	capture  string
	seq      uint32
	derived  []string
	raw      string
}{
	{
		"TCP translated both ways", []string{"1.4.2", "1.4.3", "1.4.4", "1.4.5", "1.4.6"}, "ftfw-nat", 0x6b0336d5,
		[]string{"SNAT_IPV4 reversed", "DNAT_IPV4 reversed"},
		"1100005c6b0336d5" + "000c00000a0100020a010001" + "00080005000001be" + "0005000206000000" + "000800039c410050" +
			"0005000403000000" + "0008000600069780" + "0008000c0100020a" + "0008000d0200020a" + "0006000e56c30000" + "0006000f901f0000",
	},
	{
		"UDP with its source translated", []string{"1.4.2", "1.4.4", "1.4.6"}, "ftfw-nat", 0x6b0336d7,
		[]string{"SNAT_IPV4 reversed"},
		"100000446b0336d7" + "000c00000a0100020a020002" + "0008000500000198" + "0005000211000000" + "000800039c4214e9" +
			"000800060000001e" + "0008000c0100020a" + "0006000e41c70000",
	},
	{
		"ICMP that passed NAT", []string{"1.4.2", "1.4.6"}, "ftfw-nat", 0x6b0336da,
		[]string{"SNAT_IPV4 reversed"},
		"1100005c6b0336da" + "000c00000a0100020a020002" + "000800050000019a" + "0005000201000000" + "0005001608000000" +
			"0005001700000000" + "0006001834120000" + "000800060000001e" + "0008000c0100020a" + "0006000e00000000" + "0006000f00000000",
	},
	{
		"IPv6 NAT", []string{"1.4.4", "1.4.5", "1.4.6"}, "ftfw-nat", 0x6b0336d6,
		nil,
		"1100008c6b0336d6" + "00240001fd010000000000000000000000000002fd010000000000000000000000000001" + "00080005000001be" +
			"0005000206000000" + "000800039c460050" + "0005000403000000" + "0008000600069780" +
			"0014001dfd020000000000000000000000000001" + "0014001efd020000000000000000000000000002" + "0006000e59c30000" + "0006000f901f0000",
	},
	{
		"IPv6 NAT before it had numbers", []string{"1.4.2", "1.4.3"}, "ftfw-nat", 0x6b0336d6,
		[]string{"SNAT_IPV6 missing", "DNAT_IPV6 missing"},
		"110000646b0336d6" + "00240001fd010000000000000000000000000002fd010000000000000000000000000001" + "00080005000001be" +
			"0005000206000000" + "000800039c460050" + "0005000403000000" + "0008000600069780" + "0006000e59c30000" + "0006000f901f0000",
	},
	{
		"SYNPROXY", []string{"1.4.5", "1.4.6"}, "ftfw-synproxy", 0x6b0337ae,
		nil,
		"110000686b0337ae" + "000c00000a0100020a020002" + "000800050000004e" + "0005000206000000" + "000800039c411f90" +
			"0005000403000000" + "0008000600069780" + "001c00100000000000000000000000000000000062a6bda262a6bda2" +
			"0010001f0014695ab35f35f274848f58",
	},
	{
		"SYNPROXY before it had a number", []string{"1.4.2", "1.4.3", "1.4.4"}, "ftfw-synproxy", 0x6b0337ae,
		[]string{"SYNPROXY missing"},
		"110000586b0337ae" + "000c00000a0100020a020002" + "000800050000004e" + "0005000206000000" + "000800039c411f90" +
			"0005000403000000" + "0008000600069780" + "001c00100000000000000000000000000000000062a6bda262a6bda2",
	},
	{
		"zone 5", []string{"1.4.2", "1.4.3", "1.4.4", "1.4.5", "1.4.6"}, "ftfw-mark-label-zone", 0x6b033723,
		[]string{"ZONE missing"},
		"100000346b033723" + "000c00000a0100020a020002" + "0008000500000008" + "0005000211000000" + "000800031f411b59" +
			"000800060000001e",
	},
	{
		"mark and labels", []string{"1.4.2", "1.4.6"}, "ftfw-mark-label-zone", 0x6b033729,
		nil,
		"100000506b033729" + "000c00000a0100020a020002" + "0008000500000008" + "0005000211000000" + "000800031f441b5c" +
			"000800060000001e" + "0008000700000001" + "0014001c00000000000000000000000080000000",
	},
	{
		"helper", []string{"1.4.2", "1.4.6"}, "ftfw-ftp-expect-nat", 0x6b033850,
		[]string{"SNAT_IPV4 reversed"},
		"1100004c6b033850" + "000c00000a0100020a020002" + "000800050000219e" + "0005000206000000" + "000800039c550015" +
			"0005000403000000" + "0008000600069780" + "0008000c0100020a" + "0008001b66747000",
	},
}

func TestOldMessages(t *testing.T) {
	for _, m := range oldMessages {
		raw, err := hex.DecodeString(m.raw)
		if err != nil {
			t.Fatal(err)
		}
		seen := capturedFlow(t, m.capture, m.seq)
		if got := differences(seen, raw); !slices.Equal(got, m.derived) {
			t.Errorf("%s: differs from the capture in %q, not %q", m.name, got, m.derived)
		}
		for _, release := range m.releases {
			t.Run(m.name+" "+release, func(t *testing.T) { checkOldMessage(t, release, seen, raw) })
		}
	}
}

// checkOldMessage takes raw for the message of an old release about the flow of
// seen: it is read as that flow, less what is not in it, and what we send the
// release about the flow is raw.
func checkOldMessage(t *testing.T, release string, seen, raw []byte) {
	v, ok := ParseVersion(release)
	if !ok {
		t.Fatal("no such release")
	}
	o := Options{Peer: v}
	var want, got flow.Flow
	must(t, new(Options).ParseFlow(seen[shortHeader:], &want))
	m, rest, err := Next(raw)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%d bytes left, %v", len(rest), err)
	}
	sent := o.AppendFlow(nil, m.Header, &want)
	if clean := cleanFlow(raw, &want, new(cleaner)); !bytes.Equal(sent, clean) {
		t.Errorf("sent\n got %x\nwant %x", sent, clean)
	}
	for _, d := range differences(seen, raw) {
		forgetAttr(&want, d)
	}
	must(t, o.ParseFlow(m.Body, &got))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("read (-want +got):\n%s", d)
	}
	if d := o.Doubt(&got); d != NoDoubt {
		t.Errorf("doubt %d", d)
	}
}

// TestOldPortless: what an old release sends about a TCP flow whose state it
// does not know names a flow without ports (derived). It is read as it is.
func TestOldPortless(t *testing.T) {
	o := Options{Peer: Since145}
	var got flow.Flow
	must(t, o.ParseFlow(body(attrIPv4, attr(5, 0, 0, 1, 0x8e), attrTCP), &got))
	if got.Has != flow.HasAddr|flow.HasProto|flow.HasStatus || got.Sport != 0 || got.Dport != 0 {
		t.Errorf("read %+v", got)
	}
	// We send the ports with the state or without: it takes them by number.
	got.Has, got.Sport = got.Has|flow.HasPorts, 5
	if nums := numbers(o.AppendFlow(nil, Header{}, &got)); !slices.Equal(nums, []int{0, 5, 2, 3}) {
		t.Errorf("sent %v", nums)
	}
}

// forgetAttr removes from a flow what a difference says is missing.
func forgetAttr(f *flow.Flow, difference string) {
	switch difference {
	case "SNAT_IPV6 missing":
		f.Has, f.NAT.Src = f.Has&^flow.HasSNAT, flow.Addr{}
	case "DNAT_IPV6 missing":
		f.Has, f.NAT.Dst = f.Has&^flow.HasDNAT, flow.Addr{}
	case "SYNPROXY missing":
		f.Has, f.Synproxy = f.Has&^flow.HasSynproxy, flow.Synproxy{}
	case "ZONE missing":
		f.Has, f.Zone = f.Has&^flow.HasZone, 0
	}
}

// capturedFlow returns a message that a capture has.
func capturedFlow(t *testing.T, capture string, seq uint32) []byte {
	t.Helper()
	for _, o := range readOracle(t, "testdata/captures/"+capture+".json") {
		if o.Seq == seq && o.Type <= CTDel {
			return o.raw(t)
		}
	}
	t.Fatalf("%s has no message %d", capture, seq)
	return nil
}

// attributes splits a body, without any help of the package.
func attributes(raw []byte) (attrs map[int][]byte) {
	attrs = map[int][]byte{}
	for b := raw[8:]; len(b) > 0; b = b[(int(b[1])+3)&^3:] {
		attrs[int(b[3])] = b[4:b[1]]
	}
	return attrs
}

// differences says how the attributes of b differ from those of a.
func differences(a, b []byte) (out []string) {
	before, after := attributes(a), attributes(b)
	for _, num := range numbers(a) {
		name := flowTable.byNum[num].name
		old, ok := before[num], after[num] != nil
		turned := slices.Clone(old)
		slices.Reverse(turned)
		switch now := after[num]; {
		case !ok:
			out = append(out, name+" missing")
		case bytes.Equal(old, now):
		case bytes.Equal(turned, now):
			out = append(out, name+" reversed")
		default:
			out = append(out, fmt.Sprintf("%s %x", name, now))
		}
		delete(after, num)
	}
	for num := range after {
		out = append(out, flowTable.byNum[num].name+" added")
	}
	return out
}

// An oldReceiver does what docs/protocol.md 3.1 and 9 say of releases before
// 1.4.7: derived, not observed.
type oldReceiver struct{ newest int }

// read returns the attributes, or why the message is refused whole. The
// translated IPv4 addresses are converted once too often.
func (r oldReceiver) read(body []byte) (map[int][]byte, error) {
	got := map[int][]byte{}
	for len(body) > 4 {
		n, num := int(binary.BigEndian.Uint16(body)), int(binary.BigEndian.Uint16(body[2:]))
		switch {
		case n < 4 || n > len(body):
			return nil, errors.New("length")
		case num > r.newest:
			return nil, fmt.Errorf("number %d", num)
		}
		p := slices.Clone(body[4:n])
		if num == 12 || num == 13 {
			slices.Reverse(p)
		}
		got[num] = p
		body = body[min((n+3)&^3, len(body)):]
	}
	return got, nil
}

// TestOldPeersAccept: whatever a flow has, a peer of the configured version
// refuses nothing, gets all that it has a number for, and the right addresses.
func TestOldPeersAccept(t *testing.T) {
	newest := map[string]int{"1.4.2": 28, "1.4.3": 28, "1.4.4": 30, "1.4.5": 31, "1.4.6": 31}
	for name, f := range richFlows() {
		whole := numbers(full.AppendFlow(nil, Header{}, &f))
		for release, newest := range newest {
			o := full
			o.Peer, _ = ParseVersion(release)
			raw := o.AppendFlow(nil, Header{}, &f)
			got, err := oldReceiver{newest}.read(raw[shortHeader:])
			if err != nil {
				t.Errorf("%s to %s: refused: %v", name, release, err)
				continue
			}
			want := slices.DeleteFunc(slices.Clone(whole), func(n int) bool { return n > newest })
			if sent := numbers(raw); !reflect.DeepEqual(sent, want) {
				t.Errorf("%s to %s: %v, want %v", name, release, sent, want)
			}
			if f.Family == flow.IPv4 && (!bytes.Equal(got[12], f.NAT.Src[:4]) || !bytes.Equal(got[13], f.NAT.Dst[:4])) {
				t.Errorf("%s to %s: NAT %v and %v, want %v and %v", name, release, got[12], got[13], f.NAT.Src[:4], f.NAT.Dst[:4])
			}
		}
		// The control: without the version they do refuse it.
		if _, err := (oldReceiver{31}).read(full.AppendFlow(nil, Header{}, &f)[shortHeader:]); err == nil {
			t.Errorf("%s: a peer of 1.4.6 takes what is meant for 1.4.7", name)
		}
	}
}

// TestReleases holds the table of versions to the rows.
func TestReleases(t *testing.T) {
	for v, r := range releases {
		for _, kind := range []flow.Has{isIPv4, isIPv6} {
			var not flow.Has
			for _, row := range flowRows {
				if row.num > r.newest && row.needs&anyKind&^kind == 0 {
					not |= row.needs &^ anyCondition
				}
			}
			if got := Version(v).unknown(kind); got != not {
				t.Errorf("version %d: %x is unknown, want %x", v, got, not)
			}
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"1.4.2": Since142, "1.4.3": Since142, "1.4.4": Since144, "1.4.5": Since145, "1.4.6": Since145,
		"1.4.7": Since147, "1.4.8": Since147, "1.4.9": Since147, "1.4.12": Since147,
	} {
		if got, ok := ParseVersion(text); !ok || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "1", "1.4", "1.4.", "1.4.1", "1.4.0", "1.4.-7", "1.4.+7", "1.4.7.1", "1.5.7", "2.4.7", "1.4.x", "1.4.99999999999999999999"} {
		if v, ok := ParseVersion(text); ok {
			t.Errorf("%q is version %d", text, v)
		}
	}
}

func TestDoubt(t *testing.T) {
	snat := func(a, b, c, d byte) flow.Flow {
		f := flow.Flow{Key: flow.Key{Family: flow.IPv4, Proto: flow.ProtoTCP}, Has: flow.HasAddr | flow.HasProto | flow.HasSNAT}
		f.NAT.Src = flow.Addr{a, b, c, d}
		return f
	}
	zoned := flow.Flow{Key: flow.Key{Family: flow.IPv4, Zone: 5}, Has: flow.HasZone}
	six := snat(0, 1, 2, 3)
	six.Family = flow.IPv6
	dnat := flow.Flow{Key: flow.Key{Family: flow.IPv4}, Has: flow.HasDNAT, NAT: flow.NAT{Dst: flow.Addr{230, 0, 168, 192}}}
	for _, c := range []struct {
		name string
		peer Version
		f    flow.Flow
		want Doubt
	}{
		{"an address", Since147, snat(10, 2, 0, 1), NoDoubt},
		{"either way", Since147, snat(1, 0, 2, 10), NoDoubt}, // no message tells
		{"multicast", Since147, snat(230, 0, 168, 192), PeerOlder},
		{"destination", Since147, dnat, PeerOlder},
		{"network 0", Since147, snat(0, 0, 168, 192), PeerOlder},
		{"wrong both ways", Since147, snat(255, 255, 255, 255), NoDoubt},
		{"loopback", Since147, snat(127, 0, 0, 1), NoDoubt},
		{"no NAT", Since147, flow.Flow{Key: flow.Key{Family: flow.IPv4}}, NoDoubt},
		{"an address, from 1.4.6", Since145, snat(10, 2, 0, 1), NoDoubt},
		{"multicast, from 1.4.6", Since145, snat(230, 0, 168, 192), PeerNewer},
		{"zone", Since147, zoned, NoDoubt},
		{"zone, from 1.4.6", Since145, zoned, PeerNewer},
		{"IPv6 NAT, from 1.4.4", Since144, six, NoDoubt},
		{"IPv6 NAT, from 1.4.2", Since142, six, PeerNewer},
		{"IPv6 NAT", Since147, six, NoDoubt},
	} {
		o := Options{Peer: c.peer}
		if got := o.Doubt(&c.f); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		if c.want != NoDoubt && !c.f.Has.Any(Doubtful) {
			t.Errorf("%s: Doubtful does not have it", c.name)
		}
	}
}

// TestDoubtMisreading: an old peer's message that is read as a new one's is
// doubted when it can be told, and the other way round; captures never are.
func TestDoubtMisreading(t *testing.T) {
	for _, base := range captures(t) {
		for _, o := range readOracle(t, base+".json") {
			if o.Type > CTDel {
				continue
			}
			var f flow.Flow
			today := Options{}
			must(t, today.ParseFlow(o.raw(t)[shortHeader:], &f))
			if d := today.Doubt(&f); d != NoDoubt {
				t.Errorf("%s frame %d: doubt %d", base, o.Frame, d)
			}
		}
	}
	f := typicalTCP()
	f.NAT.Src = flow.Addr{198, 51, 100, 254}
	for _, c := range []struct {
		sender, reader Version
		want           Doubt
	}{
		{Since147, Since147, NoDoubt}, {Since145, Since145, NoDoubt},
		{Since142, Since147, PeerOlder}, {Since147, Since142, PeerNewer},
	} {
		var got flow.Flow
		sender, reader := Options{Peer: c.sender}, Options{Peer: c.reader}
		must(t, reader.ParseFlow(sender.AppendFlow(nil, Header{}, &f)[shortHeader:], &got))
		if d := reader.Doubt(&got); d != c.want {
			t.Errorf("version %d read as %d: doubt %d, want %d", c.sender, c.reader, d, c.want)
		}
	}
}
