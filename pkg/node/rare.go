package node

import (
	"unsafe"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// rareAttrs are the attributes that few flows have.
type rareAttrs struct {
	master    flow.Key
	nat6      flow.NAT // IPv6 only
	seqAdj    [2]flow.SeqAdj
	synproxy  flow.Synproxy
	helper    [16]byte
	labels    [4]uint32
	vtag      [2]uint32
	start     uint64
	stop      uint64
	zoneReply uint16
	role      uint8
}

func (a *rareAttrs) load(f *flow.Flow, six bool) {
	f.Master, f.SeqAdj, f.Synproxy = a.master, a.seqAdj, a.synproxy
	f.Helper, f.Labels, f.Vtag = a.helper, a.labels, a.vtag
	f.Start, f.Stop = a.start, a.stop
	f.ZoneRepl, f.Role = a.zoneReply, a.role
	if six {
		f.NAT = a.nat6
	}
}

func (a *rareAttrs) save(f *flow.Flow, six bool) {
	a.master, a.seqAdj, a.synproxy = f.Master, f.SeqAdj, f.Synproxy
	a.helper, a.labels, a.vtag = f.Helper, f.Labels, f.Vtag
	a.start, a.stop = f.Start, f.Stop
	a.zoneReply, a.role = f.ZoneRepl, f.Role
	if six {
		a.nat6 = f.NAT
	}
}

const rarePage = 1 << 10

// A rareSlab hands out rareAttrs by index. Pages never move and hold no
// pointers; index 0 means none.
type rareSlab struct {
	pages []*[rarePage]rareAttrs
	freed []uint32
	used  uint32
}

func (s *rareSlab) at(i uint32) *rareAttrs {
	return &s.pages[i/rarePage][i%rarePage]
}

func (s *rareSlab) alloc() uint32 {
	if n := len(s.freed); n > 0 {
		i := s.freed[n-1]
		s.freed = s.freed[:n-1]
		return i
	}
	s.used++
	if int(s.used/rarePage) == len(s.pages) {
		s.pages = append(s.pages, new([rarePage]rareAttrs))
	}
	return s.used
}

// free gives a record back. With the last one all memory but a page goes.
func (s *rareSlab) free(i uint32) {
	*s.at(i) = rareAttrs{}
	if s.freed = append(s.freed, i); len(s.freed) == int(s.used) && len(s.pages) > 1 {
		*s = rareSlab{pages: append([]*[rarePage]rareAttrs(nil), s.pages[0])}
	}
}

func (s *rareSlab) bytes() int {
	return len(s.pages)*int(unsafe.Sizeof([rarePage]rareAttrs{})) + 4*cap(s.freed)
}
