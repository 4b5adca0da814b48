package itest_test

import (
	"net/netip"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// seen and open are the status of an answered and of a lasting flow.
const (
	seen = flood.SeenReply
	open = flood.SeenReply | flood.Assured
)

// family holds the addresses the flows of one IP version use.
type family struct {
	src, dst   netip.Addr
	snat, dnat netip.Addr
	icmp       uint8
	echo       uint8
}

var families = []family{
	{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.1"), flood.ICMP, 8},
	{netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd08::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1"), flood.ICMPv6, 128},
}

// catalogue is one flow of every kind that the daemons must carry. Each has
// its own source port.
func catalogue() []flood.Flow {
	var flows []flood.Flow
	for _, fam := range families {
		add := func(f flood.Flow) {
			f.Src, f.Dst = fam.src, fam.dst
			f.Sport = uint16(1000 + len(flows))
			if f.Proto != fam.icmp {
				f.Dport = 80
			}
			f.Timeout = 1000
			flows = append(flows, f)
		}
		// TCP in every state a flow can rest in (SYN_SENT to CLOSE).
		add(flood.Flow{Proto: flood.TCP, State: 1})
		add(flood.Flow{Proto: flood.TCP, State: 2, Status: seen})
		for state := uint8(3); state <= 8; state++ {
			add(flood.Flow{Proto: flood.TCP, State: state, Status: open})
		}
		add(flood.Flow{Proto: flood.UDP})
		add(flood.Flow{Proto: flood.UDP, Status: seen})
		add(flood.Flow{Proto: flood.UDP, Status: open})
		add(flood.Flow{Proto: fam.icmp, Type: fam.echo, Status: seen})
		add(flood.Flow{Proto: flood.SCTP, State: 4, Vtag: [2]uint32{0x11223344, 0x55667788}, Status: open})

		for _, proto := range []flood.Flow{
			{Proto: flood.TCP, State: 3, Status: open},
			{Proto: flood.UDP, Status: open},
		} {
			for _, nat := range translations(fam) {
				nat.Proto, nat.State, nat.Status = proto.Proto, proto.State, proto.Status
				add(nat)
			}
		}
		add(flood.Flow{Proto: flood.SCTP, State: 4, Vtag: [2]uint32{1, 2}, Status: open, SNAT: netip.AddrPortFrom(fam.snat, 0)})
		add(flood.Flow{Proto: fam.icmp, Type: fam.echo, Status: seen, SNAT: netip.AddrPortFrom(fam.snat, 0)})

		add(flood.Flow{Proto: flood.UDP, Status: seen, Mark: 0xa1b2c3d4})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: open, Zone: 7})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: open, Labels: []byte{8, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x80}})
		add(flood.Flow{Proto: flood.TCP, State: 3, Status: open, Mark: 1, Zone: 9, Labels: []byte{1, 0, 0, 0},
			SNAT: netip.AddrPortFrom(fam.snat, 5000), DNAT: netip.AddrPortFrom(fam.dnat, 8080)})
	}
	// The same tuple in two zones.
	twin := flood.Flow{Proto: flood.UDP, Src: families[0].src, Dst: families[0].dst, Sport: 5, Dport: 53, Status: seen, Timeout: 1000}
	flows = append(flows, twin)
	twin.Zone, twin.Mark = 3, 33
	return append(flows, twin)
}

// translations are SNAT, DNAT and both, of addresses and of ports.
func translations(fam family) []flood.Flow {
	return []flood.Flow{
		{SNAT: netip.AddrPortFrom(fam.snat, 0)},
		{SNAT: netip.AddrPortFrom(fam.snat, 5001)},
		{SNAT: netip.AddrPortFrom(fam.src, 5002)}, // only the port
		{DNAT: netip.AddrPortFrom(fam.dnat, 0)},
		{DNAT: netip.AddrPortFrom(fam.dnat, 8081)},
		{DNAT: netip.AddrPortFrom(fam.dst, 8082)}, // only the port
		{SNAT: netip.AddrPortFrom(fam.snat, 5003), DNAT: netip.AddrPortFrom(fam.dnat, 8083)},
	}
}

