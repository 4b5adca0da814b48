package kernel

import (
	"encoding/binary"
	"math/bits"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// row says how one attribute is read into a T. min is the least size of its
// value in bytes.
type row[T any] struct {
	min    int
	decode func(v []byte, to *T) error
}

// decodeRows reads the attributes in b by a table indexed by their numbers.
// What has no row is skipped.
func decodeRows[T any](b []byte, to *T, rows []row[T]) error {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return tail(b)
		}
		b = rest
		if int(t) >= len(rows) || rows[t].decode == nil {
			continue
		}
		if len(v) < rows[t].min {
			return errShort
		}
		if err := rows[t].decode(v, to); err != nil {
			return err
		}
	}
}

// tail judges what is left when there is no further attribute.
func tail(b []byte) error {
	if len(b) >= nlattrLen {
		return errCut
	}
	return nil
}

// flowAttrs are the attributes of a flow that we read.
var flowAttrs = [ctaMax + 1]row[flow.Flow]{
	ctaTupleOrig:     {0, decodeOrig},
	ctaTupleReply:    {0, decodeReply},
	ctaStatus:        {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.Status, &f.Has, flow.HasStatus) }},
	ctaProtoinfo:     {0, decodeProtoinfo},
	ctaHelp:          {0, decodeHelp},
	ctaTimeout:       {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.Timeout, &f.Has, flow.HasTimeout) }},
	ctaMark:          {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.Mark, &f.Has, flow.HasMark) }},
	ctaCountersOrig:  {0, func(v []byte, f *flow.Flow) error { return decodeCounters(v, f, &f.Counters[0]) }},
	ctaCountersReply: {0, func(v []byte, f *flow.Flow) error { return decodeCounters(v, f, &f.Counters[1]) }},
	ctaUse:           {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.Use, &f.Has, flow.HasUse) }},
	ctaID:            {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.ID, &f.Has, flow.HasID) }},
	ctaTupleMaster:   {0, decodeMaster},
	ctaSeqAdjOrig:    {0, func(v []byte, f *flow.Flow) error { return decodeSeqAdj(v, f, 0, flow.HasSeqOrig) }},
	ctaSeqAdjReply:   {0, func(v []byte, f *flow.Flow) error { return decodeSeqAdj(v, f, 1, flow.HasSeqRepl) }},
	ctaZone:          {2, decodeZone},
	ctaTimestamp:     {0, decodeTimestamp},
	ctaLabels:        {4, decodeLabels},
	ctaSynproxy:      {0, decodeSynproxy},
}

// set32 is the row of a plain 32-bit number.
func set32(v []byte, to *uint32, has *flow.Has, bit flow.Has) error {
	*to = be32(v)
	*has |= bit
	return nil
}

func decodeOrig(v []byte, f *flow.Flow) error {
	has, err := decodeTuple(v, &f.Key)
	if err == nil && !has.Has(flow.HasAddr) {
		err = errHalfTuple
	}
	if has.Has(flow.HasZone) {
		has = has&^flow.HasZone | flow.HasZoneOrig
	}
	f.Has |= has
	return err
}

// decodeReply needs the original tuple, which the kernel always puts first.
func decodeReply(v []byte, f *flow.Flow) error {
	if !f.Has.Has(flow.HasAddr) {
		return errOrder
	}
	reply := flow.Key{Family: f.Family}
	has, err := decodeTuple(v, &reply)
	if err == nil && !has.Has(flow.HasAddr) {
		err = errHalfTuple
	}
	if err != nil {
		return err
	}
	f.SetReply(&reply)
	if has.Has(flow.HasZone) {
		f.ZoneRepl = reply.Zone
		f.Has |= flow.HasZoneRepl
	}
	return nil
}

func decodeMaster(v []byte, f *flow.Flow) error {
	return masterTuple(v, &f.Master, &f.Has)
}

func masterTuple(v []byte, k *flow.Key, to *flow.Has) error {
	has, err := decodeWholeTuple(v, k)
	*to |= flow.HasMaster
	if has.Has(flow.HasPorts) {
		*to |= flow.HasMasterPort
	}
	return err
}

// decodeWholeTuple reads a tuple that is nothing without its addresses and
// whose zone is said elsewhere.
func decodeWholeTuple(v []byte, k *flow.Key) (has flow.Has, err error) {
	*k = flow.Key{}
	has, err = decodeTuple(v, k)
	k.Zone = 0
	if err == nil && !has.Has(flow.HasAddr) {
		err = errHalfTuple
	}
	return has, err
}

