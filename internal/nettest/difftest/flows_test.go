package difftest_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
)

// Status of an answered flow and of a lasting one.
const (
	seen    = flood.SeenReply
	lasting = flood.SeenReply | flood.Assured
)

// timeout of every flow in seconds, in the middle of what a snapshot rounds to.
const timeout = 60_000

// richTable is a flow of every kind that a report or a dump has a word for.
// site tells the tables of the nodes apart.
func richTable(site byte) (flows []flood.Flow) {
	for _, v6 := range []bool{false, true} {
		src, dst := netip.AddrFrom4([4]byte{10, 9, site, 1}), netip.AddrFrom4([4]byte{203, 0, 113, 1})
		nat, real := netip.AddrFrom4([4]byte{198, 51, 100, site}), netip.AddrFrom4([4]byte{172, 20, 0, site})
		icmp, echo := uint8(flood.ICMP), uint8(8)
		if v6 {
			src, dst = netip.MustParseAddr(fmt.Sprintf("fd09:%d::1", site)), netip.MustParseAddr("2001:db8:5::1")
			nat, real = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", site)), netip.MustParseAddr(fmt.Sprintf("fd08::%d", site))
			icmp, echo = flood.ICMPv6, 128
		}
		add := func(f flood.Flow) {
			f.Src, f.Dst, f.Timeout = src, dst, timeout
			f.Sport = uint16(1000 + len(flows))
			if f.Proto != icmp {
				f.Dport = 80
			}
			flows = append(flows, f)
		}
		add(flood.Flow{Proto: flood.TCP, State: 1})
		add(flood.Flow{Proto: flood.TCP, State: 2, Status: seen})
		for state := uint8(3); state <= 8; state++ {
			add(flood.Flow{Proto: flood.TCP, State: state, Status: lasting})
		}
		add(flood.Flow{Proto: flood.UDP})
		add(flood.Flow{Proto: flood.UDP, Status: seen})
		add(flood.Flow{Proto: flood.UDP, Status: lasting, Mark: 7})
		add(flood.Flow{Proto: icmp, Type: echo, Status: seen})
		for _, state := range []uint8{1, 3, 4, 5} {
			add(flood.Flow{Proto: flood.SCTP, State: state, Vtag: [2]uint32{1, 2}, Status: lasting})
		}
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, SNAT: netip.AddrPortFrom(nat, 0)})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, SNAT: netip.AddrPortFrom(nat, 5001)})
		add(flood.Flow{Proto: flood.UDP, Status: lasting, DNAT: netip.AddrPortFrom(real, 8080)})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, SNAT: netip.AddrPortFrom(nat, 5002), DNAT: netip.AddrPortFrom(real, 8081)})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, Zone: 7, Mark: 0xa1b2c3d4})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, Labels: []byte{8, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x80}})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, Helper: "ftp"})
	}
	return flows
}

// toolTable is what only the conntrack tool writes.
var toolTable = []string{
	"-I -p gre -s 10.9.%d.1 -d 203.0.113.1 --srckey 17 --dstkey 18 -t 60000",
	"-I -p udplite -s 10.9.%d.1 -d 203.0.113.1 --sport 5 --dport 6 -t 60000",
	"-I -p 50 -s 10.9.%d.1 -d 203.0.113.1 -t 60000",
	"-I -p 89 -s 10.9.%d.1 -d 203.0.113.1 -t 60000 -m 5",
}

// later is what happens while the daemon runs: events instead of a dump.
func later(site byte) (made, changed, ended []flood.Flow) {
	for i := range 6 {
		f := flood.Flow{Proto: flood.TCP, State: 3, Status: lasting, Timeout: timeout, Sport: uint16(2000 + i), Dport: 443,
			Src: netip.AddrFrom4([4]byte{10, 9, site, 2}), Dst: netip.AddrFrom4([4]byte{203, 0, 113, 2})}
		if i == 0 {
			f.Mark = 3
		}
		made = append(made, f)
	}
	changed = append(changed, made[1:4]...)
	for i := range changed {
		changed[i].State, changed[i].Mark = 4, 9
	}
	return made, changed, made[5:]
}

