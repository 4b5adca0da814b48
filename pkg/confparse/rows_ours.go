package confparse

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// DefaultCoalesceTime is the longest rest between two sends when it is busy.
const DefaultCoalesceTime = time.Millisecond

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
		absent: "1000",
		help:   "How long, in microseconds, events may wait to be sent together when there are many, at most 100000. It saves most of the CPU time and fills datagrams. One who only receives may take four times as long. With fewer than some 2,000 events a second each is sent at once whatever is set. `0`: always send at once.",
	},
	{
		in: "Conntrackgo", words: "ReturnToDefault", arg: boolean,
		set: func(b *builder, v value) error {
			b.cfg.ReturnToDefault = v.on
			return nil
		},
		absent: "off",
		help:   "Of several links: go back to the one marked Default, else the first, once it has been up for ten seconds. If it fails again soon, the next return waits twice as long, up to ten minutes. The C daemon stays where it is, and follows.",
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
		in: "Conntrackgo", words: "AcceptFrom", arg: block,
		absent: "the networks of Interface",
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
