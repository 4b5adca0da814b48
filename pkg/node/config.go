package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Mode is the synchronisation protocol.
type Mode uint8

// The modes of conntrackd.conf.
const (
	FTFW Mode = iota + 1
	ALARM
	NOTRACK
)

// Defaults of conntrackd.conf. A configured 0 means the same.
const (
	DefaultHashSize        = 65536
	DefaultHashLimit       = 262144
	DefaultPurgeTimeout    = 60 * time.Second
	DefaultRefreshTime     = 60 * time.Second
	DefaultCacheTimeout    = 180 * time.Second
	DefaultResendQueueSize = 131072
	DefaultACKWindowSize   = 300
	DefaultHold            = 10 * time.Minute
)

// Config is what conntrackd.conf says about synchronisation.
type Config struct {
	Mode Mode
	// HashSize is the expected number of entries of each cache. Tables grow
	// as needed; up to this size they need not.
	HashSize int
	// HashLimit is the largest number of live entries of each cache.
	HashLimit int
	// CommitTimeout is the timeout given to committed entries, in whole
	// seconds; when set, messages carry no timeout. Zero: unset.
	CommitTimeout time.Duration
	// PurgeTimeout is the delay of the flush ordered by -t.
	PurgeTimeout time.Duration
	// RefreshTime and CacheTimeout are ALARM's.
	RefreshTime, CacheTimeout time.Duration
	// ResendQueueSize is the largest number of unacknowledged messages kept.
	ResendQueueSize int
	// ACKWindowSize is the number of messages after which an acknowledgement
	// is sent at the latest.
	ACKWindowSize int
	// DisableInternalCache is NOTRACK's; DisableExternalCache injects what
	// is received into the kernel at once.
	DisableInternalCache, DisableExternalCache bool
	// Hold is how much longer than normal a flow of the peer lives in the own
	// kernel, in whole seconds; see hold.go. Zero: off. It needs
	// DisableExternalCache.
	Hold time.Duration
	// BulkWindow is the number of unacknowledged messages that the peer's
	// receive buffer holds; at least 512 and at most 4096 are used for a bulk.
	BulkWindow int
	// StartupResync asks the peer for everything right after the start.
	StartupResync bool
	// TCPWindowTracking sends and commits TCP window scales; off, committed
	// entries are marked be-liberal.
	TCPWindowTracking bool
	// ExpectationSync replicates expectations; with ExpectHelpers only those
	// of helpers whose name starts with a listed word, whatever its case.
	ExpectationSync bool
	ExpectHelpers   []string
	// PeerVersion is the oldest version among the peers.
	PeerVersion wire.Version
	// DoNotSync are attributes that are neither sent nor taken from a peer,
	// DoNotRestore such that nobody writes to the kernel: of HasMark,
	// HasHelper and HasLabels.
	DoNotSync, DoNotRestore flow.Has
	// Group: the peer is one of several, each with a node of its own. One that
	// has acknowledged nothing for 10 s is given up, and everything exchanged
	// when it answers again; see away.go. FTFW only.
	Group bool
	// Name is who this node is, and Software what it runs: it tells another
	// conntrackgo. Without a name nothing is told.
	Name     wire.NodeName
	Software string
	// Filter decides which kernel entries are replicated.
	Filter flow.Filter
}

// NotRestored are the attributes of a flow that the kernel's entry keeps, or
// does not get, when the flow is written: they are not to be restored, or
// nothing is known of them.
func (c *Config) NotRestored() flow.Has { return c.DoNotSync | c.DoNotRestore }
