package daemon

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

const sweepChunk = 4096 // entries examined per entry into the node

// openSync opens the edges and makes the node.
func (d *Daemon) openSync() (*syncer, error) {
	s := &syncer{overrun: make(chan struct{}, 1), table: make(chan struct{}, 1), readiness: make(chan struct{}, 1), refill: make(chan node.Purpose, 1), checks: newChecks()}
	if err := d.openEdges(s); err != nil {
		s.close()
		return nil, err
	}
	cfg := d.cfg
	cfg.Node.Filter.Compile() // flushKernel asks it too
	d.sayEvents(s.events)
	if cfg.Node.DisableInternalCache {
		d.log.Info("disabling internal cache")
	}
	if cfg.Node.DisableExternalCache {
		d.log.Info("disabling external cache")
	}
	d.saySettings()
	if cfg.Node.Hold != 0 {
		d.log.Infof("holding injected entries for %d secs", int(cfg.Node.Hold.Seconds()))
	}
	var seed [16]byte
	rand.Read(seed[:])
	_, buffer := s.link.Buffers() // the other node's is as ours, as a rule
	cfg.Node.Name = nameOf(cfg.Links, d.started)
	cfg.Node.BulkWindow = room(buffer, datagramSize) * bulkPerDatagram
	s.node = node.NewGroup(cfg.Node, d.openSnapshot(), [2]uint64{
		binary.NativeEndian.Uint64(seed[:8]), binary.NativeEndian.Uint64(seed[8:])})
	if cfg.Node.Hold != 0 {
		s.node.Pair().SetTimeouts(d.readTimeouts())
	}
	d.openGroup(s)
	s.size = s.link.MTU()
	s.batch = make([][]byte, sendBatch)
	s.used = make([][]byte, 0, sendBatch)
	s.alarm = s.waiter.set // the first to leave the node arms it
	return s, nil
}

// openGroup begins relations with the peers of a group, or lets the node look
// for them.
func (d *Daemon) openGroup(s *syncer) {
	if !d.cfg.Node.Group {
		return
	}
	s.group = s.link.(speaker)
	if s.link.Transport() == link.Multicast {
		s.node.Announce()
		return
	}
	for _, peer := range d.cfg.Links[0].Peers {
		s.node.Add(0, peer)
	}
}

// openEdges subscribes to events before anybody dumps the table, so that
// nothing falls in between. After an error the caller closes what is open.
func (d *Daemon) openEdges(s *syncer) (err error) {
	cfg := d.cfg
	if s.waiter, err = newWaiter(); err != nil {
		return err
	}
	if s.link, err = link.OpenSet(d.linkConfig()); err != nil {
		return err
	}
	if s.events, err = kernel.OpenEvents(eventConfig(cfg), d.groups()...); err != nil {
		return fmt.Errorf("open event socket: %w", err)
	}
	if !d.polling() {
		d.log.Infof("netlink event socket buffer size has been set to %d bytes", s.events.Stats().Buffer)
	}
	writing := kernel.WriterConfig{BeLiberal: !cfg.Node.TCPWindowTracking, Leave: cfg.Node.NotRestored()}
	for _, w := range []**kernel.Writer{&s.commit, &s.flush, &s.direct} {
		if *w, err = kernel.OpenWriter(writing); err != nil {
			return fmt.Errorf("open netlink socket: %w", err)
		}
		s.events.AddSelf((*w).PortID())
	}
	s.events.Ignore(s.direct.PortID())
	if cfg.Node.DisableExternalCache {
		s.inject = newInjector(s.direct, cfg.Node.HashLimit, d.sayRefused)
		s.inject.lost = d.writeLost
	}
	return s.waiter.add(s.events.FD(), sourceEvents)
}

// aliveSilence is how long the other node must have said nothing before its
// words, or ours, are taken to be lost on the link. It says something each
// second, in the modes that do.
const aliveSilence = 3 * time.Second

func (d *Daemon) linkConfig() link.SetConfig {
	cfg := link.SetConfig{
		Links: d.cfg.Links, ReturnToDefault: d.cfg.ReturnToDefault, Silence: aliveSilence, Changed: d.sayLink,
		Unanswered: func() time.Duration { return d.sync.node.Pair().Unanswered(d.now()) }, // the loop is in the node when it receives
	}
	if d.cfg.Node.Mode == node.ALARM {
		cfg.Silence = 0
	}
	if d.cfg.WaitForInterface {
		cfg.Wait = d.sayLate
	}
	return cfg
}

// sayLate says that a link is not there yet, or that it is open now. Then it may
// change what fits into a datagram; the loop is in the node when it receives.
func (d *Daemon) sayLate(l link.Link, why error) {
	if why != nil {
		d.say(saidLink, func() { d.log.Warnf("sync link on %s is not there yet: waiting for it (%v)", l.Name(), why) })
		return
	}
	d.say(saidLink, func() { d.log.Infof("sync link on %s is open now", l.Name()) })
	d.sync.size = d.sync.link.MTU()
}

// sayLink says which link is used from now on.
func (d *Daemon) sayLink(l link.Link) {
	d.say(saidLink, func() {
		if l == nil {
			d.log.Error("no dedicated links available!")
			return
		}
		d.log.Infof("device `%s' becomes dedicated link", l.Name())
	})
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

// stop ends the loop and whatever works in pieces. The node stays
// readable for requests that are still being answered.
func (s *syncer) stop() {
	s.purge.end()
	s.mu.Lock()
	stopped := s.closed
	s.closed = true
	s.mu.Unlock()
	if stopped {
		return
	}
	if s.waiter != nil {
		s.waiter.close()
	}
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
	for _, w := range []*kernel.Writer{s.commit, s.flush, s.direct} {
		if w != nil {
			w.Close()
		}
	}
}

// bulkPerDatagram is how many messages of a bulk a datagram has at least, times
// the part of a buffer that room leaves free.
const bulkPerDatagram = 10 * paceHeadroom
