package cache

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// key has the size and the shape of a flow's key.
type key struct {
	src, dst           [16]byte
	sport, dport, zone uint16
	proto, family      uint8
}

// value is about what a node keeps of a flow.
type value struct {
	n uint64
	_ [15]uint64
}

var seed = NewSeed(0x0123456789abcdef, 0xfedcba9876543210)

func hashInt(k *uint64) uint64 { return seed.Words(*k) }

func hashKey(k *key) uint64 {
	w := func(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
	return seed.Words(w(k.src[:8]), w(k.src[8:]), w(k.dst[:8]), w(k.dst[8:]),
		uint64(k.sport)|uint64(k.dport)<<16|uint64(k.zone)<<32|uint64(k.proto)<<48|uint64(k.family)<<56)
}

func keyOf(n uint64) (k key) {
	for i := range 4 {
		k.src[i], k.dst[i] = byte(n>>(8*i)), byte(n>>(8*i+16))
	}
	k.sport, k.dport, k.proto, k.family = uint16(n), 443, 6, 2
	return k
}

func mustPut(t *testing.T, tb *Table[uint64, uint64], k uint64) ID {
	t.Helper()
	id, isNew := tb.Put(&k)
	if !isNew {
		t.Fatalf("key %d was there already, as %d", k, id)
	}
	return id
}

func mustPanic(t *testing.T, what string, fn func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	fn()
}

func TestPutLookupAtDelete(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	k := uint64(7)
	if id, ok := tb.Lookup(&k); ok || id != 0 {
		t.Errorf("empty table: found %d", id)
	}
	id := mustPut(t, tb, k)
	if id != 1 {
		t.Errorf("first ID is %d", id)
	}
	gotKey, v := tb.At(id)
	if *gotKey != k || *v != 0 {
		t.Errorf("new entry holds %d, %d", *gotKey, *v)
	}
	*v = 99
	if again, isNew := tb.Put(&k); again != id || isNew {
		t.Errorf("second Put: %d, new %v", again, isNew)
	}
	if got, ok := tb.Lookup(&k); got != id || !ok {
		t.Errorf("found %d, %v", got, ok)
	}
	tb.Delete(id)
	if _, ok := tb.Lookup(&k); ok || tb.Len() != 0 || tb.Total() != 0 {
		t.Errorf("after delete: found %v, %d live of %d", ok, tb.Len(), tb.Total())
	}
	if again := mustPut(t, tb, k); again != id {
		t.Errorf("ID %d was not used again, got %d", id, again)
	}
	if _, v := tb.At(id); *v != 0 {
		t.Errorf("reused entry starts with %d", *v)
	}
}

func TestTombstone(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	k := uint64(7)
	id := mustPut(t, tb, k)
	_, v := tb.At(id)
	*v = 42
	tb.Pin(id)
	tb.Pin(id)
	tb.Delete(id)
	tb.Delete(id)
	if !tb.Dead(id) || tb.Len() != 0 || tb.Total() != 1 || tb.Pins(id) != 2 {
		t.Fatalf("dead %v, %d live of %d, %d pins", tb.Dead(id), tb.Len(), tb.Total(), tb.Pins(id))
	}
	if got, isNew := tb.Put(&k); got != id || isNew || !tb.Dead(id) {
		t.Errorf("Put on a tombstone: %d, new %v, dead %v", got, isNew, tb.Dead(id))
	}
	tb.Unpin(id)
	tb.Revive(id)
	tb.Revive(id)
	tb.Unpin(id)
	if tb.Dead(id) || tb.Len() != 1 || *v != 42 {
		t.Errorf("revived: dead %v, %d live, value %d", tb.Dead(id), tb.Len(), *v)
	}
	tb.Pin(id)
	tb.Delete(id)
	tb.Unpin(id)
	if _, ok := tb.Lookup(&k); ok || tb.Total() != 0 {
		t.Errorf("the last pin did not free the tombstone")
	}
}

func TestBrokenContractPanics(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	id := mustPut(t, tb, 1)
	mustPanic(t, "unpin without pin", func() { tb.Unpin(id) })
	mustPanic(t, "no ID", func() { tb.At(0) })
	mustPanic(t, "slot never used", func() { tb.Delete(id + 1) })
	mustPanic(t, "beyond the pages", func() { tb.Pin(1 << 20) })
	mustPanic(t, "largest ID", func() { tb.Dead(^ID(0)) })
	tb.Delete(id)
	mustPanic(t, "freed", func() { tb.Revive(id) })
}

func TestClear(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	for k := range uint64(5000) {
		tb.Pin(mustPut(t, tb, k))
	}
	tb.Delete(1)
	tb.Clear()
	if s := tb.Stats(); s.Live != 0 || s.Tombstones != 0 || s.SlabBytes != 0 || s.IndexBytes != 0 {
		t.Errorf("after Clear: %+v", s)
	}
	k := uint64(3)
	if _, ok := tb.Lookup(&k); ok {
		t.Error("an entry survived")
	}
	if id := mustPut(t, tb, k); id != 1 {
		t.Errorf("first ID after Clear is %d", id)
	}
}

// Pointers from At must survive growth of everything.
func TestEntriesNeverMove(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	k, v := tb.At(mustPut(t, tb, 1))
	for n := uint64(2); n < 100_000; n++ {
		mustPut(t, tb, n)
	}
	if k2, v2 := tb.At(1); k != k2 || v != v2 {
		t.Error("the entry moved")
	}
}

// All hashes equal, and hashes that differ only where the bucket does not
// look: slow, but right.
func TestBadHashes(t *testing.T) {
	for name, hash := range map[string]func(*uint64) uint64{
		"constant": func(*uint64) uint64 { return 0x5500 },
		"ones":     func(*uint64) uint64 { return ^uint64(0) },
		"last":     func(*uint64) uint64 { return 0xffffffff00000000 },
		"low bits": func(k *uint64) uint64 { return *k },
		"top bits": func(k *uint64) uint64 { return *k << 48 },
	} {
		t.Run(name, func(t *testing.T) {
			tb := New[uint64, uint64](hash)
			for k := range uint64(1000) {
				mustPut(t, tb, k)
			}
			for k := range uint64(1000) {
				id, ok := tb.Lookup(&k)
				if !ok {
					t.Fatalf("lost %d", k)
				}
				if k%2 == 0 {
					tb.Delete(id)
				}
			}
			for k := range uint64(1000) {
				if _, ok := tb.Lookup(&k); ok != (k%2 == 1) {
					t.Fatalf("%d: found %v", k, ok)
				}
			}
			checkTable(t, tb)
		})
	}
}

// checkTable verifies the invariants that tie index and slab together.
func checkTable[K comparable, V any](t *testing.T, tb *Table[K, V]) {
	t.Helper()
	at := map[ID]int{}
	total := checkIndex(t, tb, &tb.index, at) + checkIndex(t, tb, &tb.old, at)
	if total != tb.Total() || len(at) != total {
		t.Fatalf("index holds %d places for %d entries, table says %d", total, len(at), tb.Total())
	}
	held, used := 0, 0
	for p, info := range tb.slab.pages {
		if info.entries != nil {
			held++
		}
		used += info.used
		if open := tb.slab.open[p/64]>>(p%64)&1 == 1; open != (info.used < pageLen) {
			t.Fatalf("page %d with %d entries: open %v", p, info.used, open)
		}
	}
	if tb.slab.spare != nil {
		held++
	}
	if held != tb.slab.held || used != tb.slab.used {
		t.Fatalf("slab counts %d pages, %d entries; has %d, %d", tb.slab.held, tb.slab.used, held, used)
	}
}

// checkIndex recounts what went past each bucket.
func checkIndex[K comparable, V any](t *testing.T, tb *Table[K, V], x *index, at map[ID]int) (places int) {
	t.Helper()
	over := make([]uint32, x.n)
	for i := range x.n {
		b := x.bucket(i)
		if b == nil {
			continue
		}
		for p, id := range b.ids {
			if (id == 0) != (b.match(0)>>p&1 == 1 && tagAt(b, p) == 0) {
				t.Fatalf("bucket %d place %d: ID %d with tag %d", i, p, id, tagAt(b, p))
			}
			if id == 0 {
				continue
			}
			places++
			at[id]++
			h := tb.hashOf(&tb.entry(id).k)
			if tagAt(b, p) != tagOf(h) {
				t.Fatalf("entry %d has tag %d, not %d", id, tagAt(b, p), tagOf(h))
			}
			for j := x.home(h); j != i; j = x.after(j) {
				over[j]++
			}
		}
	}
	for i := range x.n {
		if b := x.bucket(i); b != nil && b.over != over[i] {
			t.Fatalf("bucket %d counts %d gone past, %d did", i, b.over, over[i])
		}
	}
	return places
}

func tagAt(b *bucket, p int) uint8 {
	if p < 8 {
		return uint8(b.tags8 >> (8 * p))
	}
	return uint8(b.tags4 >> (8 * (p - 8)))
}

func TestBucketMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		var b bucket
		var tags [bucketLen]uint8
		for p := range tags {
			tags[p] = uint8(r.Uint32N(4)) // few values, so that neighbours are alike
			b.set(p, tags[p], ID(p))
		}
		want := uint8(r.Uint32N(4))
		first := -1
		m := b.match(want)
		for p := bucketLen - 1; p >= 0; p-- {
			if tags[p] == want {
				first = p
				if m>>p&1 == 0 {
					t.Fatalf("tags %v: %d at %d not found", tags, want, p)
				}
			}
		}
		if first >= 0 && m.first() != first || first < 0 && m != 0 {
			t.Fatalf("tags %v: first %d is %d, says %b", tags, want, first, m)
		}
	}
}

