package daemon

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/ctl"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// Requests is the table of control requests without handlers: the command
// line and the usage text come from it.
func Requests() []ctl.Request { return (&Daemon{}).requests() }

// requests is the table of control requests (docs/protocol.md 8). A new
// request is one row here.
func (d *Daemon) requests() []ctl.Request {
	return []ctl.Request{
		{Code: 46, Flag: "-c", Help: "commit external cache to conntrack table", Handle: d.onCommit("committing all external caches", d.commitFlows, d.commitExpects)},
		{Code: 18, Flag: "-c ct", Handle: d.onCommit("committing conntrack cache", d.commitFlows)},
		{Code: 42, Flag: "-c expect", Handle: d.ifExpects(d.onCommit("committing expectation cache", d.commitExpects))},
		{Code: codeCommitPeer, Flag: "-c", Operand: "address", HandleOperand: d.onCommitPeer},
		{Code: 45, Flag: "-f", Help: "flush internal and external cache", Handle: d.onFlushCaches(true)},
		{Code: 33, Flag: "-f internal", Handle: d.onFlushInternal},
		{Code: 34, Flag: "-f external", Handle: d.onFlushExternal},
		{Code: 19, Handle: d.onFlushCaches(false)},
		{Code: 43, Flag: "-F", Help: "flush kernel conntrack table", Handle: then(d.onFlushKernel, d.ifExpects(d.onFlushKernelExpects))},
		{Code: 0, Flag: "-F ct", Handle: d.onFlushKernel},
		{Code: 38, Flag: "-F expect", Handle: d.ifExpects(d.onFlushKernelExpects)},
		{Code: 16, Flag: "-i, -i ct", Help: "show content of internal cache", Handle: d.onDump(node.Internal, false)},
		{Code: 24, Flag: "-i -x, -i ct -x", Handle: d.onDump(node.Internal, true)},
		{Code: 40, Flag: "-i expect", Handle: d.onDumpExpects(node.Internal, false)},
		{Code: 47, Flag: "-i expect -x", Handle: d.onDumpExpects(node.Internal, true)},
		{Code: 17, Flag: "-e, -e ct", Help: "show content of external cache", Handle: d.onDump(node.External, false)},
		{Code: 25, Flag: "-e -x, -e ct -x", Handle: d.onDump(node.External, true)},
		{Code: 41, Flag: "-e expect", Handle: d.onDumpExpects(node.External, false)},
		{Code: 48, Flag: "-e expect -x", Handle: d.onDumpExpects(node.External, true)},
		{Code: 20, Flag: "-k", Help: "kill conntrack daemon", Handle: d.onKill},
		{Code: 28, Flag: "-s network", Handle: d.report(d.networkReport)},
		{Code: 29, Flag: "-s cache", Handle: d.report(d.cacheReport)},
		{Code: 30, Flag: "-s runtime", Handle: d.onRuntime},
		{Code: 31, Flag: "-s link", Old: "-s multicast", Handle: d.report(d.linkReport)},
		{Code: 32, Flag: "-s rsqueue", Handle: d.report(d.resendReport)},
		{Code: 35, Flag: "-s process"},
		{Code: 36, Flag: "-s queue", Handle: d.report(d.queueReport)},
		{Code: 21, Flag: "-s, -s ct", Help: "show statistics", Handle: d.report(d.generalReport)},
		{Code: 37, Flag: "-s expect", Handle: d.ifExpects(d.report(d.expectReport))},
		{Code: codeHealth, Flag: "-s health", Answered: true, Handle: d.onHealth},
		{Code: 44, Flag: "-R", Help: "resync with kernel conntrack table", Handle: then(d.onRefresh, d.ifExpects(d.onRefreshExpects))},
		{Code: 1, Flag: "-R ct", Handle: d.onRefresh},
		{Code: 39, Flag: "-R expect", Handle: d.ifExpects(d.onRefreshExpects)},
		{Code: 22, Flag: "-B", Help: "force a bulk send to other replica firewalls", Handle: d.onBulk},
		{Code: 23, Flag: "-n", Help: "request resync with other node", Handle: d.onResync},
		{Code: 26, Flag: "-t", Help: "reset the kernel timers (purge zombie entries after PurgeTimeout)", Handle: d.onPurge},
	}
}

// These are ours: the C daemon's numbers end at 48, and what it does not know it
// answers with nothing.
const (
	codeHealth     = 1000
	codeCommitPeer = 1001
)

type handler = func(ctx context.Context, w io.Writer) error

// onCommit commits caches one after the other. The client is answered at the
// end.
func (d *Daemon) onCommit(text string, parts ...committer) handler {
	return func(context.Context, io.Writer) error {
		if d.sync == nil {
			return nil
		}
		d.log.Info(text)
		switch {
		case d.sync.inject == nil:
			d.commitExternal(netip.Addr{}, parts)
		case d.holds():
			d.takeOver()
		}
		return nil
	}
}

// onCommitPeer commits what one peer of a group has told.
func (d *Daemon) onCommitPeer(_ context.Context, w io.Writer, operand string) error {
	peer, err := netip.ParseAddr(operand)
	if err != nil {
		return refuse(w, "%q is no address, and nothing else that can be committed", operand)
	}
	known := false
	if d.sync != nil {
		d.enter(func(n *node.Group, _ time.Duration) { known = n.Has(peer) })
	}
	if !known {
		return refuse(w, "%s is no peer of this node: -s health names those of a group", peer)
	}
	d.log.Infof("committing external caches of %s", peer)
	d.commitExternal(peer, []committer{d.commitFlows, d.commitExpects})
	return nil
}

