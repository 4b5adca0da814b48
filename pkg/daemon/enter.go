package daemon

import (
	"net/netip"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

const (
	sendBatch    = 64                    // datagrams handed to the link at once
	sendRounds   = 16                    // batches sent before the lock is given up
	sendPatience = 20 * time.Millisecond // with a full socket, all batches together
	sendPause    = time.Millisecond      // between two attempts when waiting is of no use
)

// now is the node's clock: monotonic, zero at the start.
func (d *Daemon) now() time.Duration { return time.Since(d.started) }

// enter runs fn inside the node and sends what comes of it.
func (d *Daemon) enter(fn func(n *node.Group, now time.Duration)) {
	s := d.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	now := d.now()
	fn(s.node, now)
	if !s.closed && d.drain(now) {
		notice(s.inject.wake)
	}
}

// beside is enter for one piece of a long work. Between two pieces the scheduler
// gets to see that the loop is wanted: a thread at work does not look, the one
// that waited for the network may have taken up this very goroutine, and its
// monitor looks every 10 ms. It costs a wake-up, so not after every piece.
func (d *Daemon) beside(fn func(n *node.Group, now time.Duration)) {
	d.enter(fn)
	now, last := d.now(), d.yielded.Load()
	if int64(now)-last >= int64(yieldEvery) && d.yielded.CompareAndSwap(last, int64(now)) {
		runtime.Gosched()
	}
}

const yieldEvery = time.Millisecond

// drain sends what the node has and arms the timer. Where a socket stays full
// what is left of the batch is lost like any datagram, and asked for again by
// the peer. It reports whether there is something to be written to the kernel.
func (d *Daemon) drain(now time.Duration) (inject bool) {
	s := d.sync
	more := d.drainNode(now)
	if !s.node.Expire(sweepChunk) {
		more = true
	}
	if s.inject != nil {
		inject = s.inject.take(s.node.Pair())
	}
	d.sayNotices()
	s.sayReady(s.node.Ready())
	if s.node.Pair().TableWanted() {
		notice(s.table)
	}
	if why, ok := s.node.SweepWanted(now); ok {
		select {
		case s.refill <- why:
		default: // any reading does
		}
	}
	next := s.node.Deadline()
	if more {
		next = now
	}
	s.arm(now, next)
	return inject
}

// drainNode sends what the node has for its peers, in turn, and reports whether
// there is more.
func (d *Daemon) drainNode(now time.Duration) (more bool) {
	s := d.sync
	deadline := time.Now().Add(sendPatience)
	if s.group != nil {
		if s.batch[0] = s.node.Announcement(now, s.batch[0]); len(s.batch[0]) > 0 {
			d.send(netip.Addr{}, s.batch[:1], deadline)
		}
	}
	turns := s.node.Turns()
	silent := 0 // peers in a row for which there is no more
	for round := 0; silent < turns && round < sendRounds*turns; round++ {
		to := s.node.Turn()
		silent++
		s.used = s.used[:0]
		for len(s.used) < sendBatch {
			i := len(s.used)
			s.batch[i] = s.node.Next(now, s.batch[i], s.size)
			if len(s.batch[i]) == 0 {
				break
			}
			s.used = append(s.used, s.batch[i])
		}
		if len(s.used) == sendBatch {
			silent = 0
		}
		d.send(to, s.used, deadline)
	}
	return silent < turns
}

// send sends datagrams to a peer; to the other node, or to all of a group, if it
// is not valid.
func (d *Daemon) send(to netip.Addr, batch [][]byte, deadline time.Time) {
	for waited := false; len(batch) > 0; waited = true {
		var sent int
		var err error
		if to.IsValid() {
			sent, err = d.sync.group.SendTo(to, batch)
		} else {
			sent, err = d.sync.link.Send(batch)
		}
		if err != nil {
			return
		}
		if batch = batch[sent:]; len(batch) == 0 || d.sync.link.WaitWritable(deadline) != nil {
			return
		}
		if sent == 0 && waited { // the kernel, short of memory, says that there is room, and takes nothing
			if !time.Now().Before(deadline) {
				return
			}
			time.Sleep(sendPause)
		}
	}
}

// arm makes the timer fire at the latest at next. A timer that fires early
// does nothing but arm itself again, which is cheaper than to move it with
// every batch.
func (s *syncer) arm(now, next time.Duration) {
	if s.armed > now && s.armed <= next {
		return
	}
	s.armed = next
	s.alarm(next - now)
}

// sayNotices logs what the node noticed.
func (d *Daemon) sayNotices() {
	for {
		x, peer, ok := d.sync.node.NextNotice()
		if !ok {
			return
		}
		d.say(saidNotice+int(x.Kind), func() { d.sayNotice(d.logOf(peer), x) })
	}
}

// logOf is the log for lines about a peer of a group.
func (d *Daemon) logOf(peer netip.Addr) logrus.FieldLogger {
	if !peer.IsValid() {
		return d.log
	}
	return d.log.WithField(peerField, peer)
}

func (d *Daemon) sayNotice(log logrus.FieldLogger, x node.Notice) {
	switch x.Kind {
	case node.RoomAgain:
		log.Infof("%s cache has room again: getting the flows it refused", x.Which)
	case node.ResyncRequested:
		log.Info("resync requested by other node")
		if !d.cfg.Node.DisableInternalCache {
			log.Info("sending bulk update")
		}
	case node.PeerRestarted:
		log.Info("the other node has (re)started: exchanging all entries")
	case node.PeerAway:
		log.Warn("the other node answers nothing any more: nothing is kept for it; its entries stay")
	case node.PeerBack:
		log.Info("the other node is back: exchanging all entries")
	case node.PeerSilent:
		log.Warnf("the other node is silent: nothing has been heard of it for %d s", x.Count)
	case node.PeerHeard:
		log.Infof("the other node is heard again, after %d s", x.Count)
	case node.ResyncComplete:
		log.Info("resync completed: the external cache has all entries of the other node")
	case node.TablesDiffer:
		log.Warn("the external cache is not what the other node has told us: asking for all entries again")
	case node.SettingsDiffer:
		log.Warnf("CommitTimeout is %d s here and %d s on the other node: set both alike", int(d.cfg.Node.CommitTimeout.Seconds()), x.Count)
	case node.ModesDiffer:
		log.Warnf("the other node is configured for another mode than %s: nothing is synchronised", d.cfg.Node.Mode)
	case node.ResyncGaps:
		log.Warn("the other node's bulk updates keep having gaps: entries it no longer has may stay in the external cache; check the sync link and the receive buffers")
	case node.TakenOver:
		log.Infof("%d entries that were held have their normal timeouts back", x.Count)
	case node.HoldLapsed:
		log.Warnf("the other node has not been heard for a day, or not spoken of them: %d entries that were held for it have their normal timeouts back", x.Count)
	case node.PeerLooksOlder:
		log.Warn("NAT addresses from the other node look byte-reversed: if its conntrackd is 1.4.6 or older, set Conntrackgo { PeerVersion } to its version")
	case node.PeerLooksNewer:
		log.Warn("the other node sends what a conntrackd of Conntrackgo { PeerVersion } does not: set PeerVersion to its version, or NAT addresses are read byte-reversed")
	}
}
