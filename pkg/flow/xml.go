package flow

import "strconv"

// AppendXML appends the flow as one <flow> element without any white space and
// without a line end. Without HasReply the reply is an empty stub, because
// readers expect two directions.
func (f *Flow) AppendXML(dst []byte, o TextOptions) []byte {
	dst = append(dst, `<flow><meta direction="original">`...)
	dst = f.Key.appendXML(dst)
	dst = f.appendDirectionXML(dst, 0, f.Has.Has(HasZoneOrig), f.Zone)
	dst = append(dst, `</meta><meta direction="reply">`...)
	if f.Has.Has(HasReply) {
		reply, _ := f.Reply()
		dst = reply.appendXML(dst)
		dst = f.appendDirectionXML(dst, 1, f.Has.Has(HasZoneRepl), f.ZoneRepl)
	} else {
		dst = append(dst, `<layer3 protonum="0" protoname="unknown"><src></src><dst></dst></layer3>`...)
		dst = append(dst, `<layer4 protonum="0" protoname="unknown"></layer4>`...)
	}
	dst = append(dst, `</meta>`...)
	if f.Has.Any(independent) {
		dst = f.appendIndependentXML(dst, o)
	}
	if f.Has.Has(HasHelper) {
		dst = append(dst, "<helper>"...)
		dst = append(appendEscaped(dst, f.Helper[:]), "</helper>"...)
	}
	return append(dst, "</flow>"...)
}

// independent are the attributes of neither direction that XML shows.
const independent = HasState | HasMark | HasZone | HasUse | HasStatus | HasID | HasStart

func (f *Flow) appendDirectionXML(dst []byte, direction int, hasZone bool, zone uint16) []byte {
	if hasZone {
		dst = appendElement(dst, "zone", uint64(zone))
	}
	if f.Has.Has(HasCounters) {
		dst = append(dst, "<counters>"...)
		dst = appendElement(dst, "packets", f.Counters[direction].Packets)
		dst = appendElement(dst, "bytes", f.Counters[direction].Bytes)
		dst = append(dst, "</counters>"...)
	}
	return dst
}

func (f *Flow) appendIndependentXML(dst []byte, o TextOptions) []byte {
	dst = append(dst, `<meta direction="independent">`...)
	if name := stateName(f.Proto, f.State); f.Has.Has(HasState) && name != "" {
		dst = append(append(append(dst, "<state>"...), name...), "</state>"...)
	}
	if o.Timeout && f.Has.Has(HasTimeout) {
		dst = appendElement(dst, "timeout", uint64(f.Timeout))
	}
	if f.Has.Has(HasMark) {
		dst = appendElement(dst, "mark", uint64(f.Mark))
	}
	if f.Has.Has(HasZone) {
		dst = appendElement(dst, "zone", uint64(f.Zone))
	}
	if f.Has.Has(HasUse) {
		dst = appendElement(dst, "use", uint64(f.Use))
	}
	if f.Has.Has(HasID) {
		dst = appendElement(dst, "id", uint64(f.ID))
	}
	if f.Has.Has(HasStatus) && f.Status&StatusAssured != 0 {
		dst = append(dst, "<assured/>"...)
	}
	if f.Has.Has(HasStatus) && f.Status&StatusSeenReply == 0 {
		dst = append(dst, "<unreplied/>"...)
	}
	if f.Has.Has(HasStart) {
		dst = appendElement(dst, "deltatime", f.deltaTime(o.Now))
	}
	return append(dst, "</meta>"...)
}

