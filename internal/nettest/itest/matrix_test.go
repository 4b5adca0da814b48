package itest_test

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// transport is a kind of link over one IP version. Every link carries flows of
// both.
type transport struct {
	name string
	v6   bool
}

var transports = []transport{
	{"UDP", false},
	{"UDP", true},
	{"Multicast", false},
	{"Multicast", true},
	{"TCP", false},
	{"TCP", true},
}

func (x transport) String() string {
	return fmt.Sprintf("%s%d", x.name, map[bool]int{false: 4, true: 6}[x.v6])
}

// cell is one field of the matrix.
type cell struct {
	mode modeRow
	over transport
	pair pairing
}

func (c cell) String() string {
	return fmt.Sprintf("%s/%s/%s_%s", c.mode.name, c.over, c.pair.a, c.pair.b)
}

// control: C with C says what a mode promises, and so what to ask of ours.
func (c cell) control() bool { return c.pair == pairing{nettest.C, nettest.C} }

// matrix is every mode over every transport in every pairing that has a daemon
// of ours, and one control of each mode. What is injected has left the link, so
// one transport is enough for that.
func matrix() (cells []cell) {
	for _, m := range modeRows {
		for _, x := range transports {
			for _, p := range pairings {
				c := cell{m, x, p}
				if c.control() && x != transports[0] || m.inject && x.name != "UDP" {
					continue
				}
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// A cell mostly waits for timers of a second, so many go side by side.
const cellsPerCPU = 4

// TestMatrix plays every cell. A worker makes a lab and plays one after the
// other in it.
func TestMatrix(t *testing.T) {
	if err := nettest.Available(); err != nil {
		nettest.SkipUnlessCI(t, "no lab: %v", err)
	}
	nettest.Need(t, nettest.C, nettest.Go)
	todo := make(chan cell)
	var workers sync.WaitGroup
	for range cellsPerCPU * runtime.NumCPU() {
		workers.Go(func() {
			b := &bench{}
			for c := range todo {
				t.Run(c.String(), func(t *testing.T) { b.play(t, c) })
			}
			if err := b.close(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range matrix() {
		todo <- c
	}
	close(todo)
	workers.Wait()
}

// bench is a lab in which cells are played one after the other.
type bench struct {
	lab *nettest.Lab
	two *nettest.TwoNodes
}

func (b *bench) close() error {
	if b.lab == nil {
		return nil
	}
	lab := b.lab
	b.lab, b.two = nil, nil
	return lab.Close()
}

// open makes a lab if there is none.
func (b *bench) open() (err error) {
	if b.lab != nil {
		return nil
	}
	if b.lab, err = nettest.New(nettest.Options{}); err != nil {
		return err
	}
	b.two, err = b.lab.NewTwoNodes()
	return err
}

// play plays a cell and leaves the lab as it was. After a failure the next
// cell gets another one.
func (b *bench) play(t *testing.T, c cell) {
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, lab: b.lab, two: b.two}
	t.Cleanup(func() {
		if t.Failed() {
			_ = b.close()
		}
	})
	ca, cb := nettest.SyncConfigs(c.over.v6)
	r.addDaemons(c.pair, ca, cb, func(a, b *nettest.Config) {
		for _, cfg := range []*nettest.Config{a, b} {
			c.mode.configure(cfg)
			cfg.Transport = c.over.name
		}
	})
	newMeeting(r, c).play()
	for _, d := range []*nettest.Daemon{r.a, r.b} {
		r.ok(d.Stop())
		r.ok(os.Remove(d.Config.LogFile))
		r.ok(d.Node.FlushKernel())
	}
}
