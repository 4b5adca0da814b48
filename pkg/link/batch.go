package link

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// controlLen holds one IP_PKTINFO or IPV6_PKTINFO message with room to spare.
const controlLen = 64

// Batch holds the datagrams of one Recv. It is reused: what Datagram returns
// is valid until the next Recv into the same Batch.
type Batch struct {
	msgs  []mmsghdr
	iovs  []unix.Iovec
	bufs  [][]byte
	names []unix.RawSockaddrInet6 // large enough for IPv4 too
	ctl   [][controlLen]byte
	got   []received
	n     int
	read  int  // datagrams taken off the socket, refused ones included
	more  bool // is waiting, though there was room
	// The last datagram refused by this Recv; invalid if none was.
	refused netip.Addr
}

// received is one accepted datagram: its place in the arrays and its source.
type received struct {
	data    []byte
	from    netip.Addr
	toGroup bool
}

// NewBatch returns a batch of n datagrams of at most size bytes each. The
// memory is touched only as far as datagrams fill it.
func NewBatch(n, size int) *Batch {
	b := &Batch{
		msgs:  make([]mmsghdr, n),
		iovs:  make([]unix.Iovec, n),
		bufs:  make([][]byte, n),
		names: make([]unix.RawSockaddrInet6, n),
		ctl:   make([][controlLen]byte, n),
		got:   make([]received, n),
	}
	all := make([]byte, n*size)
	for i := range n {
		b.bufs[i] = all[i*size : (i+1)*size : (i+1)*size]
		b.iovs[i].Base = unsafe.SliceData(b.bufs[i])
		b.iovs[i].SetLen(size)
		h := &b.msgs[i].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.ctl[i][0]
	}
	b.read = n
	b.reset()
	return b
}

// Len returns the number of datagrams the last Recv returned.
func (b *Batch) Len() int { return b.n }

// Full reports whether the last Recv filled the batch: more may be waiting.
func (b *Batch) Full() bool { return b.more || b.read == len(b.msgs) }

// Datagram returns datagram i of the last Recv.
func (b *Batch) Datagram(i int) []byte { return b.got[:b.n][i].data }

// From returns the source of datagram i, without a zone.
func (b *Batch) From(i int) netip.Addr { return b.got[:b.n][i].from }

// ToGroup reports whether datagram i was sent to the multicast group, and not
// to us alone.
func (b *Batch) ToGroup(i int) bool { return b.got[:b.n][i].toGroup }

// Refused returns the source of a datagram that the last Recv refused, and
// whether there was one.
func (b *Batch) Refused() (netip.Addr, bool) { return b.refused, b.refused.IsValid() }

// reset makes the batch ready to receive: the kernel has changed as many
// headers as it has filled.
func (b *Batch) reset() {
	used := b.msgs[:b.read]
	b.n, b.read, b.more, b.refused = 0, 0, false, netip.Addr{}
	for i := range used {
		h := &b.msgs[i].Msghdr
		h.Namelen = uint32(unsafe.Sizeof(b.names[i]))
		h.SetControllen(controlLen)
		h.Flags = 0
	}
}

// accept adds datagram i of the kernel's to those that Recv returns.
func (b *Batch) accept(i int, from netip.Addr, toGroup bool) int {
	size := int(b.msgs[i].n)
	b.got[b.n] = received{data: b.bufs[i][:size], from: from, toGroup: toGroup}
	b.n++
	return size
}

// add adds a datagram that somebody else keeps until the next Recv.
func (b *Batch) add(datagram []byte, from netip.Addr) {
	b.got[b.n] = received{data: datagram, from: from}
	b.n++
}

// source returns the source address of datagram i.
func (b *Batch) source(i int) netip.Addr {
	name := &b.names[i]
	if name.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	return netip.AddrFrom16(name.Addr)
}

// arrival returns the index of the interface that datagram i came through, 0
// if the kernel did not say, and whether it was sent to a multicast address:
// the sockets take no other than that of the group.
func (b *Batch) arrival(i int) (via int, toGroup bool) {
	const head = unix.SizeofCmsghdr
	if b.msgs[i].Controllen < head {
		return 0, false
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&b.ctl[i]))
	body := unsafe.Pointer(&b.ctl[i][head])
	switch {
	case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO:
		info := (*unix.Inet4Pktinfo)(body)
		return int(info.Ifindex), info.Addr[0]>>4 == 0xe
	case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO:
		info := (*unix.Inet6Pktinfo)(body)
		return int(info.Ifindex), info.Addr[0] == 0xff
	}
	return 0, false
}

// outgoing is the array of headers that Send hands to the kernel.
type outgoing struct {
	msgs []mmsghdr
	iovs []unix.Iovec
}

func newOutgoing(n int) outgoing {
	o := outgoing{msgs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n)}
	for i := range n {
		o.msgs[i].Iov = &o.iovs[i]
		o.msgs[i].SetIovlen(1)
	}
	return o
}

// address makes all datagrams go to what is in name when they are sent.
func (o *outgoing) address(name *unix.RawSockaddrInet6) {
	for i := range o.msgs {
		o.msgs[i].Name = (*byte)(unsafe.Pointer(name))
		o.msgs[i].Namelen = unix.SizeofSockaddrInet6 // IPv4 takes what it needs
	}
}

// load puts as many of the datagrams as fit, and returns how many.
func (o *outgoing) load(batch [][]byte) int {
	n := min(len(batch), len(o.msgs))
	for i, p := range batch[:n] {
		o.iovs[i].Base = unsafe.SliceData(p)
		o.iovs[i].SetLen(len(p))
	}
	return n
}

// The calls below never block: the scheduler need not know of them.

func sendmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), e
}

func recvmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(msgs))),
		uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}

func sendmsg(fd int, vec []unix.Iovec) (int, unix.Errno) {
	h := unix.Msghdr{Iov: unsafe.SliceData(vec)}
	h.SetIovlen(len(vec))
	n, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(n), e
}

func recv(fd int, b []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), e
}
