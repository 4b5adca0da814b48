package node

import "github.com/conntrackgo/conntrackgo/pkg/flow"

// load unpacks an entry into f, which is overwritten.
func (s *store) load(r ref, f *flow.Flow) {
	*f = flow.Flow{}
	var c *common
	if r.is6() {
		k, e := s.v6.At(r.id())
		f.Key = flow.Key{Src: k.src, Dst: k.dst, Sport: k.sport, Dport: k.dport,
			Zone: k.zone, Proto: k.proto, Family: flow.IPv6}
		c = &e.common
	} else {
		k, e := s.v4.At(r.id())
		copy(f.Src[:], k.src[:])
		copy(f.Dst[:], k.dst[:])
		f.Sport, f.Dport, f.Zone = k.sport, k.dport, k.zone
		f.Proto, f.Family = k.proto, flow.IPv4
		copy(f.NAT.Src[:], e.nat.src[:])
		copy(f.NAT.Dst[:], e.nat.dst[:])
		f.NAT.Sport, f.NAT.Dport = e.nat.sport, e.nat.dport
		c = &e.common
	}
	f.Has = flow.Has(c.has)
	f.Status, f.Timeout, f.Mark, f.ID = c.status, c.timeout, c.mark, c.id
	f.State = c.state
	f.WScale = [2]uint8{c.wscale & 0xf, c.wscale >> 4}
	if c.rare != 0 {
		s.rare.at(c.rare).load(f, r.is6())
	}
}

// save packs f into an entry whose key is f's. The rare record comes and goes
// as needed.
func (s *store) save(r ref, f *flow.Flow) {
	var c *common
	rare := f.Has.Any(inRare)
	if r.is6() {
		_, e := s.v6.At(r.id())
		c = &e.common
		rare = rare || f.Has.Any(flow.HasNAT)
	} else {
		_, e := s.v4.At(r.id())
		e.nat = packNAT4(&f.NAT)
		c = &e.common
	}
	c.has = uint32(f.Has & kept)
	c.status, c.timeout, c.mark, c.id = f.Status, f.Timeout, f.Mark, f.ID
	c.state = f.State
	// RFC 7323 2.3: a shift count above 14 means 14, so a nibble holds it.
	c.wscale = min(f.WScale[0], 14) | min(f.WScale[1], 14)<<4
	switch {
	case rare:
		if c.rare == 0 {
			c.rare = s.rare.alloc()
		}
		s.rare.at(c.rare).save(f, r.is6())
	case c.rare != 0:
		s.dropRare(c)
	}
}

func (s *store) dropRare(c *common) {
	if c.rare != 0 {
		s.rare.free(c.rare)
		c.rare = 0
	}
}

// merge updates an entry with what src knows, in place where src knows
// nothing rare, which is the case for most events. It reports whether more
// than the timeout changed.
func (s *store) merge(r ref, src, scratch *flow.Flow) bool {
	if !r.is6() && !src.Has.Any(inRare) {
		_, e := s.v4.At(r.id())
		return e.merge(src)
	}
	s.load(r, scratch)
	before := *scratch
	scratch.Merge(src)
	s.save(r, scratch)
	before.Timeout = scratch.Timeout
	before.Has |= flow.HasTimeout & scratch.Has
	scratch.Has &= kept
	return before != *scratch
}

// correct makes an entry say what a dump says of it: other than an event, a
// dump mentions everything, so a mark that is not there is zero. It reports
// whether anything that travels changed, but for the timeout.
func (s *store) correct(r ref, f, scratch *flow.Flow) bool {
	if c := s.common(r); c.rare == 0 && !f.Has.Any(inRare) && !(r.is6() && f.Has.Any(flow.HasNAT)) {
		return s.correctPlain(r, f)
	}
	s.load(r, scratch)
	before := *scratch
	s.save(r, f)
	s.load(r, scratch)
	for _, g := range [...]*flow.Flow{&before, scratch} {
		g.Has &^= flow.HasTimeout | flow.HasID | flow.HasStart | flow.HasStop
		g.Timeout, g.ID, g.Start, g.Stop = 0, 0, 0, 0
	}
	return before != *scratch
}

// correctPlain is correct for an entry that neither has nor gets anything
// rare.
func (s *store) correctPlain(r ref, f *flow.Flow) (changed bool) {
	c := s.common(r)
	before := *c
	if r.is6() {
		s.save(r, f)
	} else {
		_, e := s.v4.At(r.id())
		nat := e.nat
		s.save(r, f)
		changed = nat != e.nat
	}
	const own = flow.HasTimeout | flow.HasID
	return changed || (c.has^before.has)&^uint32(own) != 0 || c.status != before.status ||
		c.mark != before.mark || c.state != before.state || c.wscale != before.wscale
}

// succeeded reports whether f is another flow of the same tuple, whose
// predecessor's end was not seen.
func (s *store) succeeded(r ref, f *flow.Flow) bool {
	c := s.common(r)
	return flow.Has(c.has).Has(flow.HasID) && f.Has.Has(flow.HasID) && c.id != f.ID
}

// merge is flow.Flow.Merge for a packed entry without rare attributes.
func (e *entry4) merge(src *flow.Flow) bool {
	before := *e
	has := src.Has
	if has.Any(flow.HasReply | flow.HasNAT) {
		e.mergeNAT(src)
	}
	if has.Has(flow.HasStatus) {
		e.status = src.Status
	}
	if has.Has(flow.HasState) {
		e.state = src.State
	}
	if has.Has(flow.HasMark) {
		e.mark = src.Mark
	}
	if has.Has(flow.HasID) {
		e.id = src.ID
	}
	if has.Has(flow.HasWScaleOrig) {
		e.wscale = e.wscale&^0xf | min(src.WScale[0], 14)
	}
	if has.Has(flow.HasWScaleRepl) {
		e.wscale = e.wscale&0xf | min(src.WScale[1], 14)<<4
	}
	const tuple = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasZone | flow.HasZoneOrig
	e.has |= uint32(has & kept &^ (tuple | flow.HasTimeout))
	changed := *e != before
	if has.Has(flow.HasTimeout) {
		e.timeout = src.Timeout
		e.has |= uint32(flow.HasTimeout)
	}
	return changed
}

func (e *entry4) mergeNAT(src *flow.Flow) {
	all := src.Has.Has(flow.HasReply)
	if all {
		e.has &^= uint32(flow.HasNAT)
	}
	if all || src.Has.Has(flow.HasSNAT) {
		copy(e.nat.src[:], src.NAT.Src[:4])
	}
	if all || src.Has.Has(flow.HasDNAT) {
		copy(e.nat.dst[:], src.NAT.Dst[:4])
	}
	if all || src.Has.Has(flow.HasSPAT) {
		e.nat.sport = src.NAT.Sport
	}
	if all || src.Has.Has(flow.HasDPAT) {
		e.nat.dport = src.NAT.Dport
	}
}
