package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Group is a multicast group of ctnetlink.
type Group uint32

// The groups: one per kind of event.
const (
	GroupNew           Group = unix.NFNLGRP_CONNTRACK_NEW
	GroupUpdate        Group = unix.NFNLGRP_CONNTRACK_UPDATE
	GroupDestroy       Group = unix.NFNLGRP_CONNTRACK_DESTROY
	GroupExpectNew     Group = unix.NFNLGRP_CONNTRACK_EXP_NEW
	GroupExpectUpdate  Group = unix.NFNLGRP_CONNTRACK_EXP_UPDATE
	GroupExpectDestroy Group = unix.NFNLGRP_CONNTRACK_EXP_DESTROY
)

// FlowGroups and ExpectGroups are all groups about flows and about
// expectations.
var (
	FlowGroups   = []Group{GroupNew, GroupUpdate, GroupDestroy}
	ExpectGroups = []Group{GroupExpectNew, GroupExpectUpdate, GroupExpectDestroy}
)

// An event takes some hundred bytes; the rest of the page is for kernels with
// more to say.
const (
	eventBatch  = 64
	eventBuffer = 4 << 10
)

// ErrOverrun says that the kernel could not queue events because the receive
// buffer was full: what the reader knows of the table is out of date. Read
// returns it inside an *OverrunError and works on afterwards.
var ErrOverrun = errors.New("netlink event socket overrun")

// OverrunError is ErrOverrun with what was done about it.
type OverrunError struct {
	Buffer int  // receive buffer now, bytes
	Grown  bool // it has just been doubled to that
}

func (e *OverrunError) Error() string {
	if e.Grown {
		return fmt.Sprintf("%v: buffer doubled to %d bytes", ErrOverrun, e.Buffer)
	}
	return fmt.Sprintf("%v: buffer stays at %d bytes", ErrOverrun, e.Buffer)
}

// Unwrap makes errors.Is(err, ErrOverrun) true.
func (e *OverrunError) Unwrap() error { return ErrOverrun }

// EventStats counts since OpenEvents.
type EventStats struct {
	Received  uint64 // events understood
	Unknown   uint64 // messages of a type that is no event
	Failed    uint64 // messages not understood, and failed receives (overruns included)
	Truncated uint64 // datagrams longer than our buffer, also in Failed
	Overruns  uint64 // times the kernel said ENOBUFS
	Lost      uint64 // messages the kernel could not queue, as it counts them
	Buffer    int    // receive buffer, bytes
}

// Events is the event socket. One goroutine reads, and never waits: FD is for
// whoever waits. Close, AddSelf, RemoveSelf and Stats may be called from others.
type Events struct {
	sock    *socket
	rx      *receiver
	maxGrow int // bytes
	wanted  *flow.Filter
	filter  error // why cfg.Filter is not wholly in the kernel

	rest    []byte // messages of the current datagram not yet handed out
	expects []flow.ExpectEvent
	count   EventStats // the reader's own; published after each read

	self  atomic.Pointer[[]uint32]
	mu    sync.Mutex // guards stats
	stats EventStats
}

