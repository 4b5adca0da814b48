package nettest

import (
	"encoding/json"
	"fmt"
)

// Lose drops percent of the daemons' datagrams that arrive at the node, before
// any socket sees them. It is untracked and counted; LossCount reads the
// counter and StopLosing ends it.
func (n *Node) Lose(percent int) error {
	return n.NFT(fmt.Sprintf(`
table inet loss
delete table inet loss
table inet loss {
	counter seen { }
	counter lost { }
	chain input {
		type filter hook input priority -310; policy accept;
		iifname %q meta l4proto udp counter name seen
		iifname %q meta l4proto udp numgen random mod 100 < %d counter name lost drop
	}
}`, SyncIf, SyncIf, percent))
}

// StopLosing removes what Lose installed.
func (n *Node) StopLosing() error {
	return n.NFT("delete table inet loss")
}

// LossCount reads how many datagrams reached the rules of Lose and how many
// they dropped.
func (n *Node) LossCount() (seen, lost int, err error) {
	out, err := n.Run("nft", "-j", "list", "counters", "table", "inet", "loss")
	if err != nil {
		return 0, 0, err
	}
	var reply struct {
		Nftables []struct {
			Counter *struct {
				Name    string `json:"name"`
				Packets int    `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(out), &reply); err != nil {
		return 0, 0, fmt.Errorf("read loss counters: %w", err)
	}
	counts := map[string]int{}
	for _, o := range reply.Nftables {
		if o.Counter != nil {
			counts[o.Counter.Name] = o.Counter.Packets
		}
	}
	return counts["seen"], counts["lost"], nil
}
