package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"golang.org/x/sys/unix"
)

// A dump datagram never exceeds 32 KiB, and the kernel makes the next one
// while we read this.
const (
	dumpBuffer   = 64 << 10
	dumpSocket   = 4 << 20
	dumpAttempts = 3
)

// ErrTorn says that the table changed its shape during every attempt to dump
// it (NLM_F_DUMP_INTR): the last attempt's entries are real, but some may be
// missing. Linux 6.18 was never seen to set that flag on these dumps.
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
// namespace of the calling thread. Nothing is collected: memory is one
// buffer. The flow is fn's until it returns. An entry may come twice if its
// bucket changes while it is read.
//
// If the dump was torn, restart is called (it may be nil: then what came is
// to be overwritten by what comes) and everything is dumped again. Errors:
// fn's, as it is; ctx's; ErrTorn; the kernel's.
func (d *Dumper) Dump(ctx context.Context, fn func(*flow.Flow) error, restart func()) error {
	f := new(flow.Flow)
	return d.run(ctx, msgCtGet, restart, func(m *message) error {
		if m.typ != msgCtNew {
			d.Stats.Unknown++
			return nil
		}
		if err := DecodeFlow(m.body, f); err != nil {
			d.Stats.Failed++
			return nil
		}
		d.Stats.Entries++
		return fn(f)
	})
}

// DumpExpect is Dump for the expectations.
func (d *Dumper) DumpExpect(ctx context.Context, fn func(*flow.Expect) error, restart func()) error {
	x := new(flow.Expect)
	return d.run(ctx, msgExpGet, restart, func(m *message) error {
		if m.typ != msgExpNew {
			d.Stats.Unknown++
			return nil
		}
		if err := DecodeExpect(m.body, x); err != nil {
			d.Stats.Failed++
			return nil
		}
		d.Stats.Entries++
		return fn(x)
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

func (d *Dumper) run(ctx context.Context, request uint16, restart func(), each func(*message) error) error {
	d.Stats = DumpStats{}
	return d.redo(func() (torn bool, err error) { return dumpOnce(ctx, request, each) }, restart)
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
func dumpOnce(ctx context.Context, request uint16, each func(*message) error) (torn bool, err error) {
	s, err := dial()
	if err != nil {
		return false, err
	}
	defer func() { _ = s.Close() }() // of a socket that is only read
	if _, err := s.forceReadBuffer(dumpSocket); err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	const seq = 1
	if err := s.send(newRequest(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, seq)); err != nil {
		return false, err
	}
	p := dumpParser{seq: seq, pid: s.portID(), each: each}
	rx := newReceiver(s, 1, dumpBuffer)
	for !p.done {
		err := rx.receive(true)
		switch {
		case ctx.Err() != nil:
			return p.torn, fmt.Errorf("dump conntrack table: %w", context.Cause(ctx))
		case errors.Is(err, unix.ENOBUFS):
			p.torn = true
			return true, nil
		case err != nil:
			return p.torn, fmt.Errorf("receive netlink dump: %w", err)
		}
		b, cut := rx.datagram()
		if cut {
			return p.torn, errors.New("receive netlink dump: datagram longer than the buffer")
		}
		if err := p.datagram(b); err != nil {
			return p.torn, err
		}
	}
	return p.torn, nil
}

// dumpParser follows one dump through its datagrams.
type dumpParser struct {
	seq, pid uint32
	each     func(*message) error
	cur      message // what each looks at; here so that it is not allocated each time
	torn     bool    // a message carried NLM_F_DUMP_INTR
	done     bool
}

func (p *dumpParser) datagram(b []byte) error {
	for len(b) > 0 && !p.done {
		m, rest, ok := nextMessage(b)
		if !ok {
			return errors.New("receive netlink dump: malformed message")
		}
		if b = rest; m.seq != p.seq || m.pid != p.pid {
			continue
		}
		if m.flags&unix.NLM_F_DUMP_INTR != 0 {
			p.torn = true
		}
		p.cur = m
		if err := p.message(&p.cur); err != nil {
			return err
		}
	}
	return nil
}

func (p *dumpParser) message(m *message) error {
	switch m.typ {
	case unix.NLMSG_NOOP:
		return nil
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		p.done = true
		if errno := errorCode(m.body); errno != 0 {
			return fmt.Errorf("dump conntrack table: %w", explain(errno))
		}
		return nil
	}
	return p.each(m)
}