// The overhead the package promises, at a million entries and while growing.
func TestMemoryPerEntry(t *testing.T) {
	tb := New[key, value](hashKey)
	const payload = 40 + 128 + 4
	worst := 0.0
	for n := range uint64(1_000_000) {
		k := keyOf(n)
		tb.Put(&k)
		if s := tb.Stats(); n > 100_000 && n%1000 == 0 && !s.Resizing {
			worst = max(worst, float64(s.IndexBytes)/float64(s.Live))
		}
	}
	if worst > 9.8 {
		t.Errorf("the index costs up to %.1f bytes per entry", worst)
	}
	s := tb.Stats()
	if per := float64(s.SlabBytes+s.IndexBytes)/float64(s.Live) - payload; per > 14 {
		t.Errorf("%.1f bytes of overhead per entry: %+v", per, s)
	} else {
		t.Logf("%.1f bytes of overhead per entry, index at worst %.1f", per, worst)
	}
}

func TestMemoryReleasedAfterFlood(t *testing.T) {
	tb := New[uint64, value](hashInt)
	for k := range uint64(200_000) {
		tb.Put(&k)
	}
	flood := tb.Stats()
	for k := uint64(1000); k < 200_000; k++ {
		id, _ := tb.Lookup(&k)
		tb.Delete(id)
	}
	after := tb.Stats()
	if after.SlabBytes > flood.SlabBytes/50 || after.IndexBytes > flood.IndexBytes/15 {
		t.Errorf("flood %+v, after it %+v", flood, after)
	}
	if n := len(tb.slab.pages); n > 2 {
		t.Errorf("%d pages listed for 1000 entries", n)
	}
	checkTable(t, tb)
}

