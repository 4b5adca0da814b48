package cache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is what a Table must do, with maps.
type model struct {
	t       *testing.T
	r       *rand.Rand
	tb      *Table[uint64, uint64]
	ids     map[uint64]ID // by key, tombstones too
	byID    map[ID]*modelEntry
	keys    []uint64 // of byID, for random picks
	values  uint64
	scan    ID
	waiting map[ID]bool // live since the scan began and not visited yet
	visited map[ID]bool
}

type modelEntry struct {
	key, value uint64
	pins, at   int
	dead       bool
}

func newModel(t *testing.T, seed uint64) *model {
	return &model{t: t, r: rand.New(rand.NewPCG(seed, 0)), tb: New[uint64, uint64](hashInt),
		ids: map[uint64]ID{}, byID: map[ID]*modelEntry{}}
}

func (m *model) put(k uint64) {
	id, isNew := m.tb.Put(&k)
	if was, known := m.ids[k]; known == isNew || known && was != id {
		m.t.Fatalf("put %d: got %d, new %v; had %d, %v", k, id, isNew, was, known)
	}
	if isNew {
		if m.byID[id] != nil {
			m.t.Fatalf("put %d: ID %d is in use", k, id)
		}
		m.ids[k], m.byID[id] = id, &modelEntry{key: k, at: len(m.keys)}
		m.keys = append(m.keys, k)
	}
	m.values++
	_, v := m.tb.At(id)
	*v, m.byID[id].value = m.values, m.values
}

func (m *model) pick() (ID, *modelEntry) {
	if len(m.keys) == 0 {
		return 0, nil
	}
	id := m.ids[m.keys[m.r.IntN(len(m.keys))]]
	return id, m.byID[id]
}

func (m *model) gone(id ID, e *modelEntry) {
	last := m.keys[len(m.keys)-1]
	m.keys[e.at], m.byID[m.ids[last]].at = last, e.at
	m.keys = m.keys[:len(m.keys)-1]
	delete(m.ids, e.key)
	delete(m.byID, id)
	delete(m.waiting, id)
	delete(m.visited, id)
}

func (m *model) delete(id ID, e *modelEntry) {
	m.tb.Delete(id)
	delete(m.waiting, id)
	if e.pins == 0 {
		m.gone(id, e)
	} else {
		e.dead = true
	}
}

func (m *model) unpin(id ID, e *modelEntry) {
	m.tb.Unpin(id)
	if e.pins--; e.pins == 0 && e.dead {
		m.gone(id, e)
	}
}

func (m *model) scanStep() {
	if m.scan == 0 {
		m.waiting, m.visited = map[ID]bool{}, map[ID]bool{}
		for id, e := range m.byID {
			if !e.dead {
				m.waiting[id] = true
			}
		}
	}
	n := 1 + m.r.IntN(300)
	seen := 0
	m.scan = m.tb.Scan(m.scan, n, func(id ID, k, v *uint64) {
		e := m.byID[id]
		if e == nil || e.dead || e.key != *k || e.value != *v || m.visited[id] {
			m.t.Fatalf("scan: %d with %d, %d; want %+v, visited %v", id, *k, *v, e, m.visited[id])
		}
		delete(m.waiting, id)
		m.visited[id] = true
		seen++
		if m.r.IntN(20) == 0 {
			m.delete(id, e)
		}
	})
	if seen > n {
		m.t.Fatalf("scan of %d visited %d", n, seen)
	}
	if m.scan == 0 && len(m.waiting) > 0 {
		m.t.Fatalf("scan missed %d of %d entries", len(m.waiting), m.tb.Len())
	}
}

// step does one random operation. grow of 10 of them are Puts.
func (m *model) step(grow int, keySpace uint64) {
	if m.r.IntN(10) < grow {
		m.put(m.r.Uint64N(keySpace))
		return
	}
	id, e := m.pick()
	if e == nil {
		return
	}
	switch op := m.r.IntN(100); {
	case op < 40:
		m.delete(id, e)
	case op < 55:
		m.tb.Pin(id)
		e.pins++
	case op < 80:
		if e.pins > 0 {
			m.unpin(id, e)
		}
	case op < 85:
		m.tb.Revive(id)
		e.dead = false
	case op < 87:
		m.scanStep()
	default:
		k := m.r.Uint64N(keySpace)
		if got, ok := m.tb.Lookup(&k); got != m.ids[k] || ok != (m.ids[k] != 0) {
			m.t.Fatalf("lookup %d: %d, %v; want %d", k, got, ok, m.ids[k])
		}
	}
}

func (m *model) check() {
	m.t.Helper()
	checkTable(m.t, m.tb)
	dead := 0
	for k, id := range m.ids {
		e := m.byID[id]
		gotKey, v := m.tb.At(id)
		if got, ok := m.tb.Lookup(&k); got != id || !ok || *gotKey != k || *v != e.value ||
			m.tb.Dead(id) != e.dead || m.tb.Pins(id) != e.pins {
			m.t.Fatalf("key %d: found %d, holds %d, %d, dead %v, pins %d; want %d, %+v",
				k, got, *gotKey, *v, m.tb.Dead(id), m.tb.Pins(id), id, e)
		}
		if e.dead {
			dead++
		}
	}
	if m.tb.Total() != len(m.ids) || m.tb.Len() != len(m.ids)-dead {
		m.t.Fatalf("%d live of %d; want %d dead of %d", m.tb.Len(), m.tb.Total(), dead, len(m.ids))
	}
}

func TestAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := newModel(t, seed)
			keySpace := []uint64{30, 5000, 1 << 40}[seed%3]
			for phase, grow := range []int{9, 3, 7, 0, 8, 1} {
				for range 20_000 {
					m.step(grow, keySpace)
				}
				m.check()
				if phase == 2 && seed%2 == 0 {
					m.tb.Clear()
					fresh := newModel(t, seed+100)
					m.ids, m.byID, m.keys, m.scan = fresh.ids, fresh.byID, nil, 0
				}
			}
			m.drain()
		})
	}
}

// drain frees everything; nothing may be left behind.
func (m *model) drain() {
	for _, id := range slices.Sorted(maps.Keys(m.byID)) {
		e := m.byID[id]
		for e.pins > 0 && m.byID[id] == e {
			m.unpin(id, e)
		}
		if m.byID[id] == e {
			m.delete(id, e)
		}
	}
	m.check()
	if s := m.tb.Stats(); s.Live != 0 || s.Tombstones != 0 || len(m.tb.slab.pages) != 0 {
		m.t.Errorf("after the end: %+v, %d pages", s, len(m.tb.slab.pages))
	}
}

// A scan steps over holes in one go, and its work is bounded by n slots.
func TestScanBounded(t *testing.T) {
	tb := New[uint64, uint64](hashInt)
	for k := range uint64(20 * pageLen) {
		mustPut(t, tb, k)
	}
	for id := ID(2); id < 20*pageLen; id++ {
		tb.Delete(id)
	}
	var got []ID
	visit := func(id ID, _, _ *uint64) { got = append(got, id) }
	calls := 0
	for c := tb.Scan(0, 100, visit); c != 0; c = tb.Scan(c, 100, visit) {
		calls++
	}
	if !slices.Equal(got, []ID{1, 20 * pageLen}) {
		t.Errorf("visited %v", got)
	}
	if want := 2 * pageLen / 100; calls < want-1 || calls > want+2 {
		t.Errorf("%d calls for two pages of %d slots", calls, pageLen)
	}
	if c := tb.Scan(1<<31, 10, visit); c != 0 {
		t.Errorf("a cursor beyond the end goes on to %d", c)
	}
}
