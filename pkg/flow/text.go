package flow

import (
	"strconv"
	"time"
)

// TextOptions says what a line tells besides the flow itself.
type TextOptions struct {
	Now     time.Time // wall clock, for the age by the kernel's time stamps
	Timeout bool      // show the timeout, if known
	Age     uint32    // seconds in the cache
	ShowAge bool
	Expires uint32 // seconds left in the cache

	ShowExpires bool
}

// AppendText appends the flow in conntrackd's plain format, without a line
// end. The reply tuple appears only if the flow has HasReply, so not in the
// external cache.
func (f *Flow) AppendText(dst []byte, o TextOptions) []byte {
	dst = appendProto(dst, f.Proto)
	if o.Timeout && f.Has.Has(HasTimeout) {
		dst = appendUint(dst, "", uint64(f.Timeout))
	}
	if name := stateName(f.Proto, f.State); f.Has.Has(HasState) && name != "" {
		dst = appendWord(dst, "", name)
	}
	dst = f.appendOriginal(dst)
	if f.Has.Has(HasReply) {
		dst = f.appendReply(dst)
	}
	dst = f.appendStatus(dst)
	dst = f.appendMeta(dst, o.Now)
	return appendSuffix(dst, &o)
}

func (f *Flow) appendOriginal(dst []byte) []byte {
	dst = f.appendTuple(dst, "")
	if f.Has.Has(HasZoneOrig) {
		dst = appendUint(dst, "zone-orig=", uint64(f.Zone))
	}
	dst = f.appendCounters(dst, 0)
	if f.Has.Has(HasStatus) && f.Status&StatusSeenReply == 0 {
		dst = append(dst, "[UNREPLIED] "...)
	}
	return dst
}

func (f *Flow) appendReply(dst []byte) []byte {
	reply, _ := f.Reply()
	dst = reply.appendTuple(dst, "")
	if f.Has.Has(HasZoneRepl) {
		dst = appendUint(dst, "zone-reply=", uint64(f.ZoneRepl))
	}
	return f.appendCounters(dst, 1)
}

func (f *Flow) appendCounters(dst []byte, direction int) []byte {
	if !f.Has.Has(HasCounters) {
		return dst
	}
	dst = appendUint(dst, "packets=", f.Counters[direction].Packets)
	return appendUint(dst, "bytes=", f.Counters[direction].Bytes)
}

// appendStatus shows the strongest of the bits that are shown at all.
func (f *Flow) appendStatus(dst []byte) []byte {
	switch {
	case !f.Has.Has(HasStatus):
		return dst
	case f.Status&StatusHWOffload != 0:
		return append(dst, "[HW_OFFLOAD] "...)
	case f.Status&StatusOffload != 0:
		return append(dst, "[OFFLOAD] "...)
	case f.Status&StatusAssured != 0:
		return append(dst, "[ASSURED] "...)
	}
	return dst
}

func (f *Flow) appendMeta(dst []byte, now time.Time) []byte {
	if f.Has.Has(HasMark) {
		dst = appendUint(dst, "mark=", uint64(f.Mark))
	}
	if f.Has.Has(HasZone) {
		dst = appendUint(dst, "zone=", uint64(f.Zone))
	}
	if f.Has.Has(HasStart) {
		dst = appendUint(dst, "delta-time=", f.deltaTime(now))
	}
	if f.Has.Has(HasHelper) {
		dst = append(dst, "helper="...)
		dst = append(appendName(dst, f.Helper[:]), ' ')
	}
	if f.Has.Has(HasUse) {
		dst = appendUint(dst, "use=", uint64(f.Use))
	}
	return dst
}

const nanosecond = uint64(time.Second)

// deltaTime is how long the flow has lived, or did, in whole seconds.
func (f *Flow) deltaTime(now time.Time) uint64 {
	start, end := f.Start/nanosecond, uint64(max(now.Unix(), 0))
	if f.Has.Has(HasStop) {
		end = f.Stop / nanosecond
	}
	if end < start {
		return 0 // the clock was set back
	}
	return end - start
}

