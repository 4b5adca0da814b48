package wire

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// vector is one entry of malformed-vectors.json.
type vector struct {
	Run      int
	Mode     string
	Name     string
	Datagram string
	Counters map[string]int
	Entries  int `json:"external_entries_added"`
}

func readVectors(t testing.TB) (vs []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/malformed-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &vs); err != nil {
		t.Fatal(err)
	}
	if len(vs) != 90 {
		t.Fatalf("%d vectors, want 90", len(vs))
	}
	return vs
}

func (v *vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Datagram)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused are the vectors where we differ from C on purpose: it stores entries
// without a tuple, which then break its own dump (docs/protocol.md 10).
var refused = map[string]bool{
	"IPv4 tuple missing":  true,
	"IPv6 addresses only": true,
	"no attributes at all: the entry is stored and from then on the dump of the external cache shows nothing": true,
	"expectation delete without attributes": true,
	"expectation create without attributes": true,
}

// counting is the least receiver that can tell the counters of framing,
// classification and attributes, and those of sequence numbers in NOTRACK and
// ALARM. FTFW does more with them: pkg/ftfw and pkg/node test that.
type counting struct {
	tracker  *Tracker // of the run
	counters map[string]int
	keys     map[flow.Key]bool
	added    int
}

func (c *counting) count(name string) {
	c.counters["malformed"]++
	c.counters[name]++
}

func (c *counting) datagram(mode string, b []byte) {
	for len(b) > 0 {
		m, rest, err := Next(b)
		switch err {
		case Truncated:
			c.count("truncated")
		case BadSize:
			c.count("bad_size")
		case BadVersion:
			c.count("bad_version")
		case nil:
			c.message(mode, m)
		}
		if err != nil && err.(FrameError).RestLost() {
			return
		}
		b = rest
	}
}

func (c *counting) message(mode string, m Message) {
	switch class := m.Class(); {
	case mode == "ALARM" && m.Flags != 0:
		return
	case mode == "ALARM" && m.Type > ExpDel:
		c.count("bad_type")
		return
	case mode == "NOTRACK" && !c.track(m, class):
		c.count("bad_header")
		return
	case class == Bad,
		(class == ACK || class == NACK) && Before(m.To, m.From):
		c.count("bad_header")
		return
	case class != Data:
		return
	}
	var o Options
	var f flow.Flow
	var e flow.Expect
	if m.Type > CTDel {
		if err := o.ParseExpect(m.Body, &e); err != nil {
			c.count("bad_payload")
		}
		return
	}
	if err := o.ParseFlow(m.Body, &f); err != nil {
		c.count("bad_payload")
		return
	}
	if m.Type != CTDel && !c.keys[f.Key] {
		c.keys[f.Key] = true
		c.added++
	}
}

// track is NOTRACK's rule: count, then follow the peer whatever its number,
// except for what is no message of this mode.
func (c *counting) track(m Message, class Class) bool {
	lost, before := c.tracker.Lost, c.tracker.Before
	c.tracker.Track(m.Seq)
	if n := c.tracker.Lost - lost; n > 0 {
		c.counters["lost"] += int(n) + 2 // C adds two too many per gap
	}
	if c.tracker.Before > before {
		c.counters["before"]++
	}
	if class == Bad || class == ACK || class == NACK {
		return false
	}
	c.tracker.Accept(m.Seq)
	return true
}

func TestMalformedVectors(t *testing.T) {
	differed := map[string]bool{}
	run, tracker := 0, new(Tracker)
	for _, v := range readVectors(t) {
		if v.Run != run {
			run, tracker = v.Run, new(Tracker)
		}
		got := counting{tracker: tracker, counters: map[string]int{}, keys: map[flow.Key]bool{}}
		got.datagram(v.Mode, v.bytes(t))
		want, entries := map[string]int{}, v.Entries
		for name, n := range v.Counters {
			if v.Mode == "FTFW" && (name == "lost" || name == "before") {
				continue
			}
			want[name] = n
		}
		if refused[v.Name] {
			differed[v.Name] = true
			want, entries = map[string]int{"malformed": 1, "bad_payload": 1}, 0
		}
		if !maps.Equal(got.counters, want) {
			t.Errorf("run %d, %s: counted %v, want %v", v.Run, v.Name, got.counters, want)
		}
		dropped := v.Mode == "FTFW" && v.Counters["before"] > 0
		dumpBroken := v.Run == 5
		if !dropped && !dumpBroken && got.added != entries {
			t.Errorf("run %d, %s: %d flows, want %d", v.Run, v.Name, got.added, entries)
		}
	}
	if !maps.Equal(differed, refused) {
		t.Errorf("met %v", differed)
	}
}

