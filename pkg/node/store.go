package node

import (
	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A store is one cache of flows: an IPv4 and an IPv6 table of packed,
// pointer-free entries, and a slab for the attributes few flows have.
type store struct {
	v4    *cache.Table[key4, entry4]
	v6    *cache.Table[key6, entry6]
	rare  rareSlab
	limit int
	gen   uint8 // present generation, which wraps; see sweep.go
	stats CacheStats

	digest   digest
	counting bool         // the digest is kept
	travel   wire.Options // and what of a flow is in it;
	marks    uint64       // of its mark
	scratch  flow.Flow
}

// A ref names one entry of a store: the ID of its table, and the family in
// the lowest bit.
type ref uint32

const none ref = 0

func ref4(id cache.ID) ref { return ref(id) << 1 }
func ref6(id cache.ID) ref { return ref(id)<<1 | 1 }

func (r ref) is6() bool    { return r&1 != 0 }
func (r ref) id() cache.ID { return cache.ID(r >> 1) }

type key4 struct {
	src, dst           [4]byte
	sport, dport, zone uint16
	proto              uint8
}

type key6 struct {
	src, dst           flow.Addr
	sport, dport, zone uint16
	proto              uint8
}

// entry4 with its key fills one cache line: on a firewall that translates,
// nearly every IPv4 flow has NAT. IPv6 NAT is rare and lives with the rare.
type entry4 struct {
	nat nat4
	common
}

type nat4 struct {
	src, dst     [4]byte
	sport, dport uint16
}

type entry6 struct {
	common
}

// common is what entries of both families have.
type common struct {
	has     uint32 // flow.Has, without what a cache never keeps
	status  uint32
	timeout uint32 // seconds
	mark    uint32
	id      uint32
	born    uint32 // seconds of the node's clock, when inserted
	seen    uint32 // seconds of the node's clock, when last changed
	rare    uint32 // index in the rare slab, 0 none
	state   uint8
	wscale  uint8 // original in the low nibble, reply in the high one
	flags   entryFlags
	gen     uint8
}

type entryFlags uint8

const (
	updated entryFlags = 1 << iota // has been updated since it was inserted
	told                           // the peer may know it
	renewed                        // the peer may hold an earlier flow of this tuple
	unsaid                         // a refresh changed it, and kept silent
	assumed                        // the kernel is about to be given it, and has not spoken of it yet
	lively                         // an event made or changed it, so a packet went through
	counted                        // it is part of the digest
	found                          // a sweep found it missing or different, and no event has spoken of it since
)

// kept are the attributes an entry keeps; counters and use count are not
// worth their memory and the C daemon drops them too.
const kept = (flow.HasStop<<1 - 1) &^ (flow.HasUse | flow.HasCounters)

// inRare are the attributes of the rare record.
const inRare = flow.HasVtag | flow.HasRole | flow.HasMaster | flow.HasMasterPort |
	flow.HasSeqOrig | flow.HasSeqRepl | flow.HasHelper | flow.HasLabels |
	flow.HasSynproxy | flow.HasZoneRepl | flow.HasStart | flow.HasStop

func newStore(size, limit int, seed cache.Seed) *store {
	s := &store{
		v4: cache.New[key4, entry4](func(k *key4) uint64 {
			return seed.Words(be64(k.src[:], k.dst[:]), ports(k.sport, k.dport, k.zone, k.proto))
		}),
		v6: cache.New[key6, entry6](func(k *key6) uint64 {
			return seed.Words(
				be64(k.src[:4], k.src[4:8]), be64(k.src[8:12], k.src[12:]),
				be64(k.dst[:4], k.dst[4:8]), be64(k.dst[8:12], k.dst[12:]),
				ports(k.sport, k.dport, k.zone, k.proto))
		}),
		limit: min(limit, maxLive),
	}
	size = min(size, s.limit, mostExpected)
	s.v4.Expect(size)
	s.v6.Expect(size)
	return s
}

// mostExpected bounds the memory that a large HashSize takes: an index of
// 27 MB, of which parts are taken as they are used.
const mostExpected = 1 << 22

// maxLive is how many flows fit below expectRefs, tombstones aside, of which
// there are no more than the resend queue is long.
const maxLive = int(expectRefs>>1) - 1<<23

func be64(a, b []byte) uint64 {
	_, _ = a[3], b[3]
	return uint64(a[0])<<56 | uint64(a[1])<<48 | uint64(a[2])<<40 | uint64(a[3])<<32 |
		uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}

func ports(sport, dport, zone uint16, proto uint8) uint64 {
	return uint64(sport)<<48 | uint64(dport)<<32 | uint64(zone)<<16 | uint64(proto)
}

func packKey4(k *flow.Key) key4 {
	p := key4{sport: k.Sport, dport: k.Dport, zone: k.Zone, proto: k.Proto}
	copy(p.src[:], k.Src[:4])
	copy(p.dst[:], k.Dst[:4])
	return p
}

func packKey6(k *flow.Key) key6 {
	return key6{src: k.Src, dst: k.Dst, sport: k.Sport, dport: k.Dport, zone: k.Zone, proto: k.Proto}
}

func packNAT4(n *flow.NAT) (p nat4) {
	copy(p.src[:], n.Src[:4])
	copy(p.dst[:], n.Dst[:4])
	p.sport, p.dport = n.Sport, n.Dport
	return p
}

// lookup finds the entry of a key, dead ones included.
func (s *store) lookup(k *flow.Key) ref {
	if k.Family == flow.IPv6 {
		k6 := packKey6(k)
		if id, ok := s.v6.Lookup(&k6); ok {
			return ref6(id)
		}
		return none
	}
	k4 := packKey4(k)
	if id, ok := s.v4.Lookup(&k4); ok {
		return ref4(id)
	}
	return none
}

// put finds or makes the entry of a key; fresh entries are zero. It returns
// none when there are as many live ones as the limit allows. Tombstones do not
// count, for a peer that is gone would fill the cache with them; the resend
// queue bounds their number.
func (s *store) put(k *flow.Key) (r ref, fresh bool) {
	if s.live() >= s.limit {
		if r = s.lookup(k); r == none || s.dead(r) {
			s.stats.CreateFailed++
			s.stats.NoSpace++
			return none, false
		}
		return r, false
	}
	if k.Family == flow.IPv6 {
		k6 := packKey6(k)
		id, isNew := s.v6.Put(&k6)
		return ref6(id), isNew
	}
	k4 := packKey4(k)
	id, isNew := s.v4.Put(&k4)
	return ref4(id), isNew
}

func (s *store) common(r ref) *common {
	if r.is6() {
		_, e := s.v6.At(r.id())
		return &e.common
	}
	_, e := s.v4.At(r.id())
	return &e.common
}

func (s *store) dead(r ref) bool {
	if r.is6() {
		return s.v6.Dead(r.id())
	}
	return s.v4.Dead(r.id())
}

// lives reports whether r, which may be of an entry that was, is that of a live
// one.
func (s *store) lives(r ref) bool {
	if r.is6() {
		return s.v6.Lives(r.id())
	}
	return r != none && s.v4.Lives(r.id())
}

// proto is the protocol of an entry.
func (s *store) proto(r ref) uint8 {
	if r.is6() {
		k, _ := s.v6.At(r.id())
		return k.proto
	}
	k, _ := s.v4.At(r.id())
	return k.proto
}

func (s *store) revive(r ref) {
	if r.is6() {
		s.v6.Revive(r.id())
	} else {
		s.v4.Revive(r.id())
	}
}

func (s *store) pin(r ref) {
	if r.is6() {
		s.v6.Pin(r.id())
	} else {
		s.v4.Pin(r.id())
	}
}

// unpin gives up a pin; a dead entry without pins is freed.
func (s *store) unpin(r ref) {
	if s.dead(r) {
		s.dropRare(s.common(r))
	}
	if r.is6() {
		s.v6.Unpin(r.id())
	} else {
		s.v4.Unpin(r.id())
	}
}

// remove makes an entry dead: freed now, or with its last pin. A tombstone
// keeps its attributes, for its deletion message carries them.
func (s *store) remove(r ref, pinned bool) {
	c := s.common(r)
	s.uncount(r, c)
	if !pinned {
		s.dropRare(c)
	}
	if r.is6() {
		s.v6.Delete(r.id())
	} else {
		s.v4.Delete(r.id())
	}
}

func (s *store) live() int  { return s.v4.Len() + s.v6.Len() }
func (s *store) total() int { return s.v4.Total() + s.v6.Total() }

// slots is how many a walk over all entries visits at most.
func (s *store) slots() int { return s.v4.Stats().Slots + s.v6.Stats().Slots }

// bytes is what the store has of the heap.
func (s *store) bytes() int {
	v4, v6 := s.v4.Stats(), s.v6.Stats()
	return v4.SlabBytes + v4.IndexBytes + v6.SlabBytes + v6.IndexBytes + s.rare.bytes()
}

func (s *store) clear() {
	s.v4.Clear()
	s.v6.Clear()
	s.rare = rareSlab{}
	s.digest = digest{}
}

// A cursor is a place in a walk over a store: first the IPv4 table, then the
// IPv6 one. The zero cursor is the start.
type cursor struct {
	six  bool
	next cache.ID
	done bool
}

// scan visits up to n slots from c on and moves c. Entries may come and go
// between two calls; one that is there all the time is visited once.
func (s *store) scan(c *cursor, n int, visit func(ref)) {
	if c.done {
		return
	}
	if !c.six {
		c.next = s.v4.Scan(c.next, n, func(id cache.ID, _ *key4, _ *entry4) { visit(ref4(id)) })
		if c.next == 0 {
			c.six = true
		}
		return
	}
	c.next = s.v6.Scan(c.next, n, func(id cache.ID, _ *key6, _ *entry6) { visit(ref6(id)) })
	c.done = c.next == 0
}
