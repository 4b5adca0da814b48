package flood

import "net/netip"

// ends are the addresses of Mixed of one IP version.
type ends struct {
	src, dst   netip.Addr
	snat, dnat netip.Addr
	icmp, echo uint8
}

var mixedEnds = [2]ends{
	{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.1"), ICMP, 8},
	{netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd08::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1"), ICMPv6, 128},
}

// Mixed is flow i, less than 65536, after so many changes: TCP, UDP and ICMP of
// both IP versions, with translations of either end, of addresses and of
// ports. Its mark tells the changes.
func Mixed(i int, changes uint32) Flow {
	const seen, lasting = SeenReply, SeenReply | Assured
	e := mixedEnds[i/2%2]
	f := Flow{
		Proto: UDP, Src: e.src, Dst: e.dst, Sport: uint16(i), Dport: 1000,
		Timeout: 1000, Mark: changes<<20 + uint32(i), Status: seen,
	}
	if i%2 == 0 {
		f.Proto, f.State, f.Status = TCP, 3, lasting
	}
	if changes > 0 {
		f.Status = lasting
		if f.State != 0 {
			f.State = 7
		}
	}
	switch i % 16 {
	case 0, 6:
		f.SNAT = netip.AddrPortFrom(e.snat, 0)
	case 3, 5:
		f.DNAT = netip.AddrPortFrom(e.dnat, 8080)
	case 8, 14:
		f.SNAT, f.DNAT = netip.AddrPortFrom(e.snat, uint16(20000+i)), netip.AddrPortFrom(e.dnat, 0)
	case 9, 15:
		f.Proto, f.Type, f.Dport = e.icmp, e.echo, 0
	}
	return f
}

// MixedFlows is a load of flows [from, to) of Mixed.
func MixedFlows(from, to int, changes uint32) Load {
	return Load{From: from, To: to, Flow: func(i int, f *Flow) { *f = Mixed(i, changes) }}
}
