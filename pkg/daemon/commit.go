package daemon

import (
	"context"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// commitBatch is the largest number of entries written to the kernel between two
// visits of the node. The events they cause are read meanwhile.
const commitBatch = 512

// commitExternal writes external caches into the kernel, part by part, and
// returns when the last entry was tried.
func (d *Daemon) commitExternal(parts []func()) {
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
		part()
	}
}

// commitFlows writes the external cache of flows into the kernel.
func (d *Daemon) commitFlows() {
	started := time.Now()
	d.enter(func(n *node.Node, _ time.Duration) { n.BeginCommit() })
	n := d.sync.breadth()
	c := commit{d: d, flows: make([]flow.Flow, n), known: make([]kernel.Known, n), results: make([]kernel.Result, n)}
	for c.next() {
	}
	if c.cut {
		d.log.Warnf("commit cut short by the shutdown after %d entries", c.written)
		return
	}
	d.log.Infof("Committed %d new entries", c.written)
	if c.refused > 0 {
		d.log.Infof("%d entries can't be committed", c.refused)
	}
	d.log.Infof("commit has taken %.6f seconds", time.Since(started).Seconds())
}

// commit is one commit under way.
type commit struct {
	d                *Daemon
	flows            []flow.Flow
	known            []kernel.Known
	results          []kernel.Result
	written, refused int
	said             int  // log lines about refused entries
	cut              bool // the daemon ends
}

// knownAs is what the kernel's writer makes of the node's knowledge: a flow
// known to be there is updated by one request, without asking what it is.
var knownAs = [...]kernel.Known{
	node.HeldUnknown: kernel.Unknown,
	node.HeldMissing: kernel.Missing,
	node.HeldOther:   kernel.Exists,
	node.HeldSame:    kernel.Same,
}

// next writes a batch and reports whether there are more.
func (c *commit) next() (more bool) {
	s := c.d.sync
	var n int
	var done bool
	c.d.beside(func(nd *node.Node, now time.Duration) {
		n, done = nd.NextCommit(now, c.flows)
		for i := range n {
			c.known[i] = knownAs[nd.Held(&c.flows[i])]
		}
		c.cut = s.closed
	})
	if c.cut {
		return false
	}
	if s.outdated.Load() {
		clear(c.known) // the internal cache misses events
	}
	s.breathe(context.Background())
	if err := s.commit.CommitKnown(c.flows[:n], c.known[:n], c.results[:n]); err != nil {
		c.refuse(n, nil, err)
		return !done
	}
	for i := range n {
		if err := c.results[i].Err(); err != nil {
			c.refuse(1, c.flows[i].AppendText(nil, flow.TextOptions{Timeout: true}), err)
			continue
		}
		c.written++
	}
	return !done
}

// commitLines bounds the log lines of one commit.
const commitLines = 10

// refuse counts n entries that were not written. entry is its text, if it is
// one.
func (c *commit) refuse(n int, entry []byte, why error) {
	c.refused += n
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
