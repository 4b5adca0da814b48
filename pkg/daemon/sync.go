package daemon

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

const (
	eventBatch = 256  // events per entry into the node
	sweepChunk = 4096 // entries examined per entry into the node
)

// openSync opens the edges and makes the node.
func (d *Daemon) openSync() (*syncer, error) {
	s := &syncer{overrun: make(chan struct{}, 1)}
	if err := d.openEdges(s); err != nil {
		s.close()
		return nil, err
	}
	cfg := d.cfg
	cfg.Node.Filter.Compile() // flushKernel asks it too
	d.sayEvents(s.events)
	for _, text := range advise(cfg) {
		d.log.Warn(text)
	}
	d.saySettings()
	var seed [16]byte
	rand.Read(seed[:])
	s.node = node.New(cfg.Node, uint32(d.started.Unix()), [2]uint64{
		binary.NativeEndian.Uint64(seed[:8]), binary.NativeEndian.Uint64(seed[8:])})
	s.size = s.link.MTU()
	s.batch = make([][]byte, sendBatch)
	s.used = make([][]byte, 0, sendBatch)
	s.timer = time.AfterFunc(never, d.onTimer) // the first to leave the node arms it
	return s, nil
}

// openEdges subscribes to events before anybody dumps the table, so that
// nothing falls in between. After an error the caller closes what is open.
func (d *Daemon) openEdges(s *syncer) (err error) {
	cfg := d.cfg
	if s.link, err = link.Open(cfg.Links[0]); err != nil {
		return err
	}
	if s.events, err = kernel.OpenEvents(eventConfig(cfg), kernel.FlowGroups...); err != nil {
		return fmt.Errorf("open event socket: %w", err)
	}
	d.log.Infof("netlink event socket buffer size has been set to %d bytes", s.events.Stats().Buffer)
	for _, w := range []**kernel.Writer{&s.commit, &s.flush} {
		if *w, err = kernel.OpenWriter(kernel.WriterConfig{BeLiberal: !cfg.Node.TCPWindowTracking}); err != nil {
			return fmt.Errorf("open netlink socket: %w", err)
		}
		s.events.AddSelf((*w).PortID())
	}
	return nil
}

// saySettings warns of a kernel that keeps flows to itself, or has too many.
func (d *Daemon) saySettings() {
	settings, err := kernel.ReadSettings()
	if err != nil {
		d.log.Warnf("can't read the kernel's settings: %v", err)
		return
	}
	if settings.Max > d.cfg.Node.HashLimit {
		d.log.Warnf("HashLimit %d is less than net.netfilter.nf_conntrack_max %d: flows beyond it are not replicated", d.cfg.Node.HashLimit, settings.Max)
	}
	switch settings.Events {
	case 0:
		d.log.Warn("net.netfilter.nf_conntrack_events is 0: the kernel sends no events and no flow is replicated; set it to 1")
	case kernel.EventsAuto:
		d.log.Warn("net.netfilter.nf_conntrack_events is 2 (auto): flows made while no daemon runs never send events; set it to 1")
	}
}

// stop ends every blocking read and whatever works in pieces. The node stays
// readable for requests that are still being answered.
func (s *syncer) stop() {
	s.purge.cancel()
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if s.events != nil {
		s.events.Close()
	}
	if s.link != nil {
		s.link.Close()
	}
}

// close gives everything back. Nobody may be at work any more.
func (s *syncer) close() {
	s.stop()
	for _, w := range []*kernel.Writer{s.commit, s.flush} {
		if w != nil {
			w.Close()
		}
	}
}

// readEvents feeds kernel events to the node. After an overrun the kernel
// drops every event until the socket has been read empty, and does not say so
// again: only then may the repair trust what it dumps.
func (d *Daemon) readEvents(ctx context.Context) error {
	s := d.sync
	events := make([]flow.Event, eventBatch)
	var overrun *kernel.OverrunError
	congested := false
	for {
		read := s.events.Read
		if congested {
			read = s.events.TryRead
		}
		n, err := read(events)
		if n == 0 && err == nil && congested {
			congested = false
			notice(s.overrun)
		}
		if n > 0 {
			d.enter(func(nd *node.Node, now time.Duration) { nd.Kernel(now, events[:n]) })
		}
		switch {
		case err == nil:
		case errors.As(err, &overrun):
			if overrun.Grown {
				d.log.Infof("netlink event socket buffer size has been doubled to %d bytes", overrun.Buffer)
			}
			congested = true
			notice(s.overrun)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed):
			return nil
		default:
			return fmt.Errorf("read kernel events: %w", err)
		}
	}
}

// readLink feeds datagrams to the node.
func (d *Daemon) readLink(ctx context.Context) error {
	s := d.sync
	b := link.NewBatch(linkBatch, linkDatagram)
	var refused netip.Addr
	for {
		n, err := s.link.Recv(b)
		if err != nil {
			return nil
		}
		d.enter(func(nd *node.Node, now time.Duration) {
			for i := range n {
				nd.Datagram(now, b.Datagram(i))
			}
		})
		if from, ok := b.Refused(); ok && !refused.IsValid() {
			refused = from
			d.log.Warnf("refused a datagram from %s: it is neither the configured destination %s nor an address of the network of %s; if it is the other node's, put it into IPv4_Destination_Address or IPv6_Destination_Address",
				refused, d.cfg.Links[0].Peer, s.link.Name())
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

const (
	linkBatch    = 64
	linkDatagram = 64 << 10 // the largest a peer may send
)
