package daemon

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// syncsExpects reports whether expectations are replicated.
func (d *Daemon) syncsExpects() bool { return d.sync != nil && d.cfg.Node.ExpectationSync }

// ifExpects makes a handler that answers with nothing without ExpectationSync.
func (d *Daemon) ifExpects(h handler) handler {
	return func(ctx context.Context, w io.Writer) error {
		if !d.syncsExpects() {
			return nil
		}
		return h(ctx, w)
	}
}

// groups are the events the daemon wants from the kernel: none if it polls.
func (d *Daemon) groups() []kernel.Group {
	if d.polling() {
		return nil
	}
	groups := append([]kernel.Group(nil), kernel.FlowGroups...)
	if d.cfg.Node.ExpectationSync {
		groups = append(groups, kernel.ExpectGroups...)
	}
	return groups
}

// readTables makes both internal caches equal to the kernel's tables. The
// flows come first: expectations need their masters.
func (d *Daemon) readTables(ctx context.Context, why node.Purpose) error {
	if err := d.readTable(ctx, why); err != nil {
		return err
	}
	if d.syncsExpects() {
		return d.readExpects(ctx, why)
	}
	return nil
}

// readExpects dumps the kernel's expectations into the internal cache.
func (d *Daemon) readExpects(ctx context.Context, why node.Purpose) error {
	s := d.sync
	s.resync.Lock()
	defer s.resync.Unlock()
	var all []flow.ExpectEvent
	d.enter(func(n *node.Group, _ time.Duration) { n.BeginExpectSweep(why) })
	var dumper kernel.Dumper
	err := dumper.DumpExpect(ctx, func(x *flow.Expect) error {
		all = append(all, flow.ExpectEvent{Op: flow.Dumped, Expect: *x})
		return nil
	}, func() { all = all[:0] })
	d.beside(func(n *node.Group, now time.Duration) {
		if err != nil {
			n.AbortExpectSweep()
			return
		}
		n.Expects(now, all)
		n.EndExpectSweep()
	})
	if err != nil {
		return fmt.Errorf("read expectation table: %w", err)
	}
	return nil
}

// masters are the flows whose helpers have translated what they announced.
type masters struct {
	mu      sync.Mutex
	armed   bool // readMasters is about to come
	waiting []flow.Key
	// Without an internal cache nobody knows whether a master's event is here
	// already: what is expected waits for it, and ends behind what began.
	expects []flow.ExpectEvent
}

// A helper announces before it translates, and before the kernel confirms a
// flow that announces with its first packet. Its event may be here before
// either is done.
const (
	mastersPause = 20 * time.Millisecond
	mastersMost  = 4096
)

// takeExpects feeds expectation events to the node. The caller is inside.
func (d *Daemon) takeExpects(now time.Duration, events []flow.ExpectEvent) {
	m := &d.sync.masters
	m.mu.Lock()
	defer m.mu.Unlock()
	if !d.cfg.Node.DisableInternalCache {
		d.sync.node.Expects(now, events)
	} else if m.expects = append(m.expects, events...); len(m.expects) > mastersMost {
		d.sync.node.Expects(now, m.expects)
		m.expects = m.expects[:0]
	}
	m.add(events)
	if !m.armed && len(m.waiting)+len(m.expects) > 0 {
		m.armed = true
		time.AfterFunc(mastersPause, d.readMasters)
	}
}

// add notes the masters of new expectations with translation, to be read again;
// see node.ReadMaster.
func (m *masters) add(expects []flow.ExpectEvent) {
	for i := range expects {
		ev := &expects[i]
		if ev.Op == flow.New && ev.Origin == flow.Other && ev.Expect.Has.Any(flow.HasSNAT|flow.HasSPAT) && len(m.waiting) < mastersMost {
			master := ev.Expect.Master
			master.Zone = ev.Expect.Tuple.Zone
			m.waiting = append(m.waiting, master)
		}
	}
}

func (d *Daemon) readMasters() {
	s := d.sync
	var keys []flow.Key
	d.enter(func(n *node.Group, now time.Duration) {
		m := &s.masters
		m.mu.Lock()
		defer m.mu.Unlock()
		keys, m.waiting, m.armed = m.waiting, nil, false
		n.Expects(now, m.expects)
		m.expects = m.expects[:0]
	})
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	for _, k := range keys {
		f := flow.Flow{Key: k}
		found, err := s.flush.Lookup(&f)
		if err != nil {
			return // at the shutdown; else the next -R or repair finds it
		}
		if found {
			d.enter(func(n *node.Group, now time.Duration) { n.ReadMaster(now, &f) })
		}
	}
}

func (d *Daemon) onRefreshExpects(ctx context.Context, _ io.Writer) error {
	if d.cfg.Node.DisableInternalCache {
		d.log.Info("resync is unsupported in this mode")
		return nil
	}
	d.log.Info("resync with master expect table")
	d.countResync()
	return d.sync.expectRefreshes.do(func() error {
		err := d.readExpects(ctx, node.Refresh)
		if err != nil && ctx.Err() == nil {
			d.log.Errorf("resync with master expect table: %v", err)
		}
		return err
	})
}

