package cache

import (
	"math/bits"
	"unsafe"
)

// The index is open addressing over buckets of one cache line. A search reads
// the bucket its hash points at, compares eight-bit tags, and goes to the
// entry only on a match. A bucket counts the entries that found it full and
// went on to the next; where none did, a search ends. Removing an entry takes
// its counts back, so nothing builds up however long entries come and go.
const (
	bucketLen   = 12
	fullBucket  = 10  // entries per bucket at which the index grows
	chunkLen    = 512 // buckets in one allocation
	minBuckets  = 8
	nearBuckets = 4096 // 256 KB, which leaves most of a second-level cache to the entries
)

type bucket struct {
	tags8 uint64 // of ids[0:8]; 0 is an empty place
	tags4 uint32 // of ids[8:12]
	over  uint32 // entries that went past this bucket
	ids   [bucketLen]ID
}

type index struct {
	chunks []*[chunkLen]bucket // allocated when first used
	n      uint32              // buckets
	held   int                 // chunks allocated
}

func newIndex(n uint32) index {
	return index{chunks: make([]*[chunkLen]bucket, (n+chunkLen-1)/chunkLen), n: n}
}

// resized returns the number of buckets for so many entries: half as much
// again above ten entries per bucket, a good fit below one and a half, else n
// as it is. A table that grows out of the processor's near caches grows to
// what is expected of it at once, and stays so until it would fit into them. It
// shrinks to a quarter at most: as many entries may come as it has buckets
// before the last has moved, and they must find room.
func resized(n, expected uint32, entries int) uint32 {
	switch {
	case n == 0:
		return minBuckets
	case entries > int(n)*fullBucket && n >= nearBuckets:
		return max(n+n/2, expected)
	case entries > int(n)*fullBucket:
		return n + n/2
	case n > nearBuckets && n <= expected && entries > nearBuckets*fullBucket/4:
		return n
	case n > 2*minBuckets && entries < int(n)*3/2:
		return max(minBuckets, n/4, uint32(entries/(fullBucket/2)))
	}
	return n
}

func tagOf(h uint64) uint8 {
	return max(uint8(h), 1)
}

func (x *index) home(h uint64) uint32 {
	i, _ := bits.Mul64(h, uint64(x.n))
	return uint32(i)
}

func (x *index) after(i uint32) uint32 {
	if i++; i == x.n {
		return 0
	}
	return i
}

// bucket returns bucket i, nil if nothing was ever put into its chunk.
func (x *index) bucket(i uint32) *bucket {
	c := x.chunks[i/chunkLen]
	if c == nil {
		return nil
	}
	return &c[i%chunkLen]
}

// insert adds an entry that is not in the index. The index must have room.
func (x *index) insert(h uint64, id ID) {
	i := x.home(h)
	for range x.n {
		if x.chunks[i/chunkLen] == nil {
			x.chunks[i/chunkLen] = new([chunkLen]bucket)
			x.held++
		}
		b := x.bucket(i)
		if m := b.match(0); m != 0 {
			b.set(m.first(), tagOf(h), id)
			return
		}
		b.over++
		i = x.after(i)
	}
	panic("cache: no room in the index")
}

// remove takes an entry out and reports whether it was there.
func (x *index) remove(h uint64, id ID) bool {
	tag := tagOf(h)
	i := x.home(h)
	for range x.n {
		b := x.bucket(i)
		if b == nil {
			return false
		}
		for m := b.match(tag); m != 0; m &= m - 1 {
			if p := m.first(); b.ids[p] == id {
				b.set(p, 0, 0)
				x.uncount(x.home(h), i)
				return true
			}
		}
		if b.over == 0 {
			return false
		}
		i = x.after(i)
	}
	return false
}

// uncount takes back what an entry counted on its way from its home bucket to
// the one where it was.
func (x *index) uncount(home, i uint32) {
	for ; home != i; home = x.after(home) {
		x.bucket(home).over--
	}
}

func (x *index) bytes() int {
	const pointer = int(unsafe.Sizeof(uintptr(0)))
	return x.held*chunkLen*int(unsafe.Sizeof(bucket{})) + len(x.chunks)*pointer
}

// places is a set of positions in a bucket.
type places uint32

func (m places) first() int { return bits.TrailingZeros32(uint32(m)) }

// match returns the places whose tag is tag. Above a true match there may be
// a false one, never below it; callers compare IDs or keys, or take the first.
func (b *bucket) match(tag uint8) places {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	const gather = 0x0102040810204080 // moves the lowest bit of each byte to the top byte
	want := uint64(tag) * ones
	x := b.tags8 ^ want
	y := uint64(b.tags4) ^ want&0xffffffff
	x = (x - ones) & ^x & tops
	y = (y - ones) & ^y & (tops & 0xffffffff)
	return places(x>>7*gather>>56 | y>>7*gather>>56<<8)
}

func (b *bucket) set(place int, tag uint8, id ID) {
	b.ids[place] = id
	if shift := place * 8; shift < 64 {
		b.tags8 = b.tags8&^(0xff<<shift) | uint64(tag)<<shift
	} else {
		shift -= 64
		b.tags4 = b.tags4&^(0xff<<shift) | uint32(tag)<<shift
	}
}
