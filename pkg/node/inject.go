package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Without an external cache what the peer says goes to the kernel at once
// (docs/protocol.md 6.2). The node collects it; whoever called Datagram takes
// it with Injections and writes it.

var injectOp = [...]flow.Op{
	wire.CTNew: flow.New, wire.CTUpd: flow.Update, wire.CTDel: flow.Destroy,
	wire.ExpNew: flow.New, wire.ExpUpd: flow.Update, wire.ExpDel: flow.Destroy,
}

// nextInjection returns where the flow of the next message is read to.
func (n *Node) nextInjection() *flow.Flow {
	last := len(n.inject)
	if last == cap(n.inject) {
		n.inject = append(n.inject, flow.Event{})[:last]
	}
	return &n.inject[:last+1][last].Flow
}

// order adds something to be written. Its flow is what nextInjection says.
func (n *Node) order(op flow.Op) *flow.Event {
	n.nextInjection()
	last := len(n.inject)
	n.inject = n.inject[:last+1]
	ev := &n.inject[last]
	ev.Op, ev.Origin = op, flow.Self
	return ev
}

// injected takes a message about a flow.
func (n *Node) injected(now time.Duration, m *wire.Message) {
	ev := n.order(injectOp[m.Type])
	if n.holds() {
		n.hold.listen.data(now)
		if n.held(now, ev) {
			return
		}
	}
	// A flow that the peer took over from us. The kernel's own event about it
	// may not come: see kernel.Events.Ignore.
	if n.numbers == nil && !n.strange(&ev.Flow) {
		n.own(&ev.Flow)
		n.take(now, ev)
	}
}

// Injections returns what is to be written to the kernel, in the order it came,
// and takes spare, which is empty, to collect what comes next.
func (n *Node) Injections(spare []flow.Event) []flow.Event {
	full := n.inject
	n.inject = spare[:0]
	return full
}

// ExpectInjections is Injections for expectations: they come after the flows
// that came with them.
func (n *Node) ExpectInjections() []flow.ExpectEvent {
	full := n.injectX
	n.injectX = nil
	return full
}

// strange reports that our own event is about a flow of which the internal
// cache knows nothing: the echo of what the peer told us. It would be sent back
// with the next bulk. A flow that the peer took over from us is not strange.
func (n *Node) strange(f *flow.Flow) bool {
	r := n.internal.lookup(&f.Key)
	return r == none || n.internal.dead(r)
}

// strangeExpect is strange for an expectation.
func (n *Node) strangeExpect(x *flow.Expect) bool {
	t := n.expects.internal.table
	id := n.expects.internal.lookup(x)
	return id == 0 || t.Dead(id)
}
