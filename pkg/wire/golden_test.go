package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/google/go-cmp/cmp"
)

// oracle is one line of a capture's JSON.
type oracle struct {
	Frame    int
	Type     uint8
	TypeName string `json:"type_name"`
	Flags    uint8
	Len      int
	Seq      uint32
	From, To uint32
	Attrs    []oracleAttr
	Raw      string
}

type oracleAttr struct {
	Num   int
	Name  string
	Value json.RawMessage
}

func (o *oracle) header() Header {
	return Header{Type: o.Type, Flags: o.Flags, Seq: o.Seq, From: o.From, To: o.To}
}

func (o *oracle) raw(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(o.Raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// captures returns the base paths of all captures.
func captures(t testing.TB) (base []string) {
	t.Helper()
	files, err := filepath.Glob("testdata/captures/*.json")
	if err != nil || len(files) != 27 {
		t.Fatalf("captures: %d files, %v", len(files), err)
	}
	for _, f := range files {
		base = append(base, strings.TrimSuffix(f, ".json"))
	}
	return base
}

func readOracle(t testing.TB, path string) (lines []oracle) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var o oracle
		if err := json.Unmarshal(s.Bytes(), &o); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, o)
	}
	return lines
}

// captureOptions are the sender's settings where they are not the defaults.
var captureOptions = map[string]Options{
	"ftfw-committimeout": {OmitTimeout: true},
	"ftfw-tcpwindow":     {WindowScale: true},
}

// cleaner says what our encoder leaves out of a capture on purpose, by the
// number of messages that lose it (docs/protocol.md 10).
type cleaner struct {
	icmpPAT      int // SPAT_PORT and DPAT_PORT of ICMP flows
	zeroSynproxy int // SYNPROXY of three zeros
}

var cleanSender = map[string]cleaner{
	"alarm-udp":                  {zeroSynproxy: 6},
	"ftfw-burst-ackwindow":       {zeroSynproxy: 240},
	"ftfw-loss-nack":             {zeroSynproxy: 14},
	"ftfw-mcast-ipv4":            {zeroSynproxy: 2},
	"ftfw-mcast-ipv6":            {zeroSynproxy: 2},
	"ftfw-mcast-three-nodes":     {zeroSynproxy: 12},
	"ftfw-multichannel":          {zeroSynproxy: 3},
	"ftfw-nat":                   {icmpPAT: 3},
	"ftfw-peer-restart":          {zeroSynproxy: 6},
	"ftfw-resync-bulk":           {zeroSynproxy: 16},
	"ftfw-startup-resync":        {zeroSynproxy: 4},
	"ftfw-tcp":                   {zeroSynproxy: 6},
	"ftfw-udp-ipv6":              {zeroSynproxy: 2},
	"ftfw-udplite-gre-unreplied": {zeroSynproxy: 7},
	"notrack-nocache-udp":        {zeroSynproxy: 6},
	"notrack-tcp":                {zeroSynproxy: 6},
	"notrack-udp":                {zeroSynproxy: 8},
}

func TestGoldenCaptures(t *testing.T) {
	for _, base := range captures(t) {
		name := filepath.Base(base)
		t.Run(name, func(t *testing.T) {
			opts := captureOptions[name]
			lines := readOracle(t, base+".json")
			msgs := pcapMessages(t, base+".pcap")
			if len(msgs) != len(lines) || len(lines) == 0 {
				t.Fatalf("%d messages in the pcap, %d in the JSON", len(msgs), len(lines))
			}
			var got cleaner
			for i := range lines {
				checkGolden(t, &opts, &lines[i], msgs[i], &got)
			}
			if got != cleanSender[name] {
				t.Errorf("left out: %+v, want %+v", got, cleanSender[name])
			}
		})
	}
}

