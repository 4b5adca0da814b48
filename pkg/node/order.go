package node

import (
	"math/bits"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// order is in which order a commit hands out the external cache. With many
// entries it takes seconds, and a connection stands still until its own is in
// the kernel. So first come those that carry data, which the kernel calls
// assured; of these the newest and the oldest by turns, as page loads and
// sessions of hours rather than what was left open in between. Then come the others, and
// last those that need their master's entry (docs/protocol.md 6.2).
//
// It is a counting sort, in pieces: nobody waits for it.
type order struct {
	at      cursor
	now     uint32 // seconds of the node's clock, when it began
	placing bool   // all are counted
	done    bool
	places  [commitClasses * commitAges]uint32 // how many, and then where the next one goes
	ends    [commitClasses]int
	refs    []ref // none where an entry went after it was counted
	late    []ref // came since
	next    int   // to be handed out, from the front
	last    int   // of the first class, from its end
	back    bool
}

// The classes, in their order.
const (
	connected = iota
	unconnected
	related
	commitClasses
)

const (
	// exactAges are the ages in seconds that have a bucket of their own; later
	// ones have eight for each power of two.
	exactAges  = 64
	commitAges = exactAges + 8*(32-6)
	// orderSteps times orderChunk is how many slots of the cache are looked at in
	// one call.
	orderSteps = 8
	orderChunk = 512
)

const tcpEstablished = 3 // TCP_CONNTRACK_ESTABLISHED

func (c *common) commitClass(proto uint8) int {
	switch {
	case flow.Has(c.has).Has(flow.HasMaster):
		return related
	case c.status&flow.StatusAssured == 0, proto == flow.ProtoTCP && c.state != tcpEstablished:
		return unconnected
	}
	return connected
}

// ageBucket returns the bucket of an age in seconds.
func ageBucket(age uint32) int {
	if age < exactAges {
		return int(age)
	}
	n := bits.Len32(age) // at least 7
	return exactAges + 8*(n-7) + int(age>>(n-4))&7
}

// bucket is where an entry goes.
func (o *order) bucket(s *store, r ref) int {
	c := s.common(r)
	return c.commitClass(s.proto(r))*commitAges + ageBucket(o.now-min(c.born, o.now))
}

// prepare does some of the sorting and reports whether all is done.
func (o *order) prepare(now time.Duration, s *store) (done bool) {
	for range orderSteps {
		if !o.done {
			o.step(now, s)
		}
	}
	return o.done
}

func (o *order) step(now time.Duration, s *store) {
	if !o.placing {
		if o.at == (cursor{}) {
			o.now = seconds(now)
		}
		s.scan(&o.at, orderChunk, func(r ref) { o.places[o.bucket(s, r)]++ })
		if o.at.done {
			o.lay()
		}
		return
	}
	s.scan(&o.at, orderChunk, func(r ref) { o.place(o.bucket(s, r), r) })
	o.done = o.at.done
}

// lay makes places of the counts.
func (o *order) lay() {
	sum := uint32(0)
	for b, n := range o.places {
		o.places[b] = sum
		sum += n
		o.ends[b/commitAges] = int(sum)
	}
	o.refs = make([]ref, sum)
	o.last = o.ends[connected]
	o.at, o.placing = cursor{}, true
}

func (o *order) place(bucket int, r ref) {
	at := o.places[bucket]
	o.places[bucket]++
	if int(at) < len(o.refs) && o.refs[at] == none {
		o.refs[at] = r
	} else {
		o.late = append(o.late, r)
	}
}

// take returns the next entry to hand out; none with more where one went, and
// without when there are no more.
func (o *order) take() (r ref, more bool) {
	switch {
	case o.next < o.last && o.back:
		o.last--
		r, o.back = o.refs[o.last], false
	case o.next < o.last:
		r, o.back = o.refs[o.next], true
		o.next++
	case o.next < o.ends[connected]:
		o.next = o.ends[connected]
		return none, true
	case o.next < len(o.refs):
		r = o.refs[o.next]
		o.next++
	case len(o.late) > 0:
		r, o.late = o.late[0], o.late[1:]
	default:
		return none, false
	}
	return r, true
}
