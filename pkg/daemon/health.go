package daemon

import (
	"fmt"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// healthReport is -s health: whether the nodes are in step, for people and for
// programs.
func (d *Daemon) healthReport(b []byte) []byte {
	var h node.Health
	var st node.Stats
	var c Comparison
	var at time.Duration
	d.enter(func(n *node.Node, now time.Duration) { h, st, c, at = n.Health(now), n.Stats(), d.sync.compared, now })
	return appendComparison(appendHealth(b, &h, &st, d.sync.link.Stats().RecvDropped), &c, st.Drift, at)
}

// appendHealth appends one line for each fact: its name, a colon, its value.
func appendHealth(dst []byte, h *node.Health, st *node.Stats, dropped uint64) []byte {
	digest := "none"
	if h.Compared {
		digest = either(h.Equal, "equal", "different")
	}
	peer := h.Software
	if peer == "" {
		peer = "unknown"
	}
	for _, l := range []struct {
		name  string
		value any
	}{
		{"mode", h.Mode},
		{"ready", yes(h.Ready)},
		{"in-step", yes(h.InStep)},
		{"handshake", yes(h.Contact)},
		{"last-message-seconds", ago(h.Heard, h.HeardAge)},
		{"peer", peer},
		{"peer-node", fmt.Sprintf("%016x", h.Peer.Node)},
		{"peer-life", fmt.Sprintf("%016x", h.Peer.Epoch)},
		{"peer-hears-us", yes(h.HearsUs)},
		{"other-nodes", yes(h.Others)},
		{"settings", either(h.SettingsDiffer, "different", "alike")},
		{"table", either(h.Complete, "complete", "incomplete")},
		{"table-age-seconds", ago(h.Complete, h.TableAge)},
		{"resync", yes(h.Resyncing)},
		{"digest", digest},
		{"digest-age-seconds", ago(h.Compared, h.ComparedAge)},
		{"told-flows", h.Told},
		{"heard-flows", h.Known},
		{"queued", h.Queued},
		{"unacknowledged", h.Unacked},
		{"lag-seconds", ago(true, h.Lag)},
		{"lost", st.Engine.Lost},
		{"gaps", h.Gaps},
		{"resyncs-sent", st.Engine.ResyncsSent},
		{"resyncs-received", st.Engine.ResyncsReceived},
		{"peer-restarts", st.Engine.PeerRestarts},
		{"resend-overflows", st.Engine.ResendOverflow},
		{"receive-overflows", dropped},
		{"announcements-sent", st.Extensions.Sent},
		{"announcements-received", st.Extensions.Received},
		{"digests-compared", st.Extensions.Compared},
		{"digests-different", st.Extensions.Different},
		{"repairs", st.Extensions.Repairs},
		{"retold", st.Extensions.Retold},
	} {
		dst = fmt.Appendf(dst, "%s: %v\n", l.name, l.value)
	}
	return dst
}

func either(is bool, then, otherwise string) string {
	if is {
		return then
	}
	return otherwise
}

func yes(is bool) string { return either(is, "yes", "no") }

func ago(ever bool, age time.Duration) string {
	if !ever {
		return "never"
	}
	return fmt.Sprintf("%.1f", age.Seconds())
}
