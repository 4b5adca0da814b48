package node

import (
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// count raises the counters of a framing error.
func (s *NetworkStats) count(err error) {
	s.Malformed++
	switch err {
	case wire.Truncated:
		s.Truncated++
	case wire.BadSize:
		s.BadSize++
	case wire.BadVersion:
		s.BadVersion++
	}
}

func (s *NetworkStats) badPayload() {
	s.Malformed++
	s.BadPayload++
}

// Which names one of the two caches.
type Which uint8

// The caches: Internal mirrors the own kernel, External the peer's.
const (
	Internal Which = iota
	External
)

// String returns the name the reports use.
func (w Which) String() string {
	if w == Internal {
		return "internal"
	}
	return "external"
}

// CacheStats are the counters of one cache. Every counter only grows.
type CacheStats struct {
	Active, Total               int // live entries; with tombstones
	Created, Updated, Destroyed uint64
	CreateFailed, NoSpace       uint64
	UpdateFailed, DestroyFailed uint64
}

// NetworkStats count what was wrong with received messages
// (docs/protocol.md 1.3).
type NetworkStats struct {
	Malformed                                  uint64 // all of the following
	BadVersion, BadHeader, BadPayload, BadType uint64
	Truncated, BadSize                         uint64
}

// Stats are the counters of a node.
type Stats struct {
	Internal, External CacheStats
	// ExpectInternal and ExpectExternal are the caches of expectations.
	ExpectInternal, ExpectExternal CacheStats

	Network         NetworkStats
	Engine          engine.Stats
	TxQueue, Resend int
	// EventsFiltered counts kernel events the filter refused.
	EventsFiltered uint64
	// TrafficBytes and TrafficPackets sum the counters of destroyed flows.
	TrafficBytes, TrafficPackets uint64
	// Sent counts data messages by their type.
	Sent [6]uint64
	// Passed counts those of them that were made of events, without an internal
	// cache: not what answers a request for the table.
	Passed [6]uint64
	// DirectLost counts events that were not sent because too many waited for
	// the link, without an internal cache.
	DirectLost uint64
	// Expired counts external entries that a complete bulk did not mention, or
	// in ALARM that were not refreshed.
	Expired uint64
	// Drift is what comparison with the kernel found wrong.
	Drift Drift

	// Extensions count what the nodes say in the body of an ALIVE.
	Extensions ExtStats
}

// ExtStats count extensions (docs/protocol.md 12). Foreign ones are of a version or a
// kind that we do not know.
type ExtStats struct {
	Sent, Received, Malformed, Foreign uint64
	// Compared is how often our table was compared with the peer's digest, and
	// Different how often they were not the same; Repairs are the resyncs that
	// followed.
	Compared, Different, Repairs uint64
	// Retold is how often everything was sent because some of it had not been.
	Retold uint64
}

// Stats returns a copy of all counters.
func (n *Node) Stats() Stats {
	s := n.stats
	s.Internal, s.External = n.internal.snapshot(), n.external.snapshot()
	s.ExpectInternal, s.ExpectExternal = n.expects.internal.snapshot(), n.expects.external.snapshot()
	s.Engine = n.engine.Stats()
	s.TxQueue, s.Resend = n.engine.Pending()
	return s
}

// Bytes is the memory that both caches hold now, and the most that they held
// since Bytes was called before.
func (n *Node) Bytes() (now, peak int) {
	for _, s := range [...]*store{n.internal, n.external} {
		now += s.bytes()
		peak += s.v4.Peak() + s.v6.Peak()
	}
	return now, max(now, peak)
}

func (s *store) snapshot() CacheStats {
	c := s.stats
	c.Active, c.Total = s.live(), s.total()
	return c
}

// NoticeKind says what a Notice is about.
type NoticeKind uint8

// What an operator wants to read in the log.
const (
	// ResyncRequested: the peer asked for everything; a bulk send has begun.
	ResyncRequested NoticeKind = iota + 1
	// PeerRestarted: a peer in a new life was seen.
	PeerRestarted
	// ResyncComplete: everything the peer has is in the external cache.
	ResyncComplete
	// ResyncGaps: several bulks in a row had gaps; until one has none, what
	// the peer no longer has stays in the external cache.
	ResyncGaps
	// TakenOver: Count entries that were held have their normal timeouts back.
	TakenOver
	// HoldLapsed: so have Count entries for which nobody vouches any more.
	HoldLapsed
	// PeerLooksOlder: a NAT address looks as from a peer older than 1.4.7.
	PeerLooksOlder
	// PeerLooksNewer: messages look as from a peer newer than PeerVersion.
	PeerLooksNewer
	// RoomAgain: a cache that was full is filled again.
	RoomAgain
	// TablesDiffer: what we have of the peer is not what it has told us, so
	// everything is asked for.
	TablesDiffer
	// SettingsDiffer: the peer's CommitTimeout, in Count, is not ours.
	SettingsDiffer
	// ModesDiffer: the peer is configured for another mode.
	ModesDiffer
	// PeerAway: the peer has answered nothing for long, and is given up until it
	// does; PeerBack: it has.
	PeerAway
	PeerBack
	// PeerSilent: nothing has been heard of the peer of a pair for Count seconds;
	// PeerHeard: it is heard again, after so many.
	PeerSilent
	PeerHeard
)

// A Notice is something that happened inside the node.
type Notice struct {
	Kind  NoticeKind
	Which Which // of RoomAgain
	Count int
}

// NextNotice returns the oldest notice not yet taken.
func (n *Node) NextNotice() (Notice, bool) {
	if len(n.notices) == 0 {
		return Notice{}, false
	}
	x := n.notices[0]
	n.notices = n.notices[1:]
	return x, true
}