func checkGolden(t *testing.T, opts *Options, o *oracle, m Message, left *cleaner) {
	t.Helper()
	raw := o.raw(t)
	if !bytes.Equal(m.Raw, raw) {
		t.Fatalf("frame %d: framed %x, want %x", o.Frame, m.Raw, raw)
	}
	if m.Header != o.header() || len(m.Raw) != o.Len || TypeName(m.Type) != o.TypeName {
		t.Fatalf("frame %d: header %+v, want %+v", o.Frame, m.Header, o.header())
	}
	if m.Class() == Bad || (m.Class() == Data) != (m.Type <= ExpDel) {
		t.Errorf("frame %d: class %v", o.Frame, m.Class())
	}
	var again []byte
	switch {
	case m.Type <= CTDel:
		var got flow.Flow
		if err := opts.ParseFlow(m.Body, &got); err != nil {
			t.Fatalf("frame %d: %v", o.Frame, err)
		}
		want := wantFlow(t, o.Attrs)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("frame %d: flow (-want +got):\n%s", o.Frame, diff)
		}
		again = opts.AppendFlow(nil, m.Header, &got)
		raw = cleanFlow(raw, &got, left)
	case m.Type <= ExpDel:
		var got flow.Expect
		if err := opts.ParseExpect(m.Body, &got); err != nil {
			t.Fatalf("frame %d: %v", o.Frame, err)
		}
		if diff := cmp.Diff(wantExpect(t, o.Attrs), got); diff != "" {
			t.Errorf("frame %d: expectation (-want +got):\n%s", o.Frame, diff)
		}
		again = opts.AppendExpect(nil, m.Header, &got)
	default:
		if len(m.Body) != 0 {
			t.Errorf("frame %d: control message with body %x", o.Frame, m.Body)
		}
		again = AppendControl(nil, m.Header)
	}
	if !bytes.Equal(again, raw) {
		t.Errorf("frame %d: encoded again\n got %x\nwant %x", o.Frame, again, raw)
	}
}

// cleanFlow removes from a C sender's message what ours does not send.
func cleanFlow(raw []byte, f *flow.Flow, left *cleaner) []byte {
	out := append([]byte(nil), raw[:8]...)
	var pat, syn bool
	for b := raw[8:]; len(b) > 0; {
		num, n := int(b[3]), (int(b[1])+3)&^3
		switch {
		case f.IsICMP() && (num == 14 || num == 15):
			pat = true
		case num == 31 && bytes.Equal(b[4:16], make([]byte, 12)):
			syn = true
		default:
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	if pat {
		left.icmpPAT++
	}
	if syn {
		left.zeroSynproxy++
	}
	out[2], out[3] = byte(len(out)>>8), byte(len(out))
	return out
}

// value decodes an attribute's value into T.
func value[T any](t testing.TB, a oracleAttr) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.Value, &v); err != nil {
		t.Fatalf("%s: %v", a.Name, err)
	}
	return v
}

type addrPair struct{ Src, Dst netip.Addr }
type portPair struct{ Src, Dst uint16 }

func toAddr(a netip.Addr) (out flow.Addr) {
	copy(out[:], a.AsSlice())
	return out
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return flow.IPv4
	}
	return flow.IPv6
}

// setTuple applies the part of a tuple an attribute's name ends with.
func setTuple(t testing.TB, k *flow.Key, part string, a oracleAttr) {
	t.Helper()
	switch part {
	case "IPV4", "IPV6":
		p := value[addrPair](t, a)
		k.Src, k.Dst, k.Family = toAddr(p.Src), toAddr(p.Dst), familyOf(p.Src)
	case "L4PROTO":
		k.Proto = value[uint8](t, a)
	case "PORT":
		p := value[portPair](t, a)
		k.Sport, k.Dport = p.Src, p.Dst
	default:
		t.Fatalf("attribute %s not known to the test", a.Name)
	}
}

