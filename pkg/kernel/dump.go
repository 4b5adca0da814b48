package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"golang.org/x/sys/unix"
)

// The kernel makes the datagrams of a dump within the receive call, which is
// nearly all of the work. So one goroutine does nothing but receive, while the
// caller looks at what came before. It hands over some pages at a time: to
// wake a thread for each costs more than to look at it. The kernel fills
// whatever buffer it is given, up to 32 KiB.
const (
	dumpPage     = 16 << 10 // about 60 entries
	dumpRun      = 8        // pages
	dumpRuns     = 2
	dumpAttempts = 3
)

// ErrTorn says that the table changed its shape during every attempt to dump
// it (NLM_F_DUMP_INTR, or another nf_conntrack_buckets): the last attempt's
// entries are real, but some may be missing. Linux 6.18 was never seen to set that
// flag on these dumps.
var ErrTorn = errors.New("dump conntrack table: interrupted by changes of the table")

// Dumper reads the whole table. The zero value is ready; it is used by one
// goroutine at a time.
type Dumper struct {
	// Attempts is how often a torn dump is begun in all. Zero: 3.
	Attempts int
	// Stats describe the last call.
	Stats DumpStats
}

// DumpStats count what a dump met.
type DumpStats struct {
	Entries uint64 // entries handed out, all attempts
	Unknown uint64 // messages of a type that is no entry
	Failed  uint64 // entries not understood and skipped
	Torn    int    // attempts that were torn
}

// Dump calls fn with every flow of the table, all families, in the network
// namespace of the calling thread. Nothing is collected: memory is some pages.
// The flow is fn's until it returns. An entry may come twice if its
// bucket changes while it is read.
//
// If the dump was torn, restart is called (it may be nil: then what came is
// to be overwritten by what comes) and everything is dumped again. Errors:
// fn's, as it is; ctx's; ErrTorn; the kernel's.
func (d *Dumper) Dump(ctx context.Context, fn func(*flow.Flow) error, restart func()) error {
	f := new(flow.Flow)
	return d.Pages(ctx, func(p *Page) error {
		for p.Next(f) {
			if err := fn(f); err != nil {
				return err
			}
		}
		return nil
	}, restart)
}

// A Page is some hundred entries of a dump as they came, for a caller that
// takes them together. It is valid until the function it was given to returns.
type Page struct {
	d *Dumper
	p *dumpParser
}

// Next decodes the next entry into f and reports whether there was one. It
// does not allocate.
func (p *Page) Next(f *flow.Flow) bool {
	for p.p.next() {
		if p.p.cur.typ != msgCtNew {
			p.d.Stats.Unknown++
			continue
		}
		if err := DecodeFlow(p.p.cur.body, f); err != nil {
			p.d.Stats.Failed++
			continue
		}
		p.d.Stats.Entries++
		return true
	}
	return false
}

// Pages is Dump by pages: fn takes from a page what it wants of it.
func (d *Dumper) Pages(ctx context.Context, fn func(*Page) error, restart func()) error {
	page := Page{d: d}
	return d.run(ctx, msgCtGet, restart, func(p *dumpParser) error {
		page.p = p
		return fn(&page)
	})
}

// DumpExpect is Dump for the expectations.
func (d *Dumper) DumpExpect(ctx context.Context, fn func(*flow.Expect) error, restart func()) error {
	x := new(flow.Expect)
	return d.run(ctx, msgExpGet, restart, func(p *dumpParser) error {
		for p.next() {
			if p.cur.typ != msgExpNew {
				d.Stats.Unknown++
				continue
			}
			if err := DecodeExpect(p.cur.body, x); err != nil {
				d.Stats.Failed++
				continue
			}
			d.Stats.Entries++
			if err := fn(x); err != nil {
				return err
			}
		}
		return nil
	})
}

// Dump reads the whole table once and again if that was torn; see Dumper.
func Dump(ctx context.Context, fn func(*flow.Flow) error) error {
	return new(Dumper).Dump(ctx, fn, nil)
}

// DumpExpect reads all expectations; see Dumper.
func DumpExpect(ctx context.Context, fn func(*flow.Expect) error) error {
	return new(Dumper).DumpExpect(ctx, fn, nil)
}

func (d *Dumper) run(ctx context.Context, request uint16, restart func(), page func(*dumpParser) error) error {
	d.Stats = DumpStats{}
	once := func() (torn bool, err error) { return dumpOnce(ctx, request, page) }
	return d.redo(reshaped(buckets, once), restart)
}

// reshaped takes an attempt for torn, too, during which the hash table got
// another size: the kernel goes on at the same bucket, where there are others now,
// and does not say so.
func reshaped(buckets func() int, once func() (torn bool, err error)) func() (torn bool, err error) {
	return func() (torn bool, err error) {
		before := buckets()
		torn, err = once()
		return torn || buckets() != before, err
	}
}

