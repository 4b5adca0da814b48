package confparse

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/alecthomas/participle/v2/lexer"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/snapshot"
)

// CheckStart returns why a daemon cannot start with this file, or nil: what
// conntrackd finds out only when it opens its links. Clients need not care.
// The error is an *Error. What depends on the system, as whether an interface
// exists, is found out by those who open it.
func (c *Config) CheckStart() error {
	if len(c.refusals) > 0 {
		return c.refusals[0]
	}
	return nil
}

// sectionState is what rows must remember until a block or the file ends.
type sectionState struct {
	sync        lexer.Position // the last Sync
	statsSyslog lexer.Position // Stats { Syslog }
	priority    lexer.Position // the Priority
	states      []value        // of a list not yet ended
	link        linkState
	acceptFrom  []netip.Prefix // of all links
	attributes  flow.Has       // of a list not yet ended
	helperless  lexer.Position // the first list with Helper
	peers       []peerVersion
	hold        holdState
	group       groupState
}

// holdState is what HoldInjected and HoldTimeout say, in either order.
type holdState struct {
	on   bool
	pos  lexer.Position
	time time.Duration
}

func defaults() *Config {
	c := &Config{Systemd: true, LockFile: DefaultLockFile, CoalesceTime: DefaultCoalesceTime, CommitVerify: true}
	c.Kernel.OverrunResync = DefaultOverrunResync
	c.Snapshot.MaxAge = snapshot.DefaultMaxAge
	return c
}

// finish fills in the defaults for which a 0 stands too, and checks what
// keywords mean together.
func (b *builder) finish() {
	c, n := b.cfg, &b.cfg.Node
	n.HashSize = cmp.Or(n.HashSize, node.DefaultHashSize)
	n.HashLimit = cmp.Or(n.HashLimit, node.DefaultHashLimit)
	n.RefreshTime = cmp.Or(n.RefreshTime, node.DefaultRefreshTime)
	n.CacheTimeout = cmp.Or(n.CacheTimeout, node.DefaultCacheTimeout)
	n.PurgeTimeout = cmp.Or(n.PurgeTimeout, node.DefaultPurgeTimeout)
	n.ResendQueueSize = cmp.Or(n.ResendQueueSize, node.DefaultResendQueueSize)
	n.ACKWindowSize = cmp.Or(n.ACKWindowSize, node.DefaultACKWindowSize)
	c.ErrorQueueLength = cmp.Or(c.ErrorQueueLength, DefaultErrorQueueLength)
	c.EventIterationLimit = cmp.Or(c.EventIterationLimit, DefaultEventIterationLimit)
	if !n.ExpectationSync {
		n.ExpectHelpers = nil
	}
	for i := range c.Links {
		l := &c.Links[i]
		l.AcceptFrom = b.acceptFrom
		if l.Transport == link.TCP {
			l.ErrorQueue = c.ErrorQueueLength
		}
	}
	b.finishScheduler()
	b.finishSync()
	b.finishGroup()
	b.finishPeers()
	if c.Syslog != "" && c.StatsSyslog != "" && c.Syslog != c.StatsSyslog {
		b.warnf(b.statsSyslog, "facility %s of Stats is not used: General says %s", c.StatsSyslog, c.Syslog)
		c.StatsSyslog = c.Syslog
	}
}

func (b *builder) finishScheduler() {
	s := &b.cfg.Scheduler
	if s.Policy != "" {
		return
	}
	*s = Scheduler{Policy: DefaultPolicy, Priority: DefaultPriority}
	if b.priority.Line > 0 {
		b.advisef(b.priority, "Priority without Type does not count: the scheduler is %s, priority %d", s.Policy, s.Priority)
	}
}

