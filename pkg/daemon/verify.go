package daemon

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
)

// A check is what a commit has written, to be looked for in the kernel's table
// by whoever reads it next. It keeps a sum of both tuples of each flow: the
// script empties the caches right after the commit. A nil check does nothing.
type check struct {
	seed   maphash.Seed
	sums   []uint64
	sorted bool
	held   []uint64 // a bit for each sum: seen in the table
}

// newCheck returns what a commit notes its flows in; nil if it is not to.
func (d *Daemon) newCheck() *check {
	if !d.cfg.CommitVerify {
		return nil
	}
	return &check{seed: maphash.MakeSeed()}
}

// tuples is what makes an entry of the kernel the one that was committed. The
// reply's zone is the kernel's own business.
type tuples struct{ orig, reply flow.Key }

func (c *check) sum(f *flow.Flow) uint64 {
	t := tuples{orig: f.Key}
	t.reply, _ = f.Reply()
	t.reply.Zone = 0
	return maphash.Comparable(c.seed, t)
}

func (c *check) add(f *flow.Flow) {
	if c != nil {
		c.sums = append(c.sums, c.sum(f))
	}
}

// begin begins to look, or begins anew.
func (c *check) begin() {
	if c == nil {
		return
	}
	if !c.sorted {
		slices.Sort(c.sums)
		c.sums = slices.Compact(c.sums)
		c.sorted = true
	}
	c.held = make([]uint64, len(c.sums)/64+1)
}

// see takes an entry of the table.
func (c *check) see(f *flow.Flow) {
	if c == nil {
		return
	}
	if i, ok := slices.BinarySearch(c.sums, c.sum(f)); ok {
		c.held[i/64] |= 1 << (i % 64)
	}
}

// result counts.
func (c *check) result() (held, of int) {
	for i := range c.sums {
		held += int(c.held[i/64] >> (i % 64) & 1)
	}
	return held, len(c.sums)
}

// checks holds the check of the last commit until the table is read.
type checks struct {
	due  chan struct{} // there is one
	mu   sync.Mutex
	last *check
}

func newChecks() *checks { return &checks{due: make(chan struct{}, 1)} }

// put takes what a commit has written.
func (s *checks) put(c *check) {
	if c == nil || len(c.sums) == 0 {
		return
	}
	s.mu.Lock()
	s.last = c
	s.mu.Unlock()
	notice(s.due)
}

// take hands the check to one who is about to read the table.
func (s *checks) take() *check {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.last
	s.last = nil
	return c
}

// giveBack is for a reading that came to nothing.
func (s *checks) giveBack(c *check) {
	s.mu.Lock()
	if s.last == nil {
		s.last = c
	}
	s.mu.Unlock()
}

func (s *checks) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last != nil
}

// verify reads the table for a check alone. Where there is an internal cache, it
// is compared, too: it believed that the kernel takes what it is given.
func (d *Daemon) verify(ctx context.Context) {
	if !d.cfg.Node.DisableInternalCache {
		d.reconcile(ctx)
		return
	}
	s := d.sync
	c := s.checks.take()
	c.begin()
	ease := easer{d: d, slow: true}
	var f flow.Flow
	var dumper kernel.Dumper
	err := dumper.Pages(ctx, func(p *kernel.Page) error {
		entries := 0
		for ; p.Next(&f); entries++ {
			c.see(&f)
		}
		return ease.rest(ctx, entries, 0)
	}, c.begin)
	switch {
	case err == nil, errors.Is(err, kernel.ErrTorn):
		d.sayVerified(c)
	case ctx.Err() == nil:
		d.log.Errorf("verify the commit: %v", err)
	}
}

// sayVerified says what a check showed.
func (d *Daemon) sayVerified(c *check) {
	if c == nil {
		return
	}
	held, of := c.result()
	d.sync.mu.Lock()
	d.sync.compared.Checked, d.sync.compared.Held = uint64(of), uint64(held)
	d.sync.mu.Unlock()
	if held == of {
		d.log.Infof("commit verified: %d of %d entries are in the kernel", held, of)
		return
	}
	d.log.Warnf("commit verified: %d of %d entries are in the kernel; the others have ended since, or it has lost them", held, of)
}
