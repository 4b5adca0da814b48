package daemon

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// commitBatch is the number of entries written to the kernel between two
// visits of the node. The events they cause are read meanwhile.
const commitBatch = 512

// commitExternal writes the external cache into the kernel and returns when
// the last entry was tried.
func (d *Daemon) commitExternal() {
	s := d.sync
	s.purge.cancel()
	started := time.Now()
	begun := false
	d.enter(func(n *node.Node, _ time.Duration) { begun = n.BeginCommit() })
	if !begun {
		d.log.Info("commit already in progress, skipping")
		return
	}
	flows := make([]flow.Flow, commitBatch)
	results := make([]kernel.Result, commitBatch)
	var written, refused int
	for done := false; !done; {
		var n int
		d.enter(func(nd *node.Node, now time.Duration) { n, done = nd.NextCommit(now, flows) })
		if err := s.commit.Commit(flows[:n], results[:n]); err != nil {
			d.log.Errorf("commit-create: %v", err)
			refused += n
			continue
		}
		for i := range n {
			if results[i].Errno == 0 {
				written++
				continue
			}
			refused++
			d.sayRefused(refused, &flows[i], results[i])
		}
	}
	d.log.Infof("Committed %d new entries", written)
	if refused > 0 {
		d.log.Infof("%d entries can't be committed", refused)
	}
	d.log.Infof("commit has taken %.6f seconds", time.Since(started).Seconds())
}

// saidRefused bounds the log lines of one commit.
const saidRefused = 10

func (d *Daemon) sayRefused(count int, f *flow.Flow, r kernel.Result) {
	if count > saidRefused {
		return
	}
	line := f.AppendText(nil, flow.TextOptions{Timeout: true})
	d.log.Errorf("commit-create: %v", r.Errno)
	d.log.Errorf("%s", line)
}