// refuse tells the client why a request with an operand is not done.
func refuse(w io.Writer, format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	_, _ = fmt.Fprintln(w, err)
	return err
}

// onFlushCaches empties the caches of flows, and with expects those of
// expectations if there are any.
func (d *Daemon) onFlushCaches(expects bool) handler {
	return func(context.Context, io.Writer) error {
		if d.sync == nil {
			return nil
		}
		ok := false
		d.enter(func(n *node.Group, _ time.Duration) {
			if ok = n.FlushExternal(); !ok {
				return
			}
			n.FlushInternal()
			if expects && d.syncsExpects() {
				n.FlushExpects()
			}
		})
		if !ok {
			d.log.Error("ignoring flush command, commit still in progress")
			return nil
		}
		d.sync.purge.cancel()
		d.log.Info("flushing caches")
		return nil
	}
}

func (d *Daemon) onFlushInternal(context.Context, io.Writer) error {
	if d.sync == nil {
		return nil
	}
	d.sync.purge.cancel()
	d.log.Info("flushing internal cache")
	d.enter(func(n *node.Group, _ time.Duration) { n.FlushInternal() })
	return nil
}

func (d *Daemon) onFlushExternal(context.Context, io.Writer) error {
	if d.sync == nil {
		return nil
	}
	ok := false
	d.enter(func(n *node.Group, _ time.Duration) { ok = n.FlushExternal() })
	if !ok {
		d.log.Error("ignoring flush command, commit still in progress")
		return nil
	}
	d.log.Info("flushing external cache")
	return nil
}

func (d *Daemon) onFlushKernel(ctx context.Context, _ io.Writer) error {
	if d.sync == nil {
		return nil
	}
	d.log.Info("flushing kernel conntrack table")
	err := d.flushKernel(ctx, nil)
	if ctx.Err() != nil {
		d.log.Warn("flush of the kernel conntrack table cut short by the shutdown")
	} else if err != nil {
		d.log.Errorf("flush kernel conntrack table: %v", err)
	}
	return err
}

func (d *Daemon) onRefresh(ctx context.Context, _ io.Writer) error {
	if d.sync == nil {
		return nil
	}
	if d.cfg.Node.DisableInternalCache {
		d.log.Info("resync is unsupported in this mode")
		return nil
	}
	d.log.Info("resync with master conntrack table")
	d.countResync()
	return d.sync.refreshes.do(func() error {
		err := d.mend(func() error { return d.readTable(ctx, node.Refresh) })
		if err != nil && ctx.Err() == nil {
			d.log.Errorf("resync with master conntrack table: %v", err)
		}
		return err
	})
}

func (d *Daemon) onBulk(context.Context, io.Writer) error {
	if d.sync == nil || !d.cfg.Node.Mode.Resyncs() {
		return nil
	}
	if !d.cfg.Node.DisableInternalCache {
		d.log.Info("sending bulk update")
	}
	d.enter(func(n *node.Group, _ time.Duration) { n.SendBulk() })
	return nil
}

func (d *Daemon) onResync(context.Context, io.Writer) error {
	if d.sync == nil || !d.cfg.Node.Mode.Resyncs() {
		return nil
	}
	d.log.Info("resync requested")
	d.enter(func(n *node.Group, _ time.Duration) { n.RequestResync() })
	return nil
}

func (d *Daemon) onPurge(context.Context, io.Writer) error {
	if d.sync == nil {
		return nil
	}
	if d.holds() {
		d.enter(func(n *node.Group, now time.Duration) { n.Pair().StandBy(now) })
	}
	after := d.cfg.Node.PurgeTimeout
	if d.sync.purge.schedule(after, d.purgeNow) {
		d.log.Infof("flushing conntrack table in %d secs", int(after.Seconds()))
	}
	return nil
}

func (d *Daemon) purgeNow(ctx context.Context) {
	d.log.Info("flushing kernel conntrack table (scheduled)")
	err := d.flushKernel(ctx, d.heldFor)
	if ctx.Err() != nil {
		d.log.Info("scheduled flush cancelled")
		return
	}
	if err != nil {
		d.log.Errorf("flush kernel conntrack table: %v", err)
	}
	d.enter(func(n *node.Group, _ time.Duration) { n.FlushInternal() })
}

// onKill ends the daemon. Its client must not return before the process has
// gone, with lock and socket.
func (d *Daemon) onKill(context.Context, io.Writer) error {
	d.stop()
	return ctl.ErrHold
}

const dumpChunk = 512 // entries rendered per entry into the node

// onDump writes a cache in pieces, so that however slow the client is, nobody
// waits for it.
func (d *Daemon) onDump(which node.Which, xml bool) handler {
	return func(ctx context.Context, w io.Writer) error {
		if d.sync == nil {
			return nil
		}
		if which == node.Internal && d.cfg.Node.DisableInternalCache {
			return d.showTable(ctx, w, xml)
		}
		cursor := node.Cursor{}
		var text []byte
		for !cursor.Done() && ctx.Err() == nil {
			wall := time.Now()
			d.beside(func(n *node.Group, now time.Duration) {
				text = n.Dump(text[:0], now, wall, which, xml, &cursor, dumpChunk)
			})
			if _, err := w.Write(text); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}
