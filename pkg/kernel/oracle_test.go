package kernel

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	oracle "github.com/ti-mo/conntrack"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// view is what our decoder and ti-mo/conntrack both know of a flow.
type view struct {
	ID, Timeout, Status, Mark, Use      uint32
	Zone, ZoneOrig, ZoneRepl            uint16
	Orig, Reply, Master                 tupleView
	State, WScaleOrig, WScaleRepl, Role uint8
	VtagOrig, VtagRepl                  uint32
	Seq                                 [2]flow.SeqAdj
	Synproxy                            flow.Synproxy
	Counters                            [2]flow.Counters
	Start, Stop                         uint64
	Helper                              string
	Labels                              [4]uint32
}

type tupleView struct {
	Src, Dst netip.Addr
	Proto    uint8
	A, B     uint16 // ports, or ICMP id and type<<8|code
}

func ourView(f *flow.Flow) (v view) {
	reply, _ := f.Reply()
	v = view{
		ID: f.ID, Timeout: f.Timeout, Status: f.Status, Mark: f.Mark, Use: f.Use, ZoneRepl: f.ZoneRepl,
		Orig: ourTuple(&f.Key), Master: ourTuple(&f.Master), State: f.State,
		WScaleOrig: f.WScale[0], WScaleRepl: f.WScale[1], Role: f.Role, VtagOrig: f.Vtag[0], VtagRepl: f.Vtag[1],
		Seq: f.SeqAdj, Synproxy: f.Synproxy, Counters: f.Counters, Start: f.Start, Stop: f.Stop,
		Helper: flow.Name(f.Helper[:]), Labels: f.Labels,
	}
	if f.Has.Has(flow.HasReply) {
		v.Reply = ourTuple(&reply)
	}
	if f.Has.Has(flow.HasZone) {
		v.Zone = f.Zone
	}
	if f.Has.Has(flow.HasZoneOrig) {
		v.ZoneOrig = f.Zone
	}
	return v
}

func ourTuple(k *flow.Key) (v tupleView) {
	switch k.Family {
	case flow.IPv4:
		v.Src, v.Dst = netip.AddrFrom4([4]byte(k.Src[:])), netip.AddrFrom4([4]byte(k.Dst[:]))
	case flow.IPv6:
		v.Src, v.Dst = netip.AddrFrom16(k.Src), netip.AddrFrom16(k.Dst)
	}
	v.Proto, v.A, v.B = k.Proto, k.Sport, k.Dport
	return v
}

func theirView(f *oracle.Flow) (v view) {
	v = view{
		ID: f.ID, Timeout: f.Timeout, Status: uint32(f.Status), Mark: f.Mark, Use: f.Use,
		Zone: f.Zone, ZoneOrig: f.TupleOrig.Zone, ZoneRepl: f.TupleReply.Zone,
		Orig: theirTuple(&f.TupleOrig), Reply: theirTuple(&f.TupleReply), Master: theirTuple(&f.TupleMaster),
		Seq:      [2]flow.SeqAdj{theirSeqAdj(f.SeqAdjOrig), theirSeqAdj(f.SeqAdjReply)},
		Synproxy: flow.Synproxy(f.SynProxy),
		Counters: [2]flow.Counters{
			{Packets: f.CountersOrig.Packets, Bytes: f.CountersOrig.Bytes},
			{Packets: f.CountersReply.Packets, Bytes: f.CountersReply.Bytes},
		},
		Start: nanos(f.Timestamp.Start), Stop: nanos(f.Timestamp.Stop), Helper: f.Helper.Name,
	}
	if p := f.ProtoInfo.TCP; p != nil {
		v.State, v.WScaleOrig, v.WScaleRepl = p.State, p.OriginalWindowScale, p.ReplyWindowScale
	}
	if p := f.ProtoInfo.SCTP; p != nil {
		v.State, v.VtagOrig, v.VtagRepl = p.State, p.VTagOriginal, p.VTagReply
	}
	if p := f.ProtoInfo.DCCP; p != nil {
		v.State, v.Role = p.State, p.Role
	}
	for i := 0; 4*i+4 <= len(f.Labels); i++ {
		v.Labels[i] = binary.NativeEndian.Uint32(f.Labels[4*i:])
	}
	return v
}

func theirTuple(t *oracle.Tuple) tupleView {
	v := tupleView{Src: t.IP.SourceAddress, Dst: t.IP.DestinationAddress, Proto: t.Proto.Protocol,
		A: t.Proto.SourcePort, B: t.Proto.DestinationPort}
	if t.Proto.ICMPv4 || t.Proto.ICMPv6 {
		v.A, v.B = t.Proto.ICMPID, uint16(t.Proto.ICMPType)<<8|uint16(t.Proto.ICMPCode)
	}
	return v
}

