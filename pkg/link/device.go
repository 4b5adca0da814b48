package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

type device struct {
	index, mtu int
}

func lookupDevice(name string) (device, error) {
	if name == "" {
		return device{}, errors.New("no Interface configured")
	}
	i, err := net.InterfaceByName(name)
	if op := new(net.OpError); errors.As(err, &op) {
		err = op.Err // without "route ip+net"
	}
	if err != nil && !errors.As(err, new(unix.Errno)) { // the system had no reason to fail
		err = missing{err}
	}
	if err != nil {
		return device{}, fmt.Errorf("find interface: %w", err)
	}
	return device{index: i.Index, mtu: i.MTU}, nil
}

// interfaceIndex is 0 if there is no interface of that name.
func interfaceIndex(fd int, name string) int {
	ifr, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) != nil {
		return 0
	}
	return int(ifr.Uint32())
}

func interfaceStatus(s *socket, name string) (status Status) {
	_ = s.raw.Control(func(fd uintptr) { status = deviceStatus(int(fd), name) })
	return status
}

// deviceStatus asks through a socket of the same network namespace.
func deviceStatus(fd int, name string) Status {
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr)
	}
	if err != nil {
		return Down
	}
	switch flags := ifr.Uint16(); {
	case flags&unix.IFF_UP == 0:
		return Down
	case flags&unix.IFF_RUNNING == 0:
		return NoCarrier
	}
	return Running
}

// guard decides whom to listen to: the configured peer, and as long as it is
// not heard itself everybody within a prefix of the interface, since a C peer
// does not bind the socket it sends from and may use another address of the
// link. A configured list takes the place of those prefixes, always. All must
// come through that interface.
type guard struct {
	name     string
	index    int
	peer     netip.Addr // not valid: none, as in a group
	only     bool       // prefixes are the configured list
	prefixes []netip.Prefix
	now      func() time.Time
	read     time.Time // when index and prefixes were read
	heard    bool      // the peer was, since somebody else was
	alone    time.Time // up to when only the peer is listened to
}

// refreshAfter is how old the knowledge about the interface must be before a
// stranger makes us read it again.
const refreshAfter = time.Second

// aloneFor is how long nobody else is listened to after the peer was heard.
const aloneFor = 10 * time.Second

func newGuard(name string, index int, peer netip.Addr, only []netip.Prefix) guard {
	return guard{name: name, index: index, peer: peer, only: len(only) > 0, prefixes: only, now: time.Now}
}

func (g *guard) pass(from netip.Addr, via int) bool {
	if from == g.peer && via == g.index {
		g.heard = true
		return true
	}
	now := g.now()
	if g.knows(from, via) {
		return !g.disturbs(from, now)
	}
	if !g.read.IsZero() && now.Sub(g.read) < refreshAfter {
		return false
	}
	g.read = now
	g.refresh()
	return g.knows(from, via) && !g.disturbs(from, now)
}

func (g *guard) knows(from netip.Addr, via int) bool {
	if via != g.index {
		return false
	}
	if from == g.peer {
		return true
	}
	for _, p := range g.prefixes {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// disturbs reports whether somebody of the interface's network is not the peer:
// that speaks for itself. The clock is read for strangers only.
func (g *guard) disturbs(from netip.Addr, now time.Time) bool {
	if g.only || from == g.peer {
		return false
	}
	if g.heard {
		g.heard, g.alone = false, now.Add(aloneFor)
	}
	return now.Before(g.alone)
}

// refresh reads the interface by its name, as it may be another device now.
func (g *guard) refresh() {
	i, err := net.InterfaceByName(g.name)
	if err == nil {
		g.index = i.Index
	}
	if g.only {
		return
	}
	g.prefixes = g.prefixes[:0]
	if err != nil {
		return
	}
	addrs, err := i.Addrs()
	if err != nil {
		return
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			g.prefixes = append(g.prefixes, prefix(n))
		}
	}
}

func prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	a = a.Unmap()
	if size == 128 && a.Is4() {
		bits -= 96
	}
	return netip.PrefixFrom(a, bits).Masked()
}
