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