// AppendXML appends the expectation as one <flow> element without any white
// space and without a line end.
func (e *Expect) AppendXML(dst []byte, _ TextOptions) []byte {
	mask := e.mask()
	dst = append(dst, "<flow>"...)
	dst = appendLayer3(dst, e.Tuple.Family)
	dst = e.Tuple.appendAddrsXML(dst, "<expected>", "</expected>")
	dst = mask.appendAddrsXML(dst, "<mask>", "</mask>")
	dst = e.Master.appendAddrsXML(dst, "<master>", "</master>")
	dst = append(dst, "</layer3>"...)
	dst = appendLayer4(dst, e.Tuple.Proto)
	dst = e.Tuple.appendPortsXML(append(dst, "<expected>"...))
	dst = mask.appendPortsXML(append(dst, "</expected><mask>"...))
	dst = e.Master.appendPortsXML(append(dst, "</mask><master>"...))
	dst = append(dst, "</master></layer4><meta>"...)
	if e.Has.Has(HasHelper) {
		dst = append(dst, "<helper-name>"...)
		dst = append(appendEscaped(dst, e.Helper[:]), "</helper-name>"...)
	}
	if e.Has.Has(HasClass) {
		dst = appendElement(dst, "class", uint64(e.Class))
	}
	if e.Has.Has(HasZone) {
		dst = appendElement(dst, "zone", uint64(e.Tuple.Zone))
	}
	for i := range expectFlags {
		if e.Has.Has(HasFlags) && e.Flags&expectFlags[i].bit != 0 {
			dst = append(dst, expectFlags[i].xml...)
		}
	}
	return append(dst, "</meta></flow>"...)
}

// appendXML appends the two layers of a tuple.
func (k *Key) appendXML(dst []byte) []byte {
	dst = appendLayer3(dst, k.Family)
	dst = k.appendAddrsXML(dst, "", "")
	dst = append(dst, "</layer3>"...)
	dst = appendLayer4(dst, k.Proto)
	dst = k.appendPortsXML(dst)
	return append(dst, "</layer4>"...)
}

func appendLayer3(dst []byte, family uint8) []byte {
	name := "unknown"
	switch family {
	case IPv4:
		name = "ipv4"
	case IPv6:
		name = "ipv6"
	}
	return appendLayer(dst, "<layer3", uint64(family), name)
}

func appendLayer4(dst []byte, proto uint8) []byte {
	return appendLayer(dst, "<layer4", uint64(proto), protoName(proto))
}

func appendLayer(dst []byte, tag string, num uint64, name string) []byte {
	dst = append(append(dst, tag...), ` protonum="`...)
	dst = strconv.AppendUint(dst, num, 10)
	dst = append(append(dst, `" protoname="`...), name...)
	return append(dst, `">`...)
}

func (k *Key) appendAddrsXML(dst []byte, open, end string) []byte {
	dst = append(append(dst, open...), "<src>"...)
	dst = k.Src.Append(dst, k.Family)
	dst = append(dst, "</src><dst>"...)
	dst = k.Dst.Append(dst, k.Family)
	return append(append(dst, "</dst>"...), end...)
}

func (k *Key) appendPortsXML(dst []byte) []byte {
	switch {
	case k.IsICMP():
		dst = appendElement(dst, "type", uint64(k.Dport>>8))
		dst = appendElement(dst, "code", uint64(k.Dport&0xff))
		dst = appendElement(dst, "id", uint64(k.Sport))
	case k.Proto == ProtoGRE:
		dst = append(appendHex(dst, "<srckey>0x", k.Sport), "</srckey>"...)
		dst = append(appendHex(dst, "<dstkey>0x", k.Dport), "</dstkey>"...)
	case k.HasRealPorts():
		dst = appendElement(dst, "sport", uint64(k.Sport))
		dst = appendElement(dst, "dport", uint64(k.Dport))
	}
	return dst
}

func appendElement(dst []byte, tag string, v uint64) []byte {
	dst = append(append(append(dst, '<'), tag...), '>')
	dst = strconv.AppendUint(dst, v, 10)
	return append(append(append(dst, "</"...), tag...), '>')
}

// appendEscaped is appendName for XML.
func appendEscaped(dst, name []byte) []byte {
	for _, c := range name {
		switch {
		case c == 0:
			return dst
		case c == '<':
			dst = append(dst, "&lt;"...)
		case c == '>':
			dst = append(dst, "&gt;"...)
		case c == '&':
			dst = append(dst, "&amp;"...)
		case c <= ' ' || c >= 0x7f:
			dst = append(dst, '?')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
