// Package link moves datagrams between the nodes: it opens the sync links of
// conntrackd.conf and sends and receives in batches, best effort. A link has one
// other end, or speaks to all in a multicast group at once; with a Group it
// speaks to each of several nodes alone. It knows nothing of what is inside a
// datagram (docs/protocol.md 7).
package link

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// Link is one open link. Send is for one goroutine at a time, Recv for one
// other; the rest may be called from anywhere, Close too.
type Link interface {
	// Name returns the interface of the link.
	Name() string
	// Transport returns the kind of the link.
	Transport() Transport
	// MTU returns the size of the largest datagram that is not fragmented:
	// the MTU of the interface when the link was opened, less the headers.
	MTU() int
	// Send sends the datagrams in order and returns how many are done with:
	// sent, or failed and counted as an error. It never blocks: sent is less
	// than len(batch), with a nil error, when the socket is full; see
	// WaitWritable. The only error is net.ErrClosed.
	Send(batch [][]byte) (sent int, err error)
	// WaitWritable waits until the socket takes more, or the deadline. The
	// error is os.ErrDeadlineExceeded or net.ErrClosed.
	WaitWritable(deadline time.Time) error
	// FD returns the descriptor to wait on: it stays readable as long as Recv
	// has something to do. It is the link's own, possibly an epoll instance
	// over several sockets and timers, and the same for the life of the link.
	FD() int
	// Recv fills b with the datagrams that have come and were accepted and
	// returns their number. It never blocks: 0 says that nothing is there, or
	// that some were refused (Batch.Refused). Socket errors are counted and
	// not returned. The only error is net.ErrClosed.
	Recv(b *Batch) (n int, err error)
	// Buffers returns the sizes of the socket buffers that the kernel
	// granted, in bytes.
	Buffers() (send, receive int)
	// Status returns the state of the interface now.
	Status() Status
	// Stats returns the counters.
	Stats() Stats
	// Close ends the link. A WaitWritable that is under way goes on to its end.
	Close() error
}

// Stats counts the traffic of a link. Bytes are those of the datagrams
// without UDP and IP headers.
type Stats struct {
	SentBytes, SentPackets uint64
	RecvBytes, RecvPackets uint64
	// SendErrors are datagrams lost in sending, RecvErrors failed receives.
	SendErrors, RecvErrors uint64
	// Unsendable are those of SendErrors that the own system refused, for want
	// of an interface, an address or a route, and LastUnsendable is why.
	Unsendable     uint64
	LastUnsendable syscall.Errno
	// Unaccepted are those of RecvErrors that were a connection of TCP the own
	// system would not give us, and LastUnaccepted is why: no free descriptor,
	// for one. It is tried again within three seconds.
	Unaccepted     uint64
	LastUnaccepted syscall.Errno
	// RecvDropped are datagrams the kernel threw away because the receive
	// buffer was full; they are in no other counter.
	RecvDropped uint64
	// Queued datagrams of TCP wait for the connection, now.
	Queued uint64
	// Truncated datagrams did not fit into a Batch and were dropped.
	Truncated uint64
	// Refused datagrams came from an address or through an interface that is
	// not of the link. LastRefused is the source of the last one, and
	// LastRefusedVia the index of the interface it came through.
	Refused        uint64
	LastRefused    netip.Addr
	LastRefusedVia int
}

// Status is the state of an interface.
type Status uint8

// The states, as the link statistics name them.
const (
	Down Status = iota
	NoCarrier
	Running
)

// String returns the word of the link statistics.
func (s Status) String() string {
	switch s {
	case Running:
		return "RUNNING"
	case NoCarrier:
		return "NO-CARRIER"
	}
	return "DOWN"
}

// openers holds what can be opened: to add a transport, add its file and a row.
var openers = map[Transport]func(Config) (Link, error){
	UDP:       openUDP,
	Multicast: openMulticast,
	TCP:       openTCP,
}

// Open opens a link; with Config.Group it is a *Group. Errors name the link;
// those of the system can be taken apart with errors.Is.
func Open(cfg Config) (Link, error) { return openOne(cfg, 1) }

// openOne opens one of so many links.
func openOne(cfg Config, of int) (Link, error) {
	open := openers[cfg.Transport]
	switch {
	case open != nil && cfg.Group:
		open = openGroup
	case cfg.Transport == UDP && of > 1:
		open = openSharedUDP
	}
	if open == nil {
		return nil, fmt.Errorf("open link on %q: unknown transport", cfg.Interface)
	}
	l, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s link on %q: %w", cfg.Transport, cfg.Interface, err)
	}
	return l, nil
}