// wantFlow builds the flow that the attributes describe, independently of the
// package's tables.
func wantFlow(t testing.TB, attrs []oracleAttr) (f flow.Flow) {
	t.Helper()
	for _, a := range attrs {
		setFlow(t, &f, a)
	}
	if f.IsICMP() {
		f.Has &^= flow.HasSPAT | flow.HasDPAT
		f.NAT.Sport, f.NAT.Dport = 0, 0
	}
	return f
}

func setFlow(t testing.TB, f *flow.Flow, a oracleAttr) {
	t.Helper()
	u32 := func(at *uint32, has flow.Has) { *at, f.Has = value[uint32](t, a), f.Has|has }
	u16 := func(at *uint16, has flow.Has) { *at, f.Has = value[uint16](t, a), f.Has|has }
	u8 := func(at *uint8, has flow.Has) { *at, f.Has = value[uint8](t, a), f.Has|has }
	addr := func(at *flow.Addr, has flow.Has) { *at, f.Has = toAddr(value[netip.Addr](t, a)), f.Has|has }
	part, isMaster := strings.CutPrefix(a.Name, "MASTER_")
	switch {
	case isMaster:
		setTuple(t, &f.Master, part, a)
		f.Has |= flow.HasMaster
		if part == "PORT" {
			f.Has |= flow.HasMasterPort
		}
		return
	}
	switch a.Name {
	case "IPV4", "IPV6":
		setTuple(t, &f.Key, a.Name, a)
		f.Has |= flow.HasAddr
	case "L4PROTO":
		u8(&f.Proto, flow.HasProto)
	case "PORT":
		setTuple(t, &f.Key, a.Name, a)
		f.Has |= flow.HasPorts
	case "ICMP_TYPE":
		f.Dport, f.Has = f.Dport|value[uint16](t, a)<<8, f.Has|flow.HasPorts
	case "ICMP_CODE":
		f.Dport, f.Has = f.Dport|value[uint16](t, a), f.Has|flow.HasPorts
	case "ICMP_ID":
		u16(&f.Sport, flow.HasPorts)
	case "STATUS":
		f.Status, f.Has = value[struct{ Value uint32 }](t, a).Value, f.Has|flow.HasStatus
	case "TCP_STATE", "SCTP_STATE":
		u8(&f.State, flow.HasState)
	case "TCP_WSCALE_ORIG":
		u8(&f.WScale[0], flow.HasWScaleOrig)
	case "TCP_WSCALE_REPL":
		u8(&f.WScale[1], flow.HasWScaleRepl)
	case "SCTP_VTAG_ORIG":
		u32(&f.Vtag[0], flow.HasVtag)
	case "SCTP_VTAG_REPL":
		u32(&f.Vtag[1], flow.HasVtag)
	case "TIMEOUT":
		u32(&f.Timeout, flow.HasTimeout)
	case "MARK":
		u32(&f.Mark, flow.HasMark)
	case "SNAT_IPV4", "SNAT_IPV6":
		addr(&f.NAT.Src, flow.HasSNAT)
	case "DNAT_IPV4", "DNAT_IPV6":
		addr(&f.NAT.Dst, flow.HasDNAT)
	case "SPAT_PORT":
		u16(&f.NAT.Sport, flow.HasSPAT)
	case "DPAT_PORT":
		u16(&f.NAT.Dport, flow.HasDPAT)
	case "NAT_SEQ_ADJ":
		v := value[map[string]uint32](t, a)
		f.SeqAdj[0] = flow.SeqAdj{Pos: v["orig_correction_pos"], Before: v["orig_offset_before"], After: v["orig_offset_after"]}
		f.SeqAdj[1] = flow.SeqAdj{Pos: v["repl_correction_pos"], Before: v["repl_offset_before"], After: v["repl_offset_after"]}
		f.Has |= flow.HasSeqOrig | flow.HasSeqRepl
	case "HELPER_NAME":
		copy(f.Helper[:], value[string](t, a))
		f.Has |= flow.HasHelper
	case "LABELS":
		copy(f.Labels[:], value[struct{ Words []uint32 }](t, a).Words)
		f.Has |= flow.HasLabels
	case "SYNPROXY":
		v := value[map[string]uint32](t, a)
		f.Synproxy = flow.Synproxy{ISN: v["isn"], ITS: v["its"], TSOff: v["tsoff"]}
		f.Has |= flow.HasSynproxy
	case "ZONE":
		u16(&f.Zone, flow.HasZone)
	default:
		t.Fatalf("attribute %s not known to the test", a.Name)
	}
}

