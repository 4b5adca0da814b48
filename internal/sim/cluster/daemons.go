package cluster

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim/cpeer"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

const datagram = 1472 // bytes, with an MTU of 1500

var codec wire.Options

// flowOf is flow id of a host in a version.
func flowOf(host, id, version int) flow.Flow {
	f := flow.Flow{Key: flow.Key{Family: flow.IPv4, Proto: flow.ProtoUDP, Sport: uint16(id), Dport: 80}}
	f.Src, f.Dst = flow.Addr{10, byte(host), 0, 1}, flow.Addr{192, 0, 2, 1}
	f.Status, f.Mark = flow.StatusConfirmed, uint32(version)
	f.Has = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasMark
	return f
}

func originOf(f *flow.Flow) origin { return origin{host: int(f.Src[1]), id: int(f.Sport)} }

// goDaemon is one of our nodes, with what the daemon does around it.
type goDaemon struct {
	h     *host
	n     *node.Group
	limit int
	ids   map[int]uint32 // the kernel's numbers of its flows
	next  uint32

	one [1]flow.Event
	buf []byte
}

func newGoDaemon(h *host, firstSeq uint32) *goDaemon {
	cfg := node.Config{Mode: h.profile.Mode, HashLimit: 1 << 16, PurgeTimeout: time.Minute,
		ResendQueueSize: 4096, ACKWindowSize: 2 + h.Rand().IntN(30),
		RefreshTime: 3 * time.Second, CacheTimeout: 10 * time.Second,
		Group: h.profile.Group}
	if h.profile.Group {
		cfg.Name = wire.NodeName{Node: uint64(h.index + 1), Epoch: uint64(h.life)}
	}
	if h.profile.Change != nil {
		h.profile.Change(&cfg)
	}
	d := &goDaemon{h: h, limit: cfg.ResendQueueSize, ids: map[int]uint32{},
		n: node.NewGroup(cfg, firstSeq, [2]uint64{h.Rand().Uint64(), h.Rand().Uint64()})}
	switch {
	case h.profile.Found:
		d.n.Announce()
	case h.profile.Group:
		for _, l := range h.links {
			d.n.Add(0, address(l.to))
		}
	}
	d.sweep(node.Start)
	return d
}

// address is that of a host.
func address(host int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(host)}) }

func (d *goDaemon) clock() time.Duration { return d.h.Now() - d.h.born }

// kernelFlow is a flow as the kernel tells of it: another of the same tuple
// has another number.
func (d *goDaemon) kernelFlow(id, version int, made bool) flow.Flow {
	f := flowOf(d.h.index, id, version)
	if made || d.ids[id] == 0 {
		d.next++
		d.ids[id] = d.next
	}
	f.ID = d.ids[id]
	f.Has |= flow.HasID
	return f
}

func (d *goDaemon) event(id, version int, made bool) {
	op := flow.Update
	switch {
	case version == 0:
		op = flow.Destroy
	case made:
		op = flow.New
	}
	d.one[0] = flow.Event{Op: op, Flow: d.kernelFlow(id, version, made)}
	d.n.Kernel(d.clock(), d.one[:])
}

func (d *goDaemon) receive(p packet) {
	if p.all && d.h.profile.Found { // to C there is only one other
		d.n.Hail(d.clock(), address(p.from), p.b)
		return
	}
	d.n.Datagram(d.clock(), address(p.from), p.b)
}

func (d *goDaemon) run(send func(to int, b []byte)) time.Duration {
	d.n.Tick(d.clock())
	if d.buf = d.n.Announcement(d.clock(), d.buf); len(d.buf) > 0 {
		send(everybody, bytes.Clone(d.buf))
	}
	for range d.n.Turns() {
		to := everybody
		if peer := d.n.Turn(); peer.IsValid() {
			to = int(peer.As4()[3])
		}
		for {
			d.buf = d.n.Next(d.clock(), d.buf, datagram)
			if len(d.buf) == 0 {
				break
			}
			send(to, bytes.Clone(d.buf))
		}
	}
	for !d.n.Expire(64) {
	}
	for _, _, ok := d.n.NextNotice(); ok; _, _, ok = d.n.NextNotice() {
	}
	if why, ok := d.n.SweepWanted(d.clock()); ok {
		d.sweep(why)
	}
	return d.h.born + d.n.Deadline()
}

func (d *goDaemon) sweep(why node.Purpose) {
	d.n.BeginSweep(why)
	for id := range flowCount {
		if version := d.h.kernel[id]; version != 0 {
			d.one[0] = flow.Event{Op: flow.Dumped, Flow: d.kernelFlow(id, version, false)}
			d.n.Kernel(d.clock(), d.one[:])
		}
	}
	for !d.n.EndSweep(64) {
	}
	d.n.BeginExpectSweep(why)
	d.n.EndExpectSweep()
}

func (d *goDaemon) away() bool {
	return slices.ContainsFunc(d.n.Health(d.clock()), func(h node.PeerHealth) bool { return h.Away })
}

func (d *goDaemon) repair() { d.sweep(node.Repair) }
func (d *goDaemon) resync() { d.n.RequestResync() }

