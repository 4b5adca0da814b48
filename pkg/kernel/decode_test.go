package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// corpus is what the kernel said, by scenario; see testdata/corpus/README.md.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpusDir, "*.bin"))
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus", err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".bin")] = b
	}
	return all
}

// messages cuts a recording into its messages.
func messages(t testing.TB, b []byte) (all []message) {
	t.Helper()
	for len(b) > 0 {
		m, rest, ok := nextMessage(b)
		if !ok {
			t.Fatalf("recording ends in %d bytes that are no message", len(b))
		}
		all = append(all, m)
		b = rest
	}
	return all
}

func isExpect(m *message) bool { return m.typ == msgExpNew || m.typ == msgExpDelete }

// event is a flow.Event whose flow's fields are its own.
type event struct {
	Op flow.Op
	flow.Flow
}

// corpusFlows decodes all flows of a recording.
func corpusFlows(t testing.TB, b []byte) (all []event) {
	t.Helper()
	for _, m := range messages(t, b) {
		if isExpect(&m) {
			continue
		}
		ev := event{Op: opOf(&m)}
		if err := DecodeFlow(m.body, &ev.Flow); err != nil {
			t.Fatalf("decode % x: %v", m.body, err)
		}
		all = append(all, ev)
	}
	return all
}

// facts are what is known about the recordings from how they were made.
var facts = []struct {
	scenario, what string
	holds          func(e *event) bool
}{
	{"tcp", "SYN_SENT first", func(e *event) bool {
		return e.Op == flow.New && e.Proto == flow.ProtoTCP && e.State == 1 && e.Src == addr(client4) &&
			e.Dst == addr(server4) && e.Sport == 40080 && e.Dport == 8080 && e.Family == flow.IPv4
	}},
	{"tcp", "IPv6 established with window scales", func(e *event) bool {
		return e.Family == flow.IPv6 && e.Src == addr(client6) && e.State == 3 &&
			e.Has.Has(flow.HasWScaleOrig|flow.HasWScaleRepl) && e.WScale[0] != 0 && e.Status&flow.StatusAssured != 0
	}},
	{"tcp", "destroyed with its last state and no window scale", func(e *event) bool {
		return e.Op == flow.Destroy && e.Has.Has(flow.HasState) && !e.Has.Any(flow.HasWScaleOrig)
	}},
	{"tcp", "no NAT", func(e *event) bool { return e.Has.Has(flow.HasReply) && !e.Has.Any(flow.HasNAT) }},
	{"icmp", "echo request", func(e *event) bool {
		return e.Proto == flow.ProtoICMP && e.Sport == 0x1234 && e.Dport == 8<<8 && !e.Has.Any(flow.HasNAT)
	}},
	{"icmp", "ICMPv6 echo request", func(e *event) bool {
		return e.Proto == flow.ProtoICMPv6 && e.Sport == 0x1234 && e.Dport == 128<<8 && !e.Has.Any(flow.HasNAT)
	}},
	{"icmp-nat", "source translated", func(e *event) bool {
		return e.Has&flow.HasNAT == flow.HasSNAT && e.NAT.Src == addr(other4) && e.Status&flow.StatusSrcNATDone != 0
	}},
	{"other-protocols", "SCTP INIT", func(e *event) bool {
		return e.Proto == flow.ProtoSCTP && e.Sport == 3000 && e.Dport == 4000 && e.State == 1 &&
			e.Vtag == [2]uint32{0, 0x55667788}
	}},
	{"other-protocols", "protocol without ports", func(e *event) bool {
		return e.Proto == 89 && e.Has.Has(flow.HasProto) && !e.Has.Any(flow.HasPorts)
	}},
	{"other-protocols", "GRE packet", func(e *event) bool { return e.Proto == flow.ProtoGRE }},
	{"inserted", "mark", func(e *event) bool { return e.Op == flow.New && e.Mark == 77 && e.Timeout > 900 && e.Timeout <= 1000 }},
	{"inserted", "mark cleared", func(e *event) bool {
		return e.Has.Has(flow.HasMark) && e.Mark == 0 && e.Sport == 1000 && e.State == 4
	}},
	{"inserted", "SCTP tags", func(e *event) bool {
		// The conntrack tool sends them in host byte order.
		return e.Has.Has(flow.HasVtag) && e.Vtag == [2]uint32{100 << 24, 200 << 24}
	}},
	{"inserted", "GRE keys", func(e *event) bool {
		return e.Proto == flow.ProtoGRE && e.Sport == 17 && e.Dport == 18 && e.Has.Has(flow.HasPorts)
	}},
	{"inserted", "UDP-Lite", func(e *event) bool {
		return e.Proto == flow.ProtoUDPLite && e.Sport == 5 && e.Dport == 6
	}},
	{"inserted", "zone", func(e *event) bool { return e.Zone == 9 && e.Has.Has(flow.HasZone) }},
	{"inserted", "SNAT address and port", func(e *event) bool {
		return e.Has&flow.HasNAT == flow.HasSNAT|flow.HasSPAT && e.NAT.Src == addr("10.7.0.1") && e.NAT.Sport == 99
	}},
	{"inserted", "IPv6 DNAT address and port", func(e *event) bool {
		return e.Has&flow.HasNAT == flow.HasDNAT|flow.HasDPAT && e.NAT.Dst == addr("fd07::1") && e.NAT.Dport == 98
	}},
	{"extensions", "synproxy", func(e *event) bool {
		return e.Synproxy == flow.Synproxy{ISN: 0xdeadbeef, ITS: 17, TSOff: 0x80000000} && e.Has.Has(flow.HasSynproxy)
	}},
	{"extensions", "sequence adjustments", func(e *event) bool {
		return e.Has.Has(flow.HasSeqOrig|flow.HasSeqRepl) && e.SeqAdj[0] == flow.SeqAdj{Pos: 1 << 31, After: 3} &&
			e.SeqAdj[1] == flow.SeqAdj{Pos: 5, Before: 0xffffffff, After: 0xfffffffe}
	}},
	{"dnat", "address and port", func(e *event) bool {
		return e.Has&flow.HasNAT == flow.HasDNAT|flow.HasDPAT && e.NAT.Dst == addr(other4) && e.NAT.Dport == 8080 &&
			e.Dst == addr(server4) && e.Dport == 80
	}},
	{"dnat", "IPv6", func(e *event) bool { return e.NAT.Dst == addr(other6) && e.NAT.Dport == 8080 }},
	{"snat-dnat", "all four", func(e *event) bool {
		return e.Has.Has(flow.HasNAT) && e.NAT.Src == addr(server4) && e.NAT.Sport >= 50000 && e.NAT.Sport <= 50010
	}},
	{"mark-label", "mark and label 77", func(e *event) bool {
		return e.Mark == 0xa1b2c3d4 && e.Labels == [4]uint32{2: 1 << 13} && e.Has.Has(flow.HasMark|flow.HasLabels)
	}},
	{"mark-label", "label 127", func(e *event) bool { return e.Labels == [4]uint32{3: 1 << 31} }},
	{"mark-label", "cleared: the mark is zero, the labels are not mentioned", func(e *event) bool {
		return e.Op == flow.Update && e.Has.Has(flow.HasMark) && e.Mark == 0 && !e.Has.Any(flow.HasLabels)
	}},
	{"zone", "both directions", func(e *event) bool {
		return e.Zone == 5 && e.Has.Has(flow.HasZone) && !e.Has.Any(flow.HasZoneOrig|flow.HasZoneRepl)
	}},
	{"zone-orig", "original only", func(e *event) bool {
		return e.Zone == 7 && e.Has.Has(flow.HasZoneOrig) && !e.Has.Any(flow.HasZone|flow.HasZoneRepl)
	}},
	{"zone-repl", "reply only", func(e *event) bool {
		return e.Zone == 0 && e.ZoneRepl == 8 && e.Has.Has(flow.HasZoneRepl) && !e.Has.Any(flow.HasZone|flow.HasZoneOrig)
	}},
	{"ftp", "helper", func(e *event) bool {
		return e.Has.Has(flow.HasHelper) && flow.Name(e.Helper[:]) == "ftp"
	}},
	{"ftp", "expected flow with master", func(e *event) bool {
		return e.Status&flow.StatusExpected != 0 && e.Has.Has(flow.HasMaster|flow.HasMasterPort) &&
			e.Master == flow.Key{Family: flow.IPv4, Proto: flow.ProtoTCP, Src: addr(client4), Dst: addr(server4), Sport: 40021, Dport: 21}
	}},
	{"ftp6", "expected flow with master", func(e *event) bool {
		return e.Has.Has(flow.HasMaster) && e.Master.Src == addr(client6) && e.Dport == 40020
	}},
	{"accounting", "counters and start", func(e *event) bool {
		return e.Has.Has(flow.HasCounters|flow.HasStart) && e.Counters[0].Packets > 0 && e.Counters[1].Bytes > 0 &&
			e.Start > 1e18 && !e.Has.Any(flow.HasStop)
	}},
	{"accounting", "stop when destroyed", func(e *event) bool {
		return e.Op == flow.Destroy && e.Has.Has(flow.HasStop) && e.Stop > e.Start
	}},
}

