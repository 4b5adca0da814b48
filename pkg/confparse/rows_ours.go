package confparse

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/snapshot"
)

// DefaultCoalesceTime is the longest rest between two sends when it is busy.
const DefaultCoalesceTime = 1500 * time.Microsecond

// DefaultReconcile is what Reconcile on means.
const DefaultReconcile = 5 * time.Minute

// ourRows are what conntrackd does not know. A file without this section
// works with both.
var ourRows = []row{
	{
		words: "Conntrackgo", arg: block,
		help: "Settings that the C daemon does not know: it refuses a file with this section.",
	},
	{
		in: "Conntrackgo", words: "CoalesceTime", arg: number,
		set: func(b *builder, v value) error {
			d := time.Duration(v.n) * time.Microsecond
			if d > maxCoalesceTime {
				return fmt.Errorf("CoalesceTime %d is more than %d microseconds", v.n, maxCoalesceTime.Microseconds())
			}
			b.cfg.CoalesceTime = d
			return nil
		},
		absent: strconv.Itoa(int(DefaultCoalesceTime / time.Microsecond)),
		help:   "How long, in microseconds, events may wait to be sent together when there are many, at most 100000. It saves most of the CPU time and fills datagrams. One who only receives may take three times as long. With fewer than some 2,000 events a second each is sent at once whatever is set. `0`: always send at once.",
	},
	{
		in: "Conntrackgo", words: "ReturnToDefault", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.ReturnToDefault }),
		absent: "off",
		help:   "Of several links: go back to the one marked Default, else the first, once it has been up for ten seconds. If it fails again soon, the next return waits twice as long, up to ten minutes. The C daemon stays where it is, and follows.",
	},
	{
		in: "Conntrackgo", words: "WaitForInterface", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.WaitForInterface }),
		absent: "off",
		help:   "Start although the Interface of a link, or its address (IPv4_address, IPv6_address; of Multicast IPv4_interface), is not there yet: the log says so, the link is DOWN, and it is opened as soon as they come. Everything else works meanwhile, and of several links the others are used. A misspelt name is waited for, too. The C daemon refuses to start.",
	},
	{
		in: "Conntrackgo", words: "ReadyFile", arg: path,
		set:    setPath(func(c *Config) *string { return &c.ReadyFile }, maxPath),
		absent: "none",
		help:   "A file for keepalived's track_file: `0` in it says that this node is ready to take over, for it has all that the other node knows; `1` that it is not, which is so from the start until then, and after the end. Track it with a weight, as -20, and not with 0: of two nodes one of which has never met the other, somebody must be primary. At most 256 bytes.",
	},
	{
		in: "Conntrackgo", words: "HoldInjected", arg: boolean,
		set: func(b *builder, v value) error {
			b.hold.on, b.hold.pos = v.on, v.pos
			return nil
		},
		absent: "off",
		help:   "With DisableExternalCache: keep what the other node has from ageing in this one's kernel, until `-c` says that this one takes over; then everything gets its normal timeout back and no commit is needed. `-t` makes it a standby again. Meant for a primary and a backup, not for two that both have traffic. Both nodes need the same net.netfilter.nf_conntrack_*_timeout*. The C daemon lets the entries age.",
	},
	{
		in: "Conntrackgo", words: "HoldTimeout", arg: number,
		set: func(b *builder, v value) error {
			if v.n < minHold || v.n > maxHold {
				return fmt.Errorf("HoldTimeout %d is not between %d and %d seconds", v.n, minHold, maxHold)
			}
			b.hold.time = time.Duration(v.n) * time.Second
			return nil
		},
		absent: fmt.Sprint(node.DefaultHold.Seconds()),
		help:   "HoldInjected: how many seconds more than normal an entry gets, from 2 to 86400. It gets them anew each half of this time, so this daemon may be down for half of it before anything is less than it would be without. Less costs more: each entry is written twice in this time.",
	},
	{
		in: "Conntrackgo", words: "Snapshot", arg: path,
		set:    setPath(func(c *Config) *string { return &c.Snapshot.Path }, maxPath),
		absent: "none",
		help:   "Hand the external cache over to the next start: it is written to this file when the daemon is told to end, and read when it starts, so that `-c` has all flows of the other node even if that is silent by then. The resync that follows brings it up to date. The directory must exist. A file that is damaged, too old, of another configuration, of another user or written before a boot is refused. At most 256 bytes. The C daemon starts with nothing.",
	},
	{
		in: "Conntrackgo", words: "SnapshotMaxAge", arg: number,
		set: func(b *builder, v value) error {
			if v.n == 0 || v.n > maxSnapshotAge {
				return fmt.Errorf("SnapshotMaxAge %d is not between 1 and %d seconds", v.n, maxSnapshotAge)
			}
			b.cfg.Snapshot.MaxAge = time.Duration(v.n) * time.Second
			return nil
		},
		absent: strconv.Itoa(int(snapshot.DefaultMaxAge / time.Second)),
		help:   "How many seconds a Snapshot may be old when it is read, at most 86400: as long as a restart, or the upgrade of a package, takes.",
	},
	{
		in: "Conntrackgo", words: "Reconcile", arg: boolean | number,
		set: func(b *builder, v value) error {
			switch {
			case v.kind == boolean && !v.on:
				b.cfg.Reconcile = 0
			case v.kind == boolean:
				b.cfg.Reconcile = DefaultReconcile
			case v.n > maxReconcile:
				return fmt.Errorf("Reconcile %d is more than %d seconds", v.n, maxReconcile)
			default:
				b.cfg.Reconcile = time.Duration(v.n) * time.Second
			}
			return nil
		},
		absent: "off",
		help:   "Compare the internal cache with the kernel's table each so many seconds, repair what is different, tell the other node, and log how much it was: events can be lost without a word. `on` is 300. It takes about 4 µs per entry of the table, spread over some seconds. 0 means off.",
	},
	{
		in: "Conntrackgo", words: "CommitVerify", arg: boolean,
		set:    setBool(func(c *Config) *bool { return &c.CommitVerify }),
		absent: "on",
		help:   "After a commit, when its client has been answered, count how many of the committed flows are in the kernel's table, and log it. The next reading of the table does it (`-R`, as the script orders), else one of its own five seconds later, which takes about 4 µs per entry of the table.",
	},
	{
		in: "Conntrackgo", words: "AcceptFrom", arg: block,
		absent: "the networks of Interface while the destination is silent",
		help:   "Accept messages of the other nodes from these sources and from the configured destination, and from nobody else. They must come through Interface either way.",
	},
	{
		in: "Conntrackgo/AcceptFrom", words: "IPv4_address", arg: address, set: acceptFrom(flow.IPv4),
		help: "A host, or a network with its prefix length.",
	},
	{
		in: "Conntrackgo/AcceptFrom", words: "IPv6_address", arg: address, set: acceptFrom(flow.IPv6),
		help: "A host, or a network with its prefix length.",
	},
	{
		in: "Conntrackgo", words: "Group", arg: boolean,
		set: func(b *builder, v value) error {
			b.group.on, b.group.pos = v.on, v.pos
			return nil
		},
		absent: "off",
		help:   "This node is one of three or more, up to sixteen; set it on all of them. It has a relation of its own with each of the others, as with the other node of a pair, and a cache of what each of them has. It needs Mode FTFW and one link, Multicast or UDP, and does not go with DisableExternalCache and Snapshot. The others run conntrackgo too; over UDP a C daemon can be one of them that knows this node only.",
	},
	{
		in: "Conntrackgo", words: "Peers", arg: block,
		set: func(b *builder, v value) error {
			if b.group.block.Line == 0 {
				b.group.block = v.pos
			}
			return nil
		},
		absent: "the destination alone",
		help:   "Group over UDP: the other nodes, at most 15, together with the destination of the link if that has one. Over Multicast they find each other.",
	},
	{
		in: "Conntrackgo/Peers", words: "IPv4_address", arg: address, set: addPeer(flow.IPv4),
		help: "Another node's address on the link, of the family of this node's.",
	},
	{
		in: "Conntrackgo/Peers", words: "IPv6_address", arg: address, set: addPeer(flow.IPv6),
		help: "The same for IPv6, without a zone.",
	},
	{
		in: "Conntrackgo", words: "DoNotSync", arg: block, done: attributesTo(func(c *Config) *flow.Has { return &c.Node.DoNotSync }),
		absent: "none",
		help:   "Attributes of flows that are neither sent nor taken from other nodes. At a commit an entry that the kernel has keeps its own, a new one has none. Set it on all nodes alike.",
	},
	{
		in: "Conntrackgo", words: "DoNotRestore", arg: block, done: attributesTo(func(c *Config) *flow.Has { return &c.Node.DoNotRestore }),
		absent: "none",
		help:   "Attributes of flows that are replicated and shown, but never written to the kernel, neither by a commit nor with DisableExternalCache: an entry that the kernel has keeps its own, a new one has none.",
	},
	{
		in: inAttributes, words: "Mark", set: addAttribute(flow.HasMark),
		help: "The mark (`ct mark`, CONNMARK).",
	},
	{
		in: inAttributes, words: "Labels", set: addAttribute(flow.HasLabels),
		help: "The labels (`ct label`, connlabel).",
	},
	{
		in: inAttributes, words: "Helper", set: addAttribute(flow.HasHelper),
		help: "The name of the helper. Without it a flow expects nothing: its expectations are refused by the kernel, with a warning if ExpectationSync is on.",
	},
	{
		in: "Conntrackgo", words: "PeerVersion", arg: release, head: headPeer, set: setPeerVersion,
		absent: "1.4.7",
		help:   "The version of the other node's conntrackd, from 1.4.2 on. What a version before 1.4.7 refuses is not sent to it, and its NAT addresses are converted: see [protocol.md](protocol.md) 9. With an address it is about the node at that destination of a link, or of Peers; of several nodes the oldest version counts. conntrackgo is 1.4.7.",
	},
}

