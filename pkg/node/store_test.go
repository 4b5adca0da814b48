package node

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

func testStore(limit int) *store { return newStore(0, limit, cache.NewSeed(1, 2)) }

// randomFlow returns a flow with each attribute known or not at random, and
// the unknown ones zero.
func randomFlow(r *rand.Rand, family uint8) flow.Flow {
	f := flow.Flow{Key: flow.Key{Family: family, Proto: flow.ProtoTCP, Sport: uint16(r.Uint32()), Dport: uint16(r.Uint32()), Zone: uint16(r.UintN(3))}}
	size := 4
	if family == flow.IPv6 {
		size = 16
	}
	addr := func() (a flow.Addr) {
		for i := range size {
			a[i] = byte(r.Uint32())
		}
		return a
	}
	f.Src, f.Dst = addr(), addr()
	f.Has = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasZone
	set := func(bit flow.Has, fill func()) {
		if r.UintN(2) == 0 {
			f.Has |= bit
			fill()
		}
	}
	set(flow.HasStatus, func() { f.Status = r.Uint32() })
	set(flow.HasState, func() { f.State = uint8(r.UintN(9)) })
	set(flow.HasTimeout, func() { f.Timeout = r.Uint32() })
	set(flow.HasMark, func() { f.Mark = r.Uint32() })
	set(flow.HasID, func() { f.ID = r.Uint32() })
	set(flow.HasWScaleOrig, func() { f.WScale[0] = uint8(r.UintN(15)) })
	set(flow.HasWScaleRepl, func() { f.WScale[1] = uint8(r.UintN(15)) })
	set(flow.HasSNAT, func() { f.NAT.Src = addr() })
	set(flow.HasDNAT, func() { f.NAT.Dst = addr() })
	set(flow.HasSPAT, func() { f.NAT.Sport = uint16(r.Uint32()) })
	set(flow.HasDPAT, func() { f.NAT.Dport = uint16(r.Uint32()) })
	set(flow.HasReply, func() {})
	if r.UintN(2) == 0 {
		set(flow.HasVtag, func() { f.Vtag = [2]uint32{r.Uint32(), r.Uint32()} })
		set(flow.HasRole, func() { f.Role = 1 })
		set(flow.HasMaster|flow.HasMasterPort, func() { f.Master = flow.Key{Family: family, Src: addr(), Dst: addr(), Sport: 1, Dport: 21, Proto: 6} })
		set(flow.HasSeqOrig, func() { f.SeqAdj[0] = flow.SeqAdj{Pos: r.Uint32(), Before: 1, After: 2} })
		set(flow.HasSeqRepl, func() { f.SeqAdj[1] = flow.SeqAdj{Pos: r.Uint32(), Before: 3, After: 4} })
		set(flow.HasHelper, func() { copy(f.Helper[:], "ftp") })
		set(flow.HasLabels, func() { f.Labels = [4]uint32{r.Uint32(), 0, 1, r.Uint32()} })
		set(flow.HasSynproxy, func() { f.Synproxy = flow.Synproxy{ISN: r.Uint32(), ITS: 1, TSOff: 2} })
		set(flow.HasZoneRepl, func() { f.ZoneRepl = 7 })
		set(flow.HasStart, func() { f.Start = r.Uint64() })
		set(flow.HasStop, func() { f.Stop = r.Uint64() })
	}
	return f
}

func families(t *testing.T, run func(t *testing.T, family uint8)) {
	t.Run("IPv4", func(t *testing.T) { run(t, flow.IPv4) })
	t.Run("IPv6", func(t *testing.T) { run(t, flow.IPv6) })
}

func TestStoreKeepsEveryAttribute(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		r := rand.New(rand.NewPCG(1, uint64(family)))
		s := testStore(1 << 20)
		for range 5000 {
			want := randomFlow(r, family)
			ref, _ := s.put(&want.Key)
			s.save(ref, &want)
			var got flow.Flow
			s.load(ref, &got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("entry differs (-saved +loaded):\n%s", diff)
			}
			if s.lookup(&want.Key) != ref {
				t.Fatal("lookup finds another entry")
			}
			if r.UintN(2) == 0 {
				s.remove(ref, false)
			}
		}
	})
}

// A merge into a packed entry is the same as flow.Flow.Merge.
func TestStoreMergeIsFlowMerge(t *testing.T) {
	families(t, func(t *testing.T, family uint8) {
		r := rand.New(rand.NewPCG(2, uint64(family)))
		s := testStore(1 << 20)
		for range 5000 {
			old, news := randomFlow(r, family), randomFlow(r, family)
			news.Key = old.Key
			ref, _ := s.put(&old.Key)
			s.save(ref, &old)
			want := old
			want.Merge(&news)
			var scratch, got flow.Flow
			changed := s.merge(ref, &news, &scratch)
			s.load(ref, &got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("merge differs (-flow +store):\n%s\nold %+v\nnew %+v", diff, old, news)
			}
			old.Timeout, want.Timeout = 0, 0
			old.Has |= flow.HasTimeout
			want.Has |= flow.HasTimeout
			if really := old != want; changed != really {
				t.Fatalf("merge says changed %v, want %v", changed, really)
			}
			s.remove(ref, false)
		}
	})
}

