package daemon

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// report makes a handler of a function that appends a text. Without a Sync
// section there is nothing to report but the process itself.
func (d *Daemon) report(text func([]byte) []byte) handler {
	return func(_ context.Context, w io.Writer) error {
		if d.sync == nil {
			return nil
		}
		_, err := w.Write(text(nil))
		return err
	}
}

func (d *Daemon) nodeStats() (st node.Stats) {
	d.enter(func(n *node.Group, _ time.Duration) { st = n.Stats() })
	return st
}

func (d *Daemon) generalReport(b []byte) []byte {
	st := d.nodeStats()
	return d.appendGeneral(b, &st, d.appendCaches(nil, &st, appendCache))
}

// appendGeneral appends the report on two caches and what they live from.
func (d *Daemon) appendGeneral(b []byte, st *node.Stats, caches []byte) []byte {
	b = append(b, caches...)
	b = appendTraffic(b, &TrafficStats{Bytes: st.TrafficBytes, Packets: st.TrafficPackets})
	b = appendActiveLink(b, d.linkStats())
	return appendTracking(b, &TrackingStats{Malformed: st.Network.Malformed, Lost: st.Engine.Lost})
}

func (d *Daemon) networkReport(b []byte) []byte {
	st := d.nodeStats()
	b = appendNetwork(b, &NetworkStats{
		Malformed: st.Network.Malformed, BadVersion: st.Network.BadVersion, BadHeader: st.Network.BadHeader,
		BadPayload: st.Network.BadPayload, BadType: st.Network.BadType, Truncated: st.Network.Truncated,
		BadSize: st.Network.BadSize, Lost: st.Engine.Lost, Before: st.Engine.Before,
	})
	return appendActiveLink(b, d.linkStats())
}

func (d *Daemon) cacheReport(b []byte) []byte {
	st := d.nodeStats()
	return d.appendCaches(b, &st, appendCacheDetail)
}

// appendCaches appends the blocks of both caches, or of what stands in for them.
func (d *Daemon) appendCaches(b []byte, st *node.Stats, cache func([]byte, string, *CacheStats) []byte) []byte {
	if d.cfg.Node.DisableInternalCache {
		b = appendBypass(b, &BypassStats{New: st.Passed[wire.CTNew], Updated: st.Passed[wire.CTUpd], Destroyed: st.Passed[wire.CTDel]})
	} else {
		b = cache(b, "internal", cacheStats(&st.Internal))
	}
	if d.sync.inject != nil {
		s := d.sync.inject.Stats()
		return appendInject(b, &s)
	}
	return cache(b, "external", cacheStats(&st.External))
}

func cacheStats(s *node.CacheStats) *CacheStats {
	return &CacheStats{
		Objects: uint64(s.Total), Active: uint64(s.Active), Entries: uint64(s.Total),
		Created: s.Created, Updated: s.Updated, Destroyed: s.Destroyed,
		CreateFailed: s.CreateFailed, NoSpace: s.NoSpace,
	}
}

func (d *Daemon) runtimeStats() *RuntimeStats {
	s := &RuntimeStats{
		Uptime:              time.Since(d.started),
		LocalReadFailed:     d.counters.LocalReadFailed.Load(),
		LocalUnknownRequest: d.counters.LocalUnknownRequest.Load(),
	}
	if d.sync == nil {
		return s
	}
	st, ev := d.nodeStats(), d.sync.events.Stats()
	d.sync.mu.Lock()
	s.Flushes, s.Resyncs = d.sync.kernel.flushes, d.sync.kernel.resyncs
	d.sync.mu.Unlock()
	s.EventsReceived, s.EventsFiltered = ev.Received, st.EventsFiltered
	s.EventsUnknown, s.EventsFailed = ev.Unknown, ev.Failed
	s.Overruns, s.BufferSize = ev.Overruns, uint64(ev.Buffer)
	if d.polling() {
		s.BufferSize = 0 // nothing ever comes through it
	}
	return s
}

// onRuntime answers in a daemon without a Sync section too.
func (d *Daemon) onRuntime(_ context.Context, w io.Writer) error {
	_, err := w.Write(appendRuntime(nil, d.runtimeStats()))
	return err
}

func (d *Daemon) linkReport(b []byte) []byte {
	links, current := d.links()
	for _, l := range links {
		b = appendLink(b, statsOf(l, l == current))
	}
	return b
}

// links returns all links, and the one in use.
func (d *Daemon) links() (all []link.Link, current link.Link) {
	if set, ok := d.sync.link.(*link.Set); ok {
		return set.Links(), set.Current()
	}
	return []link.Link{d.sync.link}, d.sync.link
}

func (d *Daemon) linkStats() *LinkStats {
	_, current := d.links()
	return statsOf(current, true)
}

// streaming is a link that has a connection in each direction.
type streaming interface {
	Connected() (server, client bool)
}

func statsOf(l link.Link, active bool) *LinkStats {
	st := l.Stats()
	kind := l.Transport().String()
	if l.Transport() == link.Multicast {
		kind = strings.ToLower(kind)
	}
	s := &LinkStats{
		Kind: kind, Device: l.Name(), Status: l.Status().String(), Active: active,
		BytesSent: st.SentBytes, BytesRecv: st.RecvBytes,
		PacketsSent: st.SentPackets, PacketsRecv: st.RecvPackets,
		ErrorsSent: st.SendErrors, ErrorsRecv: st.RecvErrors + st.Refused,
	}
	if c, ok := l.(streaming); ok {
		s.Server, s.Client = c.Connected()
	}
	return s
}

func (d *Daemon) resendReport(b []byte) []byte {
	var queue []Resend // the text is made outside the node: it may be long
	none := false
	d.enter(func(n *node.Group, _ time.Duration) {
		all := n.ResendQueue()
		if none = all == nil; none {
			return
		}
		for r := range all {
			queue = append(queue, Resend{Control: !r.Object, Seq: r.Seq, Flags: r.Flags})
		}
	})
	if none {
		return b
	}
	b = appendResendHead(b, len(queue))
	for _, r := range queue {
		b = appendResend(b, r)
	}
	return b
}

// unlimited is how the report shows a queue without a limit.
const unlimited = 1<<31 - 1

func (d *Daemon) queueReport(b []byte) []byte {
	st := d.nodeStats()
	queued := d.sync.link.Stats().Queued
	queues := []QueueStats{
		{Name: "txqueue", Length: uint64(st.TxQueue), Maximum: unlimited},
		{Name: "errorq", Length: queued, Maximum: uint64(d.cfg.ErrorQueueLength)},
	}
	if d.cfg.Node.Mode == node.FTFW {
		queues = append(queues, QueueStats{Name: "rsqueue", Length: uint64(st.Resend),
			Maximum: uint64(d.cfg.Node.ResendQueueSize), NoSpace: st.Engine.ResendOverflow})
	}
	// C counts only what waits in the error queue as allocated.
	return appendQueues(b, queued, queues)
}