// buckets is the size of the kernel's hash table; one number for the machine.
func buckets() int {
	n, err := readSysctl("nf_conntrack_buckets")
	if err != nil {
		return Unavailable
	}
	return n
}

// redo makes attempts until one is not torn.
func (d *Dumper) redo(once func() (torn bool, err error), restart func()) error {
	attempts := d.Attempts
	if attempts == 0 {
		attempts = dumpAttempts
	}
	for {
		torn, err := once()
		if err != nil || !torn {
			return err
		}
		if d.Stats.Torn++; d.Stats.Torn >= attempts {
			return ErrTorn
		}
		if restart != nil {
			restart()
		}
	}
}

// dumpOnce makes one dump on a socket of its own: giving up in the middle
// costs nothing but the socket.
func dumpOnce(ctx context.Context, request uint16, page func(*dumpParser) error) (torn bool, err error) {
	s, err := dial()
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	const seq = 1
	if err := s.send(newRequest(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, seq)); err != nil {
		return false, errors.Join(err, s.Close())
	}
	ahead := readAhead(s)
	defer ahead.close()
	p := dumpParser{seq: seq, pid: s.portID()}
	for !p.done {
		rx, err := ahead.next()
		switch {
		case ctx.Err() != nil:
			return p.torn, fmt.Errorf("dump conntrack table: %w", context.Cause(ctx))
		case errors.Is(err, unix.ENOBUFS):
			return true, nil
		case err != nil:
			return p.torn, fmt.Errorf("receive netlink dump: %w", err)
		}
		for rx.more() && !p.done {
			b, cut := rx.datagram()
			if cut {
				return p.torn, errors.New("receive netlink dump: datagram longer than the buffer")
			}
			if err := p.datagram(b, page); err != nil {
				return p.torn, err
			}
		}
	}
	return p.torn, nil
}

// A readerAhead receives the datagrams of a dump in a goroutine of its own.
type readerAhead struct {
	sock *socket
	free chan *receiver // buffers to be filled; closed to end the goroutine
	full chan received
	last *receiver // what next returned
	done chan struct{}
}

type received struct {
	rx  *receiver
	err error
}

func readAhead(s *socket) *readerAhead {
	a := &readerAhead{
		sock: s,
		free: make(chan *receiver, dumpRuns),
		full: make(chan received, dumpRuns),
		done: make(chan struct{}),
	}
	for range dumpRuns {
		a.free <- newReceiver(s, dumpRun, dumpPage)
	}
	go a.run()
	return a
}

// run ends with the first error; closing the socket is one.
func (a *readerAhead) run() {
	defer close(a.done)
	for rx := range a.free {
		err := rx.receive(true)
		a.full <- received{rx, err} // has room for all there are
		if err != nil {
			return
		}
	}
}

// next returns the next run of datagrams, valid until next is called again.
func (a *readerAhead) next() (*receiver, error) {
	if a.last != nil {
		a.free <- a.last
	}
	r := <-a.full
	a.last = r.rx
	return r.rx, r.err
}

func (a *readerAhead) close() {
	close(a.free)
	_ = a.sock.Close() // of a socket that is only read
	<-a.done
}

// dumpParser follows one dump through its datagrams.
type dumpParser struct {
	seq, pid uint32
	cur      message // what next found
	rest     []byte  // of the datagram
	err      error
	torn     bool // a message carried NLM_F_DUMP_INTR
	done     bool
}

// datagram has page call next until there is no more, and looks at what page
// did not want to see: the end may be among it.
func (p *dumpParser) datagram(b []byte, page func(*dumpParser) error) error {
	p.rest = b
	if err := page(p); err != nil {
		return err
	}
	for p.next() {
	}
	return p.err
}

// next goes on to the next entry of the datagram.
func (p *dumpParser) next() bool {
	for len(p.rest) > 0 && !p.done && p.err == nil {
		m, rest, ok := nextMessage(p.rest)
		if !ok {
			p.err = errors.New("receive netlink dump: malformed message")
			return false
		}
		if p.rest = rest; m.seq != p.seq || m.pid != p.pid {
			continue
		}
		if m.flags&unix.NLM_F_DUMP_INTR != 0 {
			p.torn = true
		}
		switch m.typ {
		case unix.NLMSG_NOOP:
			continue
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			p.done = true
			if errno := errorCode(m.body); errno != 0 {
				p.err = fmt.Errorf("dump conntrack table: %w", explain(errno))
			}
			return false
		}
		p.cur = m
		return true
	}
	return false
}