// TestAttributes takes flows of every kind through their life: created on A
// they appear in B's external cache; a commit recreates them in B's kernel
// field by field; updates follow; when they end on A they leave B's cache, and
// stay in B's kernel.
func TestAttributes(t *testing.T) {
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRig(t, p, nil)
		r.ok(r.two.A.EnableLabels())
		r.ok(r.two.B.EnableLabels())
		r.start()
		w := r.flood(r.two.A)
		flows := catalogue()

		_, err := w.Create(each(flows))
		r.ok(err)
		r.cachesAgree(r.a, r.b, len(flows))
		r.internalEqualsKernel(r.a)

		r.request(r.b, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 5, Committer: p.b})

		for i := range flows {
			f := &flows[i]
			f.Mark = uint32(1000 + i)
			f.Status |= seen
			if f.Proto == flood.TCP && f.State == 3 {
				f.State = 7
			}
			if f.Labels != nil {
				f.Labels[0] |= 0x40
			}
		}
		_, err = w.Update(each(flows))
		r.ok(err)
		r.cachesAgree(r.a, r.b, len(flows))
		r.internalEqualsKernel(r.a)
		r.request(r.b, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 5, Committer: p.b})

		// Half of them end, then the rest.
		half := each(flows)
		half.To /= 2
		_, err = w.Delete(half)
		r.ok(err)
		r.cachesAgree(r.a, r.b, len(flows)-half.To)
		half.From, half.To = half.To, len(flows)
		_, err = w.Delete(half)
		r.ok(err)
		r.cachesAgree(r.a, r.b, 0)
		if n := r.count(r.b); n != len(flows) {
			t.Errorf("%d entries in the standby's kernel, want the %d committed", n, len(flows))
		}
	})
}

// internalEqualsKernel compares a daemon's internal cache with its kernel.
func (r *rig) internalEqualsKernel(d *nettest.Daemon) {
	r.Helper()
	r.eventually("internal cache = kernel", func() error {
		internal, err := d.Internal(r.Context())
		if err != nil {
			return err
		}
		kernel, err := d.Node.Kernel()
		if err != nil {
			return err
		}
		return nettest.DiffInternal(kernel, internal).Err()
	})
}

// TestAttributesByTool repeats the essence with entries made by the conntrack
// tool, as an admin would, over UDP on IPv6.
func TestAttributesByTool(t *testing.T) {
	commands := [][]string{
		{"-I", "-p", "tcp", "-s", "10.9.0.1", "-d", "10.8.0.1", "--sport", "1", "--dport", "80", "--state", "ESTABLISHED", "-u", "SEEN_REPLY,ASSURED", "-t", "1000"},
		{"-I", "-p", "tcp", "-s", "10.9.0.1", "-d", "10.8.0.1", "--sport", "2", "--dport", "80", "--state", "SYN_SENT", "-t", "1000", "-m", "5"},
		{"-I", "-p", "tcp", "-s", "10.9.0.1", "-d", "10.8.0.1", "--sport", "3", "--dport", "80", "--state", "ESTABLISHED", "-u", "SEEN_REPLY,ASSURED", "-t", "1000",
			"-n", "203.0.113.1:1234", "-g", "198.51.100.1:8080"},
		{"-I", "-p", "udp", "-s", "fd09::1", "-d", "fd08::1", "--sport", "4", "--dport", "53", "-t", "1000", "-w", "4", "-n", "2001:db8::1"},
		{"-I", "-p", "udp", "-s", "10.9.0.1", "-d", "10.8.0.1", "--sport", "4", "--dport", "53", "-t", "1000"},
		{"-I", "-p", "icmp", "-s", "10.9.0.1", "-d", "10.8.0.1", "--icmp-type", "8", "--icmp-code", "0", "--icmp-id", "77", "-t", "1000"},
		{"-I", "-p", "icmpv6", "-s", "fd09::1", "-d", "fd08::1", "--icmpv6-type", "128", "--icmpv6-code", "0", "--icmpv6-id", "78", "-t", "1000"},
		{"-I", "-p", "sctp", "-s", "10.9.0.1", "-d", "10.8.0.1", "--sport", "5", "--dport", "6", "--state", "ESTABLISHED", "--orig-vtag", "7", "--reply-vtag", "8", "-t", "1000"},
	}
	forPairings(t, func(t *testing.T, p pairing) {
		r := newRig(t, p, func(a, b *nettest.Config) {
			va, vb := nettest.SyncConfigs(true)
			a.Local, a.Peer, b.Local, b.Peer = va.Local, va.Peer, vb.Local, vb.Peer
		}).start()
		for _, c := range commands {
			_, err := r.two.A.Run("conntrack", c...)
			r.ok(err)
		}
		r.cachesAgree(r.a, r.b, len(commands))
		r.request(r.b, "-c")
		r.sameKernels(r.two.A, r.two.B, nettest.KernelDiff{Tolerance: 5, Committer: p.b})

		_, err := r.two.A.Run("conntrack", "-U", "-p", "udp", "-s", "10.9.0.1", "-m", "9")
		r.ok(err)
		_, err = r.two.A.Run("conntrack", "-D", "-p", "udp", "-s", "fd09::1")
		r.ok(err)
		r.cachesAgree(r.a, r.b, len(commands)-1)
		external, err := r.b.External(r.Context())
		r.ok(err)
		marked := external.Only(func(e *nettest.Entry) bool { return e.Mark == 9 })
		if len(marked) != 1 {
			t.Errorf("%d flows have the new mark, want 1", len(marked))
		}
	})
}
