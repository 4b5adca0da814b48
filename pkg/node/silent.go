package node

import "time"

// silent is what is said of a pair's peer that has fallen silent: a living one
// says something each second. A group's is given up instead; see away.go.
type silent struct {
	said   bool
	looked time.Duration // when Tick came last,
	from   time.Duration // and since when it has come in time
}

// lookMost is how long a node at work goes without Tick. After a longer pause it
// was we who were stopped, and what the peer said meanwhile is yet to be read.
const lookMost = 2 * time.Second

// watchSilence says, once, that the peer has fallen silent, when it is no more
// in step for that. In ALARM silence means nothing.
func (n *Node) watchSilence(now time.Duration) {
	s, p := &n.silent, &n.peer
	if now-s.looked > lookMost {
		s.from = now
	}
	s.looked = now
	if s.said || !p.heard || n.cfg.Group || n.cfg.Mode == ALARM || now-max(p.lastAt, s.from) < aliveSilence {
		return
	}
	s.said = true
	n.notices = append(n.notices, Notice{Kind: PeerSilent, Count: int((now - p.lastAt) / time.Second)})
}

// heardAgain ends it.
func (n *Node) heardAgain(now time.Duration) {
	n.silent.said = false
	n.notices = append(n.notices, Notice{Kind: PeerHeard, Count: int((now - n.peer.lastAt) / time.Second)})
}
