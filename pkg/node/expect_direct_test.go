package node

import (
	"slices"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Without an internal cache what the kernel expects is sent as it comes, if the
// helper and the master's addresses pass.
func TestExpectsWithoutInternalCache(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableInternalCache, cfg.ExpectationSync, cfg.ExpectHelpers = true, true, []string{"ftp"}
	cfg.Filter.Protocols = flow.Ignore
	cfg.Filter.Protocol[flow.ProtoUDP] = true
	n := New(cfg, 1, [2]uint64{1, 2})
	messages(n, 0)
	x := expectation(1, 2000)
	sip, udp, own := x, x, flow.ExpectEvent{Op: flow.New, Origin: flow.Self, Expect: x}
	copy(sip.Helper[:], "sip")
	udp.Master.Proto = flow.ProtoUDP
	n.Expects(0, slices.Concat(expect1(flow.New, x), expect1(flow.New, sip), expect1(flow.New, udp), []flow.ExpectEvent{own}, expect1(flow.Destroy, x)))
	var types []uint8
	for _, m := range messages(n, 0) {
		types = append(types, m.Type)
		var got flow.Expect
		if err := n.wire.ParseExpect(m.Body, &got); err != nil || got.Tuple != x.Tuple || got.Master != x.Master {
			t.Errorf("sent %+v (%v)", got, err)
		}
	}
	if !slices.Equal(types, []uint8{wire.ExpNew, wire.ExpDel}) {
		t.Errorf("sent %v", types)
	}
	if st := n.Stats(); st.EventsFiltered != 2 || st.ExpectInternal.Created != 0 {
		t.Errorf("%d filtered, %d cached", st.EventsFiltered, st.ExpectInternal.Created)
	}
}

// A master whose sequence numbers its helper has shifted is sent once more,
// with all that the kernel says of it; others are not.
func TestReadMasterWithoutInternalCache(t *testing.T) {
	cfg := notrackConfig()
	cfg.DisableInternalCache, cfg.ExpectationSync = true, true
	n := New(cfg, 1, [2]uint64{1, 2})
	messages(n, 0)
	f := flow.Flow{Key: expectation(1, 2000).Master, Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasMark, Mark: 7}
	n.ReadMaster(0, &f)
	if got := messages(n, 0); len(got) != 0 {
		t.Errorf("sent %d messages about a flow with plain sequence numbers", len(got))
	}
	f.Has |= flow.HasSeqOrig | flow.HasSeqRepl | flow.HasStatus
	f.Status = flow.StatusConfirmed | flow.StatusSeqAdjust
	f.SeqAdj[0] = flow.SeqAdj{Pos: 100, Before: 3, After: 5}
	n.ReadMaster(0, &f)
	got := messages(n, 0)
	if len(got) != 1 || got[0].Type != wire.CTUpd {
		t.Fatalf("sent %+v", got)
	}
	var sent flow.Flow
	if err := n.wire.ParseFlow(got[0].Body, &sent); err != nil || sent.Key != f.Key || sent.SeqAdj[0] != f.SeqAdj[0] || sent.Mark != 7 {
		t.Errorf("sent %+v (%v)", sent, err)
	}
}
