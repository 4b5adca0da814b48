package flow

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
// a flow must pass. The zero Filter passes everything.
type Filter struct {
	Protocols Policy
	Protocol  [256]bool
	Addresses Policy
	Prefixes  []Prefix
	States    Policy
	State     [16]bool // by TCP state number
}
