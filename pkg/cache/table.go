// Package cache is the memory of a node: values by key under stable small
// IDs.
//
// Who has to remember an entry, for example a queue that renders it later,
// keeps its ID and pins it. A pinned entry survives Delete as a tombstone
// (Dead) and is freed with its last pin, so an ID in a queue always names the
// entry it was queued for.
//
// Entries live in pages that never move and are released when empty; the hash
// index over them grows and shrinks a few slots per operation, so no call has
// a long pause. If K and V hold no pointers, the collector never looks inside
// a page. Overhead: an entry costs sizeof(K)+sizeof(V)+4, rounded up to the
// alignment of both, and 6.4 to 9.6 bytes of index.
//
// A Table is for one goroutine at a time; it has no locks.
package cache

import (
	"math"
	"unsafe"
)

// ID names an entry while it exists. IDs start at 1 and are dense: the lowest
// page with a free slot is used first.
type ID uint32

// The state word of an entry. Of a free slot it holds the next free slot.
const (
	used    uint32 = 1 << 31
	dead    uint32 = 1 << 30
	pinMask uint32 = dead - 1
)

// Table holds values of type V by keys of type K.
type Table[K comparable, V any] struct {
	hash     func(*K) uint64
	key      K // copy that hash sees, so that callers' keys need not escape
	slab     slab[K, V]
	index    index  // where new entries go
	old      index  // being emptied into index; old.n == 0: no migration
	expected uint32 // buckets; see Expect
	next     uint32
	dead     int
	moved    uint64
}

// New returns an empty table. The hash must depend on all of the key, be of
// good quality in all 64 bits, and be keyed with a secret if keys come from
// strangers; see Seed.
func New[K comparable, V any](hash func(*K) uint64) *Table[K, V] {
	return &Table[K, V]{hash: hash}
}

// Expect says that the table will have n entries if it has more than a few:
// it then grows to that size in one step, and moves its entries once.
func (t *Table[K, V]) Expect(n int) {
	t.expected = uint32(min(n, math.MaxUint32/2) / fullBucket)
}

func (t *Table[K, V]) hashOf(k *K) uint64 {
	t.key = *k
	return t.hash(&t.key)
}

// Lookup returns the entry of k, live or tombstone.
func (t *Table[K, V]) Lookup(k *K) (ID, bool) {
	id := t.find(t.hashOf(k), k)
	return id, id != 0
}

// Put returns the entry of k and creates it with a zero value if there is
// none. A tombstone comes back as it is: see Dead and Revive.
func (t *Table[K, V]) Put(k *K) (id ID, isNew bool) {
	h := t.hashOf(k)
	if id := t.find(h, k); id != 0 {
		return id, false
	}
	id = t.slab.alloc()
	e := t.slab.at(id)
	e.k = *k
	var zero V
	e.v = zero
	e.state = used
	t.rebalance()
	t.index.insert(h, id)
	return id, true
}

// At returns the key and the value of an entry. The pointers stay valid until
// the entry is freed. The key must not be changed.
func (t *Table[K, V]) At(id ID) (*K, *V) {
	e := t.entry(id)
	return &e.k, &e.v
}

// Delete ends an entry: it is freed now, or becomes a tombstone that is freed
// with its last pin. Deleting a tombstone does nothing.
func (t *Table[K, V]) Delete(id ID) {
	e := t.entry(id)
	switch {
	case e.state&dead != 0:
	case e.state&pinMask == 0:
		t.free(id, e)
	default:
		e.state |= dead
		t.dead++
	}
}

// Lives reports whether id, which need not be one any more, is that of a live
// entry.
func (t *Table[K, V]) Lives(id ID) bool {
	e := t.slab.lookup(id)
	return e != nil && e.state&(used|dead) == used
}

// Dead reports whether the entry is a tombstone.
func (t *Table[K, V]) Dead(id ID) bool { return t.entry(id).state&dead != 0 }

// Revive makes a tombstone a live entry again; its value and pins are as they
// were. On a live entry it does nothing.
func (t *Table[K, V]) Revive(id ID) {
	e := t.entry(id)
	if e.state&dead != 0 {
		e.state &^= dead
		t.dead--
	}
}

// Pin keeps the entry from being freed until a matching Unpin. Pins count.
func (t *Table[K, V]) Pin(id ID) {
	e := t.entry(id)
	if e.state&pinMask == pinMask {
		panic("cache: too many pins on one entry")
	}
	e.state++
}

// Unpin takes back one Pin; a tombstone without pins is freed.
func (t *Table[K, V]) Unpin(id ID) {
	e := t.entry(id)
	if e.state&pinMask == 0 {
		panic("cache: unpin without pin")
	}
	e.state--
	if e.state&^used == dead {
		t.dead--
		t.free(id, e)
	}
}

// Pins returns the number of pins of an entry.
func (t *Table[K, V]) Pins(id ID) int { return int(t.entry(id).state & pinMask) }

