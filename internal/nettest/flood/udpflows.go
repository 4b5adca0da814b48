package flood

import "net/netip"

// UDPFlows is a load of UDP flows 10.NETWORK.x.y; none of them times out soon.
func UDPFlows(network byte, from, to int) Load {
	return Load{From: from, To: to, Flow: func(i int, f *Flow) {
		*f = Flow{
			Proto: UDP, Src: netip.AddrFrom4([4]byte{10, network, byte(i >> 24), byte(i >> 16)}),
			Dst: netip.AddrFrom4([4]byte{172, 16, 0, 1}), Sport: uint16(i), Dport: 53,
			Timeout: 3000, Status: SeenReply | Assured | Confirmed,
		}
	}}
}
