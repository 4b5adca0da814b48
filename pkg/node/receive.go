package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// message takes one message. What its body says is read before its number is
// believed.
func (n *Node) message(now time.Duration, m *wire.Message) {
	var b body
	var x *wire.Ext
	if m.Type <= wire.ExpDel {
		b = n.read(m)
	} else if len(m.Body) > 0 {
		var ok bool
		if x, ok = n.extension(m); !ok {
			n.stats.Network.badPayload()
			return
		}
	}
	var v engine.Verdict
	if b.bad && n.holder != nil && m.Class() == wire.Data {
		v = n.holder.Refuse(now, m.Header)
	} else {
		v = n.engine.Receive(now, m.Header)
	}
	switch v {
	case engine.Bad:
		n.stats.Network.Malformed++
		n.stats.Network.BadHeader++
	case engine.Hold:
		n.early.keep(m)
	case engine.Deliver:
		n.deliver(now, m, b)
		n.taken(now, m.Seq)
	case engine.Control:
		if x != nil {
			// Its marks and its digest are of what the messages before it did, and
			// the end of a resync, or a new life, may be among that.
			n.settle(now)
			n.heardExt(now, m.Seq, x)
		}
		n.taken(now, m.Seq)
	}
}

// taken notes that a message of the peer was taken.
func (n *Node) taken(now time.Duration, seq uint32) {
	p := &n.peer
	if !p.heard {
		p.heard, p.firstAt = true, now
	}
	if n.silent.said {
		n.heardAgain(now)
	}
	p.lastAt = now
	if n.hear.open {
		n.hearMore(seq)
	}
}

// deliver applies a data message to the external cache (docs/protocol.md 6.1).
func (n *Node) deliver(now time.Duration, m *wire.Message, b body) {
	switch {
	case m.Type > wire.ExpDel:
		n.stats.Network.Malformed++
		n.stats.Network.BadType++
		return
	case b.bad:
		n.stats.Network.badPayload()
		return
	case m.Type >= wire.ExpNew:
		n.deliverExpect(now, m)
		return
	}
	f := b.flow
	n.doubt(f)
	if n.cfg.DisableExternalCache {
		n.injected(now, m)
		return
	}
	s := n.external
	if m.Type == wire.CTDel {
		if r := s.lookup(&f.Key); r != none {
			if n.ending != nil {
				n.ending(now, &f.Key, s.common(r).seen)
			}
			n.gone(r)
		}
		return
	}
	r, fresh := s.put(&f.Key)
	if r == none {
		n.limitReached(External)
		return
	}
	n.heard(now, r)
	if m.Type == wire.CTNew || fresh {
		n.replace(now, s, r, fresh, f)
		s.count(r, s.common(r))
		return
	}
	// A message carries all its sender knows of the flow. What it does not
	// mention is not so (any more), a cleared label for one.
	c := s.common(r)
	s.uncount(r, c)
	s.save(r, f)
	s.stats.Updated++
	c.seen = seconds(now)
	c.gen = s.gen
	s.count(r, c)
}

// gone ends an external entry.
func (n *Node) gone(r ref) {
	n.unheard(r)
	if n.holds() {
		n.ended(r)
	}
	n.external.stats.Destroyed++
	n.external.remove(r, false)
}

// body is what a data message says.
type body struct {
	bad  bool
	flow *flow.Flow
}

// read reads the body of a data message into what the node has for it.
func (n *Node) read(m *wire.Message) (b body) {
	var err error
	switch {
	case m.Type >= wire.ExpNew:
		err = n.wire.ParseExpect(m.Body, &n.expects.scratch)
	case n.cfg.DisableExternalCache:
		b.flow = n.nextInjection()
		err = n.wire.ParseFlow(m.Body, b.flow)
	default:
		b.flow = &n.other
		err = n.wire.ParseFlow(m.Body, b.flow)
	}
	b.bad = err != nil
	return b
}

var doubts = [...]NoticeKind{wire.NoDoubt: 0, wire.PeerOlder: PeerLooksOlder, wire.PeerNewer: PeerLooksNewer}

// doubt says, once, that a message looks as if PeerVersion were wrong.
func (n *Node) doubt(f *flow.Flow) {
	if n.doubted || !f.Has.Any(wire.Doubtful) {
		return
	}
	kind := doubts[n.wire.Doubt(f)]
	if n.doubted = kind != 0; n.doubted {
		n.notices = append(n.notices, Notice{Kind: kind})
	}
}
