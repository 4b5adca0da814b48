package kernel

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Flushing says what Flush deletes and how.
type Flushing struct {
	// Filter says which flows go. Nil: all.
	Filter func(*flow.Flow) bool
	// Batch is how many are deleted at once at most, for each causes an event
	// that somebody reads. Zero: 256.
	Batch int
	// Before is called before each batch. Nil: nothing is.
	Before func()
}

// Flush deletes flows and returns how many it deleted. Each is deleted by its ID, so that a
// connection that reuses the addresses meanwhile is spared (as far as the
// kernel's IDs tell: it derives them from tuple and memory address). The table is read
// while it is emptied; memory is one batch. Flows that the kernel refuses to
// delete do not end the flush and are joined into the error.
//
// The dump runs in the network namespace of the calling thread, which must be
// the writer's.
func (w *Writer) Flush(ctx context.Context, f Flushing) (n int, err error) {
	if f.Batch <= 0 || f.Batch > batchSize {
		f.Batch = batchSize
	}
	s := &sweep{w: w, Flushing: f, flows: make([]flow.Flow, 0, f.Batch), results: make([]Result, f.Batch)}
	err = Dump(ctx, s.see)
	if e := s.delete(); err == nil {
		err = e
	}
	if err == nil && s.refused > 0 {
		err = fmt.Errorf("delete %d flows: %w", s.refused, s.errno)
	}
	if err != nil {
		return s.deleted, fmt.Errorf("flush conntrack table: %w", err)
	}
	return s.deleted, nil
}

// sweep is one run of Flush.
type sweep struct {
	Flushing
	w       *Writer
	flows   []flow.Flow
	results []Result
	deleted int
	refused int
	errno   syscall.Errno // of the last refusal
}

func (s *sweep) see(f *flow.Flow) error {
	if s.Filter != nil && !s.Filter(f) {
		return nil
	}
	s.flows = append(s.flows, *f)
	if len(s.flows) < cap(s.flows) {
		return nil
	}
	return s.delete()
}

func (s *sweep) delete() error {
	if s.Before != nil {
		s.Before()
	}
	err := s.w.Delete(s.flows, s.results)
	for _, r := range s.results[:len(s.flows)] {
		switch r.Outcome {
		case Deleted:
			s.deleted++
		case Failed:
			s.refused++
			s.errno = r.Errno
		}
	}
	s.flows = s.flows[:0]
	return err
}

// FlushExpect deletes all expectations.
func (w *Writer) FlushExpect() error {
	w.enc.buf = w.enc.buf[:0]
	w.base = w.sequence(1)
	start := w.enc.header(msgExpDelete, unix.NLM_F_REQUEST|unix.NLM_F_ACK, w.base, unix.AF_UNSPEC)
	w.enc.end(start)
	if err := w.ask(); err != nil {
		return fmt.Errorf("flush expectations: %w", err)
	}
	return nil
}

// ask sends the one request in the buffer, which demands an ACK under w.base,
// and returns the kernel's answer as an error: nil or an errno.
func (w *Writer) ask() error { return w.askFor(nil) }

// askFor is ask for a request that is answered with messages before the ACK.
// each sees these; its first error is returned in the place of success.
func (w *Writer) askFor(each func(*message) error) (refused error) {
	seq := w.base
	w.Stats.Requests++
	if err := w.send(); err != nil {
		return err
	}
	for {
		err := w.recv.receive(false)
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive netlink answer: %w", err)
		}
		for w.recv.more() {
			datagram, _ := w.recv.datagram()
			m := &w.reply
			var ok bool
			if *m, _, ok = nextMessage(datagram); !ok || m.seq != seq {
				continue
			}
			if m.typ != unix.NLMSG_ERROR {
				if each != nil && refused == nil {
					refused = each(m)
				}
				continue
			}
			if errno := errorCode(m.body); errno != 0 {
				return errno
			}
			return refused
		}
	}
}
