package cache

import (
	"encoding/binary"
	"math"
	"math/bits"
	"testing"
)

// Each input bit flips each output bit about half of the time.
func TestAvalanche(t *testing.T) {
	const rounds = 2000
	s := NewSeed(1, 2)
	var flips [5 * 64][64]int
	for r := range uint64(rounds) {
		w := [5]uint64{r, r << 32, 0, r * r, 6}
		h := s.Words(w[:]...)
		for bit := range 5 * 64 {
			w[bit/64] ^= 1 << (bit % 64)
			d := h ^ s.Words(w[:]...)
			w[bit/64] ^= 1 << (bit % 64)
			for ; d != 0; d &= d - 1 {
				flips[bit][bits.TrailingZeros64(d)]++
			}
		}
	}
	for bit := range flips {
		for out, n := range flips[bit] {
			if p := float64(n) / rounds; math.Abs(p-0.5) > 0.07 { // six sigma
				t.Fatalf("input bit %d flips output bit %d in %.2f of the cases", bit, out, p)
			}
		}
	}
}

// Keys as a scan makes them, only ports and low address bits changing, spread
// over buckets and tags like random ones: chi-squared in both.
func TestSpread(t *testing.T) {
	const n, cells = 1 << 18, 1 << 10
	var high, low [cells]int
	for i := range uint64(n) {
		k := keyOf(0)
		k.dst[3], k.dport = byte(i>>16), uint16(i)
		h := hashKey(&k)
		high[h>>54]++
		low[h%cells]++
	}
	for name, counts := range map[string]*[cells]int{"high": &high, "low": &low} {
		chi := 0.0
		for _, c := range counts {
			d := float64(c) - n/cells
			chi += d * d / (n / cells)
		}
		if sigma := (chi - (cells - 1)) / math.Sqrt(2*(cells-1)); math.Abs(sigma) > 5 {
			t.Errorf("%s bits: %.1f sigma from even", name, sigma)
		}
	}
}

// What collides, or shares a bucket, under one seed does not under another.
func TestSeedMatters(t *testing.T) {
	a, b := NewSeed(1, 2), NewSeed(1, 3)
	const buckets = 1 << 12
	both := 0
	for i := range uint64(1 << 16) {
		if a.Words(i)>>52 == 7 && b.Words(i)>>52 == 7 {
			both++
		}
	}
	if both > 3 { // 2^16 / 2^24 expected
		t.Errorf("%d of 65536 keys are in bucket 7 of %d under both seeds", both, buckets)
	}
	if NewSeed(0, 0) == (Seed{}) || NewSeed(0, 0) == NewSeed(0, 1) || NewSeed(1, 0) == NewSeed(0, 1) {
		t.Error("weak seeds")
	}
}

func TestLengthMatters(t *testing.T) {
	s := NewSeed(1, 2)
	words, ofBytes := map[uint64]bool{}, map[uint64]bool{}
	for n := range 40 {
		words[s.Words(make([]uint64, n)...)] = true
		ofBytes[s.Bytes(make([]byte, n))] = true
	}
	if len(words) != 40 || len(ofBytes) != 40 {
		t.Errorf("rows of 0 to 39 zeros have %d and %d hashes", len(words), len(ofBytes))
	}
}

func TestEachByteMatters(t *testing.T) {
	s := NewSeed(1, 2)
	seen := map[uint64]bool{}
	b := make([]byte, 33)
	for i := range b {
		b[i] = 1
		seen[s.Bytes(b)] = true
		b[i] = 0
	}
	if len(seen) != len(b) {
		t.Errorf("%d of %d hashes differ", len(seen), len(b))
	}
}

// A factor of zero must not wipe out the other half of a pair: whoever could
// hit the seed would have collisions at will.
func TestZeroFactorKeepsEntropy(t *testing.T) {
	s := NewSeed(1, 2)
	seen := map[uint64]bool{}
	for i := range uint64(1000) {
		seen[s.Words(s[1], i)] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 hashes differ", len(seen))
	}
}

func TestHashAllocatesNothing(t *testing.T) {
	s := NewSeed(1, 2)
	b := make([]byte, 40)
	var sum uint64
	if n := testing.AllocsPerRun(100, func() {
		sum += s.Words(1, 2, 3, 4, sum) + s.Bytes(b)
		binary.LittleEndian.PutUint64(b, sum)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWords5(b *testing.B) {
	s := NewSeed(1, 2)
	var h uint64
	for b.Loop() {
		h = s.Words(h, 2, 3, 4, 5)
	}
}

func BenchmarkBytes40(b *testing.B) {
	s := NewSeed(1, 2)
	buf := make([]byte, 40)
	for b.Loop() {
		binary.LittleEndian.PutUint64(buf, s.Bytes(buf))
	}
}
