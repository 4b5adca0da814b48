package cache

import "math/bits"

// pageLen entries make a page. With entries of a multiple of 8 bytes a page
// is a multiple of the allocator's 8 KiB, so no memory is lost to rounding.
const pageLen = 1024

type entry[K comparable, V any] struct {
	k     K
	state uint32
	v     V
}

// pageInfo describes one page. Its free slots are linked through their state
// words, by position+1; slots from fresh on were never used.
type pageInfo[K comparable, V any] struct {
	entries     *[pageLen]entry[K, V] // nil: released
	free        uint32
	fresh, used int
}

// slab hands out entries under IDs. Entry id is in page (id-1)/pageLen. Low
// pages are filled first, so that after a flood the high ones run empty and
// can be released.
type slab[K comparable, V any] struct {
	pages []pageInfo[K, V]
	open  []uint64 // a bit per page: it has a free slot or is released
	low   int      // no word of open below this one has a bit
	spare *[pageLen]entry[K, V]
	used  int // entries
	held  int // pages with memory, the spare included
	most  int // the largest held since Peak was asked
}

// at returns an entry that is known to exist.
func (s *slab[K, V]) at(id ID) *entry[K, V] {
	i := uint32(id) - 1
	return &s.pages[i/pageLen].entries[i%pageLen]
}

// lookup returns the slot of any number, nil if it has none.
func (s *slab[K, V]) lookup(id ID) *entry[K, V] {
	i := uint32(id) - 1
	p := i / pageLen
	if p >= uint32(len(s.pages)) {
		return nil
	}
	page := s.pages[p].entries
	if page == nil {
		return nil
	}
	return &page[i%pageLen]
}

// alloc takes a free slot. Its content is the caller's to set.
func (s *slab[K, V]) alloc() ID {
	p := s.openPage()
	info := &s.pages[p]
	if info.entries == nil {
		s.fill(info)
	}
	i := info.free
	if i != 0 {
		info.free = info.entries[i-1].state
	} else {
		info.fresh++
		i = uint32(info.fresh)
	}
	info.used++
	s.used++
	if info.used == pageLen {
		s.open[p/64] &^= 1 << (p % 64)
	}
	return ID(uint32(p)*pageLen + i)
}

// openPage returns the lowest page with a free slot, a new one if all are full.
func (s *slab[K, V]) openPage() int {
	for ; s.low < len(s.open); s.low++ {
		if w := s.open[s.low]; w != 0 {
			return s.low*64 + bits.TrailingZeros64(w)
		}
	}
	p := len(s.pages)
	if p >= 1<<32/pageLen {
		panic("cache: no ID left")
	}
	s.pages = append(s.pages, pageInfo[K, V]{})
	if p/64 == len(s.open) {
		s.open = append(s.open, 0)
	}
	s.open[p/64] |= 1 << (p % 64)
	s.low = p / 64
	return p
}

// fill gives a page its memory. The entries of the spare are stale, but all
// were freed: none of them says that it is used.
func (s *slab[K, V]) fill(info *pageInfo[K, V]) {
	if s.spare != nil {
		info.entries, s.spare = s.spare, nil
		return
	}
	info.entries = new([pageLen]entry[K, V])
	s.held++
	s.most = max(s.most, s.held)
}

// free gives a slot back, and the memory of its page if it was the last.
func (s *slab[K, V]) free(id ID) {
	p, i := int(uint32(id)-1)/pageLen, (uint32(id)-1)%pageLen
	info := &s.pages[p]
	info.entries[i].state = info.free
	info.free = i + 1
	info.used--
	s.used--
	s.open[p/64] |= 1 << (p % 64)
	s.low = min(s.low, p/64)
	if info.used == 0 {
		s.release(p)
	}
}

// release takes the memory of an empty page. One page is kept, so that a
// table at the edge of a page does not allocate and release in turns.
func (s *slab[K, V]) release(p int) {
	info := &s.pages[p]
	if s.spare == nil {
		s.spare = info.entries
	} else {
		s.held--
	}
	*info = pageInfo[K, V]{}
	n := len(s.pages)
	for n > 0 && s.pages[n-1].entries == nil {
		n--
		s.open[n/64] &^= 1 << (n % 64)
	}
	s.pages = s.pages[:n]
	s.open = s.open[:(n+63)/64]
}

// skipEmpty returns the first slot from id on whose page has memory and that
// was used at some time, 0 if there is none.
func (s *slab[K, V]) skipEmpty(id ID) ID {
	i := uint32(id) - 1
	for p := i / pageLen; p < uint32(len(s.pages)); p++ {
		if i < p*pageLen {
			i = p * pageLen
		}
		if info := &s.pages[p]; info.entries != nil && i%pageLen < uint32(info.fresh) {
			return ID(i + 1)
		}
	}
	return 0
}