func TestDecodeKnownFacts(t *testing.T) {
	checkFacts(t, corpus(t))
}

// checkFacts demands each fact of some message of its scenario.
func checkFacts(t *testing.T, all map[string][]byte) {
	t.Helper()
	for _, fact := range facts {
		events := corpusFlows(t, all[fact.scenario])
		if !slices.ContainsFunc(events, func(e event) bool { return fact.holds(&e) }) {
			t.Errorf("%s: nothing in %d messages shows %q", fact.scenario, len(events), fact.what)
		}
	}
}

// expectFacts are facts about expectations.
var expectFacts = []struct {
	scenario, what string
	holds          func(e *flow.Expect) bool
}{
	{"ftp", "tuples", func(e *flow.Expect) bool {
		return e.Has.Has(flow.HasAddr|flow.HasProto|flow.HasPorts|flow.HasMask|flow.HasMaster|flow.HasMasterPort) &&
			e.Tuple.Src == addr(server4) && e.Tuple.Dst == addr(client4) && e.Tuple.Dport == 40020 && e.Master.Dport == 21
	}},
	{"ftp", "helper, timeout, class", func(e *flow.Expect) bool {
		return flow.Name(e.Helper[:]) == "ftp" && e.Timeout > 0 && e.Has.Has(flow.HasHelper|flow.HasTimeout|flow.HasClass|flow.HasFlags|flow.HasID)
	}},
	{"ftp6", "IPv6", func(e *flow.Expect) bool { return e.Tuple.Family == flow.IPv6 && e.Mask.Family == flow.IPv6 }},
	{"ftp-nat", "NAT and function", func(e *flow.Expect) bool {
		return e.Has.Has(flow.HasSNAT|flow.HasSPAT|flow.HasNATDir|flow.HasFn) && e.NAT.Src == flow.Addr{} &&
			e.NAT.Sport == 40020 && e.NATDir == 1 && flow.Name(e.Fn[:]) == "nat-follow-master"
	}},
}