// AppendText appends the expectation in conntrackd's plain format, without a
// line end.
func (e *Expect) AppendText(dst []byte, o TextOptions) []byte {
	if o.Timeout && e.Has.Has(HasTimeout) {
		dst = appendUint(dst, "", uint64(e.Timeout))
	}
	dst = appendUint(dst, "proto=", uint64(e.Tuple.Proto))
	mask := e.mask()
	dst = e.Tuple.appendTuple(dst, "")
	dst = mask.appendTuple(dst, "mask-")
	dst = e.Master.appendTuple(dst, "master-")
	if e.Has.Has(HasZone) {
		dst = appendUint(dst, "zone=", uint64(e.Tuple.Zone))
	}
	dst = e.appendFlags(dst)
	if e.Has.Has(HasClass) {
		dst = appendUint(dst, "class=", uint64(e.Class))
	}
	if e.Has.Has(HasHelper) {
		dst = append(dst, "helper="...)
		dst = append(appendName(dst, e.Helper[:]), ' ')
	}
	return appendSuffix(dst, &o)
}

// mask is the mask of the tuple's own family and protocol.
func (e *Expect) mask() Key {
	m := e.Mask
	m.Family, m.Proto = e.Tuple.Family, e.Tuple.Proto
	return m
}

// expectFlags are the flags shown, with their names in text and XML.
var expectFlags = [...]struct {
	bit       uint32
	name, xml string
}{
	{ExpectPermanent, "PERMANENT", "<permanent/>"},
	{ExpectInactive, "INACTIVE", "<inactive/>"},
	{ExpectUserspace, "USERSPACE", "<userspace/>"},
}

func (e *Expect) appendFlags(dst []byte) []byte {
	if !e.Has.Has(HasFlags) {
		return dst
	}
	start := len(dst)
	for i := range expectFlags {
		if e.Flags&expectFlags[i].bit != 0 {
			dst = append(append(dst, expectFlags[i].name...), ',')
		}
	}
	if len(dst) > start {
		dst[len(dst)-1] = ' '
	}
	return dst
}

// appendTuple appends addresses and what the protocol has for ports. prefix
// goes before the names of the addresses only.
func (k *Key) appendTuple(dst []byte, prefix string) []byte {
	dst = append(append(dst, prefix...), "src="...)
	dst = k.Src.Append(dst, k.Family)
	dst = append(append(append(dst, ' '), prefix...), "dst="...)
	dst = append(k.Dst.Append(dst, k.Family), ' ')
	switch {
	case k.IsICMP():
		dst = appendUint(dst, "type=", uint64(k.Dport>>8))
		dst = appendUint(dst, "code=", uint64(k.Dport&0xff))
		dst = appendUint(dst, "id=", uint64(k.Sport))
	case k.Proto == ProtoGRE:
		dst = appendHex(dst, "srckey=0x", k.Sport)
		dst = append(dst, ' ')
		dst = appendHex(dst, "dstkey=0x", k.Dport)
		dst = append(dst, ' ')
	case k.HasRealPorts():
		dst = appendUint(dst, "sport=", uint64(k.Sport))
		dst = appendUint(dst, "dport=", uint64(k.Dport))
	}
	return dst
}

// appendSuffix drops the blank after the last field and adds the suffixes.
func appendSuffix(dst []byte, o *TextOptions) []byte {
	dst = dst[:len(dst)-1]
	if o.ShowExpires {
		dst = append(dst, " [expires in "...)
		dst = append(strconv.AppendUint(dst, uint64(o.Expires), 10), "s]"...)
	}
	if o.ShowAge {
		dst = append(dst, " [active since "...)
		dst = append(strconv.AppendUint(dst, uint64(o.Age), 10), "s]"...)
	}
	return dst
}

// protoWidth is what protocol names are padded to.
const protoWidth = 8

func appendProto(dst []byte, proto uint8) []byte {
	name := protoName(proto)
	dst = append(dst, name...)
	for i := len(name); i < protoWidth; i++ {
		dst = append(dst, ' ')
	}
	return appendUint(dst, " ", uint64(proto))
}

func appendWord(dst []byte, name, value string) []byte {
	return append(append(append(dst, name...), value...), ' ')
}

func appendUint(dst []byte, name string, v uint64) []byte {
	return append(strconv.AppendUint(append(dst, name...), v, 10), ' ')
}

func appendHex(dst []byte, name string, v uint16) []byte {
	return strconv.AppendUint(append(dst, name...), uint64(v), 16)
}

// appendName appends a NUL-padded name. It may come from a peer, so bytes
// that would break the line are replaced.
func appendName(dst, name []byte) []byte {
	for _, c := range name {
		if c == 0 {
			break
		}
		if c <= ' ' || c >= 0x7f {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}
