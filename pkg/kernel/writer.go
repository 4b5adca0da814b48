package kernel

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// WriterConfig says how entries are written.
type WriterConfig struct {
	// BeLiberal makes the kernel accept any TCP segment of a written entry,
	// whatever the window says (TCPWindowTracking off).
	BeLiberal bool
	// Leave are attributes that are not written, of HasMark, HasHelper and
	// HasLabels: a new entry comes without, one that exists keeps its own.
	Leave flow.Has
}

// Outcome is what became of one flow.
type Outcome uint8

// The outcomes. Failed means that Result.Errno says why.
const (
	Failed   Outcome = iota
	Created          // did not exist
	Updated          // existed and was changed in place
	Replaced         // existed in a shape that cannot be changed; deleted and created
	Deleted          // existed
	Absent           // was to be deleted or renewed and did not exist
)

// Result is what became of one flow, and the kernel's errno if it failed.
type Result struct {
	Outcome Outcome
	Errno   syscall.Errno
	// Without are the attributes that the kernel did not take: HasHelper of a
	// helper it does not know, HasLabels where no rule uses labels, HasMaster
	// of a master that is not there.
	Without flow.Has
}

// Err returns nil unless the flow failed.
func (r Result) Err() error {
	if r.Outcome != Failed {
		return nil
	}
	return r.Errno
}

const (
	// batchSize is how many flows go to the kernel with one system call.
	batchSize = 256
	// sendLimit is how many bytes of requests go with one system call at most.
	sendLimit = 96 << 10
	// answerBatch and answerSize shape the buffers for the answers: an entry
	// with every attribute is below 1 KiB.
	answerBatch = 64
	answerSize  = 4 << 10
	// writerBuffer holds the answers to a batch many times over: each costs
	// the socket about 1 KiB and a batch has at most batchSize+1.
	writerBuffer = 4 << 20
)

// Writer changes the kernel's tables. It belongs to one goroutine, and to the
// network namespace of the thread that opened it. PortID and Close may be
// called from anywhere.
type Writer struct {
	sock    *socket
	recv    *receiver
	enc     encoder
	sendFn  func(fd uintptr)
	sendErr error

	seq      uint32 // of the next request
	base     uint32 // of the present send: flow i has base+i
	leave    flow.Has
	echoed   int // flows before this one have had their echo
	kind     kind
	slots    [batchSize]slot
	flow     flow.Flow // what a request is made from
	found    flow.Flow // what the kernel answered
	seen     bool      // Lookup found something
	seeFn    func(*message) error
	reply    message // askFor's
	existing bool    // most flows of the last commit existed already
	Stats    WriterStats
}

// WriterStats counts what a writer did since it was opened.
type WriterStats struct {
	Requests uint64 // netlink messages sent
	Sends    uint64 // system calls that sent them
	Losses   uint64 // sends of which answers were lost, and that were repeated
}

// OpenWriter opens a writer on a netlink socket of its own.
func OpenWriter(config WriterConfig) (*Writer, error) {
	sock, err := dial()
	if err != nil {
		return nil, fmt.Errorf("open netlink writer: %w", err)
	}
	w := &Writer{
		sock:  sock,
		recv:  newReceiver(sock, answerBatch, answerSize),
		enc:   encoder{buf: make([]byte, 0, sendLimit), liberal: config.BeLiberal},
		leave: config.Leave,
	}
	w.sendFn, w.seeFn = w.write, w.see
	if err := w.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink writer: %w", err), sock.Close())
	}
	return w, nil
}

// prepare sets the buffers, and asks that errors do not carry the whole
// request back.
func (w *Writer) prepare() error {
	if _, err := w.sock.forceReadBuffer(writerBuffer); err != nil {
		return err
	}
	return w.sock.control(func(fd int) error {
		// The usual net.core.wmem_default is enough; an admin may have lowered it.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*sendLimit)
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
			return fmt.Errorf("set NETLINK_CAP_ACK: %w", err)
		}
		return nil
	})
}

// PortID is the netlink port of the writer: nlmsg_pid of the events that its
// changes cause.
func (w *Writer) PortID() uint32 { return w.sock.portID() }

// Close closes the socket.
func (w *Writer) Close() error { return w.sock.Close() }

// Commit makes the kernel hold the flows as they are here: a flow that does
// not exist is created, one that exists with the same tuples is updated in
// place and one that exists with other tuples is replaced
// (docs/protocol.md 6.2). Timeout is final; without HasTimeout it is 60 s. The
// master of a related flow must come before it. results[i] is about flows[i].
// The error is about the socket; flows without an answer then stay Failed with
// errno 0.
func (w *Writer) Commit(flows []flow.Flow, results []Result) error {
	return w.apply(flows, nil, results, kindCommit)
}

// Known is what the caller of CommitKnown believes about a flow.
type Known uint8

// The beliefs. Exists: something has the original tuple, with whatever reply
// tuple. Same: an entry with these very tuples exists, and it has no labels
// unless the flow has or Leave says so.
const (
	Unknown Known = iota
	Missing
	Exists
	Same
)

// CommitKnown is Commit for a caller that follows the table and knows for the
// most part what is in it: each flow then takes one request and, if it goes
// well, no answer. A wrong Missing or Exists costs another request; a wrong
// Same leaves an existing entry with its translation. Nothing is deleted by
// belief alone. known[i] is about flows[i].
func (w *Writer) CommitKnown(flows []flow.Flow, known []Known, results []Result) error {
	return w.apply(flows, known, results, kindCommit)
}

// Create is Commit for flows of which the caller believes that neither tuple
// is in use. One of which a tuple is in use fails with EEXIST, and nothing is
// changed.
func (w *Writer) Create(flows []flow.Flow, results []Result) error {
	return w.apply(flows, nil, results, kindCreate)
}

// Update changes what the flows know and leaves the rest, as for an update
// message with the external cache disabled: NAT, helper and master of an
// existing entry stay. A flow that does not exist is created, and one whose
// change the kernel refuses is replaced.
func (w *Writer) Update(flows []flow.Flow, results []Result) error {
	return w.apply(flows, nil, results, kindUpdate)
}

// Delete deletes the flows by original tuple and zone, and if HasID is set
// only the very entry with that ID. A missing flow is Absent.
func (w *Writer) Delete(flows []flow.Flow, results []Result) error {
	return w.apply(flows, nil, results, kindDelete)
}

// Renew sets the timeouts of the flows, found by original tuple and zone, and
// changes nothing else of them. A missing flow is Absent. The kernel refuses
// it for an entry with a fixed timeout (EPERM).
func (w *Writer) Renew(flows []flow.Flow, results []Result) error {
	return w.apply(flows, nil, results, kindRenew)
}
