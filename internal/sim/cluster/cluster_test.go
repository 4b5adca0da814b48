package cluster

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

var (
	simSeeds = flag.Uint64("sim.seeds", 1000, "seeds of each profile")
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed only and print its trace")
)

func lossy(w *sim.World, f *sim.Faults) { f.Loss = 0.3 * w.Rand().Float64() }

func jittery(w *sim.World, f *sim.Faults) {
	f.Reorder, f.Late = 1, w.Between(0, 40*time.Millisecond)
	f.Duplicate, f.Loss = 0.2, 0.2
}

func messy(w *sim.World, f *sim.Faults) {
	f.Loss = 0.2 * w.Rand().Float64()
	f.Duplicate, f.Reorder = 0.15*w.Rand().Float64(), 0.3*w.Rand().Float64()
	f.Late = w.Between(0, 100*time.Millisecond)
}

func smallQueue(cfg *node.Config) { cfg.ResendQueueSize = 20 }

var (
	twoGo   = []Kind{Go, Go}
	threeGo = []Kind{Go, Go, Go}
	goC     = []Kind{Go, C}
)

// Each row is a promise: whatever happens in it, afterwards each external cache
// is the other kernels' tables, entry by entry. Rows with a C daemon leave out
// what nobody can repair there: messages repeated or swapped while it greets,
// the overflow of a resend queue, strangers in its place.
var profiles = []Profile{
	{Name: "calm", Hosts: twoGo, Mode: node.FTFW, Frames: 3},
	{Name: "loss", Hosts: twoGo, Mode: node.FTFW, Faults: lossy, Frames: 10},
	{Name: "jitter", Hosts: twoGo, Mode: node.FTFW, Faults: jittery, Late: true, Frames: 6},
	{Name: "restarts", Hosts: twoGo, Mode: node.FTFW, Faults: messy, Restart: 1. / 60},
	{Name: "clock steps", Hosts: twoGo, Mode: node.FTFW, Faults: lossy, Restart: 1. / 40, ClockStep: true},
	{Name: "stops", Hosts: twoGo, Mode: node.FTFW, Faults: lossy, Pause: 1. / 60},
	{Name: "full inbox", Hosts: twoGo, Mode: node.FTFW, Pause: 1. / 30, Inbox: 5, Overrun: 1. / 60},
	{Name: "small resend queue", Hosts: twoGo, Mode: node.FTFW, Change: smallQueue, Faults: lossy, OneWay: 1. / 40},
	{Name: "one way", Hosts: twoGo, Mode: node.FTFW, OneWay: 1. / 40},
	{Name: "partitions", Hosts: twoGo, Mode: node.FTFW, Faults: messy, Partition: 1. / 60, Restart: 1. / 100},
	{Name: "strangers", Hosts: twoGo, Mode: node.FTFW, Faults: lossy, Strangers: 1. / 20},
	{Name: "all", Hosts: twoGo, Mode: node.FTFW, Faults: messy, Restart: 1. / 80, ClockStep: true, Pause: 1. / 100, Inbox: 20,
		Overrun: 1. / 80, OneWay: 1. / 100, Partition: 1. / 100, Strangers: 1. / 40, Change: smallQueue},

	{Name: "C calm", Hosts: goC, Mode: node.FTFW, Frames: 4},
	{Name: "C loss", Hosts: goC, Mode: node.FTFW, Faults: lossy, Restart: 1. / 80, Overrun: 1. / 80},
	{Name: "C jitter", Hosts: goC, Mode: node.FTFW, Faults: jittery, Late: true, Frames: 10},
	{Name: "C clock steps", Hosts: goC, Mode: node.FTFW, Restart: 1. / 40, ClockStep: true},
	{Name: "C stops", Hosts: goC, Mode: node.FTFW, Pause: 1. / 60, OneWay: 1. / 60},
	{Name: "C strangers", Hosts: goC, Mode: node.FTFW, Faults: lossy, Strangers: 1. / 20},

	{Name: "group 3 calm", Hosts: threeGo, Mode: node.FTFW, Group: true, Frames: 8, Steps: 50},
	{Name: "group 3", Hosts: threeGo, Mode: node.FTFW, Group: true, Faults: messy, Restart: 1. / 100, ClockStep: true, Overrun: 1. / 60, Partition: 1. / 100, OneWay: 1. / 100, Steps: 50},
	{Name: "group 3 found", Hosts: threeGo, Mode: node.FTFW, Group: true, Found: true, Faults: messy, Restart: 1. / 100, Pause: 1. / 100, Partition: 1. / 100, Steps: 50},
	{Name: "group 3 strangers", Hosts: threeGo, Mode: node.FTFW, Group: true, Found: true, Faults: lossy, Strangers: 1. / 20, Steps: 50},
	{Name: "group 4", Hosts: append(threeGo, Go), Mode: node.FTFW, Group: true, Faults: jittery, Partition: 1. / 60, Steps: 25},
	{Name: "group 5 found", Hosts: append(threeGo, Go, Go), Mode: node.FTFW, Group: true, Found: true, Faults: messy, Restart: 1. / 150, Partition: 1. / 150, Overrun: 1. / 100, Steps: 20},

	// A peer of a group is given up when it is silent for ten seconds.
	{Name: "away", Hosts: twoGo, Mode: node.FTFW, Group: true, Faults: messy,
		Partition: 1. / 150, Restart: 1. / 400, Cut: 40 * time.Second, Pace: 400 * time.Millisecond},
	{Name: "away one way", Hosts: twoGo, Mode: node.FTFW, Group: true,
		OneWay: 1. / 100, Cut: 40 * time.Second, Pace: 400 * time.Millisecond},
	{Name: "away all", Hosts: twoGo, Mode: node.FTFW, Group: true, Change: smallQueue, Faults: messy, Restart: 1. / 200,
		ClockStep: true, Pause: 1. / 200, Inbox: 20, Overrun: 1. / 150, OneWay: 1. / 200, Partition: 1. / 200, Strangers: 1. / 40,
		Cut: 40 * time.Second, Pace: 400 * time.Millisecond},
	{Name: "away 3", Hosts: threeGo, Mode: node.FTFW, Group: true, Faults: lossy, Restart: 1. / 400,
		OneWay: 1. / 200, Partition: 1. / 200, Cut: 40 * time.Second, Pace: 600 * time.Millisecond, Steps: 100},
	{Name: "away C", Hosts: goC, Mode: node.FTFW, Group: true, Faults: lossy, Restart: 1. / 400, Overrun: 1. / 150,
		Partition: 1. / 200, OneWay: 1. / 200, Cut: 40 * time.Second, Pace: 400 * time.Millisecond},

	{Name: "ALARM 3", Hosts: []Kind{Go, Go, Go}, Mode: node.ALARM, Faults: messy, Restart: 1. / 100, Overrun: 1. / 60, Partition: 1. / 100},
	{Name: "ALARM 5", Hosts: []Kind{Go, Go, Go, Go, Go}, Mode: node.ALARM, Faults: messy, Pause: 1. / 100, Steps: 60},
	{Name: "NOTRACK 4", Hosts: []Kind{Go, Go, Go, Go}, Mode: node.NOTRACK, Steps: 60, Asks: true},
}

func TestConverge(t *testing.T) {
	for i := range profiles {
		p := &profiles[i]
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			if *simSeed != 0 {
				c := New(p, *simSeed)
				c.Record()
				err := c.Play()
				t.Logf("\n%s", c.Trace())
				if err != nil {
					t.Error(err)
				}
				return
			}
			for seed := range *simSeeds {
				if err := New(p, seed+1).Play(); err != nil {
					t.Fatalf("%v; repeat with -run '^%s$' -sim.seed %d -v", err, strings.ReplaceAll(t.Name(), " ", "_"), seed+1)
				}
			}
		})
	}
}
