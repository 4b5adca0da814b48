package flow

// Timeouts are the seconds that a kernel gives an entry with each packet of
// it, by protocol and state (net.netfilter.nf_conntrack_*_timeout*). Zero: not
// known.
type Timeouts struct {
	TCP  [10]uint32 // by Flow.State
	SCTP [9]uint32  // by Flow.State
	// UDP and GRE are of flows that were not answered for long; the streams
	// are assured. UDP-Lite has what UDP has.
	UDP, UDPStream uint32
	GRE, GREStream uint32
	ICMP, ICMPv6   uint32
	Generic        uint32 // of a protocol that the kernel does not know
}

// Of returns the timeout of a flow, zero if it is not known.
func (t *Timeouts) Of(f *Flow) uint32 {
	switch f.Proto {
	case ProtoTCP:
		return ofState(t.TCP[:], f)
	case ProtoSCTP:
		return ofState(t.SCTP[:], f)
	case ProtoUDP, ProtoUDPLite:
		return ofStream(t.UDP, t.UDPStream, f)
	case ProtoGRE:
		return ofStream(t.GRE, t.GREStream, f)
	case ProtoICMP:
		return t.ICMP
	case ProtoICMPv6:
		return t.ICMPv6
	case ProtoDCCP: // gone from newer kernels
		return 0
	}
	return t.Generic
}

func ofState(states []uint32, f *Flow) uint32 {
	if !f.Has.Has(HasState) || int(f.State) >= len(states) {
		return 0
	}
	return states[f.State]
}

func ofStream(short, stream uint32, f *Flow) uint32 {
	if f.Status&StatusAssured != 0 {
		return stream
	}
	return short
}
