package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A speaker is a mode whose ALIVEs can have a body, and which can tell whether
// the peer is there. ALARM has none.
type speaker interface {
	// Alive makes an ALIVE the next message.
	Alive()
	// InTouch reports whether the peer has answered.
	InTouch() bool
}

// peer is what we know of the other node. What only a conntrackgo peer says is
// zero of a C peer.
type peer struct {
	heard     bool          // any message that was taken
	firstAt   time.Duration // when the first came,
	lastAt    time.Duration // and the latest
	contact   bool          // it has answered
	resyncing bool          // we have asked for everything

	name     wire.NodeName // zero: it is no conntrackgo, or has not said so yet
	saidAt   time.Duration // when it said so last
	hearsUs  bool          // it named us as the one that it hears
	settings wire.Settings
	software [wire.MaxSoftware]byte
	// Others are nodes of another name in the same group. As long as there are
	// any, tables are not compared and nothing is removed: all nodes' entries
	// are in one external cache.
	others time.Duration // until when; 0: none
	warned bool          // of settings that differ

	lost     uint64        // messages, when looked at last
	gaps     uint64        // times that some were
	lostAt   time.Duration // when they were seen to be
	complete bool          // all of its table has been received
	tableAt  time.Duration // when it was complete last
	compare  compare
	// proven: since all of it was asked for, or begun to be told, last, its digest
	// was what we have. Then nothing is missing, whatever else is waited for.
	proven bool
}

// othersFor is how long another node is remembered.
const othersFor = 30 * time.Second

// extension reads the body of a control message and reports whether the message
// is to be taken. One that is malformed has no effect at all; one that is not for
// us is a message like any other.
func (n *Node) extension(m *wire.Message) (x *wire.Ext, ok bool) {
	if n.speaker == nil || len(m.Body) == 0 || m.Class() != wire.ALIVE {
		return nil, true
	}
	switch wire.ParseExt(m.Body, &n.said) {
	case nil:
		return &n.said, true
	case wire.ErrExt:
		n.stats.Extensions.Malformed++
		return nil, false
	}
	n.stats.Extensions.Foreign++
	return nil, true
}

// heardExt takes what the other node says of itself.
func (n *Node) heardExt(now time.Duration, seq uint32, x *wire.Ext) {
	n.stats.Extensions.Received++
	if x.Has&wire.ExtNode == 0 || x.Node.Node == n.cfg.Name.Node || !n.meet(now, x.Node) {
		return
	}
	p := &n.peer
	if x.Has&wire.ExtHeard != 0 {
		p.hearsUs = x.Heard == n.cfg.Name
	}
	if x.Has&wire.ExtSoftware != 0 {
		p.software = x.Software
	}
	if x.Has&wire.ExtSettings != 0 {
		p.settings = x.Settings
		n.checkSettings()
	}
	n.heardMarks(now, seq, x)
	if x.Has&wire.ExtDigest != 0 {
		n.heardDigest(now, x)
	}
}

// meet notes who speaks, and reports whether it is the one peer there is.
func (n *Node) meet(now time.Duration, name wire.NodeName) bool {
	p := &n.peer
	switch {
	case p.name == name:
	case p.name.Node != 0 && p.name.Node != name.Node && now-p.saidAt < othersFor:
		p.others = now + othersFor
	default:
		// A new life, or the first that we hear of it. FTFW knows of restarts
		// by HELLO and asks by itself.
		restarted := p.name != wire.NodeName{}
		p.name, p.hearsUs, p.warned = name, false, false
		p.compare, p.proven = compare{}, false
		n.hear = hearing{}
		n.say.renew()
		if n.cfg.Mode.row().acknowledged {
			break
		}
		if restarted {
			n.notices = append(n.notices, Notice{Kind: PeerRestarted})
		}
		n.askAgain(now, restarted || !p.complete)
	}
	if p.others != 0 && now >= p.others {
		p.others = 0
	}
	if p.name == name {
		p.saidAt = now
	}
	return p.others == 0
}

