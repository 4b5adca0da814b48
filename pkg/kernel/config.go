package kernel

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// Config is what conntrackd.conf says about netlink.
type Config struct {
	// BufferSize is the receive buffer of the event socket in bytes
	// (NetlinkBufferSize). It is used when 0 < BufferSize <= BufferMaxGrowth,
	// else the system default stays.
	BufferSize int
	// BufferMaxGrowth is the limit in bytes up to which the buffer is doubled
	// after an overrun (NetlinkBufferSizeMaxGrowth).
	BufferMaxGrowth int
	// OverrunResync is the delay between an overrun and the dump that repairs
	// it (NetlinkOverrunResync). Zero: never.
	OverrunResync time.Duration
	// Reliable asks the kernel for reliable event delivery
	// (NetlinkEventsReliable): NETLINK_BROADCAST_ERROR and NETLINK_NO_ENOBUFS.
	Reliable bool
	// Poll is the interval of polling instead of events (PollSecs). Zero:
	// events.
	Poll time.Duration
	// KernelFilter asks for the filter to run in the kernel (Filter From
	// Kernelspace).
	KernelFilter bool
	// Filter is put on the event socket if it is not nil: the daemon gives
	// node's here when KernelFilter asks for it. See Events.FilterProblem.
	Filter *flow.Filter
}
