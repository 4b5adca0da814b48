package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// A batch is written in rounds. Each flow of the batch is at a step, which is
// one request; a round sends the requests of all unfinished flows with as few
// system calls as possible and moves each flow to its next step by what the
// kernel answered:
//
//	commit   create ── ok ─────────────────────────────── Created, Replaced
//	           │ exists
//	         probe ── same tuples ─────────────────────── Updated
//	           │ other tuples, or the change is refused
//	         remove ──► create
//
// A probe is an update whose event also comes back to us (NLM_F_ECHO), for an
// update is found by its original tuple alone and says nothing about the
// translation of what it changed. Everything else asks for no acknowledgement,
// so only refusals are answered, each with the sequence number of its request;
// the last request of a send does, and its answer shows that no other is
// missing. Answers are what costs: a request with one takes the kernel and us
// twice as long as one without.
type step uint8

const (
	stepDone        step = iota
	stepCreate           // create it, unless one of its tuples exists
	stepProbe            // update it in place and see what that was
	stepLook             // see what has the original tuple
	stepLookReply        // see what else has the reply tuple
	stepChange           // update it in place
	stepRemove           // delete what has the original tuple
	stepRemoveReply      // delete what has the reply tuple
	stepRenew            // set its timeout
)

// stepRequest is what each step sends.
var stepRequest = [...]request{
	stepCreate:      reqCreate,
	stepProbe:       reqProbe,
	stepLook:        reqGet,
	stepLookReply:   reqGetReply,
	stepChange:      reqUpdate,
	stepRemove:      reqDelete,
	stepRemoveReply: reqDeleteReply,
	stepRenew:       reqRenew,
}

// kind is which of the Writer's methods is at work.
type kind uint8

const (
	kindCommit kind = iota
	kindCreate
	kindUpdate
	kindDelete
	kindRenew
)

const (
	// maxSteps ends a flow that something else keeps changing under us.
	maxSteps = 12
	// maxLosses is how often a send is repeated whose answers were lost.
	maxLosses = 8
)

// slot is where one flow of the batch stands.
type slot struct {
	step     step
	tries    uint8    // steps taken
	sent     bool     // in the present send
	answered bool     // in the present send
	clashed  bool     // the kernel said EEXIST
	looked   bool     // have is known
	same     bool     // what a commit found has the very tuples that it shall have
	removed  bool     // something was deleted to make room
	drop     flow.Has // not written
	have     existing
	errno    syscall.Errno
}

// existing is what matters about the entry that is in the kernel already.
type existing struct {
	has    flow.Has
	status uint32
	id     uint32
}

func (w *Writer) apply(flows []flow.Flow, known []Known, results []Result, k kind) error {
	if len(results) < len(flows) || known != nil && len(known) < len(flows) {
		panic("kernel: fewer results than flows")
	}
	clear(results[:len(flows)])
	w.kind = k
	for from := 0; from < len(flows); from += batchSize {
		to := min(from+batchSize, len(flows))
		var beliefs []Known
		if known != nil {
			beliefs = known[from:to]
		}
		w.begin(to-from, beliefs)
		if err := w.batch(flows[from:to], results[from:to]); err != nil {
			return err
		}
	}
	w.verifyLabels(flows, results)
	return nil
}

// begin puts n flows at their first step.
func (w *Writer) begin(n int, known []Known) {
	first := w.firstStep()
	for i := range n {
		w.slots[i] = slot{step: first, drop: w.leave}
		if known != nil && known[i] != Unknown {
			w.slots[i].step = knownStep[known[i]]
		}
	}
}

// knownStep is where a commit begins with a flow.
var knownStep = [...]step{Missing: stepCreate, Exists: stepProbe, Same: stepChange}

// batch takes up to batchSize flows through all their rounds.
func (w *Writer) batch(flows []flow.Flow, results []Result) error {
	losses := 0
	for w.unfinished(len(flows)) {
		lost, err := w.round(flows, results)
		if err != nil {
			return err
		}
		if lost {
			if losses++; losses > maxLosses {
				return fmt.Errorf("write flows: %w", unix.ENOBUFS)
			}
		}
	}
	w.learn(results)
	return nil
}

// firstStep guesses, for a commit, that this batch is like the last one:
// right or wrong is a matter of speed only.
func (w *Writer) firstStep() step {
	switch {
	case w.kind == kindDelete:
		return stepRemove
	case w.kind == kindUpdate:
		return stepChange
	case w.kind == kindRenew:
		return stepRenew
	case w.existing && w.kind == kindCommit:
		return stepProbe
	}
	return stepCreate
}

func (w *Writer) learn(results []Result) {
	if w.kind != kindCommit {
		return
	}
	n := 0
	for i := range results {
		if results[i].Outcome == Updated || results[i].Outcome == Replaced {
			n++
		}
	}
	w.existing = 2*n > len(results)
}

func (w *Writer) unfinished(n int) bool {
	for i := range w.slots[:n] {
		if w.slots[i].step != stepDone {
			return true
		}
	}
	return false
}