// wantExpect builds the expectation that the attributes describe.
func wantExpect(t testing.TB, attrs []oracleAttr) (e flow.Expect) {
	t.Helper()
	for _, a := range attrs {
		setExpect(t, &e, a)
	}
	return e
}

func setExpect(t testing.TB, e *flow.Expect, a oracleAttr) {
	t.Helper()
	u32 := func(at *uint32, has flow.Has) { *at, e.Has = value[uint32](t, a), e.Has|has }
	which, part, _ := strings.Cut(strings.TrimPrefix(a.Name, "EXP_"), "_")
	isAddr := strings.HasPrefix(part, "IPV")
	switch {
	case which == "MASTER":
		setTuple(t, &e.Master, part, a)
		e.Has |= flow.HasMaster
		if part == "PORT" {
			e.Has |= flow.HasMasterPort
		}
	case which == "EXPECT":
		setTuple(t, &e.Tuple, part, a)
		e.Has |= map[string]flow.Has{"L4PROTO": flow.HasProto, "PORT": flow.HasPorts}[part]
		if isAddr {
			e.Has |= flow.HasAddr
		}
	case which == "MASK":
		setTuple(t, &e.Mask, part, a)
		e.Has |= flow.HasMask
	case a.Name == "EXP_NAT_DIR":
		u32(&e.NATDir, flow.HasNATDir)
	case which == "NAT":
		setTuple(t, &e.NAT, part, a)
		e.Has |= map[string]flow.Has{"IPV4": flow.HasSNAT, "PORT": flow.HasSPAT}[part]
	case a.Name == "EXP_TIMEOUT":
		u32(&e.Timeout, flow.HasTimeout)
	case a.Name == "EXP_FLAGS":
		u32(&e.Flags, flow.HasFlags)
	case a.Name == "EXP_CLASS":
		u32(&e.Class, flow.HasClass)
	case a.Name == "EXP_HELPER_NAME":
		copy(e.Helper[:], value[string](t, a))
		e.Has |= flow.HasHelper
	case a.Name == "EXP_FN":
		copy(e.Fn[:], value[string](t, a))
		e.Has |= flow.HasFn
	default:
		t.Fatalf("attribute %s not known to the test", a.Name)
	}
}

// TestGoldenCoverage holds the captures to what they are for: every attribute
// but DCCP's, which no current kernel tracks, and every kind of message.
func TestGoldenCoverage(t *testing.T) {
	var ct, exp uint64
	classes := map[Class]bool{}
	types := map[uint8]bool{}
	for _, base := range captures(t) {
		for _, o := range readOracle(t, base+".json") {
			types[o.Type] = true
			classes[o.header().Class()] = true
			for _, a := range o.Attrs {
				if o.Type <= CTDel {
					ct |= bit(uint8(a.Num))
				} else {
					exp |= bit(uint8(a.Num))
				}
			}
		}
	}
	if want := (bit(33) - 1) &^ (bit(20) | bit(21)); ct != want {
		t.Errorf("conntrack attributes %b, want %b", ct, want)
	}
	if want := bit(21) - 1; exp != want {
		t.Errorf("expectation attributes %b, want %b", exp, want)
	}
	if len(types) != 7 || len(classes) != 5 {
		t.Errorf("types %v, classes %v", types, classes)
	}
}
