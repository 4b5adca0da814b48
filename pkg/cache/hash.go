package cache

import (
	"encoding/binary"
	"math/bits"
)

// Seed is the secret of a hash. Flow keys are chosen by strangers: without a
// secret they could be chosen to collide.
type Seed [4]uint64

// NewSeed returns the seed made from 128 random bits.
func NewSeed(a, b uint64) Seed {
	var s Seed
	for i := range s {
		a, b = splitmix(a), splitmix(b+a)
		s[i] = a ^ bits.RotateLeft64(b, 32)
	}
	return s
}

func splitmix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// mix folds the product of a and b and keeps both, so that a zero factor does
// not wipe out the other (the protected form of wyhash).
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ a ^ lo ^ b
}

// Words hashes a row of words. Rows of different length have different hashes.
func (s *Seed) Words(w ...uint64) uint64 {
	h := s[0] ^ uint64(len(w))*0x9e3779b97f4a7c15
	for len(w) >= 2 {
		h = mix(w[0]^s[1], w[1]^h)
		w = w[2:]
	}
	if len(w) == 1 {
		h = mix(w[0]^s[2], h)
	}
	return mix(h^s[3], s[1]^0xa0761d6478bd642f)
}

// Bytes hashes a row of bytes. It is not the hash of the same bytes as words.
func (s *Seed) Bytes(b []byte) uint64 {
	h := s[0] ^ uint64(len(b))*0x9e3779b97f4a7c15
	for len(b) >= 16 {
		h = mix(binary.LittleEndian.Uint64(b)^s[1], binary.LittleEndian.Uint64(b[8:])^h)
		b = b[16:]
	}
	var tail [16]byte
	copy(tail[:], b)
	h = mix(binary.LittleEndian.Uint64(tail[:])^s[2], binary.LittleEndian.Uint64(tail[8:])^h)
	return mix(h^s[3], s[1]^0xa0761d6478bd642f)
}
