package nettest

import (
	"fmt"
	"sort"
	"strings"
)

// A field is one thing two entries are compared by.
type field struct {
	name string
	get  func(*Entry) any
}

// cacheFields are what both caches show: the external cache knows nothing of
// the reply tuple, labels and timeouts.
var cacheFields = []field{
	{"state", func(e *Entry) any { return e.State }},
	{"unreplied", func(e *Entry) any { return e.Unreplied }},
	{"assured", func(e *Entry) any { return e.Assured }},
	{"mark", func(e *Entry) any { return e.Mark }},
	{"helper", func(e *Entry) any { return e.Helper }},
}

var kernelFields = append([]field{
	{"reply tuple", func(e *Entry) any { return e.Reply }},
	{"offload", func(e *Entry) any { return e.Offload }},
	{"zone-orig", func(e *Entry) any { return e.ZoneOrig }},
	{"zone-reply", func(e *Entry) any { return e.ZoneReply }},
}, cacheFields...)

var rawFields = []field{
	{"status", func(e *Entry) any { return fmt.Sprintf("%#x", e.Raw.significantStatus()) }},
	{"labels", func(e *Entry) any { return fmt.Sprintf("%x", e.Raw.Labels) }},
	{"sequence adjustment", func(e *Entry) any { return e.Raw.SeqAdj }},
	{"synproxy", func(e *Entry) any { return e.Raw.Synproxy }},
	{"master", func(e *Entry) any { return e.Raw.Master }},
}

var windowFields = []field{
	{"window scale", func(e *Entry) any { return e.Raw.WScale }},
}

// Differences says how tables differ, sorted by flow; empty if they don't.
type Differences []string

// Err is nil without differences; the error shows the first of them.
func (d Differences) Err() error {
	if len(d) == 0 {
		return nil
	}
	const shown = 12
	s := strings.Join(d[:min(len(d), shown)], "\n  ")
	if len(d) > shown {
		s += fmt.Sprintf("\n  ... and %d more", len(d)-shown)
	}
	return fmt.Errorf("%d differences:\n  %s", len(d), s)
}

// DiffCaches compares an internal cache with the other node's external cache,
// field by field in everything both show.
func DiffCaches(internal, external Table) Differences {
	return diff(internal, external, "the internal cache", "the external cache", fieldsDiffer(cacheFields))
}

// DiffInternal compares a kernel table with the internal cache of the daemon
// on the same node, reply tuples included.
func DiffInternal(kernel, internal Table) Differences {
	return diff(kernel, internal, "the kernel", "the internal cache", fieldsDiffer(kernelFields))
}

// KernelDiff says how strictly kernel tables are compared.
type KernelDiff struct {
	Tolerance int  // seconds two timeouts may differ; negative: don't compare
	Windows   bool // compare TCP window scales (TCPWindowTracking on)
	// Committer is who wrote the standby's table. The C daemon without
	// TCPWindowTracking also puts the TCP "be liberal" flag, 8, over the low
	// byte of the original SCTP tag, which shares the memory.
	Committer Kind
}

// Tables compares the kernel table of the node where the flows were made with
// the one they were committed to. TCP flags are left out: without
// TCPWindowTracking a commit sets "be liberal" on purpose.
func (k KernelDiff) Tables(original, standby Table) Differences {
	fields := fieldsDiffer(kernelFields)
	return diff(original, standby, "the original's kernel", "the standby's kernel", func(a, b *Entry) []string {
		d := fields(a, b)
		if k.Tolerance >= 0 && abs(a.Timeout-b.Timeout) > k.Tolerance {
			d = append(d, fmt.Sprintf("timeout %d, not %d", b.Timeout, a.Timeout))
		}
		if a.Raw == nil || b.Raw == nil {
			return append(d, "missing in a netlink dump")
		}
		d = append(d, fieldsDiffer(rawFields)(a, b)...)
		if want := k.committedTags(a); b.Raw.SCTPVtag != want {
			d = append(d, fmt.Sprintf("sctp tags %#x, not %#x", b.Raw.SCTPVtag, want))
		}
		if k.Windows {
			d = append(d, fieldsDiffer(windowFields)(a, b)...)
		}
		return d
	})
}

// committedTags are the SCTP tags expected after a commit.
func (k KernelDiff) committedTags(e *Entry) [2]uint32 {
	tags := e.Raw.SCTPVtag
	if k.Committer == C && !k.Windows && e.Proto == 132 {
		tags[0] = tags[0]&^0xff | 8
	}
	return tags
}

// significantStatus leaves out the "translation settled" bits of a flow that
// isn't translated. The kernel sets them on every flow that passed a NAT hook,
// they don't change what happens to its packets, and no commit asks for them.
func (r *RawEntry) significantStatus() uint32 {
	const srcNAT, dstNAT, settled = 1 << 4, 1 << 5, 1<<7 | 1<<8
	if r.Status&(srcNAT|dstNAT) == 0 {
		return r.Status &^ settled
	}
	return r.Status
}

func fieldsDiffer(fields []field) func(a, b *Entry) []string {
	return func(a, b *Entry) (d []string) {
		for _, f := range fields {
			if x, y := f.get(a), f.get(b); x != y {
				d = append(d, fmt.Sprintf("%s %v, not %v", f.name, y, x))
			}
		}
		return d
	}
}

func diff(want, got Table, wantName, gotName string, compare func(a, b *Entry) []string) (d Differences) {
	for k, a := range want {
		b := got[k]
		if b == nil {
			d = append(d, fmt.Sprintf("%v: missing in %s", k, gotName))
			continue
		}
		if what := compare(a, b); len(what) > 0 {
			d = append(d, fmt.Sprintf("%v: in %s %s", k, gotName, strings.Join(what, "; ")))
		}
	}
	for k := range got {
		if want[k] == nil {
			d = append(d, fmt.Sprintf("%v: in %s but not in %s", k, gotName, wantName))
		}
	}
	sort.Strings(d)
	return d
}

// Only returns the entries keep accepts.
func (t Table) Only(keep func(*Entry) bool) Table {
	u := Table{}
	for k, e := range t {
		if keep(e) {
			u[k] = e
		}
	}
	return u
}

func abs(n int) int { return max(n, -n) }
