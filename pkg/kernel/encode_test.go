package kernel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	oracle "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

const goldenRequests = "testdata/requests.golden"

var update = flag.Bool("update", false, "rewrite "+goldenRequests)

// TestEncodeByHand holds one request against bytes that were put together
// from the kernel's headers by hand.
func TestEncodeByHand(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		t.Skip("written for little-endian machines")
	}
	f := with(newFlow(flow.IPv4, flow.ProtoUDP), zone(5))
	e := encoder{}
	e.flow(reqDelete, 0x01020304, &f)
	want := "" +
		"48000000 0201 0100 04030201 00000000" + // 72 bytes, delete, REQUEST, seq, pid
		"02 00 0000" + // AF_INET, version 0, resource 0
		"3400 0180" + // CTA_TUPLE_ORIG
		"1400 0180" + "0800 0100 0a010002" + "0800 0200 0a020002" + // CTA_TUPLE_IP
		"1c00 0280" + "0500 0100 11000000" + "0600 0200 9c400000" + "0600 0300 1f900000" + // CTA_TUPLE_PROTO
		"0600 1200 00050000" // CTA_ZONE
	wantBytes, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	// The length is that of the whole; computed here to keep the above readable.
	binary.NativeEndian.PutUint32(wantBytes, uint32(len(wantBytes)))
	if !bytes.Equal(e.buf, wantBytes) {
		t.Errorf("got  %x\nwant %x", e.buf, wantBytes)
	}
}

// TestEncodeGolden holds a create of every protocol and attribute, and one of
// each other request, to its bytes.
func TestEncodeGolden(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		t.Skip("written for little-endian machines")
	}
	var out strings.Builder
	write := func(name string, r request, f *flow.Flow) {
		e := encoder{liberal: f.Mark == 1}
		e.flow(r, 1, f)
		fmt.Fprintf(&out, "%s\n%x\n", name, e.buf)
	}
	for _, tr := range transports {
		f := newFlow(tr.family, tr.proto)
		write(tr.name, reqCreate, &f)
		f = with(f, append(tr.nat, snat, dnat)...)
		write(tr.name+" nat", reqCreate, &f)
	}
	for _, x := range extras {
		f := with(newFlow(flow.IPv4, flow.ProtoTCP), x.change)
		write(x.name, reqCreate, &f)
	}
	f := dccp()
	write("dccp", reqCreate, &f)
	f = with(newFlow(flow.IPv6, flow.ProtoTCP), related)
	write("related", reqCreate, &f)
	f = with(newFlow(flow.IPv6, flow.ProtoTCP), extras[len(extras)-1].change, snat, func(f *flow.Flow) { f.Has |= flow.HasID; f.ID = 0xcafe })
	for i, name := range []string{"create", "update", "probe", "get", "delete", "get by reply", "delete by reply"} {
		write(name, 1<<i, &f)
	}
	compareGolden(t, out.String())
}

func compareGolden(t *testing.T, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(goldenRequests, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenRequests)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); d != "" {
		t.Errorf("requests differ (-want +got):\n%s", d)
	}
}

func dccp() flow.Flow {
	f := newFlow(flow.IPv4, flow.ProtoDCCP)
	f.Has |= flow.HasState | flow.HasRole
	f.State, f.Role = 4, 1
	return f
}

// TestEncodeDecodes: both our decoder and ti-mo/conntrack read what we encode
// as what it was made from.
func TestEncodeDecodes(t *testing.T) {
	flows, names := everyFlow()
	flows, names = append(flows, with(newFlow(flow.IPv6, flow.ProtoTCP), related), dccp()), append(names, "related", "dccp")
	for i := range flows {
		f := &flows[i]
		e := encoder{}
		e.flow(reqCreate, 77, f)
		m, rest, ok := nextMessage(e.buf)
		if !ok || len(rest) != 0 || m.seq != 77 {
			t.Fatalf("%s: not one message", names[i])
		}
		var got flow.Flow
		if err := DecodeFlow(m.body, &got); err != nil {
			t.Errorf("%s: %v", names[i], err)
			continue
		}
		// The reply tuple is the mirror, and NAT is only for the kernel.
		plain := *f
		plain.Has &^= flow.HasNAT
		plain.NAT = flow.NAT{}
		plain.Has |= flow.HasReply
		if f.Has.Has(flow.HasVtag) || f.Proto == flow.ProtoSCTP {
			plain.Has |= flow.HasVtag
		}
		if d := cmp.Diff(plain, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", names[i], d)
		}
		for _, d := range oracleDiff(t, m, e.buf, f) {
			t.Errorf("%s: ti-mo/conntrack: %s", names[i], d)
		}
	}
}