// OpenEvents subscribes to groups, in the network namespace of the calling
// thread. The receive buffer is what cfg asks for, see EventStats.Buffer for
// what it became.
func OpenEvents(cfg Config, groups ...Group) (*Events, error) {
	s, err := dial()
	if err != nil {
		return nil, err
	}
	e := &Events{sock: s, rx: newReceiver(s, eventBatch, eventBuffer), maxGrow: cfg.BufferMaxGrowth}
	e.self.Store(new([]uint32))
	err = e.prepare(cfg, groups)
	if err == nil {
		err = s.unpoll()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return e, nil
}

// prepare sizes the buffer before the first event can arrive.
func (e *Events) prepare(cfg Config, groups []Group) (err error) {
	if 0 < cfg.BufferSize && cfg.BufferSize <= cfg.BufferMaxGrowth {
		e.count.Buffer, err = e.sock.forceReadBuffer(cfg.BufferSize)
	} else {
		e.count.Buffer, err = e.sock.readBuffer()
	}
	if err != nil {
		return err
	}
	e.stats = e.count
	if e.wanted = cfg.Filter; e.wanted != nil {
		e.filter = e.sock.attachFilter(cfg.Filter, 0)
	}
	if cfg.Reliable {
		for _, o := range []netlink.ConnOption{netlink.BroadcastError, netlink.NoENOBUFS} {
			if err := e.sock.conn.SetOption(o, true); err != nil {
				return fmt.Errorf("set reliable event delivery: %w", err)
			}
		}
	}
	for _, g := range groups {
		if err := e.sock.conn.JoinGroup(uint32(g)); err != nil {
			return fmt.Errorf("join netlink group %d: %w", g, explain(err))
		}
	}
	return nil
}

// Ignore makes the kernel keep to itself the events of flows that the socket
// with this port id causes: whoever writes with it knows what became of them.
// Where that fails they come, as flow.Self. For before the first Read.
func (e *Events) Ignore(portID uint32) {
	e.AddSelf(portID)
	if e.wanted != nil {
		e.filter = e.sock.attachFilter(e.wanted, portID)
		return
	}
	_ = e.sock.attachFilter(new(flow.Filter), portID)
}

// Close gives the socket back. Read says os.ErrClosed from then on.
func (e *Events) Close() error { return e.sock.Close() }

// FD is the descriptor to wait on: it is readable when the kernel has queued
// something since Read last came back with nothing. It belongs to e.
func (e *Events) FD() (fd int) {
	_ = e.sock.control(func(n int) error { fd = n; return nil })
	return fd
}

// PortID is the netlink port of the event socket.
func (e *Events) PortID() uint32 { return e.sock.portID() }

// FilterProblem is nil if the kernel judges all of Config.Filter, else why it
// does not: then events pass whose addresses, at least, are refused by it.
func (e *Events) FilterProblem() error { return e.filter }

// AddSelf marks the events caused by the socket with this port id as
// flow.Self (docs/protocol.md 6.3).
func (e *Events) AddSelf(portID uint32) {
	e.changeSelf(func(ids []uint32) []uint32 { return append(ids, portID) })
}

// RemoveSelf takes AddSelf back: the kernel may give the number of a closed
// socket to another.
func (e *Events) RemoveSelf(portID uint32) {
	e.changeSelf(func(ids []uint32) []uint32 {
		return slices.DeleteFunc(ids, func(id uint32) bool { return id == portID })
	})
}

func (e *Events) changeSelf(change func([]uint32) []uint32) {
	for {
		old := e.self.Load()
		ids := change(slices.Clone(*old))
		if e.self.CompareAndSwap(old, &ids) {
			return
		}
	}
}

// Stats returns a copy of the counters as of the last completed read.
func (e *Events) Stats() EventStats {
	e.mu.Lock()
	s := e.stats
	e.mu.Unlock()
	if lost, err := e.sock.drops(); err == nil {
		s.Lost = uint64(lost)
	}
	return s
}

// Read fills dst with what is queued, in the kernel's order, and never waits:
// nothing there is zero events and no error. n < len(dst) says that the socket
// was read empty. The events own their memory. n may be positive together with
// an error, and zero without one if only expectation events came.
//
// Errors: *OverrunError (go on reading), os.ErrClosed.
func (e *Events) Read(dst []flow.Event) (n int, err error) {
	e.expects = e.expects[:0]
	for err == nil {
		n += e.decode(dst[n:])
		if n == len(dst) || len(e.expects) >= len(dst) {
			break
		}
		if n+len(e.expects) > 0 && e.rx.count > 0 && e.rx.drained() {
			break
		}
		err = e.receive()
		if errors.Is(err, unix.EAGAIN) {
			err = nil
			break
		}
	}
	e.mu.Lock()
	e.stats = e.count
	e.mu.Unlock()
	return n, err
}

// Expects returns the expectation events of the last Read, valid until the
// next. The event of a master may come after it: a helper announces what it
// expects before the kernel confirms the flow of the packet.
func (e *Events) Expects() []flow.ExpectEvent { return e.expects }

// receive takes the next batch off the socket.
func (e *Events) receive() error {
	err := e.rx.receive(false)
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrClosed):
		return err
	case errors.Is(err, unix.ENOBUFS):
		return e.overrun()
	}
	e.count.Failed++
	return fmt.Errorf("receive netlink events: %w", err)
}

// overrun doubles the receive buffer if twice its size is within the limit.
func (e *Events) overrun() error {
	e.count.Failed++
	e.count.Overruns++
	if twice := 2 * e.count.Buffer; twice <= e.maxGrow {
		got, err := e.sock.forceReadBuffer(twice)
		if err == nil && got > e.count.Buffer {
			e.count.Buffer = got
			return &OverrunError{Buffer: got, Grown: true}
		}
	}
	return &OverrunError{Buffer: e.count.Buffer}
}

// decode hands out messages until dst is full or the batch is used up.
func (e *Events) decode(dst []flow.Event) (n int) {
	for n < len(dst) && len(e.expects) < max(len(dst), 1) {
		if len(e.rest) == 0 {
			if !e.rx.more() {
				return n
			}
			b, cut := e.rx.datagram()
			if cut {
				e.count.Truncated++
				e.count.Failed++
				continue
			}
			e.rest = b
		}
		m, rest, ok := nextMessage(e.rest)
		if e.rest = rest; !ok {
			e.rest = nil
			e.count.Failed++
			continue
		}
		n += e.message(&m, &dst[n])
	}
	return n
}

// message decodes one event into ev and returns 1, or keeps an expectation
// event, or counts what it was, and returns 0.
func (e *Events) message(m *message, ev *flow.Event) int {
	switch m.typ {
	case msgCtNew, msgCtDelete:
		if err := DecodeFlow(m.body, &ev.Flow); err != nil {
			e.count.Failed++
			return 0
		}
		ev.Op, ev.Origin = opOf(m), e.originOf(m)
		e.count.Received++
		return 1
	case msgExpNew, msgExpDelete:
		e.expects = append(e.expects, flow.ExpectEvent{Op: opOf(m), Origin: e.originOf(m)})
		if err := DecodeExpect(m.body, &e.expects[len(e.expects)-1].Expect); err != nil {
			e.expects = e.expects[:len(e.expects)-1]
			e.count.Failed++
			return 0
		}
		e.count.Received++
	default:
		e.count.Unknown++
	}
	return 0
}

// opOf tells a new entry from a change of one by the flags of the message.
func opOf(m *message) flow.Op {
	switch {
	case m.typ == msgCtDelete, m.typ == msgExpDelete:
		return flow.Destroy
	case m.flags&(unix.NLM_F_CREATE|unix.NLM_F_EXCL) != 0:
		return flow.New
	}
	return flow.Update
}

func (e *Events) originOf(m *message) flow.Origin {
	if m.pid != 0 && slices.Contains(*e.self.Load(), m.pid) {
		return flow.Self
	}
	return flow.Other
}