// decodeZone reads the zone of both directions. A zone of one direction is
// inside its tuple instead (CTA_TUPLE_ZONE).
func decodeZone(v []byte, f *flow.Flow) error {
	f.Zone = be16(v)
	f.Has |= flow.HasZone
	return nil
}

func decodeProtoinfo(b []byte, f *flow.Flow) error {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return tail(b)
		}
		b = rest
		if int(t) >= len(protoinfoAttrs) {
			continue
		}
		if err := decodeRows(v, f, protoinfoAttrs[t]); err != nil {
			return err
		}
	}
}

// protoinfoAttrs are the protocols with a state: CTA_PROTOINFO_TCP, _DCCP and
// _SCTP, each with the rows of what it holds.
var protoinfoAttrs = [...][]row[flow.Flow]{
	ctaProtoinfoTCP: {
		ctaTCPState:      {1, setState},
		ctaTCPWScaleOrig: {1, func(v []byte, f *flow.Flow) error { return set8(v, &f.WScale[0], f, flow.HasWScaleOrig) }},
		ctaTCPWScaleRepl: {1, func(v []byte, f *flow.Flow) error { return set8(v, &f.WScale[1], f, flow.HasWScaleRepl) }},
	},
	ctaProtoinfoDCCP: {
		ctaDCCPState: {1, setState},
		ctaDCCPRole:  {1, func(v []byte, f *flow.Flow) error { return set8(v, &f.Role, f, flow.HasRole) }},
	},
	ctaProtoinfoSCTP: {
		ctaSCTPState:    {1, setState},
		ctaSCTPVtagOrig: {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.Vtag[0], &f.Has, flow.HasVtag) }},
		ctaSCTPVtagRepl: {4, func(v []byte, f *flow.Flow) error { return set32(v, &f.Vtag[1], &f.Has, flow.HasVtag) }},
	},
}

func set8(v []byte, to *uint8, f *flow.Flow, bit flow.Has) error {
	*to = v[0]
	f.Has |= bit
	return nil
}

func setState(v []byte, f *flow.Flow) error { return set8(v, &f.State, f, flow.HasState) }

func decodeHelp(b []byte, f *flow.Flow) error {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return tail(b)
		}
		if b = rest; t != ctaHelpName {
			continue
		}
		if err := decodeName(v, f.Helper[:]); err != nil {
			return err
		}
		if f.Helper[0] != 0 {
			f.Has |= flow.HasHelper
		}
	}
}

func decodeCounters(b []byte, f *flow.Flow, c *flow.Counters) error {
	w, err := decodeWords64(b)
	if err != nil {
		return err
	}
	c.Packets, c.Bytes = w[ctaCountersPackets], w[ctaCountersBytes]
	f.Has |= flow.HasCounters
	return nil
}

func decodeTimestamp(b []byte, f *flow.Flow) error {
	w, err := decodeWords64(b)
	if err != nil {
		return err
	}
	if f.Start = w[ctaTimestampStart]; f.Start != 0 {
		f.Has |= flow.HasStart
	}
	if f.Stop = w[ctaTimestampStop]; f.Stop != 0 {
		f.Has |= flow.HasStop
	}
	return nil
}

func decodeSeqAdj(b []byte, f *flow.Flow, dir int, bit flow.Has) error {
	w, err := decodeWords32(b)
	if err != nil {
		return err
	}
	f.SeqAdj[dir] = flow.SeqAdj{Pos: w[ctaSeqAdjPos], Before: w[ctaSeqAdjBefore], After: w[ctaSeqAdjAfter]}
	f.Has |= bit
	return nil
}

// decodeSynproxy takes three zeros for no synproxy: the kernel reports them
// for every entry made through ctnetlink.
func decodeSynproxy(b []byte, f *flow.Flow) error {
	w, err := decodeWords32(b)
	if err != nil {
		return err
	}
	f.Synproxy = flow.Synproxy{ISN: w[ctaSynproxyISN], ITS: w[ctaSynproxyITS], TSOff: w[ctaSynproxyTSOff]}
	if f.Synproxy != (flow.Synproxy{}) {
		f.Has |= flow.HasSynproxy
	}
	return nil
}