func oracleDiff(t *testing.T, m message, raw []byte, f *flow.Flow) (out []string) {
	t.Helper()
	var ev oracle.Event
	err := ev.Unmarshal(netlink.Message{
		Header: netlink.Header{Length: uint32(len(raw)), Type: netlink.HeaderType(m.typ), Flags: netlink.HeaderFlags(m.flags)},
		Data:   m.body,
	})
	if err != nil {
		return []string{err.Error()}
	}
	o := ev.Flow
	differ := func(name string, want, got any) {
		if want != got {
			out = append(out, fmt.Sprintf("%s: want %v, got %v", name, want, got))
		}
	}
	size := 4
	if f.Family == flow.IPv6 {
		size = 16
	}
	mirror, _ := f.Mirror()
	for _, c := range []struct {
		name string
		key  flow.Key
		tup  oracle.Tuple
	}{{"orig", f.Key, o.TupleOrig}, {"reply", mirror, o.TupleReply}, {"master", f.Master, o.TupleMaster}} {
		if c.name == "master" && !f.Has.Has(flow.HasMaster) {
			continue
		}
		differ(c.name+" src", hex.EncodeToString(c.key.Src[:size]), hex.EncodeToString(c.tup.IP.SourceAddress.AsSlice()))
		differ(c.name+" dst", hex.EncodeToString(c.key.Dst[:size]), hex.EncodeToString(c.tup.IP.DestinationAddress.AsSlice()))
		differ(c.name+" proto", c.key.Proto, c.tup.Proto.Protocol)
		if c.key.IsICMP() {
			differ(c.name+" icmp", [3]uint16{c.key.Sport, c.key.Dport >> 8, c.key.Dport & 0xff},
				[3]uint16{c.tup.Proto.ICMPID, uint16(c.tup.Proto.ICMPType), uint16(c.tup.Proto.ICMPCode)})
		} else {
			differ(c.name+" ports", [2]uint16{c.key.Sport, c.key.Dport}, [2]uint16{c.tup.Proto.SourcePort, c.tup.Proto.DestinationPort})
		}
	}
	differ("status", f.Status, uint32(o.Status))
	differ("timeout", f.Timeout, o.Timeout)
	differ("mark", f.Mark, o.Mark)
	differ("helper", flow.Name(f.Helper[:]), o.Helper.Name)
	if f.Has.Has(flow.HasZone) {
		differ("zone", f.Zone, o.Zone)
	}
	if f.Has.Has(flow.HasZoneOrig) {
		differ("zone", f.Zone, o.TupleOrig.Zone)
	}
	differ("seqadj", f.SeqAdj, [2]flow.SeqAdj{
		{Pos: o.SeqAdjOrig.Position, Before: o.SeqAdjOrig.OffsetBefore, After: o.SeqAdjOrig.OffsetAfter},
		{Pos: o.SeqAdjReply.Position, Before: o.SeqAdjReply.OffsetBefore, After: o.SeqAdjReply.OffsetAfter},
	})
	differ("synproxy", f.Synproxy, flow.Synproxy{ISN: o.SynProxy.ISN, ITS: o.SynProxy.ITS, TSOff: o.SynProxy.TSOff})
	if p := o.ProtoInfo.TCP; p != nil {
		differ("tcp", [3]uint8{f.State, f.WScale[0], f.WScale[1]}, [3]uint8{p.State, p.OriginalWindowScale, p.ReplyWindowScale})
	}
	if p := o.ProtoInfo.SCTP; p != nil {
		differ("sctp", [3]uint32{uint32(f.State), f.Vtag[0], f.Vtag[1]}, [3]uint32{uint32(p.State), p.VTagOriginal, p.VTagReply})
	}
	return out
}

// TestEncodeNAT reads the NAT attributes, which no decoder knows: both are
// there as soon as anything is translated, and both name address and port.
func TestEncodeNAT(t *testing.T) {
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		minIP, maxIP, size := ctaNATv4MinIP, ctaNATv4MaxIP, 4
		if family == flow.IPv6 {
			minIP, maxIP, size = ctaNATv6MinIP, ctaNATv6MaxIP, 16
		}
		plain := newFlow(family, flow.ProtoTCP)
		for _, nat := range translations(ports) {
			f := with(plain, nat...)
			e := encoder{}
			e.flow(reqCreate, 1, &f)
			list := e.buf[nlmsgHeaderLen+nfgenLen:]
			r, _ := f.Reply()
			for _, c := range []struct {
				attr attr
				addr flow.Addr
				port uint16
			}{{ctaNATSrc, r.Dst, r.Dport}, {ctaNATDst, r.Src, r.Sport}} {
				v := find(list, c.attr)
				if len(nat) == 0 {
					if v != nil {
						t.Errorf("attribute %d without NAT", c.attr)
					}
					continue
				}
				if got := find(v, minIP); !bytes.Equal(got, c.addr[:size]) || !bytes.Equal(got, find(v, maxIP)) {
					t.Errorf("attribute %d: address %x, want %x", c.attr, got, c.addr[:size])
				}
				p := find(v, ctaNATProto)
				if lo, hi := find(p, ctaProtoNATMin), find(p, ctaProtoNATMax); be16(lo) != c.port || be16(hi) != c.port {
					t.Errorf("attribute %d: ports %x to %x, want %d", c.attr, lo, hi, c.port)
				}
			}
		}
	}
}

