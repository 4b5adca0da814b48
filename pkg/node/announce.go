package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// saying is when and what we tell the other node in the body of an ALIVE
// (docs/protocol.md 12). Its loss only delays: what matters is said again.
type saying struct {
	next   time.Duration // when to say something
	full   time.Duration // when to say everything
	pause  time.Duration // to a peer that says nothing of the kind, so far
	urgent bool          // at once
	x      wire.Ext
}

// To a conntrackgo peer something is said each sayEvery, everything each
// sayAllEvery. A C peer cannot be told from one that has yet to answer; it gets
// ever fewer.
const (
	sayEvery    = 5 * time.Second
	sayAllEvery = time.Minute
	sayFirst    = time.Second
	sayMost     = time.Minute
)

// renew says everything, soon and more often, to a peer that is new.
func (s *saying) renew() { s.urgent, s.full, s.pause = true, 0, 0 }

// sayEarly is how much sooner something is said along with other messages: a
// node without traffic needs not wake up for it.
const sayEarly = time.Second / 2

// wantsToSay reports whether an ALIVE is to be sent for what is in its body:
// all that waited has left.
func (n *Node) wantsToSay(now time.Duration) bool {
	s := &n.say
	due := now >= s.next || n.out.ran && s.next-now <= sayEarly
	return n.speaker != nil && (due || s.urgent || n.mark.due) && n.speaker.InTouch()
}

// sayDeadline is d or when there is something to say, if that is earlier.
func (n *Node) sayDeadline(d time.Duration) time.Duration {
	if n.speaker != nil && n.say.next < d && n.speaker.InTouch() {
		return n.say.next
	}
	return d
}

// alive renders an ALIVE, with a body if there is something to say.
func (n *Node) alive(now time.Duration, fr *engine.Frame, dst []byte) []byte {
	if !n.mark.begin && !n.wantsToSay(now) {
		return wire.AppendControl(dst, fr.Header)
	}
	s, x := &n.say, &n.say.x
	*x = wire.Ext{Has: wire.ExtNode, Node: n.cfg.Name}
	known := n.peer.name != wire.NodeName{}
	if known {
		x.Has |= wire.ExtHeard
		x.Heard = n.peer.name
	}
	if now >= s.full {
		s.full = now + sayAllEvery
		x.Has |= wire.ExtSoftware | wire.ExtSettings
		x.Settings = n.settings()
		x.SetSoftware([]byte(n.cfg.Software))
	}
	n.sayMarks(fr.Header.Seq, x)
	n.sayDigest(now, x)
	s.urgent = false
	s.next = now + sayEvery
	if !known {
		s.pause = min(max(2*s.pause, sayFirst), sayMost)
		s.next, s.full = now+s.pause, 0
	}
	n.stats.Extensions.Sent++
	return wire.AppendExt(dst, fr.Header, x)
}