func TestDecodeExpectKnownFacts(t *testing.T) {
	all := corpus(t)
	for _, fact := range expectFacts {
		var seen []flow.Expect
		for _, m := range messages(t, all[fact.scenario]) {
			var e flow.Expect
			if !isExpect(&m) {
				continue
			}
			if err := DecodeExpect(m.body, &e); err != nil {
				t.Fatalf("decode % x: %v", m.body, err)
			}
			seen = append(seen, e)
		}
		if !slices.ContainsFunc(seen, func(e flow.Expect) bool { return fact.holds(&e) }) {
			t.Errorf("%s: nothing in %d messages shows %q: %+v", fact.scenario, len(seen), fact.what, seen)
		}
	}
}

// at builds one attribute from raw bytes.
func at(t attr, parts ...[]byte) []byte {
	v := bytes.Join(parts, nil)
	b := make([]byte, nlattrLen, align4(nlattrLen+len(v)))
	binary.NativeEndian.PutUint16(b, uint16(nlattrLen+len(v)))
	binary.NativeEndian.PutUint16(b[2:], uint16(t))
	b = append(b, v...)
	return b[:cap(b)]
}

func w8(t attr, v uint8) []byte   { return at(t, []byte{v}) }
func w16(t attr, v uint16) []byte { return at(t, binary.BigEndian.AppendUint16(nil, v)) }
func w32(t attr, v uint32) []byte { return at(t, binary.BigEndian.AppendUint32(nil, v)) }
func w64(t attr, v uint64) []byte { return at(t, binary.BigEndian.AppendUint64(nil, v)) }

func body(attrs ...[]byte) []byte {
	return append([]byte{flow.IPv4, 0, 0, 0}, bytes.Join(attrs, nil)...)
}

func tuple4(t attr, src, dst byte, sport, dport uint16, more ...[]byte) []byte {
	return at(t,
		at(ctaTupleIP, at(ctaIPv4Src, []byte{10, 0, 0, src}), at(ctaIPv4Dst, []byte{10, 0, 0, dst})),
		at(ctaTupleProto, w8(ctaProtoNum, 6), w16(ctaProtoSrcPort, sport), w16(ctaProtoDstPort, dport)),
		bytes.Join(more, nil))
}

