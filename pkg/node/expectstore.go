package node

import (
	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// An expectStore is one cache of expectations.
type expectStore struct {
	table *cache.Table[expectKey, expectEntry]
	limit int
	gen   uint8 // see sweep.go
	stats CacheStats

	digest digest
}

// expectKey names an expectation as the kernel does: no two of a master have
// the same tuple and mask.
type expectKey struct{ master, tuple, mask flow.Key }

// expectEntry is not packed: the kernel has some hundreds of expectations at
// most, and peers are held to HashLimit.
type expectEntry struct {
	x          flow.Expect
	hash       uint64 // with which it is counted
	born, seen uint32 // seconds of the node's clock, as in common
	flags      entryFlags
	gen        uint8
}

// expectRefs is where the engine's names of expectations begin. The refs of
// flows stay below, see maxLive. Not higher than that needs: an engine keeps a
// pointer for each page of refs below the highest.
const expectRefs ref = 1 << 27

func refExpect(id cache.ID) ref  { return expectRefs | ref(id) }
func (r ref) isExpect() bool     { return r >= expectRefs }
func (r ref) expectID() cache.ID { return cache.ID(r &^ expectRefs) }

func newExpectStore(limit int, seed cache.Seed) *expectStore {
	return &expectStore{limit: limit, table: cache.New[expectKey, expectEntry](func(k *expectKey) uint64 {
		m, t, s := &k.master, &k.tuple, &k.mask
		return seed.Words(
			be64(m.Src[:4], m.Src[4:8]), be64(m.Src[8:12], m.Src[12:]), be64(m.Dst[:4], m.Dst[4:8]), be64(m.Dst[8:12], m.Dst[12:]),
			be64(t.Src[:4], t.Src[4:8]), be64(t.Src[8:12], t.Src[12:]), be64(t.Dst[:4], t.Dst[4:8]), be64(t.Dst[8:12], t.Dst[12:]),
			be64(s.Src[:4], s.Src[4:8]), be64(s.Src[8:12], s.Src[12:]), be64(s.Dst[:4], s.Dst[4:8]), be64(s.Dst[8:12], s.Dst[12:]),
			ports(m.Sport, m.Dport, uint16(m.Family), m.Proto), ports(t.Sport, t.Dport, t.Zone, t.Proto),
			ports(s.Sport, s.Dport, uint16(t.Family), 0))
	})}
}

// keyOfExpect leaves out of the mask what follows from the tuple: not everybody
// fills it in.
func keyOfExpect(x *flow.Expect) expectKey {
	k := expectKey{x.Master, x.Tuple, x.Mask}
	k.master.Zone = 0
	k.mask.Family, k.mask.Proto, k.mask.Zone = 0, 0, 0
	return k
}

func (s *expectStore) at(id cache.ID) *expectEntry {
	_, e := s.table.At(id)
	return e
}

// lookup finds an expectation, dead ones included; 0 if there is none.
func (s *expectStore) lookup(x *flow.Expect) cache.ID {
	k := keyOfExpect(x)
	id, _ := s.table.Lookup(&k)
	return id
}

// put finds or makes the entry of an expectation; 0 if the limit is reached.
func (s *expectStore) put(x *flow.Expect) (id cache.ID, fresh bool) {
	k := keyOfExpect(x)
	if s.table.Len() >= s.limit {
		if id, ok := s.table.Lookup(&k); ok && !s.table.Dead(id) {
			return id, false
		}
		s.stats.CreateFailed++
		s.stats.NoSpace++
		return 0, false
	}
	return s.table.Put(&k)
}

// replace fills an entry anew, as store's replace does.
func (s *expectStore) replace(id cache.ID, fresh bool, x *flow.Expect, now uint32) {
	s.uncount(id)
	e := s.at(id)
	flags := e.flags &^ updated
	if flags&told != 0 {
		flags |= renewed
	}
	switch {
	case fresh:
	case s.table.Dead(id):
		s.table.Revive(id)
	default:
		s.stats.Destroyed++
	}
	s.stats.Created++
	*e = expectEntry{x: *x, born: now, seen: now, flags: flags, gen: s.gen}
}

// update puts what is known now in the place of what was; the age stays.
func (s *expectStore) update(id cache.ID, x *flow.Expect, now uint32) {
	s.uncount(id)
	e := s.at(id)
	e.x, e.seen, e.gen = *x, now, s.gen
	e.flags |= updated
	s.stats.Updated++
}

// remove makes an entry dead.
func (s *expectStore) remove(id cache.ID) {
	s.uncount(id)
	s.table.Delete(id)
}

func (s *expectStore) clear() {
	s.table.Clear()
	s.digest = digest{}
}

// count adds an entry to the digest of its store, or does so anew: the peer has
// been told of it with this message body, or has told us. Its bytes but for the
// timeout are what is hashed, so the two need not agree on what it means. They
// are kept as a hash, which flows have no room for.
func (s *expectStore) count(id cache.ID, body []byte) {
	s.uncount(id)
	e := s.at(id)
	before, behind := wire.AroundTimeout(body)
	e.hash = hashBytes(hashBytes(h3, before), behind)
	e.flags |= counted
	s.digest.add(e.hash)
}

// uncount takes an entry out of the digest, before it changes or ends.
func (s *expectStore) uncount(id cache.ID) {
	if e := s.at(id); e.flags&counted != 0 {
		e.flags &^= counted
		s.digest.sub(e.hash)
	}
}

func (s *expectStore) snapshot() CacheStats {
	c := s.stats
	c.Active, c.Total = s.table.Len(), s.table.Total()
	return c
}

// each visits every live entry; visit may delete it.
func (s *expectStore) each(visit func(cache.ID)) {
	for at, more := cache.ID(0), true; more; more = at != 0 {
		at = s.scan(at, 1<<12, visit)
	}
}

func (s *expectStore) scan(at cache.ID, n int, visit func(cache.ID)) (next cache.ID) {
	return s.table.Scan(at, n, func(id cache.ID, _ *expectKey, _ *expectEntry) { visit(id) })
}