func load(flows []flood.Flow) flood.Load {
	return flood.Load{From: 0, To: len(flows), Flow: func(i int, f *flood.Flow) { *f = flows[i] }}
}

func must(t *testing.T, r flood.Result, err error) {
	t.Helper()
	ok(t, err)
	ok(t, r.Err())
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes the rich table, with a data connection of the FTP flow.
func fill(t *testing.T, n *nettest.Node, site byte) {
	t.Helper()
	ok(t, n.FlushKernel())
	w, err := flood.Open(n.Do)
	ok(t, err)
	defer w.Close()
	r, err := w.Create(load(richTable(site)))
	must(t, r, err)
	for _, line := range toolTable {
		_, err := n.Run("sh", "-c", "conntrack "+fmt.Sprintf(line, site))
		ok(t, err)
	}
	ok(t, n.Do(func() error { return related(site) }))
}

// related writes a flow that another one led to, and expectations.
func related(site byte) error {
	w, err := kernel.OpenWriter(kernel.WriterConfig{})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, x := range expected(site) {
		if err := w.CreateExpect(&x); err != nil {
			return err
		}
	}
	var f flow.Flow
	f.Has = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasState | flow.HasStatus | flow.HasTimeout | flow.HasMaster | flow.HasMasterPort
	f.Family, f.Proto, f.Sport, f.Dport = flow.IPv4, flow.ProtoTCP, 1500, 2021
	copy(f.Src[:], []byte{10, 9, site, 1})
	copy(f.Dst[:], []byte{203, 0, 113, 1})
	f.State, f.Status, f.Timeout = 3, lasting|flood.Confirmed, timeout
	f.Master = master(site, flow.IPv4)
	result := make([]kernel.Result, 1)
	if err := w.Commit([]flow.Flow{f}, result); err != nil {
		return err
	}
	return result[0].Err()
}

// master is the flow with a helper.
func master(site byte, family uint8) (key flow.Key) {
	for _, m := range richTable(site) {
		if m.Helper == "" || m.Src.Is4() != (family == flow.IPv4) {
			continue
		}
		key.Family, key.Proto, key.Sport, key.Dport = family, m.Proto, m.Sport, m.Dport
		copy(key.Src[:], m.Src.AsSlice())
		copy(key.Dst[:], m.Dst.AsSlice())
	}
	return key
}

// expected are the data connections of the masters: the kernel has room for
// one of each. (A kernel's helper sets flags, a function and NAT as well; those
// are the business of package itest.)
func expected(site byte) (all []flow.Expect) {
	for family, size := range map[uint8]int{flow.IPv4: 4, flow.IPv6: 16} {
		x := flow.Expect{Has: flow.HasTimeout | flow.HasClass | flow.HasHelper, Timeout: timeout, Master: master(site, family)}
		copy(x.Helper[:], "ftp")
		x.Tuple = x.Master
		x.Tuple.Src, x.Tuple.Dst, x.Tuple.Sport, x.Tuple.Dport = x.Master.Dst, x.Master.Src, 0, 3000
		x.Mask = x.Tuple
		for i := range size {
			x.Mask.Src[i], x.Mask.Dst[i] = 0xff, 0xff
		}
		x.Mask.Sport, x.Mask.Dport = 0, 0xffff
		all = append(all, x)
	}
	return all
}

// change makes the events.
func change(t *testing.T, n *nettest.Node, site byte) {
	t.Helper()
	w, err := flood.Open(n.Do)
	ok(t, err)
	defer w.Close()
	made, changed, ended := later(site)
	r, err := w.Create(load(made))
	must(t, r, err)
	r, err = w.Update(load(changed))
	must(t, r, err)
	r, err = w.Delete(load(ended))
	must(t, r, err)
}
