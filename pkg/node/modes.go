package node

import (
	"iter"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/alarm"
	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/ftfw"
	"github.com/conntrackgo/conntrackgo/pkg/notrack"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// mode is one sync mode. A new one is a package and a row here.
type mode struct {
	name string // the keyword of the configuration
	make func(cfg *Config, firstSeq uint32, seed uint64) modeEngine
	// resyncs: the mode knows RESYNC and bulks.
	resyncs bool
	// acknowledged: the peer says what has arrived. Where it does not, a bulk
	// pauses after each windowFirst messages.
	acknowledged bool
	bulkPause    time.Duration
}

var modes = [...]mode{
	FTFW:    {name: "FTFW", make: newFTFW, resyncs: true, acknowledged: true, bulkPause: bulkRetry},
	ALARM:   {name: "ALARM", make: newALARM},
	NOTRACK: {name: "NOTRACK", make: newNOTRACK, resyncs: true, bulkPause: bulkPause},
}

func (m Mode) row() *mode { return &modes[m] }

// String returns the keyword of the configuration.
func (m Mode) String() string {
	if m == 0 || int(m) >= len(modes) {
		return "unknown"
	}
	return modes[m].name
}

// Resyncs reports whether the nodes can ask each other for everything (-n, -B,
// StartupResync).
func (m Mode) Resyncs() bool { return m.row().resyncs }

// A modeEngine is what the node needs of a sync mode; see package engine.
type modeEngine interface {
	Enqueue(engine.Ref) (pinned bool)
	Queued(engine.Ref) bool
	Forget(engine.Ref)
	ForgetAll()
	Released(func(engine.Ref))
	Pending() (tx, resend int)

	Receive(now time.Duration, h wire.Header) engine.Verdict
	NextEvent() (engine.Event, bool)
	RequestResync()
	BulkDone()

	Pop(now time.Duration) (engine.Frame, bool)
	Flushed(now time.Duration)
	Tick(now time.Duration)
	Deadline() time.Duration

	NextSeq() uint32
	Stats() engine.Stats
	ResendQueue() iter.Seq[engine.Resendable]
}

// timers is what ALARM has in addition: a timer for each object.
type timers interface {
	Watch(now time.Duration, internal engine.Ref)
	Unwatch(internal engine.Ref)
	UnwatchAll()
	DueRefresh(now time.Duration) (internal engine.Ref)

	Heard(now time.Duration, external engine.Ref)
	Gone(external engine.Ref)
	NextExpired(now time.Duration) (external engine.Ref)
	Left(now time.Duration, external engine.Ref) time.Duration
}

// numberer numbers messages that were in no queue (DisableInternalCache).
type numberer interface{ Number() uint32 }

// answered is what FTFW has in addition: the peer says what has arrived.
type answered interface {
	Unanswered(now time.Duration) time.Duration
}

// Unanswered returns how long the peer has acknowledged nothing although
// something waits for that; always 0 in a mode without acknowledgements.
func (n *Node) Unanswered(now time.Duration) time.Duration {
	if e, ok := n.engine.(answered); ok {
		return e.Unanswered(now)
	}
	return 0
}

// helloHold is how long objects wait for the peer's answer to our hello at
// the start. A peer that is there answers within its timer of one second.
const helloHold = 3 * time.Second

func newFTFW(cfg *Config, firstSeq uint32, _ uint64) modeEngine {
	hold := helloHold
	if cfg.Group {
		hold = ftfw.Forever
	}
	return ftfw.New(ftfw.Config{
		FirstSeq:      firstSeq,
		ACKWindow:     cfg.ACKWindowSize,
		ResendQueue:   cfg.ResendQueueSize,
		StartupResync: true,
		HelloHold:     hold,
		Reorder:       reorder,
	}, 0)
}

func newALARM(cfg *Config, firstSeq uint32, seed uint64) modeEngine {
	return alarm.New(alarm.Config{FirstSeq: firstSeq, Refresh: cfg.RefreshTime, Expire: cfg.CacheTimeout, Seed: seed})
}

func newNOTRACK(_ *Config, firstSeq uint32, _ uint64) modeEngine {
	return notrack.New(notrack.Config{FirstSeq: firstSeq, StartupResync: true}, 0)
}

// watch sets the refresh timer of an internal entry, in a mode that has them.
func (n *Node) watch(now time.Duration, r ref) {
	if n.timers != nil {
		n.timers.Watch(now, engine.Ref(r))
	}
}

func (n *Node) unwatch(r ref) {
	if n.timers != nil {
		n.timers.Unwatch(engine.Ref(r))
	}
}

func (n *Node) unwatchAll() {
	if n.timers != nil {
		n.timers.UnwatchAll()
	}
}

// refresh sends again what is due and drops what the peer no longer refreshes.
// What the peer has been told of is news no more, so it is no CT_NEW: that
// would begin its age anew there.
func (n *Node) refresh(now time.Duration) {
	if n.timers == nil {
		return
	}
	for r := n.timers.DueRefresh(now); r != 0; r = n.timers.DueRefresh(now) {
		flags := n.flagsOf(ref(r))
		if *flags&told != 0 {
			*flags |= updated
		}
		if ref(r).isExpect() {
			n.enqueueExpect(ref(r).expectID())
		} else {
			n.enqueue(ref(r))
		}
	}
	for r := n.timers.NextExpired(now); r != 0; r = n.timers.NextExpired(now) {
		n.stats.Expired++
		if ref(r).isExpect() {
			n.expectGone(ref(r).expectID())
		} else {
			n.gone(ref(r))
		}
	}
}

// flagsOf returns the flags of an internal entry.
func (n *Node) flagsOf(r ref) *entryFlags {
	if r.isExpect() {
		return &n.expects.internal.at(r.expectID()).flags
	}
	return &n.internal.common(r).flags
}

// heard sets the expiry timer of an external entry, in a mode that has them.
func (n *Node) heard(now time.Duration, r ref) {
	if n.timers != nil {
		n.timers.Heard(now, engine.Ref(r))
	}
}

// unheard ends it.
func (n *Node) unheard(r ref) {
	if n.timers != nil {
		n.timers.Gone(engine.Ref(r))
	}
}
