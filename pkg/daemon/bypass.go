package daemon

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// Without an internal cache (DisableInternalCache) the kernel's table stands in
// for it: it is what a peer that asks gets, and what -i shows.

// tablePause is the pause after each tablePortion entries sent: nobody
// acknowledges them, and a receiver's socket has only so much room.
const (
	tablePortion = 1024
	tablePause   = 20 * time.Millisecond
)

// serveTable sends the kernel's table whenever the node wants it sent.
func (d *Daemon) serveTable(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.sync.table:
		}
		if err := d.sendTable(ctx); err != nil && ctx.Err() == nil {
			d.log.Errorf("send conntrack table: %v", err)
		}
	}
}

func (d *Daemon) sendTable(ctx context.Context) error {
	begin := func() { d.enter(func(n *node.Group, _ time.Duration) { n.Pair().BeginTable() }) }
	batch := make([]flow.Event, 0, eventBatch)
	sent := 0
	feed := func() error {
		d.beside(func(n *node.Group, now time.Duration) { n.Kernel(now, batch) })
		sent += len(batch)
		batch = batch[:0]
		if sent < tablePortion {
			return nil
		}
		sent = 0
		return pause(ctx, tablePause)
	}
	begin()
	var dumper kernel.Dumper
	err := dumper.Dump(ctx, func(f *flow.Flow) error {
		batch = append(batch, flow.Event{Op: flow.Dumped, Flow: *f})
		if len(batch) == cap(batch) {
			return feed()
		}
		return nil
	}, begin)
	if err == nil {
		err = feed()
	}
	d.enter(func(n *node.Group, _ time.Duration) { n.Pair().EndTable(err == nil) })
	return err
}

// pause sleeps unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// showTable writes the entries of the kernel's table that would be sent.
func (d *Daemon) showTable(ctx context.Context, w io.Writer, xml bool) error {
	var text []byte
	filter := &d.cfg.Node.Filter
	wall := time.Now()
	flush := func() error {
		_, err := w.Write(text)
		text = text[:0]
		return err
	}
	err := kernel.Dump(ctx, func(f *flow.Flow) error {
		if !filter.Pass(f) {
			return nil
		}
		o := flow.TextOptions{Now: wall, Timeout: true}
		if xml {
			text = f.AppendXML(text, o)
		} else {
			text = f.AppendText(text, o)
		}
		text = append(text, '\n')
		if len(text) < showChunk {
			return nil
		}
		return flush()
	})
	if err != nil {
		return fmt.Errorf("show conntrack table: %w", err)
	}
	return flush()
}

const showChunk = 64 << 10 // bytes written to a client at once