// dump reads a cache as a client of the daemon does.
func (d *goDaemon) dump(which node.Which) map[origin]int {
	all := map[origin]int{}
	var c node.Cursor
	var text []byte
	for !c.Done() {
		text = d.n.Dump(text, d.clock(), time.Time{}, which, false, &c, 64)
	}
	for line := range strings.Lines(string(text)) {
		var o origin
		var version, sources, ports int
		for _, word := range strings.Fields(line) {
			switch name, value, _ := strings.Cut(word, "="); name {
			case "src":
				if sources++; sources == 1 { // the second is the reply's
					_, _ = fmt.Sscanf(value, "10.%d.", &o.host)
				}
			case "sport":
				if ports++; ports == 1 {
					o.id, _ = strconv.Atoi(value)
				}
			case "mark":
				version, _ = strconv.Atoi(value)
			}
			if from, ok := strings.CutSuffix(word, "]"); ok && which == node.External && d.h.profile.Group &&
				strings.HasPrefix(from, "192.0.2.") && from != address(o.host).String() {
				o.host = flowCount // of nobody
			}
		}
		all[o] = version
	}
	return all
}

func (d *goDaemon) internal() flows {
	own := flows{}
	for o, version := range d.dump(node.Internal) {
		own[o.id] = version
	}
	return own
}

func (d *goDaemon) external() map[origin]int { return d.dump(node.External) }

// controlMost is how many control messages may wait, beside one for each flow.
const controlMost = 200

func (d *goDaemon) bounds() error {
	st := d.n.Stats()
	if most := (2*flowCount + controlMost) * d.n.Turns(); st.TxQueue > most {
		return fmt.Errorf("%d messages to send, more than %d", st.TxQueue, most)
	}
	if most := d.limit * d.n.Turns(); st.Resend > most {
		return fmt.Errorf("%d messages to send again, more than %d", st.Resend, most)
	}
	if most := 2 * flowCount; st.Internal.Total > most {
		return fmt.Errorf("%d internal entries, more than %d", st.Internal.Total, most)
	}
	if now, next := d.clock(), d.n.Deadline(); next < now-time.Second {
		return fmt.Errorf("the deadline %v is long past at %v", next, now)
	}
	return nil
}

func (d *goDaemon) heavy() int {
	e := d.n.Stats().Engine
	return int(e.PeerRestarts + e.ResyncsReceived + e.HellosRepeated + e.Adopted + e.WentBack + e.DoubtfulRuns + e.Refreshed/flowCount + 2)
}

// cDaemon is the model of C, with bytes for its messages.
type cDaemon struct {
	h *host
	c *cpeer.Peer
}

func newCDaemon(h *host, firstSeq uint32) *cDaemon {
	cfg := cpeer.Config{Window: 2 + h.Rand().Uint32N(30), ResendQueue: 131072, StartupResync: h.Chance(0.5)}
	return &cDaemon{h: h, c: cpeer.New(cfg, firstSeq, h.Now(), h.kernel)}
}

func (d *cDaemon) event(id, version int, _ bool) { d.c.Changed(id, version) }
func (d *cDaemon) away() bool                    { return false }
func (d *cDaemon) repair()                       { d.c.Refresh(d.h.kernel) }
func (d *cDaemon) resync()                       { d.c.RequestResync() }
func (d *cDaemon) internal() flows               { return d.c.Internal() }
func (d *cDaemon) heavy() int                    { return 4 }

func (d *cDaemon) receive(p packet) {
	for b := p.b; len(b) > 0; {
		m, rest, err := wire.Next(b)
		b = rest
		if err != nil {
			continue
		}
		msg := cpeer.Message{Header: m.Header}
		if m.Class() == wire.Data {
			var f flow.Flow
			if codec.ParseFlow(m.Body, &f) != nil {
				continue
			}
			msg.ID, msg.Version = key(originOf(&f)), int(f.Mark)
			if m.Type == wire.CTDel {
				msg.Version = 0
			}
		}
		d.c.Receive(msg)
	}
}

// key is the number of a flow of any host.
func key(o origin) int { return o.host<<16 | o.id }

func (d *cDaemon) external() map[origin]int {
	all := map[origin]int{}
	for k, version := range d.c.External() {
		all[origin{host: k >> 16, id: k & 0xffff}] = version
	}
	return all
}

func (d *cDaemon) run(send func(to int, b []byte)) time.Duration {
	var b []byte
	next := d.c.Run(d.h.Now(), func(m cpeer.Message) {
		start := len(b)
		b = d.append(b, &m)
		if start > 0 && len(b) >= datagram {
			send(everybody, b[:start:start])
			b = append([]byte(nil), b[start:]...)
		}
	})
	if len(b) > 0 {
		send(everybody, b)
	}
	return next
}

func (d *cDaemon) append(b []byte, m *cpeer.Message) []byte {
	if m.Class() != wire.Data {
		return wire.AppendControl(b, m.Header)
	}
	f := flowOf(d.h.index, m.ID, m.Version)
	return codec.AppendFlow(b, m.Header, &f)
}

func (d *cDaemon) bounds() error {
	if d.c.Malformed > 0 {
		return fmt.Errorf("it was sent %d malformed messages", d.c.Malformed)
	}
	return nil
}
