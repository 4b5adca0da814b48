package failover

import (
	"fmt"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// keepLate has the server ignore who says to have its gateway's address, for a
// while that the kernel ends.
func (r *Rig) keepLate() error {
	if r.options.Late == 0 {
		return nil
	}
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
		arp saddr ip @ignored drop
	}
}
add element arp late ignored { %s timeout %dms }
`, nettest.WanVIP, r.options.Late.Milliseconds()))
}
