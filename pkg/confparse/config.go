// Package confparse turns the text of conntrackd.conf into a Config: the
// settings of the daemon and the Config structs of those who own the rest.
//
// The way of a text: lexer.go makes tokens, tree.go a tree of tokens and
// braces, walk.go finds the statements in it with the table of keywords
// (table.go, rows_*.go), whose rows fill the Config; start.go fills in the
// defaults and judges the whole. docs/configuration.md is the reference, and
// docs/compatibility.md says where we differ from conntrackd.
package confparse

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/snapshot"
)

// Defaults of the General section.
const (
	DefaultConfigFile   = "/etc/conntrackd/conntrackd.conf"
	DefaultLockFile     = "/var/lock/conntrackd.lock"
	DefaultLogFile      = "/var/log/conntrackd.log"
	DefaultStatsLogFile = "/var/log/conntrackd-stats.log"

	DefaultErrorQueueLength    = 128
	DefaultEventIterationLimit = 100
	DefaultPolicy              = "RR"
	DefaultPriority            = 99
)

// Limits of conntrackd: paths in bytes, links, and the priority.
const (
	maxPath       = 256
	maxSocketPath = 107
	maxLinks      = 4
	maxPriority   = 99
	maxInterface  = 15
)

// Config is a whole conntrackd.conf with every default filled in.
type Config struct {
	// Sync and Stats say which sections the file has. A file with neither is
	// legal: the daemon runs and does nothing.
	Sync, Stats bool
	// Node, Kernel and Links are handed to their owners as they are.
	Node   node.Config
	Kernel kernel.Config
	Links  []link.Config
	// ErrorQueueLength is the number of undelivered buffers kept for all TCP
	// links.
	ErrorQueueLength int
	// ReturnToDefault makes the daemon go back to the Default link when that
	// is up again.
	ReturnToDefault bool
	// WaitForInterface makes the daemon start without the interfaces and
	// addresses of its links, and wait for them.
	WaitForInterface bool

	// LockFile is the path of the lock that holds off a second daemon.
	LockFile string
	// Socket is the path of the control socket. Empty: no client can connect.
	Socket string
	// LogFile is the path of the log. Empty: none.
	LogFile string
	// Syslog is the syslog facility, "daemon" or "local0" to "local7". Empty:
	// none.
	Syslog string
	// StatsLogFile and StatsSyslog belong to the Stats section.
	StatsLogFile, StatsSyslog string
	// EventIterationLimit is read for compatibility: the loop bounds by itself
	// what one source may take of a turn.
	EventIterationLimit int
	// Scheduler is the policy the process asks for.
	Scheduler Scheduler
	// Systemd sends readiness, watchdog and stop messages to the service
	// manager when it asked for them.
	Systemd bool
	// CoalesceTime bounds how long events may wait to be sent together when
	// there are many. Zero: every event is sent at once.
	CoalesceTime time.Duration
	// ReadyFile is the path of the file that says whether this node is ready to
	// take over. Empty: none.
	ReadyFile string
	// Reconcile is how often the internal cache is compared with the kernel's
	// table. Zero: never.
	Reconcile time.Duration
	// CommitVerify counts after a commit what of it the kernel holds.
	CommitVerify bool
	// Snapshot hands the external caches over to the next start.
	Snapshot snapshot.Config
	// HelperSections is the number of Helper blocks. They are accepted and
	// not run.
	HelperSections int

	refusals []*Error // what CheckStart says
}

// Scheduler is the General { Scheduler } block.
type Scheduler struct {
	// Policy is "RR" or "FIFO".
	Policy string
	// Priority is 0 to 99.
	Priority int
}

// Warning is something odd in the file that does not stop the daemon.
type Warning struct {
	File         string
	Line, Column int
	Text         string
	// AtStart marks what a client need not say with every request.
	AtStart bool
}

// DefaultOverrunResync is the delay of the repair after a netlink overrun.
const DefaultOverrunResync = 30 * time.Second