// Clear forgets everything, pinned entries and tombstones too, and releases
// the memory. No ID given out before may be used after it: the owner drops
// its queues first. To end the entries and keep the queues, Delete each.
func (t *Table[K, V]) Clear() {
	t.slab = slab[K, V]{most: t.slab.most}
	t.index, t.old = index{}, index{}
	t.next, t.dead = 0, 0
}

// Len returns the number of live entries.
func (t *Table[K, V]) Len() int { return t.slab.used - t.dead }

// Total returns the number of entries, tombstones included.
func (t *Table[K, V]) Total() int { return t.slab.used }

// Scan calls fn for the live entries in the next n slots from cursor on, in
// order of their IDs, and returns the cursor to go on with; 0 when the end is
// reached. It starts with cursor 0. The table may change between calls and
// within fn: an entry that lives during the whole scan is visited exactly
// once, one that comes or goes meanwhile at most once.
func (t *Table[K, V]) Scan(cursor ID, n int, fn func(ID, *K, *V)) (next ID) {
	if cursor == 0 {
		cursor = 1
	}
	for ; n > 0; n-- {
		cursor = t.slab.skipEmpty(cursor)
		if cursor == 0 {
			return 0
		}
		e := t.slab.at(cursor)
		if e.state&(used|dead) == used {
			fn(cursor, &e.k, &e.v)
		}
		cursor++
	}
	return t.slab.skipEmpty(cursor)
}

// Stats is the size of a table.
type Stats struct {
	Live, Tombstones int
	Slots            int    // that a Scan visits at most
	SlabBytes        int    // of the pages held
	IndexBytes       int    // of the index, both parts while it is resized
	IndexSlots       int    // places in the index
	Resizing         bool   // the index is moving to another size
	Moved            uint64 // entries moved between indexes since the start
}

// Stats returns the size of the table.
func (t *Table[K, V]) Stats() Stats {
	return Stats{
		Live:       t.Len(),
		Tombstones: t.dead,
		Slots:      t.slab.held * pageLen,
		SlabBytes:  t.slab.held * t.pageBytes(),
		IndexBytes: t.index.bytes() + t.old.bytes(),
		IndexSlots: int(t.index.n) * bucketLen,
		Resizing:   t.old.n != 0,
		Moved:      t.moved,
	}
}

// Peak returns the most bytes that the pages took since it was asked before.
func (t *Table[K, V]) Peak() int {
	most := t.slab.most
	t.slab.most = t.slab.held
	return most * t.pageBytes()
}

func (t *Table[K, V]) pageBytes() int { return pageLen * int(unsafe.Sizeof(entry[K, V]{})) }

// entry returns a used entry and panics on any other ID: whoever holds it has
// broken the contract, and going on would mix up two flows.
func (t *Table[K, V]) entry(id ID) *entry[K, V] {
	e := t.slab.lookup(id)
	if e == nil || e.state&used == 0 {
		panic("cache: no entry with this ID")
	}
	return e
}

func (t *Table[K, V]) find(h uint64, k *K) ID {
	if id := t.findIn(&t.index, h, k); id != 0 || t.old.n == 0 {
		return id
	}
	return t.findIn(&t.old, h, k)
}

func (t *Table[K, V]) findIn(x *index, h uint64, k *K) ID {
	tag := tagOf(h)
	i := x.home(h)
	for range x.n {
		b := x.bucket(i)
		if b == nil {
			return 0
		}
		for m := b.match(tag); m != 0; m &= m - 1 {
			id := b.ids[m.first()]
			if id != 0 && t.slab.at(id).k == *k {
				return id
			}
		}
		if b.over == 0 {
			return 0
		}
		i = x.after(i)
	}
	return 0
}

func (t *Table[K, V]) free(id ID, e *entry[K, V]) {
	h := t.hashOf(&e.k)
	if !t.index.remove(h, id) && !t.old.remove(h, id) {
		panic("cache: entry is not in the index; the hash is not a function of the key")
	}
	t.slab.free(id)
	t.rebalance()
}

// rebalance moves the index on by one bucket if it is being resized, else
// starts a resize if it is too full or too empty. With one bucket per call,
// the index that grows by half is complete long before it is full itself.
func (t *Table[K, V]) rebalance() {
	if t.old.n != 0 {
		t.migrate()
		return
	}
	if n := resized(t.index.n, t.expected, t.slab.used); n != t.index.n {
		t.old, t.index = t.index, newIndex(n)
		t.next = 0
	}
}

func (t *Table[K, V]) migrate() {
	if b := t.old.bucket(t.next); b != nil {
		// A loop of its own, so that the processor waits for the entries,
		// which are all over the memory, at the same time.
		var hashes [bucketLen]uint64
		for i, id := range b.ids {
			if id != 0 {
				hashes[i] = t.hash(&t.slab.at(id).k)
			}
		}
		for i, id := range b.ids {
			if id != 0 {
				t.old.remove(hashes[i], id)
				t.index.insert(hashes[i], id)
				t.moved++
			}
		}
	}
	if t.next++; t.next >= t.old.n {
		t.old = index{}
	}
}
