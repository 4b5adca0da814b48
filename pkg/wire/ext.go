package wire

import (
	"encoding/binary"
	"errors"
)

// The extension is what two conntrackgo nodes tell each other in the body of an
// ALIVE (docs/protocol.md 12). A C receiver skips the body. It has a magic
// number, a version and items: one byte of type, one of length, the value.
const (
	extMagic   = 0xc70f6e80
	extVersion = 1
	extHead    = 6
	extItem    = 2
	// extCritical marks the types of which a receiver that does not know them
	// must leave the whole body alone.
	extCritical = 0x80
)

// MaxExt is the length of the longest body that AppendExt makes and ParseExt
// takes, in bytes: with the header it is shorter than the longest data message.
const MaxExt = 192

// MaxSoftware is the longest name of a version that travels, in bytes.
const MaxSoftware = 32

// Why an extension is refused. It has no effect then, and the message is an
// ALIVE like any other. ErrNoExt is no fault: the body is somebody else's, or
// of a version or with items that this one does not know how to obey.
var (
	ErrNoExt = errors.New("parse extension: not for us")
	ErrExt   = errors.New("parse extension: malformed")
)

// The items (docs/protocol.md 12.1). Numbers are never used again. Those that
// are reserved have no row yet.
const (
	extNode      = 0x01
	extHeard     = 0x02
	extSoftware  = 0x03
	extSettings  = 0x04
	extBulkBegin = 0x05
	extBulkEnd   = 0x06
	extBulkSeen  = 0x07
	extDigest    = 0x08
	extExpects   = 0x09

	// 0x81 to 0x84 were reserved once.
)

// ExtHas says which items an Ext has.
type ExtHas uint16

// The items.
const (
	ExtNode ExtHas = 1 << iota
	ExtHeard
	ExtSoftware
	ExtSettings
	ExtBulkBegin
	ExtBulkEnd
	ExtBulkSeen
	ExtDigest
	ExtExpects
)

// Ext is one extension, without pointers. What an item of Has lacks is zero.
type Ext struct {
	Has ExtHas

	Node     NodeName // the sender
	Heard    NodeName // whom it hears: the addressee's proof that it is heard
	Software [MaxSoftware]byte
	Settings Settings
	Begin    uint32 // the number of a bulk; its first message follows
	End      BulkEnd
	Seen     BulkSeen
	Digest   Digest // of flows
	Expects  Digest // of expectations
}

// NodeName names a node and its life. The zero Node names nobody.
type NodeName struct {
	Node  uint64 // the same after a restart
	Epoch uint64 // another one in each life
}

// Settings are what the nodes of a cluster should agree on, and what a node can
// do.
type Settings struct {
	Capabilities  uint32
	CommitTimeout uint32 // seconds, 0: unset
	HashLimit     uint32
	Mode          uint8 // a number of the configuration's modes
	Flags         uint8
}

// The bits of Settings.Flags.
const (
	SettingExpectations   uint8 = 1 << iota // ExpectationSync
	SettingWindowTracking                   // TCPWindowTracking
	SettingNoInternal                       // DisableInternalCache
	SettingNoExternal                       // DisableExternalCache
	SettingNoMark                           // DoNotSync
	SettingNoHelper
	SettingNoLabels
)

// The bits of Settings.Capabilities.
const (
	CanMarks  uint32 = 1 << iota // says where its bulks begin and end
	CanDigest                    // sends digests
)

// BulkEnd marks the end of a bulk. First and Last are the sequence numbers of
// the mark of its beginning and of its last message.
type BulkEnd struct {
	Bulk, First, Last uint32
	Flows, Expects    uint32 // named by it
}

// BulkSeen answers a BulkEnd: whether everything of the bulk has arrived.
type BulkSeen struct {
	Bulk     uint32
	Complete bool
}

// Digest is what the sender has told, up to the message that carries it.
type Digest struct {
	Count uint32 // how many
	Sum   uint64 // of a hash of each
}

// An extRow is one item: how long its value is at least, and how it is written
// and read. A longer value has fields of a later version at its end.
type extRow struct {
	num  uint8
	has  ExtHas
	size int
	put  func(dst []byte, x *Ext) []byte
	get  func(p []byte, x *Ext)
}

