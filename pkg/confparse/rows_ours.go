package confparse

import (
	"fmt"
	"time"
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
		help:   "How long, in microseconds, events may wait to be sent together when there are many, at most 100000. It saves most of the CPU time and fills datagrams. With fewer than some 2,000 events a second each is sent at once whatever is set. `0`: always send at once.",
	},
}

// maxCoalesceTime keeps replication far below a failover's stall.
const maxCoalesceTime = 100 * time.Millisecond
