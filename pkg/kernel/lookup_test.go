package kernel

import (
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestLookup(t *testing.T) {
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{})
		want := with(newFlow(family, flow.ProtoTCP), helper("ftp"), zone(3))
		want.SeqAdj = [2]flow.SeqAdj{{Pos: 1, Before: 2, After: 3}, {Pos: 4, Before: 5, After: 6}}
		want.Has |= flow.HasSeqOrig | flow.HasSeqRepl
		want.Status |= flow.StatusSeqAdjust
		got := flow.Flow{Key: want.Key}
		if found, err := w.Lookup(&got); found || err != nil {
			t.Fatalf("in an empty table: %v, %v", found, err)
		}
		commit(t, w, Created, want)
		got = flow.Flow{Key: want.Key}
		if found, err := w.Lookup(&got); !found || err != nil {
			t.Fatalf("found %v, %v", found, err)
		}
		if got.Key != want.Key || got.SeqAdj != want.SeqAdj || got.Helper != want.Helper || !got.Has.Has(flow.HasID|flow.HasTimeout) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
		got = flow.Flow{Key: want.Key}
		got.Zone = 4
		if found, err := w.Lookup(&got); found || err != nil {
			t.Errorf("in another zone: %v, %v", found, err)
		}
	}
}
