package daemon

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// commitBatch is the largest number of entries written to the kernel between two
// visits of the node. The events they cause are read meanwhile.
const commitBatch = 512

// commitExternal writes external caches into the kernel, part by part, and
// returns when the last entry was tried.
func (d *Daemon) commitExternal(from netip.Addr, parts []committer) {
	s := d.sync
	s.purge.cancel()
	// The node's own mark is gone when it has handed out the last entries, but
	// these are yet to be written.
	if !s.commitMu.TryLock() {
		d.log.Info("commit already in progress, skipping")
		return
	}
	defer s.commitMu.Unlock()
	for _, part := range parts {
		part(from)
	}
}

// A committer commits what one peer of a group has told; everything, if it is
// not valid.
type committer = func(from netip.Addr)

// commitFlows writes the external cache of flows into the kernel: while it works
// on one batch, the next is taken out of the node.
func (d *Daemon) commitFlows(from netip.Addr) {
	started := time.Now()
	d.enter(func(n *node.Group, _ time.Duration) { n.BeginCommit(from) })
	c := commit{d: d, idle: make(chan *commitPiece, 2), ready: make(chan *commitPiece), check: d.newCheck()}
	for range cap(c.idle) {
		c.idle <- newCommitPiece(d.sync.breadth())
	}
	go c.prepare()
	for b := range c.ready {
		c.write(b)
		d.sync.assuming.RUnlock()
		c.idle <- b
	}
	if c.cut {
		d.log.Warnf("commit cut short by the shutdown after %d entries", c.written)
		return
	}
	d.log.Infof("Committed %d new entries", c.written)
	if c.refused > 0 {
		d.log.Infof("%d entries can't be committed", c.refused)
	}
	for i := range c.lacking {
		if n := c.lacking[i].Load(); n > 0 {
			d.log.Warn(c.lacking.text(i, n, "committed"))
		}
	}
	d.log.Infof("commit has taken %.6f seconds", time.Since(started).Seconds())
	d.sync.checks.put(c.check)
}

// commit is one commit under way.
type commit struct {
	d                *Daemon
	idle, ready      chan *commitPiece
	written, refused int
	lacking          lacking
	said             int  // log lines about refused entries
	cut              bool // the daemon ends; final once ready is closed
	check            *check
}

// commitPiece is what goes to the kernel between two visits of the node: first
// the flows that it is believed not to have.
type commitPiece struct {
	flows   []flow.Flow
	known   []kernel.Known
	results []kernel.Result
	n       int
	missing int
}

func newCommitPiece(n int) *commitPiece {
	return &commitPiece{flows: make([]flow.Flow, n), known: make([]kernel.Known, n), results: make([]kernel.Result, n)}
}

// knownAs is what the kernel's writer makes of the node's knowledge: a flow
// known to be there is updated by one request, without asking what it is.
var knownAs = [...]kernel.Known{
	node.HeldUnknown: kernel.Unknown,
	node.HeldMissing: kernel.Missing,
	node.HeldOther:   kernel.Exists,
	node.HeldSame:    kernel.Same,
}

// prepare takes batches out of the node until there are no more. Its reader
// gives syncer.assuming back for each.
func (c *commit) prepare() {
	defer close(c.ready)
	for done := false; !done; {
		b := <-c.idle
		c.d.sync.assuming.RLock()
		c.d.beside(func(n *node.Group, now time.Duration) { done = c.fill(b, n, now) })
		c.ready <- b
	}
}

// fill takes the next batch out of the node and reports whether it is the last.
func (c *commit) fill(b *commitPiece, n *node.Group, now time.Duration) (last bool) {
	b.n, b.missing = 0, 0
	if c.cut = c.d.sync.closed; c.cut {
		return true
	}
	b.n, last = n.NextCommit(now, b.flows)
	outdated := c.d.outdated()
	for i := range b.n {
		b.known[i] = kernel.Unknown
		if !outdated {
			b.known[i] = knownAs[n.Held(&b.flows[i])]
		}
		if b.known[i] == kernel.Missing {
			n.Assume(now, &b.flows[i])
			b.swap(i, b.missing)
			b.missing++
		}
	}
	return last
}

func (b *commitPiece) swap(i, j int) {
	if i != j {
		b.flows[i], b.flows[j] = b.flows[j], b.flows[i]
		b.known[i], b.known[j] = b.known[j], b.known[i]
	}
}

// write writes a batch. What turns out to be there is committed as if nothing
// were known of it.
func (c *commit) write(b *commitPiece) {
	s := c.d.sync
	rest := 0
	if b.missing > 0 {
		err := s.direct.Create(b.flows[:b.missing], b.results)
		rest = c.created(b, err)
	}
	if rest == b.n {
		return
	}
	s.breathe(context.Background())
	flows := b.flows[rest:b.n]
	err := s.commit.CommitKnown(flows, b.known[rest:b.n], b.results)
	for i := range flows {
		c.outcome(&flows[i], b.results[i], err)
	}
}

// created takes what became of the missing ones, and moves those that exist to
// the end of them. It returns how many are done with.
func (c *commit) created(b *commitPiece, err error) (done int) {
	failed := 0
	for i := range b.missing {
		if b.results[i].Outcome == kernel.Failed {
			failed++
		}
	}
	if failed > 0 {
		c.d.enter(func(n *node.Group, _ time.Duration) {
			for i := range b.missing {
				if b.results[i].Outcome == kernel.Failed {
					n.Refute(&b.flows[i])
				}
			}
		})
	}
	for i := 0; i < b.missing; {
		if errors.Is(b.results[i].Errno, unix.EEXIST) {
			b.missing--
			b.swap(i, b.missing)
			b.results[i] = b.results[b.missing]
			b.known[b.missing] = kernel.Unknown
			continue
		}
		c.outcome(&b.flows[i], b.results[i], err)
		i++
	}
	return b.missing
}

// outcome counts what became of a flow. why is what went wrong as a whole.
func (c *commit) outcome(f *flow.Flow, r kernel.Result, why error) {
	switch err := r.Err(); {
	case err == nil:
		c.lacking.add(r.Without)
		c.written++
		c.check.add(f)
	case r.Errno == 0 && why != nil:
		c.refuse(nil, why)
	default:
		c.refuse(f.AppendText(nil, flow.TextOptions{Timeout: true}), err)
	}
}

// commitLines bounds the log lines of one commit.
const commitLines = 10

// refuse counts an entry that was not written. entry is its text, if it says
// something.
func (c *commit) refuse(entry []byte, why error) {
	c.refused++
	if c.said++; c.said > commitLines {
		return
	}
	c.d.sayWhy("commit-create", entry, why)
}

// sayWhy says why an entry was not written. entry is its text, if it is one.
func (d *Daemon) sayWhy(what string, entry []byte, why error) {
	// As strerror writes it: with a capital.
	text := why.Error()
	d.log.Errorf("%s: %s%s", what, strings.ToUpper(text[:1]), text[1:])
	switch {
	case entry == nil:
	case d.logFile != nil:
		d.logFile.entry(time.Now(), entry)
	default: // conntrackd would keep it to itself
		d.log.Errorf("%s", entry)
	}
}

// sayRefused is sayWhy for what the peer caused.
func (d *Daemon) sayRefused(what string, f *flow.Flow, why error) {
	var entry []byte
	if f != nil {
		entry = f.AppendText(nil, flow.TextOptions{Timeout: true})
	}
	d.say(saidRefused, func() { d.sayWhy(what, entry, why) })
}
