package kernel

import (
	"encoding/binary"
	"syscall"
)

// message is one netlink message; body aliases the buffer it was cut from.
type message struct {
	typ, flags uint16
	seq, pid   uint32
	body       []byte // without the nlmsghdr
}

// nextMessage cuts the first message off a datagram. ok is false if what is
// there is no whole message.
func nextMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < nlmsgHeaderLen {
		return m, nil, false
	}
	size := uint64(binary.NativeEndian.Uint32(b))
	if size < nlmsgHeaderLen || size > uint64(len(b)) {
		return m, nil, false
	}
	m = message{
		typ:   binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		pid:   binary.NativeEndian.Uint32(b[12:]),
		body:  b[nlmsgHeaderLen:size],
	}
	return m, b[min(align4(int(size)), len(b)):], true
}

// nextAttr cuts the first attribute off b. ok is false at the end of b and
// if what is left is no whole attribute.
func nextAttr(b []byte) (t attr, v, rest []byte, ok bool) {
	if len(b) < nlattrLen {
		return 0, nil, b, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < nlattrLen || size > len(b) {
		return 0, nil, b, false
	}
	t = attr(binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask)
	return t, b[nlattrLen:size], b[min(align4(size), len(b)):], true
}

func align4(n int) int { return (n + 3) &^ 3 }

// newRequest returns a request without attributes about all families.
func newRequest(typ, flags uint16, seq uint32) []byte {
	b := make([]byte, nlmsgHeaderLen+nfgenLen)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return b
}

// errorCode returns the errno in an NLMSG_ERROR or NLMSG_DONE, zero for
// success.
func errorCode(body []byte) syscall.Errno {
	if len(body) < 4 {
		return 0
	}
	return syscall.Errno(max(0, -int32(binary.NativeEndian.Uint32(body))))
}