// TestEncodeKnowsEveryAttribute fails when an attribute is added to flow.Flow
// that no row writes.
func TestEncodeKnowsEveryAttribute(t *testing.T) {
	const (
		unwritten = flow.HasReply | flow.HasUse | flow.HasCounters | flow.HasStart | flow.HasStop |
			flow.HasZoneRepl | // checked below
			flow.HasMask | flow.HasFlags | flow.HasClass | flow.HasNATDir | flow.HasFn // of expectations
		implied = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasMasterPort |
			flow.HasWScaleOrig | flow.HasWScaleRepl | flow.HasVtag | flow.HasRole // with others, checked elsewhere
		onlyDelete = flow.HasID
		last       = flow.HasFn
	)
	size := func(r request, has flow.Has) int {
		f := flow.Flow{Key: newFlow(flow.IPv4, flow.ProtoTCP).Key, Has: has}
		copy(f.Helper[:], "ftp")
		e := encoder{}
		e.flow(r, 1, &f)
		return len(e.buf)
	}
	for bit := flow.Has(1); bit <= last; bit <<= 1 {
		r, written := reqCreate, !(unwritten | implied).Has(bit)
		if bit == onlyDelete {
			r = reqDelete
		}
		if got := size(r, bit) > size(r, 0); got != written && bit != flow.HasZoneRepl {
			t.Errorf("attribute %#x: written %v, want %v", uint64(bit), got, written)
		}
	}
	if size(reqCreate, flow.HasZoneRepl) <= size(reqCreate, 0) {
		t.Error("zone of the reply direction is not written")
	}
	if size(reqUpdate, flow.HasHelper|flow.HasMaster|flow.HasNAT) != size(reqUpdate, 0) {
		t.Error("update has what the kernel refuses")
	}
}

func TestEncodeLongHelper(t *testing.T) {
	f := with(newFlow(flow.IPv4, flow.ProtoTCP), helper("0123456789abcdef"))
	e := encoder{}
	e.flow(reqCreate, 1, &f)
	name := find(find(e.buf[nlmsgHeaderLen+nfgenLen:], ctaHelp), ctaHelpName)
	if string(name) != "0123456789abcde\x00" {
		t.Errorf("got %q", name)
	}
}

func TestEncodeAllocatesNothing(t *testing.T) {
	flows, _ := everyFlow()
	e := encoder{buf: make([]byte, 0, sendLimit)}
	if n := testing.AllocsPerRun(100, func() {
		e.buf = e.buf[:0]
		for i := range flows {
			for _, r := range []request{reqCreate, reqUpdate, reqProbe, reqGet, reqDelete, reqGetReply, reqDeleteReply} {
				e.buf = e.buf[:0]
				e.flow(r, 1, &flows[i])
				if len(e.buf) >= maxRequest {
					t.Fatalf("request of %d bytes", len(e.buf))
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBuildFillsSends: a batch without a socket, in as many sends as it takes.
func TestBuildFillsSends(t *testing.T) {
	flows := make([]flow.Flow, batchSize)
	for i := range flows {
		flows[i] = with(newFlow(flow.IPv6, flow.ProtoTCP), related, extras[len(extras)-1].change, snat, dnat, sport(uint16(i)))
	}
	w := &Writer{enc: encoder{buf: make([]byte, 0, sendLimit)}}
	build := func() (requests, acks, sends int) {
		w.begin(len(flows), nil)
		for i := 0; i < len(flows); sends++ {
			i, _ = w.build(flows, i)
			if len(w.enc.buf) > sendLimit {
				t.Fatalf("send of %d bytes", len(w.enc.buf))
			}
			for m, rest, ok := nextMessage(w.enc.buf); ok; m, rest, ok = nextMessage(rest) {
				if want := w.base + uint32(requests); m.seq != want {
					t.Fatalf("sequence %d, want %d", m.seq, want)
				}
				requests++
				if m.flags&unix.NLM_F_ACK != 0 {
					acks++
				}
			}
		}
		return requests, acks, sends
	}
	if requests, acks, sends := build(); requests != batchSize || acks != sends || sends < 2 {
		t.Errorf("%d requests with %d acks in %d sends", requests, acks, sends)
	}
	if n := testing.AllocsPerRun(100, func() { build() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	w.seq = ^uint32(0) - 10 // about to wrap: no number may be zero, which echoes have
	if w.begin(len(flows), nil); w.sequence(batchSize) == 0 || w.seq < batchSize {
		t.Errorf("next sequence number %d after wrapping", w.seq)
	}
}

func TestCommitAllocatesNothing(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows, _ := everyFlow()
	results := make([]Result, len(flows))
	if n := testing.AllocsPerRun(20, func() {
		for _, write := range []func([]flow.Flow, []Result) error{w.Commit, w.Commit, w.Update, w.Delete} {
			if err := write(flows, results); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
