package node

import (
	"math/bits"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// A digest is a count of flows and the sum of a hash of each: of those the peer
// was told of, as they were told, and in the other node of those that it was
// told. There is one of expectations too, see expectStore.count. Once all that
// waits is sent, and all that was sent has arrived, the two are equal, however
// busy the nodes are (docs/protocol.md 12.4).
//
// A flow is counted when its message leaves, or has arrived, and no longer when
// it changes or ends. So what is hashed is what the entry is at both times, and
// nothing needs to be kept for it but one flag.
type digest struct {
	count uint32
	sum   uint64
}

func (d *digest) add(hash uint64) { d.count, d.sum = d.count+1, d.sum+hash }
func (d *digest) sub(hash uint64) { d.count, d.sum = d.count-1, d.sum-hash }

func (d *digest) wire() wire.Digest { return wire.Digest{Count: d.count, Sum: d.sum} }

// digested makes a store keep a digest of what travels with the options o. What
// becomes of a flow on its way through an old version is not followed.
func (s *store) digested(o wire.Options) {
	s.counting, s.travel, s.marks = o.Peer == wire.Since147, o, ^uint64(0)
	if o.Without.Has(flow.HasMark) {
		s.marks = ^uint64(0xffffffff)
	}
}

// count adds an entry to the digest of its store.
func (s *store) count(r ref, c *common) {
	if c.flags&counted == 0 && s.counting {
		c.flags |= counted
		s.digest.add(s.hash(r))
	}
}

// uncount takes an entry out of it, before it changes. It returns the hash of
// what it was, if it was counted.
func (s *store) uncount(r ref, c *common) (was uint64) {
	if c.flags&counted != 0 {
		c.flags &^= counted
		was = s.hash(r)
		s.digest.sub(was)
	}
	return was
}

// recount counts an entry again of which was is the hash that it was counted
// with, if what changed is nothing that travels: the peer will not be told.
func (s *store) recount(r ref, c *common, was uint64) {
	if was != 0 && s.hash(r) == was {
		s.count(r, c)
	}
}

// hash is a hash of what of a flow travels, but for the timeout, and so the
// same on both sides. What an entry lacks is zero, and what is zero does not
// differ from what is missing.
func (s *store) hash(r ref) (h uint64) {
	var rare uint32
	if r.is6() {
		k, e := s.v6.At(r.id())
		h = fold(be64(k.src[:4], k.src[4:8])^h2, be64(k.src[8:12], k.src[12:])^h3) +
			fold(be64(k.dst[:4], k.dst[4:8])^h4, be64(k.dst[8:12], k.dst[12:])^h5)
		where, what := e.words(s.travel.WindowScale, k.zone, k.proto)
		h = fold(h^h0, fold(where^uint64(k.sport)<<48^uint64(k.dport)<<32^h1, what&s.marks^h2))
		rare = e.rare
	} else {
		k, e := s.v4.At(r.id())
		h = be64(k.src[:], k.dst[:]) + e.nat.hash(e.status, k.proto)
		where, what := e.words(s.travel.WindowScale, k.zone, k.proto)
		h = fold(h^h0, fold(where^uint64(k.sport)<<48^uint64(k.dport)<<32^h1, what&s.marks^h2))
		rare = e.rare
	}
	if rare != 0 {
		h += s.hashRare(r)
	}
	return h
}

// words are what an entry is, and what of its tuple is neither address nor
// port. The zone of one direction only does not travel, and only some protocols
// have a state, TCP has window scales with it.
func (c *common) words(windowScale bool, zone uint16, proto uint8) (where, what uint64) {
	where, what = uint64(proto)<<8, uint64(c.status)<<32|uint64(c.mark)
	if flow.Has(c.has)&flow.HasZone != 0 {
		where |= uint64(zone) << 16
	}
	switch {
	case proto == flow.ProtoTCP:
		where |= uint64(c.state)
		if windowScale && flow.Has(c.has)&flow.HasState != 0 {
			what ^= uint64(c.wscale) << 56 // of the status, which has no bits there
		}
	case proto == flow.ProtoSCTP || proto == flow.ProtoDCCP:
		where |= uint64(c.state)
	}
	return where, what
}

// hash is a hash of the addresses and ports of NAT that is done; zero if there
// is none.
func (n *nat4) hash(status uint32, proto uint8) uint64 {
	addr, port := be64(n.src[:], n.dst[:]), uint64(n.sport)<<16|uint64(n.dport)
	if addr|port == 0 {
		return 0
	}
	if status&flow.StatusSrcNATDone == 0 {
		addr, port = addr&0xffffffff, port&0xffff
	}
	if status&flow.StatusDstNATDone == 0 {
		addr, port = addr&^0xffffffff, port&^0xffff
	}
	if port != 0 && !natPorts[proto] {
		port = 0
	}
	if addr|port == 0 {
		return 0
	}
	return fold(addr^h3, port^h4)
}

var natPorts = [256]bool{flow.ProtoTCP: true, flow.ProtoUDP: true, flow.ProtoUDPLite: true,
	flow.ProtoGRE: true, flow.ProtoSCTP: true, flow.ProtoDCCP: true}

// The parts of pi behind the point, so that a product with zero is none.
const (
	h0 = 0x243f6a8885a308d3
	h1 = 0x13198a2e03707344
	h2 = 0xa4093822299f31d0
	h3 = 0x082efa98ec4e6c89
	h4 = 0x452821e638d01377
	h5 = 0xbe5466cf34e90c6c
)

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// hashBytes is a hash of b that goes on from h.
func hashBytes(h uint64, b []byte) uint64 {
	for ; len(b) >= 8; b = b[8:] {
		h = fold(h^h1, be64(b[:4], b[4:8])^h0)
	}
	var last [8]byte
	if copy(last[:], b) > 0 {
		h = fold(h^h2, be64(last[:4], last[4:])^h0)
	}
	return h
}

// hashRare is the same of the rare attributes; zero if none travels.
func (s *store) hashRare(r ref) (h uint64) {
	f := &s.scratch
	s.load(r, f)
	has := s.travel.Travels(f)
	add := func(mask flow.Has, a, b uint64) {
		if has&mask != 0 && a|b != 0 {
			h += fold(a^h4^uint64(mask), b^h5)
		}
	}
	add(flow.HasMaster, be64(f.Master.Src[:4], f.Master.Src[4:8]), be64(f.Master.Dst[:4], f.Master.Dst[4:8]))
	add(flow.HasMaster, be64(f.Master.Src[8:12], f.Master.Src[12:])+1, be64(f.Master.Dst[8:12], f.Master.Dst[12:]))
	add(flow.HasMasterPort, ports(f.Master.Sport, f.Master.Dport, 0, f.Master.Proto), 0)
	add(flow.HasLabels, uint64(f.Labels[0])<<32|uint64(f.Labels[1]), uint64(f.Labels[2])<<32|uint64(f.Labels[3]))
	add(flow.HasHelper, be64(f.Helper[:4], f.Helper[4:8]), be64(f.Helper[8:12], f.Helper[12:]))
	add(flow.HasSynproxy, uint64(f.Synproxy.ISN)<<32|uint64(f.Synproxy.ITS), uint64(f.Synproxy.TSOff))
	add(flow.HasVtag, uint64(f.Vtag[0])<<32|uint64(f.Vtag[1]), 0)
	add(flow.HasRole, uint64(f.Role), 0)
	for i, a := range f.SeqAdj {
		add(flow.HasSeqOrig<<i, uint64(a.Pos)<<32|uint64(a.Before), uint64(a.After))
	}
	if r.is6() {
		add(flow.HasSNAT, be64(f.NAT.Src[:4], f.NAT.Src[4:8]), be64(f.NAT.Src[8:12], f.NAT.Src[12:]))
		add(flow.HasDNAT, be64(f.NAT.Dst[:4], f.NAT.Dst[4:8]), be64(f.NAT.Dst[8:12], f.NAT.Dst[12:]))
		add(flow.HasSPAT, uint64(f.NAT.Sport)<<32, 0)
		add(flow.HasDPAT, uint64(f.NAT.Dport), 0)
	}
	return h
}