// round takes every unfinished flow one step on. lost says that answers were
// lost; the flows concerned are still where they were, and the step is
// repeated: a create that had succeeded then finds its own entry.
func (w *Writer) round(flows []flow.Flow, results []Result) (lost bool, err error) {
	for i := 0; i < len(flows); {
		next, last := w.build(flows, i)
		if last < 0 {
			return lost, nil
		}
		if err := w.send(); err != nil {
			return lost, err
		}
		complete, err := w.collect(flows, results, last)
		if err != nil {
			return lost, err
		}
		if complete {
			w.finish(results, i, next)
		} else {
			lost = true
			w.Stats.Losses++
		}
		i = next
	}
	return lost, nil
}

// build makes the requests of the unfinished flows from i on, until the send
// is full or the flows end. next is where to go on; last is the flow whose
// request ends the send, -1 if there is none.
func (w *Writer) build(flows []flow.Flow, i int) (next, last int) {
	w.enc.buf = w.enc.buf[:0]
	w.base = w.sequence(uint32(len(flows)))
	w.echoed = i
	start := 0
	last = -1
	for ; i < len(flows) && len(w.enc.buf) < sendLimit-maxRequest; i++ {
		s := &w.slots[i]
		s.sent, s.answered = s.step != stepDone, false
		if !s.sent {
			continue
		}
		start, last = len(w.enc.buf), i
		w.shape(s, &flows[i])
		w.enc.flow(stepRequest[s.step], w.base+uint32(i), &w.flow)
		w.Stats.Requests++
	}
	if last >= 0 {
		w.enc.demandAck(start)
	}
	return i, last
}

// sequence reserves n sequence numbers. Zero is not among them: events have it.
func (w *Writer) sequence(n uint32) (first uint32) {
	if w.seq+n < w.seq || w.seq == 0 {
		w.seq = 1
	}
	first = w.seq
	w.seq += n
	return first
}

func (w *Writer) send() error {
	w.Stats.Sends++
	err := w.sock.raw.Control(w.sendFn)
	runtime.KeepAlive(w.sock.conn)
	if err = w.sock.wrap(errors.Join(err, w.sendErr)); err != nil {
		return fmt.Errorf("send netlink requests: %w", err)
	}
	return nil
}

// write is what send does with the descriptor. The kernel works on the
// requests during the call: when it returns, all answers are in the socket.
func (w *Writer) write(fd uintptr) {
	for {
		_, w.sendErr = unix.Write(int(fd), w.enc.buf)
		if !errors.Is(w.sendErr, unix.EINTR) {
			return
		}
	}
}

// collect takes the answers off the socket. complete says that the answer to
// the last request was among them and that the socket lost none.
func (w *Writer) collect(flows []flow.Flow, results []Result, last int) (complete bool, err error) {
	overrun := false
	for {
		switch err := w.recv.receive(false); {
		case errors.Is(err, unix.EAGAIN):
			return complete && !overrun, nil
		case errors.Is(err, unix.ENOBUFS):
			overrun = true
			continue
		case err != nil:
			return false, fmt.Errorf("receive netlink answers: %w", err)
		}
		for w.recv.more() {
			datagram, _ := w.recv.datagram()
			for m, rest, ok := nextMessage(datagram); ok; m, rest, ok = nextMessage(rest) {
				if w.answer(flows, results, &m) == last {
					complete = true
				}
			}
		}
	}
}

// answer takes one message. It returns the flow about whose request there is
// nothing more to come, -1 if more may come or the message is none of ours.
func (w *Writer) answer(flows []flow.Flow, results []Result, m *message) int {
	i := -1
	if n := m.seq - w.base; n < uint32(len(flows)) && w.slots[n].sent {
		i = int(n)
	}
	switch {
	case m.typ == msgCtNew:
		w.entry(flows, results, m, i)
		return -1
	case m.typ != unix.NLMSG_ERROR || i < 0:
		return -1
	}
	if errno := errorCode(m.body); errno != 0 && !w.slots[i].answered {
		w.slots[i].answered = true
		w.refused(&w.slots[i], &results[i], &flows[i], errno)
	}
	return i
}

// entry takes a message that holds an entry: the answer to a look, which has
// its number, or the echo of a probe, which has none.
func (w *Writer) entry(flows []flow.Flow, results []Result, m *message, i int) {
	if err := DecodeFlow(m.body, &w.found); err != nil {
		return // unanswered, which a look does not take for success
	}
	if m.seq == 0 {
		i = w.probed(flows)
	}
	if i < 0 || w.slots[i].answered {
		return
	}
	w.slots[i].answered = true
	w.saw(&w.slots[i], &results[i], &flows[i])
}

// probed finds the flow whose probe w.found echoes, -1 if there is none.
// Echoes come in the order of the requests.
func (w *Writer) probed(flows []flow.Flow) int {
	for i := w.echoed; i < len(flows); i++ {
		s := &w.slots[i]
		if s.sent && !s.answered && s.step == stepProbe && hasTuple(&w.found, &flows[i].Key) {
			w.echoed = i + 1
			return i
		}
	}
	return -1
}

// finish moves on the flows about which the kernel had nothing to say.
func (w *Writer) finish(results []Result, from, to int) {
	for i := from; i < to; i++ {
		if s := &w.slots[i]; s.sent && !s.answered {
			w.accepted(s, &results[i])
		}
	}
}
