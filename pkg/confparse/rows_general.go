package confparse

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// generalRows are General { ... } without the filter.
var generalRows = []row{
	{
		in: "General", words: "HashSize", arg: number,
		set:    setInt(func(c *Config) *int { return &c.Node.HashSize }),
		absent: fmt.Sprint(node.DefaultHashSize),
		help:   "Expected number of entries of each cache: up to it tables need not grow, which is what makes a start or a resync faster. 0 means the default.",
	},
	{
		in: "General", words: "HashLimit", arg: number,
		set:    setInt(func(c *Config) *int { return &c.Node.HashLimit }),
		absent: fmt.Sprint(node.DefaultHashLimit),
		help:   "Largest number of live entries of each cache. Dead ones waiting for their acknowledgement (at most `ResendQueueSize`) come on top; the C daemon counts them in. 0 means the default.",
	},
	{
		in: "General", words: "LogFile", arg: boolean | path,
		set:    setLogFile(func(c *Config) *string { return &c.LogFile }, DefaultLogFile),
		absent: "off",
		help:   "Log to a file; `on` is " + DefaultLogFile + ". `off` does not undo an earlier `on` or path. At most 256 bytes.",
	},
	{
		in: "General", words: "Syslog", arg: boolean | word,
		set:    setSyslog(func(c *Config) *string { return &c.Syslog }, false),
		absent: "off",
		help:   "Log to syslog; `on` is facility daemon. Facilities: " + strings.Join(facilities, ", ") + ". Others are ignored with a warning.",
	},
	{
		in: "General", words: "LockFile", arg: path,
		set:    setPath(func(c *Config) *string { return &c.LockFile }, maxPath),
		absent: DefaultLockFile,
		help:   "The file that holds off a second daemon. At most 256 bytes.",
	},
	{
		in: "General", words: "UNIX", arg: block,
		help: "The control socket.",
	},
	{
		in: "General/UNIX", words: "Path", arg: path,
		set:    setPath(func(c *Config) *string { return &c.Socket }, maxSocketPath),
		absent: "none",
		help:   "The control socket. Without it no client can connect. At most 107 bytes.",
	},
	{
		in: "General/UNIX", words: "Backlog", arg: number, set: ignored("the backlog is fixed"),
		help: "Ignored with a warning.",
	},
	{
		in: "General", words: "NetlinkBufferSize SocketBufferSize", arg: number,
		set:    setInt(func(c *Config) *int { return &c.Kernel.BufferSize }),
		absent: "system default",
		help:   "Receive buffer of the event socket in bytes. Used only if it is not above NetlinkBufferSizeMaxGrowth.",
	},
	{
		in: "General", words: "NetlinkBufferSizeMaxGrowth SocketBufferSizeMaxGrowth SocketBufferSizeMaxGrown", arg: number,
		set:    setInt(func(c *Config) *int { return &c.Kernel.BufferMaxGrowth }),
		absent: "0",
		help:   "Limit in bytes up to which the buffer is doubled after an overrun.",
	},
	{
		in: "General", words: "NetlinkOverrunResync", arg: boolean | number, set: setOverrunResync,
		absent: fmt.Sprint(DefaultOverrunResync.Seconds()),
		help:   "Seconds between a netlink overrun and the dump that repairs it. `on` and 0 mean the default, `off` never.",
	},
	{
		in: "General", words: "NetlinkEventsReliable", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.Kernel.Reliable }),
		absent: "off",
		help:   "Ask the kernel for reliable delivery of events.",
	},
	{
		in: "General", words: "EventIterationLimit", arg: number,
		set:    setInt(func(c *Config) *int { return &c.EventIterationLimit }),
		absent: fmt.Sprint(DefaultEventIterationLimit),
		help:   "Of no consequence: events and datagrams are taken in turn, a bounded number at once, so that neither starves the other.",
	},
	{
		in: "General", words: "PollSecs", arg: number, set: setPoll,
		absent: "events",
		help:   "Poll the kernel each so many seconds instead of listening to events. 0 is an error.",
	},
	{
		in: "General", words: "Nice", arg: signed, set: ignored("set the nice value with nice(1) or in the unit file"),
		help: "Ignored with a warning.",
	},
	{
		in: "General", words: "Scheduler", arg: block,
		help: "The scheduling policy that the process asks for.",
	},
	{
		in: "General/Scheduler", words: "Type", arg: word, set: setPolicy,
		absent: DefaultPolicy,
		help:   "RR or FIFO, in any letter case. Without it Priority does not count either.",
	},
	{
		in: "General/Scheduler", words: "Priority", arg: number, set: setPriority,
		absent: fmt.Sprintf("%d; with Type, 0", DefaultPriority),
		help:   "0 to 99. The kernel refuses 0, which is logged.",
	},
	{
		in: "General", words: "Systemd", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.Systemd }),
		absent: "on",
		help:   "Tell the service manager about readiness, life and stop, if it asked for it.",
	},
}