func theirSeqAdj(s oracle.SequenceAdjust) flow.SeqAdj {
	return flow.SeqAdj{Pos: s.Position, Before: s.OffsetBefore, After: s.OffsetAfter}
}

func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

// expectView is the same for an expectation.
type expectView struct {
	Timeout, ID, Flags, Class uint32
	Zone                      uint16
	Master, Tuple, Mask, NAT  tupleView
	Reply                     bool
	Helper, Fn                string
}

func ourExpect(e *flow.Expect) expectView {
	return expectView{
		Timeout: e.Timeout, ID: e.ID, Flags: e.Flags, Class: e.Class, Zone: e.Tuple.Zone,
		Master: ourTuple(&e.Master), Tuple: ourTuple(&e.Tuple), Mask: ourTuple(&e.Mask), NAT: ourTuple(&e.NAT),
		Reply: e.NATDir == 1, Helper: flow.Name(e.Helper[:]), Fn: flow.Name(e.Fn[:]),
	}
}

func theirExpect(e *oracle.Expect) expectView {
	return expectView{
		Timeout: e.Timeout, ID: e.ID, Flags: e.Flags, Class: e.Class, Zone: e.Zone,
		Master: theirTuple(&e.TupleMaster), Tuple: theirTuple(&e.Tuple), Mask: theirTuple(&e.Mask),
		NAT: theirTuple(&e.NAT.Tuple), Reply: e.NAT.Direction, Helper: e.HelpName, Fn: e.Function,
	}
}

// differ decodes a message with both decoders and returns the difference of
// what they understood.
func differ(t *testing.T, m *message) string {
	t.Helper()
	var theirs oracle.Event
	if err := theirs.Unmarshal(netlink.Message{
		Header: netlink.Header{
			Length: uint32(nlmsgHeaderLen + len(m.body)), Type: netlink.HeaderType(m.typ),
			Flags: netlink.HeaderFlags(m.flags), Sequence: m.seq, PID: m.pid,
		},
		Data: m.body,
	}); err != nil {
		return "the oracle refuses it: " + err.Error()
	}
	if isExpect(m) {
		var ours flow.Expect
		if err := DecodeExpect(m.body, &ours); err != nil {
			return err.Error()
		}
		return cmp.Diff(theirExpect(theirs.Expect), ourExpect(&ours), cmp.Comparer(sameAddr))
	}
	var ours flow.Flow
	if err := DecodeFlow(m.body, &ours); err != nil {
		return err.Error()
	}
	ops := map[flow.Op]any{flow.New: oracle.EventNew, flow.Update: oracle.EventUpdate, flow.Destroy: oracle.EventDestroy}
	if ops[opOf(m)] != any(theirs.Type) {
		return "kind of event"
	}
	return cmp.Diff(theirView(theirs.Flow), ourView(&ours), cmp.Comparer(sameAddr))
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// TestDecodeAgreesWithOracle decodes every recorded message twice.
func TestDecodeAgreesWithOracle(t *testing.T) {
	checkOracle(t, corpus(t))
}

// TestDecodeLive does the same with what this kernel says now, and demands the
// same facts of it.
func TestDecodeLive(t *testing.T) {
	all := recordAll(t)
	checkOracle(t, all)
	checkFacts(t, all)
}

func checkOracle(t *testing.T, all map[string][]byte) {
	t.Helper()
	if len(all) != len(scenarios) {
		t.Errorf("%d recordings of %d scenarios", len(all), len(scenarios))
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list := messages(t, all[name])
		if len(list) < 2 {
			t.Errorf("%s: only %d messages", name, len(list))
		}
		for i, m := range list {
			if d := differ(t, &m); d != "" {
				t.Errorf("%s, message %d (- oracle, + ours):\n%s", name, i, d)
			}
		}
	}
}

// TestOracleSeesDifferences makes sure that the comparison can fail.
func TestOracleSeesDifferences(t *testing.T) {
	f := flow.Flow{Has: flow.HasAddr, Key: flow.Key{Family: flow.IPv4}}
	base := ourView(&f)
	f.Has |= flow.HasReply | flow.HasSNAT
	f.NAT.Src = addr("10.0.0.1")
	if cmp.Diff(base, ourView(&f), cmp.Comparer(sameAddr)) == "" {
		t.Error("NAT is not compared")
	}
	f = flow.Flow{Has: flow.HasAddr | flow.HasZoneOrig, Key: flow.Key{Family: flow.IPv4, Zone: 3}}
	if cmp.Diff(base, ourView(&f), cmp.Comparer(sameAddr)) == "" {
		t.Error("zones are not compared")
	}
}