// fullFlow has every attribute we read, with different values.
func fullFlow() []byte {
	return body(
		tuple4(ctaTupleOrig, 1, 2, 11, 12, w16(ctaTupleZone, 13)),
		tuple4(ctaTupleReply, 3, 4, 14, 15, w16(ctaTupleZone, 16)),
		w32(ctaStatus, 17), w32(ctaTimeout, 18), w32(ctaMark, 19), w32(ctaUse, 20), w32(ctaID, 21),
		at(ctaProtoinfo,
			at(ctaProtoinfoTCP, w8(ctaTCPState, 3), w8(ctaTCPWScaleOrig, 7), w8(ctaTCPWScaleRepl, 8)),
			at(ctaProtoinfoDCCP, w8(ctaDCCPRole, 1)),
			at(ctaProtoinfoSCTP, w32(ctaSCTPVtagOrig, 22), w32(ctaSCTPVtagRepl, 23))),
		at(ctaHelp, at(ctaHelpName, []byte("fifteen letters\x00"))),
		at(ctaCountersOrig, w64(ctaCountersPackets, 24), w64(ctaCountersBytes, 25)),
		at(ctaCountersReply, w64(ctaCountersPackets, 26), w64(ctaCountersBytes, 27)),
		tuple4(ctaTupleMaster, 5, 6, 28, 29),
		at(ctaSeqAdjOrig, w32(ctaSeqAdjPos, 30), w32(ctaSeqAdjBefore, 31), w32(ctaSeqAdjAfter, 32)),
		at(ctaSeqAdjReply, w32(ctaSeqAdjPos, 33), w32(ctaSeqAdjBefore, 34), w32(ctaSeqAdjAfter, 35)),
		w16(ctaZone, 36),
		at(ctaTimestamp, w64(ctaTimestampStart, 37), w64(ctaTimestampStop, 38)),
		at(ctaLabels, bytes.Repeat([]byte{1, 2, 3, 4}, 4)),
		at(ctaSynproxy, w32(ctaSynproxyISN, 39), w32(ctaSynproxyITS, 40), w32(ctaSynproxyTSOff, 41)),
	)
}

func fullExpect() []byte {
	return body(
		tuple4(ctaExpectMaster, 1, 2, 11, 12), tuple4(ctaExpectTuple, 3, 4, 13, 14), tuple4(ctaExpectMask, 5, 6, 15, 16),
		w32(ctaExpectTimeout, 17), w32(ctaExpectID, 18), at(ctaExpectHelpName, []byte("ftp\x00")), w16(ctaExpectZone, 19),
		w32(ctaExpectFlags, 20), w32(ctaExpectClass, 21), at(ctaExpectFn, []byte("nat-follow-master\x00")),
		at(ctaExpectNAT, w32(ctaExpectNATDir, 1), tuple4(ctaExpectNATTuple, 7, 8, 22, 23)),
	)
}

// TestEveryFieldHasARow fails when flow.Flow or flow.Expect gets a field that
// no row of the attribute tables fills.
func TestEveryFieldHasARow(t *testing.T) {
	var f flow.Flow
	if err := DecodeFlow(fullFlow(), &f); err != nil {
		t.Fatal(err)
	}
	var e flow.Expect
	if err := DecodeExpect(fullExpect(), &e); err != nil {
		t.Fatal(err)
	}
	unused := []string{"Flow.Master.Zone", "Expect.Master.Zone", "Expect.Mask.Zone", "Expect.NAT.Zone"}
	for _, v := range []reflect.Value{reflect.ValueOf(f), reflect.ValueOf(e)} {
		for _, path := range zeroFields(v, v.Type().Name()) {
			if !slices.Contains(unused, path) {
				t.Errorf("%s: no row of the attribute table fills it", path)
			}
		}
	}
	if all := flow.HasFn<<1 - 1; f.Has|e.Has != all {
		t.Errorf("no row sets the bits %#x of flow.Has", all&^(f.Has|e.Has))
	}
	if f.Zone != 36 || f.ZoneRepl != 16 || e.Tuple.Zone != 19 {
		t.Errorf("zones %d, %d, %d", f.Zone, f.ZoneRepl, e.Tuple.Zone)
	}
}

