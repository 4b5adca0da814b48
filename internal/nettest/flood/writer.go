package flood

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// batchSize requests are sent in one datagram. The kernel works through it
// before the send returns, and at most one error each fits into the receive
// buffer.
const batchSize = 128

// Writer is a ctnetlink socket for writing. It is used by one goroutine.
type Writer struct {
	fd   int
	seq  uint32
	buf  []byte
	recv []byte
	flow Flow
}

// Open opens a writer in a namespace; inside runs a function there
// ((*nettest.Node).Do).
func Open(inside func(func() error) error) (*Writer, error) {
	w := &Writer{recv: make([]byte, 1<<16)}
	err := inside(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open flood socket: %w", err)
	}
	if err := w.prepare(); err != nil {
		_ = unix.Close(w.fd)
		return nil, fmt.Errorf("open flood socket: %w", err)
	}
	return w, nil
}

func (w *Writer) prepare() error {
	if err := unix.Bind(w.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, opt, 1<<20); err != nil {
			return err
		}
	}
	// A lost answer must end the load, not hang it.
	return unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
}

// Close closes the socket.
func (w *Writer) Close() error { return unix.Close(w.fd) }

// Load is a run of requests: flow i for each i in [From, To). Rate is requests
// per second, 0 for as many as possible.
type Load struct {
	From, To int
	Rate     int
	Flow     func(i int, f *Flow) // fills f, which is zero; called once per request
}

// Result counts what the kernel did with a load.
type Result struct {
	OK     int
	Failed map[unix.Errno]int
	Took   time.Duration
}

// Err is nil if every request succeeded.
func (r Result) Err() error {
	for errno, n := range r.Failed {
		return fmt.Errorf("flood: %d requests succeeded, %d failed: %w", r.OK, n, errno)
	}
	return nil
}

// Create makes new entries; an existing one fails with EEXIST.
func (w *Writer) Create(l Load) (Result, error) { return w.run(opCreate, l) }

// Update changes entries; a missing one fails with ENOENT.
func (w *Writer) Update(l Load) (Result, error) { return w.run(opUpdate, l) }

// Delete removes entries; a missing one fails with ENOENT.
func (w *Writer) Delete(l Load) (Result, error) { return w.run(opDelete, l) }

func (w *Writer) run(o op, l Load) (Result, error) {
	return w.paced(l.To-l.From, l.Rate, func(i int, f *Flow) op {
		l.Flow(l.From+i, f)
		return o
	}, nil)
}

// paced sends n requests; fill says which and returns its kind. between may be
// nil.
func (w *Writer) paced(n, rate int, fill func(int, *Flow) op, between func()) (Result, error) {
	p := newPacer(rate)
	defer p.stop()
	r := Result{Failed: map[unix.Errno]int{}}
	for i := 0; i < n; {
		step := min(p.wait(i), n-i)
		if between != nil {
			// Anywhere in the group, so that it meets a daemon at
			// any stage of its work.
			first := rand.IntN(step + 1)
			if err := w.batch(i, i+first, fill, &r); err != nil {
				return r, err
			}
			between()
			i, step = i+first, step-first
		}
		if err := w.batch(i, i+step, fill, &r); err != nil {
			return r, err
		}
		i += step
	}
	r.Took = time.Since(p.start)
	return r, r.Err()
}

// batch sends requests [from, to) and collects their errors. The last one asks
// for an acknowledgement, which comes after every error.
func (w *Writer) batch(from, to int, fill func(int, *Flow) op, r *Result) error {
	if from == to {
		return nil
	}
	w.buf = w.buf[:0]
	for i := from; i < to; i++ {
		w.flow = Flow{}
		o := fill(i, &w.flow)
		w.seq++
		w.buf = w.flow.append(w.buf, o, w.seq, i == to-1)
	}
	if err := unix.Sendto(w.fd, w.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("flood: send: %w", err)
	}
	failed, err := w.answers(w.seq, r)
	r.OK += to - from - failed
	return err
}

// answers reads until the answer to the last request.
func (w *Writer) answers(last uint32, r *Result) (failed int, err error) {
	for {
		n, _, err := unix.Recvfrom(w.fd, w.recv, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return failed, fmt.Errorf("flood: receive: %w", err)
		}
		for b := w.recv[:n]; len(b) >= nlmsgHeader+4; {
			size := int(binary.NativeEndian.Uint32(b))
			seq := binary.NativeEndian.Uint32(b[8:])
			if code := int32(binary.NativeEndian.Uint32(b[nlmsgHeader:])); code != 0 {
				r.Failed[unix.Errno(-code)]++
				failed++
			}
			if seq == last {
				return failed, nil
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}
