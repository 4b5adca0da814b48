package kernel

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// natRules makes a namespace track, translate, label and report flows without
// a rule for any of them.
const natRules = `
table inet t {
	chain nat1 { type nat hook prerouting priority -100; }
	chain nat2 { type nat hook postrouting priority 100; }
	chain labels { type filter hook forward priority 0; ct label set 1 counter; }
	chain track { type filter hook input priority 0; ct state established counter; }
}`

// ownNetNS moves the test into a network namespace of its own for as long as
// it runs. The thread is never unlocked, so that it ends with the test.
func ownNetNS(t testing.TB) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") == "true" {
		skip = t.Fatalf
	}
	if os.Geteuid() != 0 {
		skip("writing the conntrack table needs root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		skip("program missing: %v", err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		skip("no network namespace: %v", err)
	}
	setSysctl(t, "nf_conntrack_events", "1")
	nft(t, natRules)
}

func setSysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/netfilter/"+name, []byte(value), 0); err != nil {
		t.Fatalf("set sysctl: %v", err)
	}
}

func openWriter(t testing.TB, config WriterConfig) *Writer {
	t.Helper()
	w, err := OpenWriter(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close writer: %v", err)
		}
	})
	return w
}

// table reads the whole table by original tuple and zone.
func table(t testing.TB) map[flow.Key]flow.Flow {
	t.Helper()
	all := map[flow.Key]flow.Flow{}
	err := Dump(context.Background(), func(f *flow.Flow) error {
		all[f.Key] = *f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// commit writes flows and demands the same outcome of all.
func commit(t testing.TB, w *Writer, want Outcome, flows ...flow.Flow) {
	t.Helper()
	results := make([]Result, len(flows))
	if err := w.Commit(flows, results); err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Outcome != want {
			t.Errorf("flow %d %v: outcome %d (errno %v), want %d", i, show(&flows[i].Key), r.Outcome, r.Errno, want)
		}
	}
}

func show(k *flow.Key) string {
	src, dst := netip.AddrFrom16(k.Src), netip.AddrFrom16(k.Dst)
	if k.Family == flow.IPv4 {
		src, dst = netip.AddrFrom4([4]byte(k.Src[:])), netip.AddrFrom4([4]byte(k.Dst[:]))
	}
	return src.String() + " " + dst.String()
}

func addr(text string) (a flow.Addr) {
	copy(a[:], netip.MustParseAddr(text).AsSlice())
	return a
}

// newFlow is an answered flow of a protocol with sensible ports.
func newFlow(family, proto uint8) flow.Flow {
	f := flow.Flow{
		Key: flow.Key{Family: family, Proto: proto, Src: addr("10.1.0.2"), Dst: addr("10.2.0.2")},
		Has: flow.HasAddr | flow.HasProto | flow.HasStatus | flow.HasTimeout,

		Status:  flow.StatusSeenReply | flow.StatusAssured | flow.StatusConfirmed,
		Timeout: 300,
	}
	if family == flow.IPv6 {
		f.Src, f.Dst = addr("fd01::2"), addr("fd02::2")
	}
	switch {
	case proto == flow.ProtoICMP:
		f.Sport, f.Dport = 0x1234, 8<<8
	case proto == flow.ProtoICMPv6:
		f.Sport, f.Dport = 0x1234, 128<<8
	case f.HasRealPorts():
		f.Sport, f.Dport = 40000, 8080
	}
	if f.HasRealPorts() || f.IsICMP() || proto == flow.ProtoGRE {
		f.Has |= flow.HasPorts
	}
	switch proto {
	case flow.ProtoTCP:
		f.State = 3
		f.Has |= flow.HasState
	case flow.ProtoSCTP:
		f.State, f.Vtag = 4, [2]uint32{0x01020304, 0xa0b0c0d0}
		f.Has |= flow.HasState | flow.HasVtag
	}
	return f
}

// with returns a copy of f after change.
func with(f flow.Flow, changes ...func(*flow.Flow)) flow.Flow {
	for _, change := range changes {
		change(&f)
	}
	return f
}

func snat(f *flow.Flow) {
	f.Has |= flow.HasSNAT
	f.NAT.Src = addr("192.0.2.1")
	if f.Family == flow.IPv6 {
		f.NAT.Src = addr("2001:db8::1")
	}
}

func dnat(f *flow.Flow) {
	f.Has |= flow.HasDNAT
	f.NAT.Dst = addr("198.51.100.7")
	if f.Family == flow.IPv6 {
		f.NAT.Dst = addr("2001:db8:7::7")
	}
}

func spat(f *flow.Flow) { f.Has |= flow.HasSPAT; f.NAT.Sport = 61000 }
func dpat(f *flow.Flow) { f.Has |= flow.HasDPAT; f.NAT.Dport = 81 }

func mark(v uint32) func(*flow.Flow) {
	return func(f *flow.Flow) { f.Has |= flow.HasMark; f.Mark = v }
}

func sport(p uint16) func(*flow.Flow)         { return func(f *flow.Flow) { f.Sport = p } }
func timeout(seconds uint32) func(*flow.Flow) { return func(f *flow.Flow) { f.Timeout = seconds } }

func zone(z uint16) func(*flow.Flow) {
	return func(f *flow.Flow) { f.Has |= flow.HasZone; f.Zone = z }
}

func helper(name string) func(*flow.Flow) {
	return func(f *flow.Flow) { f.Has |= flow.HasHelper; copy(f.Helper[:], name) }
}

func labels(words ...uint32) func(*flow.Flow) {
	return func(f *flow.Flow) { f.Has |= flow.HasLabels; copy(f.Labels[:], words) }
}

func nft(t testing.TB, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("load nft rules: %v: %s", err, out)
	}
}

// tcpFlags reads the flags of both directions of every TCP entry, by the
// original source port: the decoder leaves them aside.
func tcpFlags(t *testing.T) map[uint16][2]uint8 {
	t.Helper()
	all := map[uint16][2]uint8{}
	var f flow.Flow
	err := new(Dumper).run(context.Background(), msgCtGet, nil, func(p *dumpParser) error {
		for p.next() {
			body := p.cur.body
			if err := DecodeFlow(body, &f); err != nil {
				return err
			}
			tcp := find(find(body[nfgenLen:], ctaProtoinfo), ctaProtoinfoTCP)
			all[f.Sport] = [2]uint8{find(tcp, ctaTCPFlagsOrig)[0], find(tcp, ctaTCPFlagsRepl)[0]}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// find returns the value of an attribute in a list, nil if it is not there.
func find(list []byte, want attr) []byte {
	for {
		a, v, rest, ok := nextAttr(list)
		if !ok {
			return nil
		}
		if a == want {
			return v
		}
		list = rest
	}
}

// watchDestroy subscribes to destroy events. The function returns how many
// have come since the last call; the kernel sends them during the request
// that causes them, so there is nothing to wait for.
func watchDestroy(t *testing.T) func() int {
	t.Helper()
	s, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.forceReadBuffer(writerBuffer); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.JoinGroup(unix.NFNLGRP_CONNTRACK_DESTROY); err != nil {
		t.Fatal(err)
	}
	r := newReceiver(s, answerBatch, answerSize)
	return func() (n int) {
		for r.receive(false) == nil {
			n += r.count
		}
		return n
	}
}

func TestCreateLeavesWhatExists(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	here := with(newFlow(flow.IPv4, flow.ProtoTCP), mark(1))
	commit(t, w, Created, here)
	commit(t, w, Updated, here) // the next commit begins with a probe
	inTheWay := newFlow(flow.IPv4, flow.ProtoTCP)
	inTheWay.Src = addr("10.9.9.9")
	inTheWay = with(inTheWay, snat, func(f *flow.Flow) {
		f.Has |= flow.HasSPAT
		f.NAT.Src, f.NAT.Sport = here.Src, here.Sport // its replies would be here's
	})
	fresh := newFlow(flow.IPv6, flow.ProtoUDP)

	results := make([]Result, 3)
	if err := w.Create([]flow.Flow{with(here, mark(2)), inTheWay, fresh}, results); err != nil {
		t.Fatal(err)
	}
	want := []Result{{Errno: unix.EEXIST}, {Errno: unix.EEXIST}, {Outcome: Created}}
	if !slices.Equal(results, want) {
		t.Errorf("got %+v, want %+v", results, want)
	}
	all := table(t)
	if got := all[here.Key]; len(all) != 2 || got.Mark != 1 {
		t.Errorf("%d entries, mark %d; want 2 and 1", len(all), got.Mark)
	}
}