// zeroFields lists the leaves of v that are zero; of an array, an element.
func zeroFields(v reflect.Value, path string) (out []string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, zeroFields(v.Field(i), path+"."+v.Type().Field(i).Name)...)
		}
	case reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Len() > 2 { // an address or a name
			if v.IsZero() {
				out = append(out, path)
			}
			return out
		}
		for i := range v.Len() {
			out = append(out, zeroFields(v.Index(i), path+"[]")...)
		}
	default:
		if v.IsZero() {
			out = append(out, path)
		}
	}
	return out
}

// TestTablesKnowEveryNumber fails when the vocabulary gets an attribute about
// which nobody has decided.
func TestTablesKnowEveryNumber(t *testing.T) {
	skipped := []attr{0, ctaNATSrc, ctaNATDst, 17 /* SECMARK */, 19 /* SECCTX */, ctaMarkMask, ctaLabelsMask, ctaFilter, ctaStatusMask}
	for i, r := range flowAttrs {
		if has, skip := r.decode != nil, slices.Contains(skipped, attr(i)); has == skip {
			t.Errorf("attribute %d: has a row: %v, skipped on purpose: %v", i, has, skip)
		}
	}
	for i, r := range expectAttrs {
		if (r.decode != nil) != (i != 0) {
			t.Errorf("expectation attribute %d: has a row: %v", i, r.decode != nil)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	orig := tuple4(ctaTupleOrig, 1, 2, 3, 4)
	reply := tuple4(ctaTupleReply, 2, 1, 4, 3)
	v6 := at(ctaTupleIP, at(ctaIPv6Src, make([]byte, 16)), at(ctaIPv6Dst, make([]byte, 16)))
	overlong := at(99, make([]byte, 4))
	binary.NativeEndian.PutUint16(overlong, 9)
	for _, c := range []struct {
		name string
		msg  []byte
		want error
	}{
		{"empty", nil, errNoHeader},
		{"three bytes", []byte{2, 0, 0}, errNoHeader},
		{"no attributes", body(), errNoTuple},
		{"no original tuple", body(w32(ctaStatus, 1)), errNoTuple},
		{"reply first", body(reply, orig), errOrder},
		{"length past the end", body(orig, overlong), errCut},
		{"length below the header", body(orig, []byte{3, 0, 3, 0}), errCut},
		{"short number", body(orig, w16(ctaStatus, 1)), errShort},
		{"short zone", body(orig, w8(ctaZone, 1)), errShort},
		{"short tuple zone", body(tuple4(ctaTupleOrig, 1, 2, 3, 4, w8(ctaTupleZone, 1))), errShort},
		{"short port", body(at(ctaTupleOrig, at(ctaTupleProto, w8(ctaProtoSrcPort, 1)))), errShort},
		{"short address", body(at(ctaTupleOrig, at(ctaTupleIP, w16(ctaIPv4Src, 1)))), errShort},
		{"short counter", body(orig, at(ctaCountersOrig, w32(ctaCountersBytes, 1))), errShort},
		{"short position", body(orig, at(ctaSeqAdjOrig, w16(ctaSeqAdjPos, 1))), errShort},
		{"short tag", body(orig, at(ctaProtoinfo, at(ctaProtoinfoSCTP, w16(ctaSCTPVtagOrig, 1)))), errShort},
		{"one address", body(at(ctaTupleOrig, at(ctaTupleIP, at(ctaIPv4Src, make([]byte, 4))))), errHalfTuple},
		{"empty master", body(orig, at(ctaTupleMaster)), errHalfTuple},
		{"empty reply", body(orig, at(ctaTupleReply)), errHalfTuple},
		{"reply of another family", body(orig, at(ctaTupleReply, v6)), errFamily},
		{"two families", body(at(ctaTupleOrig, at(ctaTupleIP, at(ctaIPv4Src, make([]byte, 4)), at(ctaIPv6Dst, make([]byte, 16))))), errFamily},
		{"long helper name", body(orig, at(ctaHelp, at(ctaHelpName, []byte("sixteen letters!")))), errLong},
	} {
		var f flow.Flow
		if err := DecodeFlow(c.msg, &f); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestDecodeSkipsTheUnknown(t *testing.T) {
	plain := body(tuple4(ctaTupleOrig, 1, 2, 3, 4), w32(ctaStatus, 8))
	odd := body(
		tuple4(ctaTupleOrig|nlaNested, 1, 2, 3, 4, at(9, make([]byte, 3))),
		at(99, make([]byte, 40)), at(0), w32(ctaStatus|nlaByteOrder, 8), at(ctaProtoinfo, at(77), at(0, make([]byte, 1))),
		at(ctaSynproxy, w32(ctaSynproxyISN, 0), w32(ctaSynproxyITS, 0), w32(ctaSynproxyTSOff, 0)), at(ctaHelp, at(ctaHelpName)),
		[]byte{0, 0}, // less than an attribute's header
	)
	var want, got flow.Flow
	if err := DecodeFlow(plain, &want); err != nil {
		t.Fatal(err)
	}
	got.Mark = 5 // must not survive
	if err := DecodeFlow(odd, &got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestDecodeCutAnywhere cuts every real message at every length.
func TestDecodeCutAnywhere(t *testing.T) {
	for name, b := range corpus(t) {
		for _, m := range messages(t, b) {
			for n := range len(m.body) {
				var f flow.Flow
				var e flow.Expect
				if isExpect(&m) {
					if err := DecodeExpect(m.body[:n:n], &e); err == nil && !e.Has.Has(flow.HasAddr) {
						t.Errorf("%s: accepted without a tuple", name)
					}
				} else if err := DecodeFlow(m.body[:n:n], &f); err == nil && !f.Has.Has(flow.HasAddr) {
					t.Errorf("%s: accepted without a tuple", name)
				}
			}
		}
	}
}

func TestNextMessageRefuses(t *testing.T) {
	whole := frame(&message{typ: msgCtNew, body: make([]byte, 6)})
	m, rest, ok := nextMessage(append(whole, whole...))
	if !ok || len(m.body) != 6 || len(rest) != len(whole) {
		t.Fatalf("%v %d bytes, %d left", ok, len(m.body), len(rest))
	}
	for _, size := range []uint32{0, 15, uint32(len(whole)) + 1, 1<<32 - 1} {
		b := slices.Clone(whole)
		binary.NativeEndian.PutUint32(b, size)
		if _, _, ok := nextMessage(b); ok {
			t.Errorf("accepted a message of %d bytes in %d", size, len(b))
		}
	}
	for n := range nlmsgHeaderLen {
		if _, _, ok := nextMessage(whole[:n]); ok {
			t.Errorf("accepted %d bytes", n)
		}
	}
	if bits.UintSize == 64 && align4(5) != 8 {
		t.Error("align4")
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	f, e := new(flow.Flow), new(flow.Expect)
	for name, b := range corpus(t) {
		for _, m := range messages(t, b) {
			allocs := testing.AllocsPerRun(10, func() {
				if isExpect(&m) {
					_ = DecodeExpect(m.body, e)
				} else {
					_ = DecodeFlow(m.body, f)
				}
			})
			if allocs != 0 {
				t.Fatalf("%s: %v allocations", name, allocs)
			}
		}
	}
}

// TestPlainTuple decodes every tuple of the corpus both ways, cut short and
// with each of its bytes changed: the short way reads what the long one does,
// or leaves it alone.
func TestPlainTuple(t *testing.T) {
	plain, all := 0, 0
	compare := func(b []byte, family uint8) (taken bool) {
		short, long := flow.Key{Family: family}, flow.Key{Family: family}
		taken = decodePlainTuple(b, &short)
		if !taken {
			if short != (flow.Key{Family: family}) {
				t.Fatalf("%x: not taken, but %+v", b, short)
			}
			return false
		}
		has, err := decodeAnyTuple(b, &long)
		if err != nil || short != long || has != flow.HasAddr|flow.HasProto|flow.HasPorts {
			t.Fatalf("%x: %+v, the long way %+v with %x, %v", b, short, long, has, err)
		}
		return true
	}
	for _, scene := range corpus(t) {
		for _, m := range messages(t, scene) {
			if isExpect(&m) {
				continue
			}
			for _, which := range []attr{ctaTupleOrig, ctaTupleReply} {
				b := slices.Clone(find(m.body[nfgenLen:], which))
				all++
				if compare(b, 0) {
					plain++
				}
				compare(b, flow.IPv4)
				compare(b, flow.IPv6)
				compare(b[:len(b)-1], 0)
				for i := range b {
					b[i] ^= 0x41
					compare(b, 0)
					b[i] ^= 0x41
				}
			}
		}
	}
	if plain < all/2 || plain == all {
		t.Errorf("%d of %d tuples are plain", plain, all)
	}
}
