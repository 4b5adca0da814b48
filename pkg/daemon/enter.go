package daemon

import (
	"runtime"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

const (
	sendBatch    = 64                    // datagrams handed to the link at once
	sendRounds   = 16                    // batches sent before the lock is given up
	sendPatience = 20 * time.Millisecond // with a full socket, all batches together
)

// now is the node's clock: monotonic, zero at the start.
func (d *Daemon) now() time.Duration { return time.Since(d.started) }

// enter runs fn inside the node and sends what comes of it.
func (d *Daemon) enter(fn func(n *node.Node, now time.Duration)) {
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
func (d *Daemon) beside(fn func(n *node.Node, now time.Duration)) {
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
	more := true
	deadline := time.Now().Add(sendPatience)
	for round := 0; more && round < sendRounds; round++ {
		s.used = s.used[:0]
		for len(s.used) < sendBatch {
			i := len(s.used)
			s.batch[i] = s.node.Next(now, s.batch[i], s.size)
			if len(s.batch[i]) == 0 {
				more = false
				break
			}
			s.used = append(s.used, s.batch[i])
		}
		d.send(s.used, deadline)
	}
	if !s.node.Expire(sweepChunk) {
		more = true
	}
	if s.inject != nil {
		inject = s.inject.take(s.node)
	}
	d.sayNotices()
	s.sayReady(s.node.Ready())
	if s.node.TableWanted() {
		notice(s.table)
	}
	if s.node.SweepWanted() {
		notice(s.refill)
	}
	next := s.node.Deadline()
	if more {
		next = now
	}
	s.arm(now, next)
	return inject
}

func (d *Daemon) send(batch [][]byte, deadline time.Time) {
	for len(batch) > 0 {
		sent, err := d.sync.link.Send(batch)
		if err != nil {
			return
		}
		batch = batch[sent:]
		if len(batch) > 0 && d.sync.link.WaitWritable(deadline) != nil {
			return
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
		x, ok := d.sync.node.NextNotice()
		if !ok {
			return
		}
		d.say(saidNotice+int(x.Kind), func() { d.sayNotice(x) })
	}
}

func (d *Daemon) sayNotice(x node.Notice) {
	switch x.Kind {
	case node.RoomAgain:
		d.log.Infof("%s cache has room again: getting the flows it refused", x.Which)
	case node.ResyncRequested:
		d.log.Info("resync requested by other node")
		if !d.cfg.Node.DisableInternalCache {
			d.log.Info("sending bulk update")
		}
	case node.PeerRestarted:
		d.log.Info("the other node has (re)started: exchanging all entries")
	case node.ResyncComplete:
		d.log.Info("resync completed: the external cache has all entries of the other node")
	case node.TablesDiffer:
		d.log.Warn("the external cache is not what the other node has told us: asking for all entries again")
	case node.SettingsDiffer:
		d.log.Warnf("CommitTimeout is %d s here and %d s on the other node: set both alike", int(d.cfg.Node.CommitTimeout.Seconds()), x.Count)
	case node.ModesDiffer:
		d.log.Warnf("the other node is configured for another mode than %s: nothing is synchronised", d.cfg.Node.Mode)
	case node.ResyncGaps:
		d.log.Warn("the other node's bulk updates keep having gaps: entries it no longer has may stay in the external cache; check the sync link and the receive buffers")
	case node.TakenOver:
		d.log.Infof("%d entries that were held have their normal timeouts back", x.Count)
	case node.HoldLapsed:
		d.log.Warnf("the other node has not been heard for a day, or not spoken of them: %d entries that were held for it have their normal timeouts back", x.Count)
	case node.PeerLooksOlder:
		d.log.Warn("NAT addresses from the other node look byte-reversed: if its conntrackd is 1.4.6 or older, set Conntrackgo { PeerVersion } to its version")
	case node.PeerLooksNewer:
		d.log.Warn("the other node sends what a conntrackd of Conntrackgo { PeerVersion } does not: set PeerVersion to its version, or NAT addresses are read byte-reversed")
	}
}
