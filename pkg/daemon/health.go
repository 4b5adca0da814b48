package daemon

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// onHealth answers in a daemon without a Sync section too.
func (d *Daemon) onHealth(ctx context.Context, w io.Writer) error {
	if d.sync == nil {
		_, err := w.Write(appendFacts(nil, []fact{{"mode", "none"}, {"ready", "no"}, {"in-step", "no"}}))
		return err
	}
	return d.report(d.healthReport)(ctx, w)
}

// healthReport is -s health: whether the nodes are in step, for people and for
// programs.
func (d *Daemon) healthReport(b []byte) []byte {
	var all []node.PeerHealth
	var st node.Stats
	var c Comparison
	var at time.Duration
	var g groupFacts
	d.enter(func(n *node.Group, now time.Duration) {
		all, st, c, at = n.Health(now), n.Stats(), d.sync.compared, now
		g = groupFacts{n.Ready(), n.Strangers(), d.sync.link.Stats().RecvDropped}
	})
	if d.sync.group != nil {
		return appendGroupHealth(b, all, &g, appendComparison(nil, &c, st.Drift, at))
	}
	h := &all[0]
	return appendComparison(appendHealth(b, &h.Health, &st, d.sync.link.Stats().RecvDropped), &c, st.Drift, at)
}

// groupFacts are not about one peer.
type groupFacts struct {
	ready     bool
	strangers node.Strangers
	dropped   uint64
}

// appendGroupHealth appends what is so of the group, and then a block for each
// peer.
func appendGroupHealth(dst []byte, all []node.PeerHealth, g *groupFacts, comparison []byte) []byte {
	inStep, away, stranger := 0, 0, "none"
	if g.strangers.Last.IsValid() {
		stranger = g.strangers.Last.String()
	}
	for i := range all {
		if all[i].InStep {
			inStep++
		}
		if all[i].Away {
			away++
		}
	}
	dst = appendFacts(dst, []fact{
		{"peers", len(all)},
		{"peers-in-step", inStep},
		{"peers-away", away},
		{"ready", yes(g.ready)},
		{"strangers", g.strangers.Datagrams + g.strangers.Refused},
		{"last-stranger", stranger},
		{receiveOverflows, g.dropped},
	})
	dst = append(dst, comparison...)
	for i := range all {
		p := &all[i]
		dst = append(dst, '\n')
		dst = appendFacts(dst, []fact{{"peer-address", p.Peer}, {"away", yes(p.Away)}})
		facts := healthFacts(&p.Health, &p.Stats, 0)
		dst = appendFacts(dst, slices.DeleteFunc(facts, func(f fact) bool { return f.name == receiveOverflows }))
	}
	return dst
}

// A fact is one line of the report: its name, a colon, its value.
type fact struct {
	name  string
	value any
}

func appendFacts(dst []byte, facts []fact) []byte {
	for _, l := range facts {
		dst = fmt.Appendf(dst, "%s: %v\n", l.name, l.value)
	}
	return dst
}

func appendHealth(dst []byte, h *node.Health, st *node.Stats, dropped uint64) []byte {
	return appendFacts(dst, healthFacts(h, st, dropped))
}

// receiveOverflows is the one fact that is of the link.
const receiveOverflows = "receive-overflows"

// healthFacts are the facts about one peer, and about the link to it.
func healthFacts(h *node.Health, st *node.Stats, dropped uint64) []fact {
	digest := "none"
	if h.Compared {
		digest = either(h.Equal, "equal", "different")
	}
	peer := h.Software
	if peer == "" {
		peer = "unknown"
	}
	return []fact{
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
		{receiveOverflows, dropped},
		{"announcements-sent", st.Extensions.Sent},
		{"announcements-received", st.Extensions.Received},
		{"digests-compared", st.Extensions.Compared},
		{"digests-different", st.Extensions.Different},
		{"repairs", st.Extensions.Repairs},
		{"retold", st.Extensions.Retold},
	}
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