// attr builds an attribute with its padding.
func attr(num byte, payload ...byte) []byte {
	b := append([]byte{0, byte(4 + len(payload)), 0, num}, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func body(attrs ...[]byte) (b []byte) {
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

var (
	attrIPv4  = attr(0, 10, 0, 0, 1, 10, 0, 0, 2)
	attrIPv6  = attr(1, make([]byte, 32)...)
	attrTCP   = attr(2, flow.ProtoTCP)
	attrUDP   = attr(2, flow.ProtoUDP)
	attrICMP  = attr(2, flow.ProtoICMP)
	attrPorts = attr(3, 0x10, 0x01, 0x20, 0x02)
)

func TestParseFlowRefuses(t *testing.T) {
	long := append([]byte{0x04, 0x08, 0, 28}, make([]byte, 1028)...)
	for _, tt := range []struct {
		name string
		body []byte
		want error
	}{
		{"nothing", nil, ErrNoTuple},
		{"no addresses", attrTCP, ErrNoTuple},
		{"no protocol", attrIPv4, ErrNoTuple},
		{"length below 4", body(attrIPv4, attrTCP, []byte{0, 3, 0, 7, 0}), ErrAttrLength},
		{"length beyond the body", body(attrIPv4, attrTCP, []byte{0, 9, 0, 7, 0, 0, 0, 0}), ErrAttrLength},
		{"number 33", body(attrIPv4, attrTCP, attr(33, 0, 0, 0, 0)), ErrUnknownAttr},
		{"number 256", body(attrIPv4, attrTCP, []byte{0, 8, 1, 0, 0, 0, 0, 0}), ErrUnknownAttr},
		{"one byte too few", body(attrIPv4, attrTCP, attr(7, 0, 0, 0)), ErrAttrSize},
		{"one byte too many", body(attrIPv4, attrTCP, attr(4, 3, 3)), ErrAttrSize},
		{"labels beyond 1024 bytes", body(attrIPv4, attrTCP, long), ErrAttrSize},
		{"helper beyond 12 bytes", body(attrIPv4, attrTCP, attr(27, []byte("abcdefghijkl\x00")...)), ErrAttrSize},
		{"helper without NUL", body(attrIPv4, attrTCP, attr(27, []byte("abcdefghijkl")...)), ErrName},
		{"helper of no bytes", body(attrIPv4, attrTCP, []byte{0, 4, 0, 27}, attrPorts), ErrName},
		{"bad after good", body(attrIPv4, attrTCP, attrPorts, attr(200, 1)), ErrUnknownAttr},
	} {
		var f flow.Flow
		if err := new(Options).ParseFlow(tt.body, &f); err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestParseExpectRefuses(t *testing.T) {
	var (
		master = body(attr(0, 10, 0, 0, 1, 10, 0, 0, 2), attr(2, 6))
		expect = body(attr(4, 10, 0, 0, 1, 10, 0, 0, 2), attr(6, 6))
	)
	for _, tt := range []struct {
		name string
		body []byte
		want error
	}{
		{"whole", body(master, expect), nil},
		{"no master", expect, ErrNoTuple},
		{"no expected tuple", master, ErrNoTuple},
		{"no master protocol", body(attr(0, 10, 0, 0, 1, 10, 0, 0, 2), expect), ErrNoTuple},
		{"no expected protocol", body(master, attr(4, 10, 0, 0, 1, 10, 0, 0, 2)), ErrNoTuple},
		{"number 21", body(master, expect, attr(21, 0)), ErrUnknownAttr},
		{"helper of 12 characters", body(master, expect, attr(19, []byte("abcdefghijkl\x00")...)), ErrAttrSize},
		{"function of 27 characters", body(master, expect, attr(20, []byte("abcdefghijklmnopqrstuvwxyza\x00")...)), nil},
		{"function of 28 characters", body(master, expect, attr(20, []byte("abcdefghijklmnopqrstuvwxyzab\x00")...)), ErrAttrSize},
		{"function without NUL", body(master, expect, attr(20, 'f')), ErrName},
	} {
		var e flow.Expect
		if err := new(Options).ParseExpect(tt.body, &e); err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestParseFlowOverwrites: nothing of an earlier flow shines through.
func TestParseFlowOverwrites(t *testing.T) {
	f := richFlows()["tcp6"]
	if err := new(Options).ParseFlow(body(attrIPv4, attrUDP), &f); err != nil {
		t.Fatal(err)
	}
	want := flow.Flow{Has: flow.HasAddr | flow.HasProto}
	want.Family, want.Proto = flow.IPv4, flow.ProtoUDP
	want.Src, want.Dst = flow.Addr{10, 0, 0, 1}, flow.Addr{10, 0, 0, 2}
	if f != want {
		t.Errorf("got %+v", f)
	}
	e := richExpect()
	if err := new(Options).ParseExpect(body(attr(0, 1, 1, 1, 1, 2, 2, 2, 2), attr(2, 6),
		attr(4, 3, 3, 3, 3, 4, 4, 4, 4), attr(6, 17)), &e); err != nil {
		t.Fatal(err)
	}
	if e.Has != flow.HasMaster|flow.HasAddr|flow.HasProto || e.Fn != [32]byte{} || e.NAT != (flow.Key{}) || e.Mask != (flow.Key{}) {
		t.Errorf("got %+v", e)
	}
}

// TestAlienAttributes: what belongs to another protocol or family is ignored,
// wherever it stands, and does not disturb what belongs.
func TestAlienAttributes(t *testing.T) {
	var (
		tcp4  = body(attrIPv4, attrTCP, attrPorts, attr(4, 3))
		udp4  = body(attrIPv4, attrUDP, attrPorts)
		icmp  = body(attrIPv4, attrICMP, attr(22, 8), attr(23, 1), attr(24, 0x34, 0x12))
		ospf  = body(attrIPv4, attr(2, 89))
		snat4 = attr(12, 10, 9, 9, 9)
		snat6 = attr(29, make([]byte, 16)...)
	)
	for _, tt := range []struct {
		name      string
		want, got []byte
	}{
		{"SCTP state after TCP's", tcp4, body(tcp4, attr(17, 7))},
		{"SCTP state before everything", tcp4, body(attr(17, 7), tcp4)},
		{"ICMP fields on TCP", tcp4, body(tcp4, attr(22, 8), attr(23, 0), attr(24, 1, 2))},
		{"TCP state on UDP", udp4, body(udp4, attr(4, 3), attr(25, 7))},
		{"ports on ICMP", icmp, body(icmp, attrPorts)},
		{"ports on a protocol without", ospf, body(attrPorts, ospf)},
		{"translated ports on ICMP", icmp, body(icmp, attr(14, 0, 0), attr(15, 0, 0))},
		{"translated ports without ports", ospf, body(ospf, attr(14, 1, 0))},
		{"IPv6 NAT on IPv4", body(tcp4, snat4), body(tcp4, snat4, snat6)},
		{"both families, the last counts", body(attrIPv6, attrTCP), body(attrIPv4, attrTCP, attrIPv6, snat4)},
		{"master without its protocol", tcp4, body(tcp4, attr(8, 1, 2, 3, 4, 5, 6, 7, 8))},
		{"master without its addresses", tcp4, body(tcp4, attr(10, 6), attr(11, 0, 1, 0, 2))},
		{"zone 0", tcp4, body(tcp4, attr(32, 0, 0))},
		{"empty helper", tcp4, body(tcp4, attr(27, 0))},
		{"labels of no words", tcp4, body(tcp4, attr(28), []byte{0, 0, 0, 0})},
		{"labels of half a word", tcp4, body(tcp4, attr(28, 1, 2))},
		{"the last of two", body(tcp4, attr(7, 0, 0, 0, 2)), body(tcp4, attr(7, 0, 0, 0, 1), attr(7, 0, 0, 0, 2))},
		{"the last of two helpers", body(tcp4, attr(27, 'b', 0)), body(tcp4, attr(27, 'a', 'a', 0), attr(27, 'b', 0, 'x'))},
	} {
		var o Options
		var want, got flow.Flow
		if err := o.ParseFlow(tt.want, &want); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if err := o.ParseFlow(tt.got, &got); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, want)
		}
	}
}

// TestLabelsBeyondLinux: words that Linux has no bits for are dropped.
func TestLabelsBeyondLinux(t *testing.T) {
	var f flow.Flow
	six := attr(28, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6)
	if err := new(Options).ParseFlow(body(attrIPv4, attrTCP, six), &f); err != nil {
		t.Fatal(err)
	}
	if f.Labels != [4]uint32{1, 2, 3, 4} || !f.Has.Has(flow.HasLabels) {
		t.Errorf("labels %v", f.Labels)
	}
}