var extRows = [...]extRow{
	{extNode, ExtNode, 16,
		func(dst []byte, x *Ext) []byte { return putName(dst, x.Node) },
		func(p []byte, x *Ext) { x.Node = getName(p) }},
	{extHeard, ExtHeard, 16,
		func(dst []byte, x *Ext) []byte { return putName(dst, x.Heard) },
		func(p []byte, x *Ext) { x.Heard = getName(p) }},
	{extSoftware, ExtSoftware, 0,
		func(dst []byte, x *Ext) []byte { return append(dst, x.SoftwareName()...) },
		func(p []byte, x *Ext) { x.SetSoftware(p) }},
	{extSettings, ExtSettings, 14, putSettings, getSettings},
	{extBulkBegin, ExtBulkBegin, 4,
		func(dst []byte, x *Ext) []byte { return put32(dst, x.Begin) },
		func(p []byte, x *Ext) { x.Begin = get32(p, 0) }},
	{extBulkEnd, ExtBulkEnd, 20,
		func(dst []byte, x *Ext) []byte {
			e := &x.End
			return put32(dst, e.Bulk, e.First, e.Last, e.Flows, e.Expects)
		},
		func(p []byte, x *Ext) {
			x.End = BulkEnd{get32(p, 0), get32(p, 1), get32(p, 2), get32(p, 3), get32(p, 4)}
		}},
	{extBulkSeen, ExtBulkSeen, 5,
		func(dst []byte, x *Ext) []byte { return append(put32(dst, x.Seen.Bulk), bool8(x.Seen.Complete)) },
		func(p []byte, x *Ext) { x.Seen = BulkSeen{get32(p, 0), p[4]&1 != 0} }},
	{extDigest, ExtDigest, 12,
		func(dst []byte, x *Ext) []byte { return putDigest(dst, x.Digest) },
		func(p []byte, x *Ext) { x.Digest = getDigest(p) }},
	{extExpects, ExtExpects, 12,
		func(dst []byte, x *Ext) []byte { return putDigest(dst, x.Expects) },
		func(p []byte, x *Ext) { x.Expects = getDigest(p) }},
}

func putDigest(dst []byte, d Digest) []byte {
	return binary.BigEndian.AppendUint64(put32(dst, d.Count), d.Sum)
}

func getDigest(p []byte) Digest {
	return Digest{get32(p, 0), binary.BigEndian.Uint64(p[4:])}
}

func putSettings(dst []byte, x *Ext) []byte {
	s := &x.Settings
	return append(put32(dst, s.Capabilities, s.CommitTimeout, s.HashLimit), s.Mode, s.Flags)
}

func getSettings(p []byte, x *Ext) {
	x.Settings = Settings{get32(p, 0), get32(p, 1), get32(p, 2), p[12], p[13]}
}

func putName(dst []byte, n NodeName) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, n.Node), n.Epoch)
}

func getName(p []byte) NodeName {
	return NodeName{binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])}
}

func put32(dst []byte, values ...uint32) []byte {
	for _, v := range values {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	return dst
}

func get32(p []byte, i int) uint32 { return binary.BigEndian.Uint32(p[4*i:]) }

func bool8(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// SetSoftware sets the name of the version, cut to MaxSoftware bytes. What is
// not printable ASCII becomes a question mark, as it ends up on a terminal.
func (x *Ext) SetSoftware(name []byte) {
	x.Software = [MaxSoftware]byte{}
	for i, c := range name[:min(len(name), MaxSoftware)] {
		if c < ' ' || c > '~' {
			c = '?'
		}
		x.Software[i] = c
	}
}

// SoftwareName returns the name of the version; it aliases x.
func (x *Ext) SoftwareName() []byte {
	for i, c := range x.Software {
		if c == 0 {
			return x.Software[:i]
		}
	}
	return x.Software[:]
}

// AppendExt appends the ALIVE of h with x as its body to dst. Of x nothing is
// kept.
func AppendExt(dst []byte, h Header, x *Ext) []byte {
	start := len(dst)
	h.Type, h.Flags = Control, h.Flags&(FlagHELLO|FlagHELLOBack)|FlagALIVE
	dst = appendItems(appendHeader(dst, h, shortHeader), x)
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst
}

// AppendHail appends the announcement of a node to all (docs/protocol.md 13.1):
// an extension without a message. Whoever expects a message takes its first
// byte for a version that there is not.
func AppendHail(dst []byte, x *Ext) []byte { return appendItems(dst, x) }

// ParseHail is ParseExt for an announcement.
func ParseHail(b []byte, x *Ext) error { return ParseExt(b, x) }

func appendItems(dst []byte, x *Ext) []byte {
	dst = binary.BigEndian.AppendUint32(dst, extMagic)
	dst = append(dst, extVersion, 0)
	for i := range extRows {
		r := &extRows[i]
		if x.Has&r.has == 0 {
			continue
		}
		at := len(dst)
		dst = r.put(append(dst, r.num, 0), x)
		dst[at+1] = byte(len(dst) - at - extItem)
	}
	return dst
}

// ParseExt overwrites x with the body of an ALIVE. The error is nil, ErrNoExt
// or ErrExt; with an error x means nothing. No item may come twice.
func ParseExt(body []byte, x *Ext) error {
	*x = Ext{}
	if len(body) < extHead || get32(body, 0) != extMagic || body[4] != extVersion || body[5] != 0 {
		return ErrNoExt
	}
	if len(body) > MaxExt {
		return ErrExt
	}
	for p := body[extHead:]; len(p) > 0; {
		if len(p) < extItem || len(p) < extItem+int(p[1]) {
			return ErrExt
		}
		num, value := p[0], p[extItem:extItem+int(p[1])]
		p = p[extItem+len(value):]
		r := extRowOf(num)
		switch {
		case r == nil && num&extCritical != 0:
			return ErrNoExt
		case r == nil:
			continue
		case len(value) < r.size || x.Has&r.has != 0:
			return ErrExt
		}
		r.get(value, x)
		x.Has |= r.has
	}
	return nil
}

func extRowOf(num uint8) *extRow {
	if i := int(num) - 1; i >= 0 && i < len(extRows) {
		return &extRows[i]
	}
	return nil
}