// statsRows are Stats { ... }.
var statsRows = []row{
	{
		in: "Stats", words: "LogFile", arg: boolean | path,
		set:    setLogFile(func(c *Config) *string { return &c.StatsLogFile }, DefaultStatsLogFile),
		absent: "off",
		help:   "Log flows to a file; `on` is " + DefaultStatsLogFile + ".",
	},
	{
		in: "Stats", words: "Syslog", arg: boolean | word,
		set:    setSyslog(func(c *Config) *string { return &c.StatsSyslog }, true),
		absent: "off",
		help:   "Log flows to syslog, as in General. If the facilities differ, that of General is used.",
	},
}

// helperRows are the keywords of Helper { ... }. Its inside is skipped; they
// are rows to be keywords, which no interface can be called.
var helperRows = []row{
	{in: "Helper", words: "Setup", arg: boolean, help: "Set the helper up in the kernel."},
	{in: "Helper", words: "Type", arg: block, help: "`Type name inet|inet6 tcp|udp { ... }`: a helper."},
	{in: "Helper", words: "QueueNum", arg: number, help: "Number of the queue."},
	{in: "Helper", words: "QueueLen", arg: number, help: "Packets in the queue."},
	{in: "Helper", words: "Policy", arg: block, help: "`Policy name { ... }`: limits of a kind of expectation."},
	{in: "Helper", words: "ExpectMax", arg: number, help: "Largest number of expectations."},
	{in: "Helper", words: "ExpectTimeout", arg: number, help: "Seconds an expectation lives."},
}

func setInt(field func(*Config) *int) func(*builder, value) error {
	return func(b *builder, v value) error {
		*field(b.cfg) = v.n
		return nil
	}
}

func setSeconds(field func(*Config) *time.Duration) func(*builder, value) error {
	return func(b *builder, v value) error {
		*field(b.cfg) = seconds(v.n)
		return nil
	}
}

func setBool(field func(*Config) *bool) func(*builder, value) error {
	return func(b *builder, v value) error {
		*field(b.cfg) = v.on
		return nil
	}
}

func setPath(field func(*Config) *string, limit int) func(*builder, value) error {
	return func(b *builder, v value) error {
		if len(v.text) > limit {
			return fmt.Errorf("the path of %s has %d bytes, the limit is %d", v.key, len(v.text), limit)
		}
		if strings.ContainsRune(v.text, 0) {
			return fmt.Errorf("the path of %s has a NUL byte in it", v.key)
		}
		*field(b.cfg) = v.text
		return nil
	}
}

func setLogFile(field func(*Config) *string, file string) func(*builder, value) error {
	setFile := setPath(field, maxPath)
	return func(b *builder, v value) error {
		switch {
		case v.kind == path:
			return setFile(b, v)
		case v.on:
			*field(b.cfg) = file
		}
		return nil
	}
}

// facilities are the facilities of syslog that conntrackd knows.
var facilities = []string{"daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

func setSyslog(field func(*Config) *string, stats bool) func(*builder, value) error {
	return func(b *builder, v value) error {
		switch {
		case v.kind == boolean && v.on:
			*field(b.cfg) = facilities[0]
		case v.kind == boolean:
			*field(b.cfg) = ""
		case slices.Contains(facilities, v.text):
			*field(b.cfg) = v.text
		default:
			b.warnf(v.pos, "unknown syslog facility %s is ignored%s", quote(v.text), suggest(v.text, facilities))
			return nil
		}
		if stats {
			b.statsSyslog = v.pos
		}
		return nil
	}
}

func setOverrunResync(b *builder, v value) error {
	switch {
	case v.kind == boolean && !v.on:
		b.cfg.Kernel.OverrunResync = 0
	case v.n == 0:
		b.cfg.Kernel.OverrunResync = DefaultOverrunResync
	default:
		b.cfg.Kernel.OverrunResync = seconds(v.n)
	}
	return nil
}

func setPoll(b *builder, v value) error {
	if v.n == 0 {
		return errors.New("the interval of PollSecs must be more than 0; remove PollSecs to listen to events")
	}
	b.cfg.Kernel.Poll = seconds(v.n)
	return nil
}

func setPolicy(b *builder, v value) error {
	policy := strings.ToUpper(v.text)
	if policy != "RR" && policy != "FIFO" {
		return fmt.Errorf("unknown scheduler %s; there are RR and FIFO", quote(v.text))
	}
	b.cfg.Scheduler.Policy = policy
	return nil
}

func setPriority(b *builder, v value) error {
	if v.n > maxPriority {
		return fmt.Errorf("the priority must be 0 to %d, not %s", maxPriority, v.text)
	}
	b.cfg.Scheduler.Priority = v.n
	b.priority = v.pos
	return nil
}

// ignored is for keywords that are read for compatibility only.
func ignored(advice string) func(*builder, value) error {
	return func(b *builder, v value) error {
		b.warnf(v.pos, "%s is ignored: %s", v.key, advice)
		return nil
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
