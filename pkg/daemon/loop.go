package daemon

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
)

const (
	eventBatch   = 128      // events taken off the socket at once
	linkBatch    = 64       // datagrams taken off the link at once
	linkDatagram = 64 << 10 // the largest a peer may send
	turnRounds   = 8        // batches of each source in one turn
)

// loop is what takes kernel events, datagrams and the node's timer into the
// node. It is the only one who does; clients enter beside it.
type loop struct {
	d         *Daemon
	events    []flow.Event
	datagrams *link.Batch
	last      turn // reused: a turn allocates nothing
	pace      pacer
	breath    breather
	memory    tidier
	tidied    time.Duration // when it was looked at

	// After an overrun the kernel drops every event until the socket has been
	// read empty, and does not say so again: only then may the repair trust
	// what it dumps.
	congested bool
	buffer    int  // as it was last said
	full      bool // said once
}

// A turn is what one visit of the node took.
type turn struct {
	events, datagrams int
	more              bool // at least one source has more
	overrun           *kernel.OverrunError
}

// run works until the waiter is closed.
func (d *Daemon) run() error {
	l := &loop{
		d:         d,
		events:    make([]flow.Event, eventBatch),
		datagrams: link.NewBatch(linkBatch, linkDatagram),
		pace:      pacer{bound: d.cfg.CoalesceTime},
	}
	l.buffer = d.sync.events.Stats().Buffer
	l.pace.eventRoom = room(l.buffer, eventSize)
	_, buffer := d.sync.link.Buffers()
	l.pace.datagramRoom = room(buffer, datagramSize)
	t := &l.last
	for pause := time.Duration(0); ; pause = l.pace.rest(d.now(), t) {
		ready, err := l.next(t, pause)
		if err != nil {
			return nil
		}
		if t, err = l.turn(&ready); err != nil || t == nil {
			return err
		}
		if inject := d.sync.inject; inject != nil {
			inject.flush()
		}
		l.speak(t)
		d.lookAround(d.now())
	}
}

// next returns what is ready for the turn after t: when it is quiet it waits,
// when it is busy it rests and lets the turn look for itself.
func (l *loop) next(t *turn, pause time.Duration) (ready [sources]bool, err error) {
	w := l.d.sync.waiter
	if pause == 0 && !t.more {
		if ready, err = w.wait(); w.parked {
			l.breath = 0
		} else {
			l.breath.rest(0)
		}
		return ready, err
	}
	if err := w.pause(); err != nil {
		return ready, err
	}
	l.breath.rest(pause)
	return [sources]bool{sourceTimer: true, sourceEvents: true, sourceLink: w.has(sourceLink)}, nil
}

// turn visits the node with what is ready; nil when it is closed. It takes
// some of each source in turn, so that none can starve the other.
func (l *loop) turn(ready *[sources]bool) (t *turn, err error) {
	s := l.d.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	t = &l.last
	*t = turn{}
	now := l.d.now()
	if ready[sourceTimer] && s.armed <= now {
		s.armed = 0
		s.node.Tick(now)
		if s.inject != nil { // messages whose turn has come
			s.inject.take(s.node.Pair())
		}
	}
	events, datagrams := ready[sourceEvents], ready[sourceLink]
	for range turnRounds {
		if events {
			if events, err = l.takeEvents(now, t); err != nil {
				return nil, err
			}
		}
		if datagrams {
			datagrams = l.takeDatagrams(now, t)
		}
		if t.more = events || datagrams; !t.more {
			break
		}
	}
	l.d.drain(now)
	s.turns.Add(1)
	l.tidy(now)
	return t, nil
}

// met notes an overrun, the last of a turn, and reports whether err is one.
func (t *turn) met(err error) bool { return errors.As(err, &t.overrun) }

