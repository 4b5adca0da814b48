package flow

// Op is what happened to a flow in the kernel.
type Op uint8

// The kinds of event. Dumped is an entry of a table dump: the flow exists,
// nothing is said about when it changed. Renew is no event but an order to the
// kernel: of a flow that exists only the timeout is set.
const (
	New Op = iota + 1
	Update
	Destroy
	Dumped
	Renew
)

// Origin says who caused an event.
type Origin uint8

// Other is anybody; Self is a netlink socket of this daemon (nlmsg_pid of the
// event), whose changes are cached and never sent back (docs/protocol.md 6.3).
const (
	Other Origin = iota
	Self
)

// Event is one ctnetlink message about a flow.
type Event struct {
	Op     Op
	Origin Origin
	Flow   Flow
}

// ExpectEvent is one ctnetlink message about an expectation.
type ExpectEvent struct {
	Op     Op
	Origin Origin
	Expect Expect
}
