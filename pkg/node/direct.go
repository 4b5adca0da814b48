package node

import (
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// direct is what a node without an internal cache has instead: messages made
// of the kernel's events, in their order, until the next datagram takes them.
type direct struct {
	queued []byte
	at     int  // what is before it has been sent
	wanted bool // somebody asked for everything
	// While the kernel's table is read for that: the flows an event was about.
	// The event is newer than what was read, and may have been the end.
	newer map[flow.Key]struct{}
	lost  uint64 // events not sent, before it was read
}

// directLimit bounds the messages that wait for a link that takes nothing, in
// bytes. What comes then is lost, as everything is on a bad link.
const directLimit = 8 << 20

var directType = [...]uint8{flow.New: wire.CTNew, flow.Update: wire.CTUpd, flow.Destroy: wire.CTDel, flow.Dumped: wire.CTNew}

// pass makes messages of events. The ends of flows pass whatever state they
// were in: the filter may have let them through in an earlier one.
func (n *Node) pass(events []flow.Event) {
	d := &n.direct
	for i := range events {
		ev := &events[i]
		if ev.Origin == flow.Self || n.holds() && n.spoken(ev) {
			continue
		}
		state := ev.Flow.Has & flow.HasState
		if ev.Op == flow.Destroy {
			ev.Flow.Has &^= flow.HasState
			for _, c := range ev.Flow.Counters {
				n.stats.TrafficBytes += c.Bytes
				n.stats.TrafficPackets += c.Packets
			}
		}
		pass := n.cfg.Filter.Pass(&ev.Flow)
		ev.Flow.Has |= state
		switch {
		case !pass:
			if ev.Op != flow.Dumped {
				n.stats.EventsFiltered++
			}
			continue
		case ev.Op != flow.Dumped:
			if d.newer != nil {
				d.newer[ev.Flow.Key] = struct{}{}
			}
		default:
			if _, ok := d.newer[ev.Flow.Key]; ok {
				continue
			}
		}
		if len(d.queued)-d.at > directLimit {
			n.stats.DirectLost++
			continue
		}
		h := wire.Header{Type: directType[ev.Op], Seq: n.numbers.Number()}
		d.queued = n.wire.AppendFlow(d.queued, h, &ev.Flow)
		n.stats.Sent[h.Type]++
		if ev.Op != flow.Dumped {
			n.stats.Passed[h.Type]++
		}
	}
}

var directExpectType = [...]uint8{flow.New: wire.ExpNew, flow.Update: wire.ExpUpd, flow.Destroy: wire.ExpDel}

// passExpects is pass for expectations. The master's state is not known, so
// only its addresses and its protocol are judged.
func (n *Node) passExpects(events []flow.ExpectEvent) {
	d := &n.direct
	for i := range events {
		ev := &events[i]
		if ev.Origin == flow.Self || ev.Op == flow.Dumped {
			continue
		}
		if !n.PassExpect(&ev.Expect) {
			n.stats.EventsFiltered++
			continue
		}
		if len(d.queued)-d.at > directLimit {
			n.stats.DirectLost++
			continue
		}
		h := wire.Header{Type: directExpectType[ev.Op], Seq: n.numbers.Number()}
		d.queued = n.wire.AppendExpect(d.queued, h, &ev.Expect)
		n.stats.Sent[h.Type]++
		n.stats.Passed[h.Type]++
	}
}

// PassExpect reports whether an expectation is replicated, as far as that can
// be told without the internal cache.
func (n *Node) PassExpect(x *flow.Expect) bool {
	master := flow.Flow{Key: x.Master, Has: flow.HasAddr | flow.HasProto | flow.HasPorts}
	return n.expectPasses(x) && n.cfg.Filter.Pass(&master)
}

// passed moves messages into a datagram and reports whether it is full.
func (n *Node) passed(dst []byte, size int) (_ []byte, full bool) {
	d := &n.direct
	for d.at < len(d.queued) {
		m, _, err := wire.Next(d.queued[d.at:])
		if err != nil {
			panic("node: a message of our own: " + err.Error())
		}
		if len(dst) > 0 && len(dst)+len(m.Raw) >= size {
			return dst, true
		}
		dst = append(dst, m.Raw...)
		d.at += len(m.Raw)
		n.out.ran = true
	}
	d.queued, d.at = d.queued[:0], 0
	return dst, len(dst) >= size
}

// TableWanted reports, once each time, that the kernel's table is to be sent:
// there is no internal cache that could answer. Call BeginTable, feed the table
// to Kernel as Dumped events, and call EndTable.
func (n *Node) TableWanted() bool {
	wanted := n.direct.wanted
	n.direct.wanted = false
	return wanted
}

// BeginTable starts to send the kernel's table, before it is read. Begun again
// it starts over.
func (n *Node) BeginTable() {
	if n.direct.newer == nil {
		n.direct.newer = make(map[flow.Key]struct{})
	}
	n.direct.lost = n.stats.DirectLost
	if n.beginMarks(); n.mark.begin {
		n.passMark()
	}
}

// EndTable ends it. It is complete if all of the table was fed.
func (n *Node) EndTable(complete bool) {
	n.direct.newer = nil
	if complete && n.direct.lost == n.stats.DirectLost {
		n.endMarks()
	}
	n.engine.BulkDone()
}

// passMark puts an ALIVE with the mark that is due among the messages.
func (n *Node) passMark() {
	h, x := wire.Header{Seq: n.numbers.Number()}, &n.say.x
	*x = wire.Ext{Has: wire.ExtNode, Node: n.cfg.Name}
	n.sayMarks(h.Seq, x)
	n.direct.queued = wire.AppendExt(n.direct.queued, h, x)
}