// askAgain asks for everything where nobody sees to it that the answer comes.
func (n *Node) askAgain(now time.Duration, needed bool) {
	if needed && n.expiry.retry == 0 {
		n.expiry.retry = max(now, 1)
	}
}

// checkSettings warns once of settings with which two nodes do not work well
// together.
func (n *Node) checkSettings() {
	p, ours := &n.peer, n.settings()
	kind := SettingsDiffer
	switch {
	case p.warned:
		return
	case p.settings.Mode != ours.Mode:
		kind = ModesDiffer
	case p.settings.CommitTimeout == ours.CommitTimeout:
		return
	}
	p.warned = true
	n.notices = append(n.notices, Notice{Kind: kind, Count: int(p.settings.CommitTimeout)})
}

// settings are ours, as they are announced.
func (n *Node) settings() wire.Settings {
	s := wire.Settings{
		Capabilities:  wire.CanMarks,
		CommitTimeout: uint32(n.cfg.CommitTimeout / time.Second),
		HashLimit:     uint32(n.cfg.HashLimit),
		Mode:          uint8(n.cfg.Mode),
	}
	if n.internal.counting {
		s.Capabilities |= wire.CanDigest
	}
	for i, on := range [...]bool{n.cfg.ExpectationSync, n.cfg.TCPWindowTracking, n.cfg.DisableInternalCache, n.cfg.DisableExternalCache,
		n.cfg.DoNotSync.Has(flow.HasMark), n.cfg.DoNotSync.Has(flow.HasHelper), n.cfg.DoNotSync.Has(flow.HasLabels)} {
		if on {
			s.Flags |= 1 << i
		}
	}
	return s
}

// alike reports whether both nodes leave the same out of what they send.
func (p *peer) alike(ours wire.Settings) bool {
	const without = wire.SettingNoMark | wire.SettingNoHelper | wire.SettingNoLabels
	return p.settings.Mode != 0 && (p.settings.Flags^ours.Flags)&without == 0
}

// watchPeer looks, now and then, at what the mode counts: whether the peer is
// there, and whether messages of it were lost. In a mode that repeats nothing
// everything is asked for after that, ever more seldom while it goes on.
func (n *Node) watchPeer(now time.Duration) {
	n.sent.note(now)
	p := &n.peer
	touch, ok := n.engine.(speaker)
	if !ok { // ALARM: nobody answers
		if p.contact = p.heard; p.heard && now-p.firstAt > n.cfg.RefreshTime+time.Second {
			n.tableComplete(p.lastAt)
		}
		return
	}
	contact := touch.InTouch()
	if contact && !p.contact && !n.cfg.Mode.row().acknowledged && now >= contactGrace {
		n.askAgain(now, !p.complete) // nobody was there when we asked
	}
	p.contact = contact
	if lost := n.engine.Stats().Lost; lost != p.lost {
		p.lost, p.lostAt = lost, now
		p.gaps++
		if !n.cfg.Mode.row().acknowledged && n.expiry.retry == 0 {
			n.gapped(now)
		}
	}
	if !p.complete && contact && p.name == (wire.NodeName{}) && !n.cfg.Mode.row().acknowledged &&
		now-p.firstAt > quietPeriod && now-p.lostAt > quietPeriod && n.expiry.retry == 0 {
		n.tableComplete(now)
	}
	if n.expiry.gaps > 0 && n.expiry.retry == 0 && now-p.lostAt > gapPatienceMax {
		n.expiry.gaps = 0
	}
}

// quietPeriod is how long nothing must have been lost until the table of a C
// peer counts as received where nobody says so. Nothing is removed for it.
const quietPeriod = 8 * time.Second

// contactGrace is how long the peer may take to answer the RESYNC of our start.
const contactGrace = 2 * time.Second
