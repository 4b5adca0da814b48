package confparse

import (
	"errors"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// The blocks of the modes and those that take each kind of keyword.
const (
	inFTFW    = "Sync/Mode FTFW"
	inALARM   = "Sync/Mode ALARM"
	inNOTRACK = "Sync/Mode NOTRACK"
	inResync  = inFTFW + ", " + inNOTRACK
	inTimers  = "Sync, " + inALARM
	inAll     = "Sync, " + inFTFW + ", " + inALARM + ", " + inNOTRACK
)

// syncRows are Sync { ... } without the links.
var syncRows = []row{
	{
		in: "Sync", words: "Mode", arg: block, head: headMode, set: openMode,
		absent: "FTFW, with a warning",
		help:   "FTFW, ALARM or NOTRACK, in any letter case; nack and persistent are old names of FTFW and ALARM. Of several the first in this order counts.",
	},
	{
		in: inTimers, words: "RefreshTime", arg: number,
		set:    setSeconds(func(c *Config) *time.Duration { return &c.Node.RefreshTime }),
		absent: fmt.Sprint(node.DefaultRefreshTime.Seconds()),
		help:   "ALARM: seconds within which each entry is sent again. 0 means the default.",
	},
	{
		in: inTimers, words: "CacheTimeout", arg: number,
		set:    setSeconds(func(c *Config) *time.Duration { return &c.Node.CacheTimeout }),
		absent: fmt.Sprint(node.DefaultCacheTimeout.Seconds()),
		help:   "ALARM: seconds after which an external entry that was not refreshed goes. 0 means the default.",
	},
	{
		in: inAll, words: "CommitTimeout", arg: number,
		set:    setSeconds(func(c *Config) *time.Duration { return &c.Node.CommitTimeout }),
		absent: "unset",
		help:   "Timeout in seconds of committed entries. When set, messages carry no timeout. 0 is unset; so is any value with DisableExternalCache, with a warning.",
	},
	{
		in: inAll, words: "PurgeTimeout", arg: number,
		set:    setSeconds(func(c *Config) *time.Duration { return &c.Node.PurgeTimeout }),
		absent: fmt.Sprint(node.DefaultPurgeTimeout.Seconds()),
		help:   "Seconds until the flush ordered by `-t`. 0 means the default.",
	},
	{
		in: inFTFW, words: "ResendQueueSize", arg: number,
		set:    setInt(func(c *Config) *int { return &c.Node.ResendQueueSize }),
		absent: fmt.Sprint(node.DefaultResendQueueSize),
		help:   "Largest number of unacknowledged messages kept. 0 means the default.",
	},
	{
		in: inFTFW, words: "ACKWindowSize", arg: number,
		set:    setInt(func(c *Config) *int { return &c.Node.ACKWindowSize }),
		absent: fmt.Sprint(node.DefaultACKWindowSize),
		help:   "Messages after which an acknowledgement is sent at the latest. 0 means the default.",
	},
	{
		in: inNOTRACK, words: "DisableInternalCache", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.Node.DisableInternalCache }),
		absent: "off",
		help:   "Keep no internal cache.",
	},
	{
		in: inResync, words: "DisableExternalCache", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.Node.DisableExternalCache }),
		absent: "off",
		help:   "Put what is received into the kernel at once.",
	},
	{
		in: inResync, words: "StartupResync", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.Node.StartupResync }),
		absent: "off",
		help:   "Ask the peer for everything right after the start.",
	},
	{
		in: "Sync", words: "Options", arg: block,
		help: "What is replicated, and how.",
	},
	{
		in: "Sync/Options", words: "TCPWindowTracking", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.Node.TCPWindowTracking }),
		absent: "off",
		help:   "Replicate TCP window scales. Off, committed entries are marked be-liberal.",
	},
	{
		in: "Sync/Options", words: "ExpectationSync", arg: boolean | block, set: setExpectationSync,
		absent: "off",
		help:   "Replicate expectations: all of them, or those of the listed helpers. `on` keeps an earlier list.",
	},
	{
		in: "Sync/Options/ExpectationSync", words: "*",
		set: func(b *builder, v value) error {
			b.cfg.Node.ExpectHelpers = append(b.cfg.Node.ExpectHelpers, v.text)
			return nil
		},
		help: "The name of a helper, or how it starts, in any letter case.",
	},
}

var errBoth = errors.New("there cannot be both Sync and Stats in one file: remove one")

func openSync(b *builder, v value) error {
	if b.cfg.Stats {
		return errBoth
	}
	b.cfg.Sync, b.sync = true, v.pos
	return nil
}

func openStats(b *builder, _ value) error {
	if b.cfg.Sync {
		return errBoth
	}
	b.cfg.Stats = true
	return nil
}

// openHelper warns once, however many sections there are.
func openHelper(b *builder, v value) error {
	if b.cfg.HelperSections == 0 {
		b.advisef(v.pos, "Helper is ignored: helpers in user space are not run")
	}
	b.cfg.HelperSections++
	return nil
}

// openMode keeps the mode of the highest precedence, which has the lowest
// number.
func openMode(b *builder, v value) error {
	for _, m := range modes {
		if m.name == v.head && (b.cfg.Node.Mode == 0 || m.mode < b.cfg.Node.Mode) {
			b.cfg.Node.Mode = m.mode
		}
	}
	return nil
}

func setExpectationSync(b *builder, v value) error {
	b.cfg.Node.ExpectationSync = v.kind == block || v.on
	return nil
}