func (b *builder) finishSync() {
	c, n := b.cfg, &b.cfg.Node
	if n.DisableExternalCache && n.CommitTimeout != 0 {
		b.warnf(b.sync, "CommitTimeout is ignored: it does not go with DisableExternalCache")
		n.CommitTimeout = 0
	}
	if b.hold.on && n.DisableExternalCache {
		n.Hold = cmp.Or(b.hold.time, node.DefaultHold)
	} else if b.hold.on && !b.group.on {
		b.warnf(b.hold.pos, "HoldInjected is ignored: it needs DisableExternalCache")
	}
	if n.DisableExternalCache && c.Snapshot.Path != "" {
		b.warnf(b.sync, "Snapshot is ignored: with DisableExternalCache the flows are in the kernel already")
		c.Snapshot.Path = ""
	}
	switch {
	case c.Reconcile == 0:
	case n.DisableInternalCache:
		b.warnf(b.sync, "Reconcile is ignored: with DisableInternalCache there is nothing to compare")
		c.Reconcile = 0
	case c.Kernel.Poll != 0:
		b.warnf(b.sync, "Reconcile is ignored: each PollSecs does it")
		c.Reconcile = 0
	}
	if !c.Sync {
		return
	}
	if n.Mode == 0 {
		b.advisef(b.sync, "no Mode in Sync: FTFW is assumed")
		n.Mode = node.FTFW
	}
	if len(c.Links) == 0 {
		b.refuseStart(b.sync, "no link in Sync: there must be a UDP, Multicast or TCP block")
	}
	if n.ExpectationSync && n.NotRestored().Has(flow.HasHelper) {
		b.advisef(b.helperless, "expectations cannot be restored: the kernel takes none of a flow without its helper")
	}
	if c.Socket == "" {
		b.advisef(b.sync, "no General { UNIX { Path: no client will be able to connect")
	}
}

// closeLink checks a link as a whole.
func closeLink(b *builder, v value) error {
	l, s := b.lastLink(), &b.link
	for _, z := range s.zones {
		if l.Interface != "" && z.text != l.Interface {
			return b.errorf(z.pos, "zone %s is not the Interface of the link, %s", quote(z.text), quote(l.Interface))
		}
	}
	switch {
	case l.Interface == "":
		b.refuseStart(v.pos, "no Interface: the link needs to know its device")
	case len(l.Interface) > maxInterface:
		b.refuseStart(s.device, "%s is no interface: names have at most %d characters", quote(l.Interface), maxInterface)
	}
	if l.Transport == link.Multicast {
		b.closeGroup(l, v.pos)
	} else {
		b.closeUnicast(l, v.pos)
	}
	return nil
}

func (b *builder) closeGroup(l *link.Config, pos lexer.Position) {
	switch {
	case b.link.mixed:
		b.refuseStart(pos, "addresses of both families: the link needs one group")
	case !l.Local.IsValid():
		b.refuseStart(pos, "no group: IPv4_address or IPv6_address must be a multicast address")
	case !l.Local.IsMulticast():
		b.refuseStart(pos, "%s is no multicast address", l.Local)
	}
}

func (b *builder) closeUnicast(l *link.Config, pos lexer.Position) {
	if b.link.family == 0 {
		b.refuseStart(pos, "no address: the link needs at least its own, better both")
		return
	}
	b.link.peer = groupPeer{pos, l.Peer}
	v := versions[b.link.family]
	other := func(a netip.Addr) bool { return a.IsValid() && a.Is4() != (b.link.family == flow.IPv4) }
	if other(l.Local) {
		b.refuseStart(pos, "own address %s in an IPv%d link: the last address decides", l.Local, v)
	}
	switch {
	case other(l.Peer):
		b.advisef(pos, "destination %s is ignored in an IPv%d link: nothing will be sent", l.Peer, v)
		l.Peer = netip.Addr{}
	case !l.Peer.IsValid():
		b.advisef(pos, "no destination address: nothing will be sent to any peer")
		b.link.lonely = len(b.warnings)
	}
	if l.Port == 0 {
		b.advisef(pos, "no Port: the kernel will choose one that the peer does not know")
	}
}