// takeEvents feeds a batch of kernel events to the node and reports whether
// there are more.
func (l *loop) takeEvents(now time.Duration, t *turn) (more bool, err error) {
	s := l.d.sync
	n, err := s.events.Read(l.events)
	expects := s.events.Expects()
	if n > 0 {
		s.node.Kernel(now, l.events[:n])
		t.events += n
	}
	if len(expects) > 0 {
		l.d.takeExpects(now, expects)
		t.events += len(expects)
	}
	switch {
	case err == nil && n+len(expects) == 0 && l.congested:
		l.congested = false
		s.missed()
	case err != nil && t.met(err):
		l.congested = true
		s.missed()
	case err != nil:
		return false, fmt.Errorf("read kernel events: %w", err)
	}
	return n == len(l.events) || len(expects) >= len(l.events) || l.congested, nil
}

// takeDatagrams feeds a batch of datagrams to the node and reports whether
// there are more.
func (l *loop) takeDatagrams(now time.Duration, t *turn) (more bool) {
	s := l.d.sync
	n, err := s.link.Recv(l.datagrams)
	if err != nil {
		return false
	}
	for i := range n {
		from, b := l.datagrams.From(i), l.datagrams.Datagram(i)
		if s.group != nil && l.datagrams.ToGroup(i) {
			s.node.Hail(now, from, b)
			continue
		}
		s.node.Datagram(now, from, b)
	}
	if s.inject != nil {
		s.inject.take(s.node.Pair())
	}
	t.datagrams += n
	return l.datagrams.Full()
}

// speak logs what the turn met.
func (l *loop) speak(t *turn) {
	if t.overrun != nil {
		l.speakOfOverrun(t.overrun)
	}
}

// speakOfOverrun logs what was done about it: each step in which the buffer
// grew, as a turn may meet several, and once that it grows no further.
func (l *loop) speakOfOverrun(o *kernel.OverrunError) {
	for l.buffer < o.Buffer {
		l.buffer = min(2*l.buffer, o.Buffer)
		l.d.log.Infof("netlink event socket buffer size has been doubled to %d bytes", l.buffer)
	}
	l.pace.eventRoom = room(o.Buffer, eventSize)
	if !o.Grown && !l.full {
		l.full = true
		l.d.log.Warn("netlink event socket buffer size cannot be doubled further since it will exceed NetlinkBufferSizeMaxGrowth. " +
			"We are likely to be losing events, this may lead to unsynchronized replicas. " +
			"Please, consider increasing netlink socket buffer size via NetlinkBufferSize and NetlinkBufferSizeMaxGrowth clauses in conntrackd.conf")
	}
}

// whyRefused says what the source of a datagram is not, and what to do.
func whyRefused(links []link.Config) string {
	var peers, devices []string
	for _, l := range links {
		peers, devices = append(peers, l.Peer.String()), append(devices, l.Interface)
	}
	if links[0].Group && links[0].Transport == link.UDP {
		return "it is no peer of the group; if it is another node's, put it into Conntrackgo { Peers { ... } }"
	}
	where, silent := "an address of the network of "+strings.Join(devices, ", "), ", while that is silent,"
	if len(links[0].AcceptFrom) > 0 {
		where, silent = "in AcceptFrom", ""
	}
	if links[0].Transport == link.Multicast {
		return fmt.Sprintf("it is not %s; if it is the other node's, put it into Conntrackgo { AcceptFrom { ... } }", where)
	}
	return fmt.Sprintf("it is neither the configured destination %s nor%s %s; if it is the other node's, put it into IPv4_Destination_Address or IPv6_Destination_Address", strings.Join(peers, ", "), silent, where)
}

// A breather rests in a system call that the scheduler does not know of: to
// sleep in its way costs several wake-ups of its threads. But while it believes
// this thread to be busy only its monitor looks after the network, every 10 ms,
// so now and then it must hear of a rest, however short.
type breather int

const breath = 256 // rests

func (b *breather) rest(d time.Duration) {
	if *b++; *b%breath == 0 {
		time.Sleep(max(d, 1))
		return
	}
	if d > 0 {
		ts := unix.NsecToTimespec(int64(d))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
}
