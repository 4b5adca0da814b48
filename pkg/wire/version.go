package wire

import (
	"slices"
	"strconv"
	"strings"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Version is a release of conntrackd, as far as its messages differ from those
// of others (docs/protocol.md 9). The zero value is today's; an older version
// is a larger one.
type Version uint8

// The versions, each with those after it that are alike.
const (
	Since147 Version = iota
	Since145
	Since144
	Since142
)

// release is what a version differs in.
type release struct {
	first  int      // the last part of the first release's number, 1.4.first
	newest uint8    // the highest conntrack attribute number it knows
	never  flow.Has // what has only higher numbers
	never6 flow.Has // the same for IPv6 flows
}

var releases = [...]release{
	Since147: {first: 7, newest: numZone},
	Since145: {first: 5, newest: numSynproxy, never: flow.HasZone},
	Since144: {first: 4, newest: numDNATIPv6, never: flow.HasZone | flow.HasSynproxy},
	Since142: {first: 2, newest: numLabels, never: flow.HasZone | flow.HasSynproxy, never6: flow.HasSNAT | flow.HasDNAT},
}

// ParseVersion reads the number of a release, as in 1.4.6. It knows those from
// 1.4.2 on.
func ParseVersion(text string) (v Version, ok bool) {
	part, isOurs := strings.CutPrefix(text, "1.4.")
	n, err := strconv.Atoi(part)
	if !isOurs || err != nil || part[0] < '0' || part[0] > '9' {
		return 0, false
	}
	for v := range releases {
		if n >= releases[v].first {
			return Version(v), true
		}
	}
	return 0, false
}

// unknown returns the attributes that the version would refuse the whole
// message for.
func (v Version) unknown(kind flow.Has) flow.Has {
	not := releases[v].never
	if kind&isIPv6 != 0 {
		not |= releases[v].never6
	}
	return not
}

// Doubt is a sign that Options.Peer is wrong.
type Doubt uint8

// The doubts.
const (
	NoDoubt Doubt = iota
	PeerOlder
	PeerNewer
)

// Doubtful are the attributes of a flow that may raise a doubt.
const Doubtful = flow.HasSNAT | flow.HasDNAT | flow.HasSynproxy | flow.HasZone

// Doubt looks for such a sign in a flow that was received. No message tells
// its sender's version, but an attribute that Peer does not know does, and so
// does a NAT address that cannot be one as it was read and could the other way
// round. Most messages of a wrong peer give no sign.
func (o *Options) Doubt(f *flow.Flow) Doubt {
	switch {
	case f.Has.Any(o.Peer.unknown(kindOf(&f.Key))):
		return PeerNewer
	case f.Family != flow.IPv4 || !reversed(f.NAT.Src) && !reversed(f.NAT.Dst):
		return NoDoubt
	case o.reversedNAT():
		return PeerNewer
	}
	return PeerOlder
}

// reversed says that an IPv4 address is none that NAT translates to, and would
// be one with its bytes reversed. 127.0.0.1 may be one: redirections.
func reversed(a flow.Addr) bool {
	return neverNAT(a[0]) && !neverNAT(a[3])
}

// neverNAT is about the first byte: of 0.0.0.0/8, multicast and what is beyond.
func neverNAT(first byte) bool { return first == 0 || first >= 224 }

// reverse turns the four bytes of an IPv4 address round.
func reverse(a []byte) { slices.Reverse(a[:4]) }
