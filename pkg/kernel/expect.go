package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// CreateExpect creates an expectation with everything it carries; one of the
// same tuple is replaced. Without HasTimeout 60 s are asked for, but where the
// master has a helper the kernel takes the timeout of the helper's policy. The
// master must be in the kernel; ENOENT if it is not. Errors wrap the errno.
func (w *Writer) CreateExpect(x *flow.Expect) error {
	err := w.askExpect(msgExpNew, x)
	if errors.Is(err, unix.EEXIST) {
		if err := w.DeleteExpect(x); err != nil {
			return err
		}
		err = w.askExpect(msgExpNew, x)
	}
	if err != nil {
		return fmt.Errorf("create expectation: %w", err)
	}
	return nil
}

// DeleteExpect deletes the expectation of the same tuple, if there is one.
func (w *Writer) DeleteExpect(x *flow.Expect) error {
	if err := w.askExpect(msgExpDelete, x); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete expectation: %w", err)
	}
	return nil
}

func (w *Writer) askExpect(msgType uint16, x *flow.Expect) error {
	w.enc.buf = w.enc.buf[:0]
	w.base = w.sequence(1)
	w.enc.expect(msgType, w.base, x)
	return w.ask()
}

// expectEncodeRow is encodeRow for expectations.
type expectEncodeRow struct {
	only uint16 // message type, 0: all
	has  flow.Has
	put  func(*encoder, *flow.Expect)
}

var expectEncodeRows = [...]expectEncodeRow{
	{msgExpNew, 0, (*encoder).putExpectMaster},
	{0, 0, (*encoder).putExpectTuple},
	{msgExpNew, 0, (*encoder).putExpectMask},
	{msgExpNew, 0, (*encoder).putExpectTimeout},
	{0, flow.HasZone, func(e *encoder, x *flow.Expect) { e.u16(ctaExpectZone, x.Tuple.Zone) }},
	{msgExpNew, flow.HasFlags, func(e *encoder, x *flow.Expect) { e.u32(ctaExpectFlags, x.Flags) }},
	{msgExpNew, flow.HasClass, func(e *encoder, x *flow.Expect) { e.u32(ctaExpectClass, x.Class) }},
	{msgExpNew, flow.HasHelper, func(e *encoder, x *flow.Expect) { e.name(ctaExpectHelpName, x.Helper[:]) }},
	{msgExpNew, flow.HasSNAT | flow.HasSPAT | flow.HasNATDir, (*encoder).putExpectNAT},
	{msgExpNew, flow.HasFn, func(e *encoder, x *flow.Expect) { e.name(ctaExpectFn, x.Fn[:]) }},
}

// expect appends one request about an expectation.
func (e *encoder) expect(msgType uint16, seq uint32, x *flow.Expect) {
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
	if msgType == msgExpNew {
		flags |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	start := e.header(msgType, flags, seq, x.Tuple.Family)
	for i := range expectEncodeRows {
		row := &expectEncodeRows[i]
		if (row.only == 0 || row.only == msgType) && (row.has == 0 || x.Has.Any(row.has)) {
			row.put(e, x)
		}
	}
	e.end(start)
}

func (e *encoder) putExpectMaster(x *flow.Expect) { e.tuple(ctaExpectMaster, &x.Master, false, 0) }
func (e *encoder) putExpectTuple(x *flow.Expect)  { e.tuple(ctaExpectTuple, &x.Tuple, false, 0) }

// putExpectMask gives the mask the protocol of the tuple, which is how the
// kernel itself reports it and the only way it reads the ports.
func (e *encoder) putExpectMask(x *flow.Expect) {
	m := x.Mask
	m.Family, m.Proto = x.Tuple.Family, x.Tuple.Proto
	e.tuple(ctaExpectMask, &m, false, 0)
}

func (e *encoder) putExpectTimeout(x *flow.Expect) {
	timeout := uint32(defaultTimeout)
	if x.Has.Has(flow.HasTimeout) {
		timeout = x.Timeout
	}
	e.u32(ctaExpectTimeout, timeout)
}

// putExpectNAT completes a NAT tuple of which only ports are known: the
// kernel wants addresses too, and reports zeros where there are none.
func (e *encoder) putExpectNAT(x *flow.Expect) {
	nat := x.NAT
	nat.Family = x.Tuple.Family
	if nat.Proto == 0 {
		nat.Proto = x.Tuple.Proto
	}
	n := e.nest(ctaExpectNAT)
	e.u32(ctaExpectNATDir, x.NATDir)
	e.tuple(ctaExpectNATTuple, &nat, false, 0)
	e.endNest(n)
}