// onFlushKernelExpects empties the kernel's table of expectations, all of it,
// as the kernel can't tell those of refused flows apart.
func (d *Daemon) onFlushKernelExpects(context.Context, io.Writer) error {
	s := d.sync
	d.log.Info("flushing kernel expect table")
	s.mu.Lock()
	s.kernel.flushes++
	s.mu.Unlock()
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if err := s.flush.FlushExpect(); err != nil {
		d.log.Errorf("flush kernel expect table: %v", err)
		return err
	}
	return nil
}

// then runs one handler after another; what ends the first is reported but
// does not keep the second from its work.
func then(first, second handler) handler {
	return func(ctx context.Context, w io.Writer) error {
		err := first(ctx, w)
		if e := second(ctx, w); err == nil {
			err = e
		}
		return err
	}
}

func (d *Daemon) expectReport(b []byte) []byte {
	st := d.nodeStats()
	var caches []byte
	if d.cfg.Node.DisableInternalCache {
		caches = appendBypass(caches, &BypassStats{New: st.Passed[wire.ExpNew], Updated: st.Passed[wire.ExpUpd], Destroyed: st.Passed[wire.ExpDel]})
	} else {
		caches = appendCache(caches, "internal", cacheStats(&st.ExpectInternal))
	}
	if d.sync.inject != nil {
		s := d.sync.inject.ExpectStats()
		caches = appendInject(caches, &s)
	} else {
		caches = appendCache(caches, "external", cacheStats(&st.ExpectExternal))
	}
	return d.appendGeneral(b, &st, caches)
}

// onDumpExpects is onDump for expectations.
func (d *Daemon) onDumpExpects(which node.Which, xml bool) handler {
	return func(ctx context.Context, w io.Writer) error {
		if !d.syncsExpects() {
			return nil
		}
		if which == node.Internal && d.cfg.Node.DisableInternalCache {
			return d.showExpects(ctx, w, xml)
		}
		cursor := node.Cursor{}
		var text []byte
		for !cursor.Done() && ctx.Err() == nil {
			d.beside(func(n *node.Group, now time.Duration) {
				text = n.DumpExpects(text[:0], now, which, xml, &cursor, dumpChunk)
			})
			if _, err := w.Write(text); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}

// showExpects writes those of the kernel's expectations that would be sent.
func (d *Daemon) showExpects(ctx context.Context, w io.Writer, xml bool) error {
	var all []flow.Expect
	err := new(kernel.Dumper).DumpExpect(ctx, func(x *flow.Expect) error {
		all = append(all, *x)
		return nil
	}, func() { all = all[:0] })
	if err != nil {
		return fmt.Errorf("show expectation table: %w", err)
	}
	var text []byte
	d.enter(func(n *node.Group, _ time.Duration) {
		for i := range all {
			if x := &all[i]; n.PassExpect(x) {
				if xml {
					text = x.AppendXML(text, flow.TextOptions{})
				} else {
					text = x.AppendText(text, flow.TextOptions{Timeout: true})
				}
				text = append(text, '\n')
			}
		}
	})
	_, err = w.Write(text)
	return err
}

// expectBatch is the number of expectations handed out at a time.
const expectBatch = 64

// commitExpects writes the external cache of expectations into the kernel,
// after the flows they belong to.
func (d *Daemon) commitExpects(from netip.Addr) {
	if !d.syncsExpects() {
		return
	}
	started := time.Now()
	d.enter(func(n *node.Group, _ time.Duration) { n.BeginExpectCommit(from) })
	c := commit{d: d}
	batch := make([]flow.Expect, expectBatch)
	for c.nextExpects(batch) {
	}
	if c.cut {
		d.log.Warnf("commit cut short by the shutdown after %d expectations", c.written)
		return
	}
	d.log.Infof("Committed %d new expectations", c.written)
	if c.refused > 0 {
		d.log.Infof("%d expectations can't be committed", c.refused)
	}
	d.log.Infof("commit has taken %.6f seconds", time.Since(started).Seconds())
}

// nextExpects is next for expectations, which go one by one: there are few.
func (c *commit) nextExpects(batch []flow.Expect) (more bool) {
	s := c.d.sync
	var n int
	var done bool
	c.d.enter(func(nd *node.Group, now time.Duration) {
		n, done = nd.NextExpectCommit(now, batch)
		c.cut = s.closed
	})
	if c.cut {
		return false
	}
	s.breathe(context.Background())
	for i := range batch[:n] {
		if err := s.commit.CreateExpect(&batch[i]); err != nil {
			c.refuse(batch[i].AppendText(nil, flow.TextOptions{Timeout: true}), err)
			continue
		}
		c.written++
	}
	return !done
}
