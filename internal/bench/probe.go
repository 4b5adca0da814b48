package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// A probe makes marker flows in one node's kernel and finds out when each
// reaches the other node: when the kernel there took the datagram that tells
// of it from the wire, or when the flow was made in the kernel's table. Both
// times are the kernel's own, so nobody has to be woken to take them, and
// they are looked at when the measurement is over.
type probe struct {
	from, to *nettest.Node
	writer   *flood.Writer
	capture  int // packet socket in the other node
	first    int // number of the first marker
	sent     []time.Time
}

// markers counts those of the whole run: late news of an old one must not be
// taken for a new one's.
var markers int

// markerTo is the destination of the markers; the source is the number.
var markerTo = netip.MustParseAddr("203.0.113.77")

const markerFrom = 198

func marker(i int, f *flood.Flow) {
	*f = flood.Flow{
		Proto: flood.UDP, Src: netip.AddrFrom4([4]byte{markerFrom, byte(i >> 16), byte(i >> 8), byte(i)}), Dst: markerTo,
		Sport: 9, Dport: 9, Timeout: 3000, Status: flood.Confirmed,
	}
}

func newProbe(from, to *nettest.Node) (p *probe, err error) {
	p = &probe{from: from, to: to, capture: -1, first: markers}
	if p.writer, err = flood.Open(from.Do); err != nil {
		return nil, err
	}
	err = to.Do(func() error {
		i, err := net.InterfaceByName(nettest.SyncIf)
		if err != nil {
			return err
		}
		const ip = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8
		if p.capture, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		// Everything stays in the buffer until the end.
		if err := unix.SetsockoptInt(p.capture, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<30-1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(p.capture, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		return unix.Bind(p.capture, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: i.Index})
	})
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open probe: %w", err)
	}
	return p, nil
}

func (p *probe) close() {
	p.writer.Close()
	if p.capture >= 0 {
		unix.Close(p.capture)
	}
}

// mark makes the next marker.
func (p *probe) mark() error {
	i := p.first + len(p.sent)
	p.sent = append(p.sent, time.Now())
	_, err := p.writer.Create(flood.Load{From: i, To: i + 1, Flow: marker})
	return err
}

// every marks at an interval until ctx ends, before everything else the CPU
// might have to do.
func (p *probe) every(ctx context.Context, interval time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setScheduler(unix.SCHED_FIFO, 1); err != nil {
		return err
	}
	defer setScheduler(unix.SCHED_NORMAL, 0)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := p.mark(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// setScheduler sets the class of the calling thread.
func setScheduler(policy, priority uint32) error {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}, 0)
	if err != nil {
		return fmt.Errorf("set scheduling class: %w", err)
	}
	return nil
}

// datagrams returns how many milliseconds it took until the datagram of each
// marker reached the other node. A marker of which none tells is an error.
func (p *probe) datagrams() ([]float64, error) {
	at := make([]time.Time, len(p.sent))
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, oobn, _, _, err := unix.Recvmsg(p.capture, buf, oob, 0)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read capture: %w", err)
		}
		when, err := stamp(oob[:oobn])
		if err != nil {
			return nil, err
		}
		for _, i := range markersIn(buf[:n]) {
			if i -= p.first; i >= 0 && i < len(at) && at[i].IsZero() {
				at[i] = when
			}
		}
	}
	return p.since(at)
}

func (p *probe) since(at []time.Time) ([]float64, error) {
	ms := make([]float64, 0, len(at))
	lost := 0
	for i, t := range at {
		if t.IsZero() {
			lost++
			continue
		}
		ms = append(ms, float64(t.Sub(p.sent[i]).Nanoseconds())/1e6)
	}
	if lost > 0 {
		return ms, fmt.Errorf("%d of %d markers never arrived", lost, len(at))
	}
	return ms, nil
}

// stamp finds the kernel's time in control messages.
func stamp(oob []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, fmt.Errorf("read capture: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), nil
		}
	}
	return time.Time{}, fmt.Errorf("read capture: a packet without time")
}

// markersIn finds markers in a datagram: an IPV4 attribute (docs/protocol.md
// 3.3) holds source and destination one after the other.
func markersIn(b []byte) (found []int) {
	to := markerTo.As4()
	for i := 4; i+4 <= len(b); i++ {
		if b[i] == to[0] && [4]byte(b[i:]) == to && b[i-4] == markerFrom {
			found = append(found, int(b[i-3])<<16|int(b[i-2])<<8|int(b[i-1]))
			i += 3
		}
	}
	return found
}

// stampEntries lets a node's kernel note when each entry is made.
func stampEntries(n *nettest.Node) error {
	return n.Sysctls([]string{"net.netfilter.nf_conntrack_timestamp=1"})
}

// entries returns how many milliseconds it took until each marker was in the
// other node's table, which stampEntries must have prepared.
func (p *probe) entries() ([]float64, error) {
	c, err := conntrack.Dial(&netlink.Config{NetNS: p.to.FD()})
	if err != nil {
		return nil, fmt.Errorf("read markers: %w", err)
	}
	defer c.Close()
	flows, err := c.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("read markers: %w", err)
	}
	at := make([]time.Time, len(p.sent))
	for _, f := range flows {
		src := f.TupleOrig.IP.SourceAddress
		if f.TupleOrig.IP.DestinationAddress != markerTo || !src.Is4() {
			continue
		}
		s := src.As4()
		if i := (int(s[1])<<16 | int(s[2])<<8 | int(s[3])) - p.first; i >= 0 && i < len(at) {
			at[i] = f.Timestamp.Start
		}
	}
	return p.since(at)
}

// clean removes the markers from the kernel; the probe is used up.
func (p *probe) clean() error {
	markers = p.first + len(p.sent)
	_, err := p.writer.Delete(flood.Load{From: p.first, To: markers, Flow: marker})
	return err
}
