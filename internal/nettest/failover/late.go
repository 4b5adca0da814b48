package failover

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// tellNeighbours tells the backup where its neighbours are. A new master asks for
// them in the name of the address it was given just now. Its kernel may not take
// the answer yet: an IPv6 address is there before packets to it are taken, and the
// next question comes a second later. And with the question it tells them of itself.
func (r *Rig) tellNeighbours() error {
	for _, h := range []struct {
		node      *nettest.Node
		ifname    string
		addresses [2]netip.Addr
	}{
		{r.Pair.Client, nettest.LanIf, [2]netip.Addr{nettest.Client, nettest.Client6}},
		{r.Pair.Server, nettest.WanIf, [2]netip.Addr{nettest.Server, nettest.Server6}},
	} {
		var mac net.HardwareAddr
		if err := h.node.Do(func() error {
			host, err := net.InterfaceByName(nettest.HostIf)
			if err == nil {
				mac = host.HardwareAddr
			}
			return err
		}); err != nil {
			return err
		}
		for _, a := range h.addresses {
			if _, err := r.backup.Node.Run("ip", "neigh", "replace", a.String(), "lladdr", mac.String(), "dev", h.ifname); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepLate has the server ignore who claims its gateway's address, for a while
// that the kernel ends.
func (r *Rig) keepLate() error {
	return r.Pair.Server.NFT(fmt.Sprintf(`
table arp late
flush table arp late
table arp late {
	set ignored {
		type ipv4_addr
		flags timeout
	}
	chain input {
		type filter hook input priority filter; policy accept;
		arp saddr ip @ignored arp daddr ip @ignored drop
	}
}
add element arp late ignored { %s timeout %dms }
`, nettest.WanVIP, r.options.Late.Milliseconds()))
}
