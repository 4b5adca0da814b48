package kernel

import (
	"errors"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// seeds are the messages of the corpus.
func seeds(f *testing.F, expect bool) {
	f.Helper()
	for _, b := range corpus(f) {
		for _, m := range messages(f, b) {
			if isExpect(&m) == expect {
				f.Add(m.body)
			}
		}
	}
}

// unknownIsZero is the promise of flow.Has: an attribute whose bit is not set
// holds its zero value.
func unknownIsZero(t *testing.T, f *flow.Flow) {
	t.Helper()
	for _, c := range []struct {
		bit  flow.Has
		zero bool
	}{
		{flow.HasProto, f.Proto == 0},
		{flow.HasPorts, f.Sport == 0 && f.Dport == 0},
		{flow.HasStatus, f.Status == 0},
		{flow.HasState, f.State == 0},
		{flow.HasTimeout, f.Timeout == 0},
		{flow.HasMark, f.Mark == 0},
		{flow.HasWScaleOrig, f.WScale[0] == 0},
		{flow.HasWScaleRepl, f.WScale[1] == 0},
		{flow.HasVtag, f.Vtag == [2]uint32{}},
		{flow.HasRole, f.Role == 0},
		{flow.HasMaster, f.Master == flow.Key{}},
		{flow.HasMasterPort, f.Master.Sport == 0 && f.Master.Dport == 0},
		{flow.HasSNAT, f.NAT.Src == flow.Addr{}},
		{flow.HasDNAT, f.NAT.Dst == flow.Addr{}},
		{flow.HasSPAT, f.NAT.Sport == 0},
		{flow.HasDPAT, f.NAT.Dport == 0},
		{flow.HasSeqOrig, f.SeqAdj[0] == flow.SeqAdj{}},
		{flow.HasSeqRepl, f.SeqAdj[1] == flow.SeqAdj{}},
		{flow.HasHelper, f.Helper == [16]byte{}},
		{flow.HasLabels, f.Labels == [4]uint32{}},
		{flow.HasSynproxy, f.Synproxy == flow.Synproxy{}},
		{flow.HasZoneRepl, f.ZoneRepl == 0},
		{flow.HasID, f.ID == 0},
		{flow.HasUse, f.Use == 0},
		{flow.HasCounters, f.Counters == [2]flow.Counters{}},
		{flow.HasStart, f.Start == 0},
		{flow.HasStop, f.Stop == 0},
	} {
		if !f.Has.Any(c.bit) && !c.zero {
			t.Errorf("bit %#x is not set, its attribute is: %+v", c.bit, f)
		}
	}
	if !f.Has.Any(flow.HasZone|flow.HasZoneOrig) && f.Zone != 0 {
		t.Errorf("zone %d without a bit", f.Zone)
	}
}

func FuzzDecodeFlow(f *testing.F) {
	f.Add(fullFlow())
	seeds(f, false)
	f.Fuzz(func(t *testing.T, msg []byte) {
		first, second := new(flow.Flow), &flow.Flow{Mark: 1, Has: flow.HasMark}
		err := DecodeFlow(msg, first)
		if again := DecodeFlow(msg, second); !errors.Is(again, err) {
			t.Fatalf("once %v, then %v", err, again)
		}
		if err != nil {
			return
		}
		if *first != *second {
			t.Error("the result depends on what was there before")
		}
		if !first.Has.Has(flow.HasAddr) || first.Family != flow.IPv4 && first.Family != flow.IPv6 {
			t.Errorf("accepted without addresses: %+v", first)
		}
		unknownIsZero(t, first)
	})
}

func FuzzDecodeExpect(f *testing.F) {
	f.Add(fullExpect())
	seeds(f, true)
	f.Fuzz(func(t *testing.T, msg []byte) {
		e := new(flow.Expect)
		if DecodeExpect(msg, e) != nil {
			return
		}
		if !e.Has.Has(flow.HasAddr) {
			t.Errorf("accepted without a tuple: %+v", e)
		}
		for _, name := range [][]byte{e.Helper[:], e.Fn[:]} {
			if name[len(name)-1] != 0 {
				t.Errorf("name without its NUL: %q", name)
			}
		}
		if !e.Has.Any(flow.HasSNAT) && e.NAT != (flow.Key{}) || !e.Has.Any(flow.HasMaster) && e.Master != (flow.Key{}) {
			t.Errorf("tuple without its bit: %+v", e)
		}
	})
}

// FuzzDatagram feeds the event reader and the dump parser what a socket might.
func FuzzDatagram(f *testing.F) {
	for _, b := range corpus(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			m, next, ok := nextMessage(rest)
			if !ok {
				break
			}
			if len(next) >= len(rest) || len(m.body) > len(rest)-nlmsgHeaderLen {
				t.Fatalf("no progress: %d of %d bytes left", len(next), len(rest))
			}
			rest = next
		}
		p := dumpParser{}
		_ = p.datagram(b, func(*dumpParser) error { return nil })
	})
}
