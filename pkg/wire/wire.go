// Package wire turns the synchronisation protocol of conntrackd, version 1,
// into values and back (docs/protocol.md 1 to 3).
//
// Appending never fails and parsing never panics, whatever the input. No
// function keeps a reference to its arguments or allocates, as long as dst has
// room. Every attribute is one row of a table, flowRows or expectRows, that
// says how it is read, how it is written and when it is sent; the order of the
// rows is the order on the wire.
package wire

import (
	"errors"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Why a body is refused. All of them count as malformed and bad payload
// (docs/protocol.md 1.3); the sequence number of the message stays consumed.
var (
	ErrAttrLength  = errors.New("parse attributes: length out of bounds")
	ErrAttrSize    = errors.New("parse attributes: wrong size for its number")
	ErrUnknownAttr = errors.New("parse attributes: unknown number")
	ErrName        = errors.New("parse attributes: name without its final NUL")
	ErrNoTuple     = errors.New("parse attributes: no addresses or no protocol")
)

// MaxMessage is the length of the longest message that AppendFlow,
// AppendExpect or AppendControl can make, in bytes.
const MaxMessage = 304

// Options are what the two ends of a link must agree on, and what the
// configuration says about content. The zero value suits a little-endian peer
// of version 1.4.7 or later.
type Options struct {
	// OmitTimeout leaves TIMEOUT and EXP_TIMEOUT out of what is sent, as when
	// CommitTimeout is configured.
	OmitTimeout bool
	// WindowScale sends the TCP window scales, as with TCPWindowTracking On.
	WindowScale bool
	// Peer is the oldest version that the messages are for, and the one whose
	// messages are read. What it does not know is left out, and up to 1.4.6 it
	// has IPv4 NAT addresses byte-reversed (docs/protocol.md 9).
	Peer Version
	// BigEndian says that the peer's host is big-endian, which decides how
	// translated ports and ICMP identifiers travel (docs/protocol.md 3.2).
	BigEndian bool
	// Without are attributes that are neither sent nor read, of HasMark,
	// HasHelper and HasLabels. A helper is that of a flow; expectations keep
	// theirs.
	Without flow.Has
}

// reversedNAT reports whether SNAT_IPV4 and DNAT_IPV4 travel byte-reversed.
func (o *Options) reversedNAT() bool { return o.Peer != Since147 && !o.BigEndian }

// AppendFlow appends the message of h, a conntrack type, and f to dst
// (docs/protocol.md 3.4). What is known of f and has a place on the wire is
// sent, except where a C receiver would be misled or refuse the message: see
// docs/protocol.md 10.
func (o *Options) AppendFlow(dst []byte, h Header, f *flow.Flow) []byte {
	return flowTable.append(dst, h, o, f, o.sendable(f))
}

// ParseFlow overwrites f with the body of a conntrack message
// (docs/protocol.md 3.1, 3.3). The error is nil or one of the sentinel errors
// of this package, and then f means nothing. Attributes of another protocol or
// address family than the flow's are ignored. HasReply is never set: a message
// says how the reply tuple differs where it differs, and nothing where not.
func (o *Options) ParseFlow(body []byte, f *flow.Flow) error {
	*f = flow.Flow{}
	skip := o.skip()
	has, seen, err := flowTable.parse(o, body, f, skip)
	if err != nil {
		return err
	}
	if !has.Has(flow.HasAddr | flow.HasProto) {
		return ErrNoTuple
	}
	if alien := flowTable.alien(seen, kindOf(&f.Key)); alien != 0 {
		*f = flow.Flow{}
		if has, seen, err = flowTable.parse(o, body, f, skip|alien); err != nil {
			return err
		}
	}
	f.Has = settleFlow(f, has, seen)
	return nil
}

// AppendExpect appends the message of h, an expectation type, and e to dst
// (docs/protocol.md 3.7).
func (o *Options) AppendExpect(dst []byte, h Header, e *flow.Expect) []byte {
	return expectTable.append(dst, h, o, e, o.sendableExpect(e))
}

// ParseExpect overwrites e with the body of an expectation message
// (docs/protocol.md 3.7); otherwise as ParseFlow. The addresses and protocols
// of both the expected and the master tuple are required.
func (o *Options) ParseExpect(body []byte, e *flow.Expect) error {
	*e = flow.Expect{}
	has, seen, err := expectTable.parse(o, body, e, 0)
	if err != nil {
		return err
	}
	if !has.Has(flow.HasAddr|flow.HasProto|flow.HasMaster) || seen&bit(numExpMasterProto) == 0 {
		return ErrNoTuple
	}
	e.Has = settleExpect(e, has)
	return nil
}
