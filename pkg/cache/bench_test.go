package cache

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

const million = 1_000_000

func filledTable() *Table[key, value] {
	tb := New[key, value](hashKey)
	for n := range uint64(million) {
		k := keyOf(n)
		tb.Put(&k)
	}
	return tb
}

// What an operation costs by the size of the table: but for the caches of the
// processor it is the same.
func BenchmarkSize(b *testing.B) {
	for _, size := range []uint64{10_000, 100_000, million} {
		tb := New[key, value](hashKey)
		for n := range size {
			k := keyOf(n)
			tb.Put(&k)
		}
		r := rand.New(rand.NewPCG(1, 2))
		b.Run(fmt.Sprintf("lookup/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k := keyOf(r.Uint64N(size))
				tb.Lookup(&k)
			}
		})
		b.Run(fmt.Sprintf("delete and put/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k := keyOf(r.Uint64N(size))
				id, _ := tb.Lookup(&k)
				tb.Delete(id)
				tb.Put(&k)
			}
		})
	}
}

func BenchmarkUpdateRandom(b *testing.B) {
	tb := filledTable()
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		k := keyOf(r.Uint64N(million))
		id, _ := tb.Put(&k)
		_, v := tb.At(id)
		v.n++
	}
}

func BenchmarkLookupMiss(b *testing.B) {
	tb := filledTable()
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		k := keyOf(million + r.Uint64N(million))
		tb.Lookup(&k)
	}
}

// The table stays at a million; each round makes an entry and ends the oldest.
func BenchmarkNewDelete(b *testing.B) {
	tb := filledTable()
	n := uint64(million)
	b.ReportAllocs()
	for b.Loop() {
		k := keyOf(n)
		tb.Put(&k)
		k = keyOf(n - million)
		id, _ := tb.Lookup(&k)
		tb.Delete(id)
		n++
	}
}

// An entry that ends right after it began, as short flows do.
func BenchmarkNewDeleteSame(b *testing.B) {
	tb := filledTable()
	n := uint64(million)
	b.ReportAllocs()
	for b.Loop() {
		k := keyOf(n)
		id, _ := tb.Put(&k)
		tb.Delete(id)
		n++
	}
}

func BenchmarkGrow(b *testing.B) {
	tb := New[key, value](hashKey)
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if n == million {
			tb.Clear()
			n = 0
		}
		k := keyOf(n)
		tb.Put(&k)
		n++
	}
}

func BenchmarkScan(b *testing.B) {
	tb := filledTable()
	var sum uint64
	visit := func(_ ID, _ *key, v *value) { sum += v.n }
	cursor := ID(0)
	b.ReportAllocs()
	for b.Loop() {
		cursor = tb.Scan(cursor, 1000, visit)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/entry")
}
