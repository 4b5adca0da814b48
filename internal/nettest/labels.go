package nettest

// EnableLabels makes the kernel keep connection labels in the node: it does so
// only while some rule sets one. Any rule about conntrack also starts the
// tracking of packets, so all of them are exempted again and the table holds
// only what is written into it.
func (n *Node) EnableLabels() error {
	return n.NFT(`
table inet labels {
	chain never {
		ct label set 1
	}
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		notrack
	}
	chain output {
		type filter hook output priority raw; policy accept;
		notrack
	}
}`)
}