// decodeLabels reads the kernel's bitmap, an array of unsigned long. The
// kernel sends all 16 bytes, or none if no label is set: that the last label
// went is not said. A shorter bitmap leaves the rest zero.
func decodeLabels(v []byte, f *flow.Flow) error {
	for i := 0; i < len(f.Labels) && 4*i+4 <= len(v); i++ {
		f.Labels[i^labelSwap] = binary.NativeEndian.Uint32(v[4*i:])
	}
	f.Has |= flow.HasLabels
	return nil
}

// labelSwap turns the index of a 32-bit word of CTA_LABELS as the kernel
// lays it out into the index of the word in flow.Flow, and back: on a
// big-endian machine of 64 bits the halves of each long are swapped.
var labelSwap = func() int {
	if bits.UintSize == 64 && binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return 1
	}
	return 0
}()

// decodeWords32 reads nested 32-bit numbers by attribute number; absent ones
// are zero.
func decodeWords32(b []byte) (w [4]uint32, err error) {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return w, tail(b)
		}
		if b = rest; int(t) >= len(w) {
			continue
		}
		if len(v) < 4 {
			return w, errShort
		}
		w[t] = be32(v)
	}
}

// decodeWords64 is decodeWords32 for 64-bit numbers.
func decodeWords64(b []byte) (w [3]uint64, err error) {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return w, tail(b)
		}
		if b = rest; int(t) >= len(w) {
			continue
		}
		if len(v) < 8 {
			return w, errShort
		}
		w[t] = be64(v)
	}
}

// expectAttrs are the attributes of an expectation that we read.
var expectAttrs = [ctaExpectMax + 1]row[flow.Expect]{
	ctaExpectMaster:   {0, decodeExpectMaster},
	ctaExpectTuple:    {0, decodeExpectTuple},
	ctaExpectMask:     {0, decodeExpectMask},
	ctaExpectTimeout:  {4, func(v []byte, e *flow.Expect) error { return set32(v, &e.Timeout, &e.Has, flow.HasTimeout) }},
	ctaExpectID:       {4, func(v []byte, e *flow.Expect) error { return set32(v, &e.ID, &e.Has, flow.HasID) }},
	ctaExpectHelpName: {0, func(v []byte, e *flow.Expect) error { return setName(v, e.Helper[:], e, flow.HasHelper) }},
	ctaExpectZone:     {2, decodeExpectZone},
	ctaExpectFlags:    {4, func(v []byte, e *flow.Expect) error { return set32(v, &e.Flags, &e.Has, flow.HasFlags) }},
	ctaExpectClass:    {4, func(v []byte, e *flow.Expect) error { return set32(v, &e.Class, &e.Has, flow.HasClass) }},
	ctaExpectNAT:      {0, decodeExpectNAT},
	ctaExpectFn:       {0, func(v []byte, e *flow.Expect) error { return setName(v, e.Fn[:], e, flow.HasFn) }},
}

func decodeExpectMaster(v []byte, e *flow.Expect) error {
	return masterTuple(v, &e.Master, &e.Has)
}

// decodeExpectTuple leaves the zone alone: CTA_EXPECT_ZONE has it.
func decodeExpectTuple(v []byte, e *flow.Expect) error {
	zone := e.Tuple.Zone
	has, err := decodeWholeTuple(v, &e.Tuple)
	e.Tuple.Zone = zone
	e.Has |= has &^ flow.HasZone
	return err
}

func decodeExpectMask(v []byte, e *flow.Expect) error {
	_, err := decodeWholeTuple(v, &e.Mask)
	e.Has |= flow.HasMask
	return err
}

func decodeExpectZone(v []byte, e *flow.Expect) error {
	e.Tuple.Zone = be16(v)
	e.Has |= flow.HasZone
	return nil
}

func decodeExpectNAT(b []byte, e *flow.Expect) error {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return tail(b)
		}
		b = rest
		switch t {
		case ctaExpectNATDir:
			if len(v) < 4 {
				return errShort
			}
			e.NATDir = be32(v)
			e.Has |= flow.HasNATDir
		case ctaExpectNATTuple:
			has, err := decodeWholeTuple(v, &e.NAT)
			if err != nil {
				return err
			}
			e.Has |= flow.HasSNAT
			if has.Has(flow.HasPorts) {
				e.Has |= flow.HasSPAT
			}
		}
	}
}

// setName is the row of a text. An empty one is as good as none.
func setName(v, to []byte, e *flow.Expect, bit flow.Has) error {
	if err := decodeName(v, to); err != nil {
		return err
	}
	if to[0] != 0 {
		e.Has |= bit
	}
	return nil
}