// Survivors spread over all pages keep them; new entries then fill the lowest
// pages first, so that a churning table becomes dense again.
func TestChurnCompacts(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	const n = 64 * pageLen
	for k := range uint64(n) {
		mustPut(t, tb, k)
	}
	live := []uint64{}
	for k := range uint64(n) {
		if k%32 != 0 {
			id, _ := tb.Lookup(&k)
			tb.Delete(id)
		} else {
			live = append(live, k)
		}
	}
	for i := range uint64(len(live)) {
		id, _ := tb.Lookup(&live[i])
		tb.Delete(id)
		mustPut(t, tb, n+i)
	}
	if got := len(tb.slab.pages); got > 3 {
		t.Errorf("%d entries are spread over %d pages", tb.Len(), got)
	}
	checkTable(t, tb)
}

// A table at the edge of a page must not allocate on each step over it.
func TestNoAllocationAtPageEdge(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	for k := range uint64(8 * pageLen) {
		mustPut(t, tb, k)
	}
	edge := uint64(1 << 40)
	step := func() {
		id, _ := tb.Put(&edge)
		tb.Delete(id)
	}
	for tb.Stats().Resizing {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	tb := New[key, value](hashKey)
	n := uint64(0)
	for ; n < 100_000; n++ {
		k := keyOf(n)
		tb.Put(&k)
	}
	oldest := uint64(0)
	churn := func() {
		k := keyOf(n)
		id, _ := tb.Put(&k)
		n++
		_, v := tb.At(id)
		v.n++
		tb.Pin(id)
		tb.Revive(id)
		k = keyOf(oldest)
		oldest++
		id, _ = tb.Lookup(&k)
		tb.Delete(id)
		k = keyOf(n - 1)
		id, _ = tb.Lookup(&k)
		tb.Unpin(id)
	}
	for range 50_000 { // let a resize end and pages settle
		churn()
	}
	if a := testing.AllocsPerRun(50_000, churn); a != 0 {
		t.Errorf("%v allocations per step", a)
	}
	visit := func(ID, *key, *value) {}
	if a := testing.AllocsPerRun(10, func() { tb.Scan(0, 1000, visit) }); a != 0 {
		t.Errorf("scan: %v allocations", a)
	}
}

// However large the table, one operation moves the entries of one bucket at
// most, and the index never gets so full that searches become long.
func TestGrowthIsIncremental(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	moved, resizes, was := uint64(0), 0, false
	step := func() {
		s := tb.Stats()
		if d := s.Moved - moved; d > bucketLen {
			t.Fatalf("one operation moved %d entries", d)
		}
		moved = s.Moved
		if s.Resizing && !was {
			resizes++
		}
		was = s.Resizing
		if full := int(tb.index.n) * (fullBucket + 1); s.Live > full {
			t.Fatalf("%d entries in an index for %d", s.Live, full)
		}
	}
	const n = 300_000
	for k := range uint64(n) {
		mustPut(t, tb, k)
		step()
	}
	if resizes < 15 {
		t.Errorf("only %d resizes seen", resizes)
	}
	for k := range uint64(n) {
		id, _ := tb.Lookup(&k)
		tb.Delete(id)
		step()
	}
	if slots := tb.Stats().IndexSlots; slots > 3*minBuckets*bucketLen {
		t.Errorf("an empty table keeps %d places", slots)
	}
}

func ExampleTable() {
	tb := New[uint64, string](hashInt)
	k := uint64(80)
	id, _ := tb.Put(&k)
	_, v := tb.At(id)
	*v = "a web flow"
	tb.Pin(id) // a queue will render it later
	tb.Delete(id)
	_, v = tb.At(id)
	fmt.Println(*v, tb.Dead(id), tb.Len(), tb.Total())
	tb.Unpin(id)
	fmt.Println(tb.Total())
	// Output:
	// a web flow true 0 1
	// 0
}

func TestPeak(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	if n := tb.Peak(); n != 0 {
		t.Errorf("%d bytes before the first entry", n)
	}
	flood := func(n uint64) (bytes int) {
		for k := range n {
			tb.Put(&k)
		}
		bytes = tb.Stats().SlabBytes
		for k := range n {
			id, _ := tb.Lookup(&k)
			tb.Delete(id)
		}
		return bytes
	}
	full := flood(50_000)
	if n := tb.Peak(); n != full {
		t.Errorf("peak of %d bytes, want %d", n, full)
	}
	if n, now := tb.Peak(), tb.Stats().SlabBytes; n != now || now > full/10 {
		t.Errorf("peak of %d bytes since, %d are held", n, now)
	}
	full = flood(20_000)
	tb.Clear()
	if n := tb.Peak(); n != full {
		t.Errorf("peak of %d bytes before it was cleared, want %d", n, full)
	}
}

// A table that was told what to expect moves next to nothing on its way there,
// and is small again when it is all over.
func TestExpectedEntriesAreNotMoved(t *testing.T) {
	const expected = 500_000
	fill := func(tb *Table[uint64, uint64]) (moved uint64) {
		for k := range uint64(expected) {
			tb.Put(&k)
		}
		return tb.Stats().Moved
	}
	unprepared := New[uint64, uint64](hashInt)
	tb := New[uint64, uint64](hashInt)
	tb.Expect(expected)
	if without, with := fill(unprepared), fill(tb); without < expected || with > without/4 {
		t.Errorf("%d entries moved, %d if the table does not know", with, without)
	}
	for k := range uint64(expected) {
		id, ok := tb.Lookup(&k)
		if !ok {
			t.Fatalf("%d is missing", k)
		}
		tb.Delete(id)
	}
	for k := range uint64(expected) { // a resize takes some operations
		id, _ := tb.Put(&k)
		tb.Delete(id)
	}
	if got := tb.Stats().IndexSlots; got > 3*minBuckets*bucketLen {
		t.Errorf("%d places in an empty table", got)
	}
}

// However a table that was told what to expect fills and empties, there is room
// in its index: it may be shrinking when the next wave comes.
func TestWaves(t *testing.T) {
	for _, expected := range []int{0, 20_000, 262_144, 1 << 20} {
		for _, low := range []uint64{0, 1000, 1270, 1290, 8000, 39_000} {
			tb := New[uint64, uint64](hashInt)
			tb.Expect(expected)
			first, next := uint64(0), uint64(0)
			for _, high := range []uint64{6000, 50_000, 6000, 100_000} {
				for ; next-first < high; next++ {
					tb.Put(&next)
				}
				for ; next-first > low; first++ {
					id, ok := tb.Lookup(&first)
					if !ok {
						t.Fatalf("expecting %d: entry %d is missing", expected, first)
					}
					tb.Delete(id)
				}
				checkTable(t, tb)
			}
		}
	}
}
