package flow

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// Policy is the last word of a filter set.
type Policy uint8

// Unset lets everything pass; Accept only what is listed; Ignore all but what
// is listed.
const (
	Unset Policy = iota
	Accept
	Ignore
)

// Prefix is an IPv4 or IPv6 network; a host has Bits 32 or 128.
type Prefix struct {
	Addr   Addr
	Family uint8
	Bits   uint8
}

// Filter is the Filter section of conntrackd.conf: three sets, each of which
// a flow must pass. The zero Filter passes everything. Compile makes it fast
// for long lists.
type Filter struct {
	Protocols Policy
	Protocol  [256]bool
	Addresses Policy
	Prefixes  []Prefix
	Compiled  bool // Prefixes are as Compile leaves them; only it sets this
	States    Policy
	State     [16]bool // by TCP state number
}

// Pass reports whether a flow is to be replicated. Only the caller knows of
// events: the end of a flow that it has cached concerns it whatever the
// filter says, as the kernel puts the last TCP state into destroy events.
func (f *Filter) Pass(fl *Flow) bool {
	return f.passProtocol(fl) && f.passAddress(fl) && f.passState(fl)
}

// pass applies a policy to a flow that is, or is not, on the list.
func (p Policy) pass(listed bool) bool {
	return p == Unset || listed == (p == Accept)
}

func (f *Filter) passProtocol(fl *Flow) bool {
	return f.Protocols.pass(f.Protocol[fl.Proto])
}

// passAddress looks at the original source and at the reply source, the
// destination behind DNAT. A flow of a family without any prefix is on no
// list: it passes Ignore and fails Accept.
func (f *Filter) passAddress(fl *Flow) bool {
	if f.Addresses == Unset {
		return true
	}
	replySource := &fl.Dst
	if fl.Has.Has(HasDNAT) {
		replySource = &fl.NAT.Dst
	}
	return f.Addresses.pass(f.listed(fl.Family, &fl.Src) || f.listed(fl.Family, replySource))
}

// passState judges TCP flows whose state is known; all others pass.
func (f *Filter) passState(fl *Flow) bool {
	if fl.Proto != ProtoTCP || !fl.Has.Has(HasState) {
		return true
	}
	return f.States.pass(int(fl.State) < len(f.State) && f.State[fl.State])
}

// listed reports whether an address is in one of the prefixes.
func (f *Filter) listed(family uint8, a *Addr) bool {
	if !f.Compiled {
		return slices.ContainsFunc(f.Prefixes, func(p Prefix) bool { return p.Contains(family, a) })
	}
	// The prefixes do not overlap: only the last one that starts at or below
	// the address can hold it.
	low, high := 0, len(f.Prefixes)
	for low < high {
		mid := int(uint(low+high) / 2)
		if p := &f.Prefixes[mid]; p.Family < family || p.Family == family && bytes.Compare(p.Addr[:], a[:]) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low > 0 && f.Prefixes[low-1].Contains(family, a)
}

// Compile prepares the filter for long lists: prefixes within another one are
// dropped and the rest is sorted, so that Pass searches in logarithmic time,
// however many lengths there are. Prefixes becomes a slice of its own; after a
// change to it, clear Compiled and compile again.
func (f *Filter) Compile() {
	sorted := slices.Clone(f.Prefixes)
	for i := range sorted {
		sorted[i].Addr = sorted[i].Addr.Mask(sorted[i].Bits)
	}
	slices.SortFunc(sorted, func(a, b Prefix) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), bytes.Compare(a.Addr[:], b.Addr[:]), cmp.Compare(a.Bits, b.Bits))
	})
	kept := sorted[:0]
	for _, p := range sorted {
		// Sorted, a prefix comes right after the kept one that holds it.
		if n := len(kept); n == 0 || !kept[n-1].Contains(p.Family, &p.Addr) {
			kept = append(kept, p)
		}
	}
	f.Prefixes, f.Compiled = slices.Clip(kept), true
}

// Contains reports whether an address is in the prefix. Host bits of the
// prefix do not matter.
func (p Prefix) Contains(family uint8, a *Addr) bool {
	return p.Family == family && a.Mask(p.Bits) == p.Addr.Mask(p.Bits)
}

// Mask returns the address with all but the first bits cleared.
func (a Addr) Mask(bits uint8) (m Addr) {
	high, low := ^uint64(0), ^uint64(0)
	if bits < 64 {
		high, low = ^(high >> bits), 0
	} else {
		low = ^(low >> (bits - 64))
	}
	binary.BigEndian.PutUint64(m[:8], binary.BigEndian.Uint64(a[:8])&high)
	binary.BigEndian.PutUint64(m[8:], binary.BigEndian.Uint64(a[8:])&low)
	return m
}