const inAttributes = "Conntrackgo/DoNotSync, Conntrackgo/DoNotRestore"

func addAttribute(has flow.Has) func(*builder, value) error {
	return func(b *builder, _ value) error {
		b.attributes |= has
		return nil
	}
}

// attributesTo ends a list of attributes.
func attributesTo(field func(*Config) *flow.Has) func(*builder, value) error {
	return func(b *builder, v value) error {
		*field(b.cfg) |= b.attributes
		b.attributes = 0
		if b.cfg.Node.NotRestored().Has(flow.HasHelper) && b.helperless.Line == 0 {
			b.helperless = v.pos
		}
		return nil
	}
}

// acceptFrom adds a source to the list of every link.
func acceptFrom(family uint8) func(*builder, value) error {
	return func(b *builder, v value) error {
		text, length, hasLength := strings.Cut(v.text, "/")
		addr, err := b.address(value{pos: v.pos, text: text}, family)
		if err != nil {
			return err
		}
		if !addr.IsValid() || addr.Zone() != "" {
			return fmt.Errorf("%s is not an IPv%d address", quote(v.text), versions[family])
		}
		bits := addr.BitLen()
		if hasLength {
			if bits, err = strconv.Atoi(length); err != nil || bits > addr.BitLen() {
				return fmt.Errorf("%s is not an IPv%d network", quote(v.text), versions[family])
			}
		}
		b.acceptFrom = append(b.acceptFrom, netip.PrefixFrom(addr, bits).Masked())
		return nil
	}
}

// A round through all entries takes half of HoldTimeout. Above a day it would
// be longer than the other node's silence is borne.
const minHold, maxHold = 2, 86400

// maxCoalesceTime keeps replication far below a failover's stall.
const maxCoalesceTime = 100 * time.Millisecond

// maxSnapshotAge is a day, in seconds: more is no restart.
const maxSnapshotAge = 86400

// maxReconcile is a day, in seconds.
const maxReconcile = 86400