func TestStoreDropsCountersAndUse(t *testing.T) {
	s := testStore(10)
	f := randomFlow(rand.New(rand.NewPCG(5, 5)), flow.IPv4)
	want := f
	f.Has |= flow.HasUse | flow.HasCounters
	f.Use, f.Counters[1].Bytes = 1, 2
	r, _ := s.put(&f.Key)
	for range 2 { // saved, then merged
		s.save(r, &f)
		var got, scratch flow.Flow
		s.load(r, &got)
		if got != want {
			t.Errorf("kept: %v", cmp.Diff(want, got))
		}
		s.merge(r, &f, &scratch)
	}
}

func TestStoreRareRecordsAreReused(t *testing.T) {
	s := testStore(1 << 20)
	r := rand.New(rand.NewPCG(3, 3))
	for range 10 * rarePage {
		f := randomFlow(r, flow.IPv6)
		f.Has |= flow.HasHelper
		ref, _ := s.put(&f.Key)
		s.save(ref, &f)
		s.remove(ref, false)
	}
	if len(s.rare.pages) != 1 {
		t.Errorf("%d pages of rare records for one flow at a time", len(s.rare.pages))
	}
}

func TestStoreLimitCountsBothFamilies(t *testing.T) {
	s := testStore(2)
	r := rand.New(rand.NewPCG(4, 4))
	a, b, c := randomFlow(r, flow.IPv4), randomFlow(r, flow.IPv6), randomFlow(r, flow.IPv4)
	for _, f := range []*flow.Flow{&a, &b} {
		if ref, fresh := s.put(&f.Key); ref == none || !fresh {
			t.Fatalf("put below the limit: %v, %v", ref, fresh)
		}
	}
	if ref, _ := s.put(&c.Key); ref != none {
		t.Fatal("put above the limit made an entry")
	}
	if ref, fresh := s.put(&a.Key); ref == none || fresh {
		t.Fatal("put of a known key at the limit must find it")
	}
	if s.stats.CreateFailed != 1 || s.stats.NoSpace != 1 {
		t.Errorf("counters: %+v", s.stats)
	}
}

// Entries are what a million flows cost. An IPv4 entry with its key is one
// cache line, and no entry holds a pointer for the collector to follow.
func TestEntrySizes(t *testing.T) {
	if got := unsafe.Sizeof(key4{}) + unsafe.Sizeof(entry4{}); got != 64 {
		t.Errorf("IPv4 entry has %d bytes, want 64", got)
	}
	if got := unsafe.Sizeof(key6{}) + unsafe.Sizeof(entry6{}); got > 80 {
		t.Errorf("IPv6 entry has %d bytes, want at most 80", got)
	}
	for _, v := range []any{key4{}, entry4{}, key6{}, entry6{}, rareAttrs{}} {
		if typ := reflect.TypeOf(v); hasPointers(typ) {
			t.Errorf("%v has pointers", typ)
		}
	}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return hasPointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if hasPointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.String, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return true
	}
	return false
}

// snapshot is what a store holds as far as it travels.
func snapshot(s *store) map[flow.Key]flow.Flow {
	m := make(map[flow.Key]flow.Flow)
	for c := (cursor{}); !c.done; {
		s.scan(&c, 100, func(r ref) {
			var f flow.Flow
			s.load(r, &f)
			m[f.Key] = onWire(f)
		})
	}
	return m
}

// onWire reduces a flow to what a message about it carries.
func onWire(f flow.Flow) flow.Flow {
	var o wire.Options
	b := o.AppendFlow(nil, wire.Header{Type: wire.CTUpd}, &f)
	var g flow.Flow
	if err := o.ParseFlow(b[8:], &g); err != nil {
		panic("own message refused: " + err.Error())
	}
	return g
}

// The memory of rare attributes goes with the last of them, but for a page.
func TestRareSlabShrinks(t *testing.T) {
	var s rareSlab
	for round := range 3 {
		var all []uint32
		for range 5 * rarePage {
			i := s.alloc()
			if *s.at(i) != (rareAttrs{}) || i == 0 {
				t.Fatalf("round %d: record %d is not empty", round, i)
			}
			s.at(i).role = 1
			all = append(all, i)
		}
		full := s.bytes()
		for _, i := range all {
			s.free(i)
		}
		if left := s.bytes(); len(s.pages) != 1 || left > full/5 {
			t.Errorf("round %d: %d pages, %d of %d bytes left", round, len(s.pages), left, full)
		}
	}
}
