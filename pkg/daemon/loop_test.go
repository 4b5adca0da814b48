package daemon

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// ownNetNS moves the test into a network namespace of its own, for good.
func ownNetNS(t *testing.T) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") == "true" {
		skip = t.Fatalf
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		skip("no network namespace: %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		skip("ip: %v: %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_events", []byte("1"), 0); err != nil {
		skip("no conntrack events: %v", err)
	}
}

// TestTurnIsShared is what EventIterationLimit is for: with thousands of
// events and of datagrams waiting, a turn takes so many of each, and lets
// others in before it goes on.
func TestTurnIsShared(t *testing.T) {
	ownNetNS(t)
	own, peer := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	l, err := link.Open(link.Config{Transport: link.UDP, Interface: "lo", Local: own, Peer: peer, Port: 3780, ReceiveBuffer: 32 << 20})
	fatal(t, err)
	defer l.Close()
	d := newTestDaemon(t, l, io.Discard)
	defer d.end()
	s := d.sync
	s.events, err = kernel.OpenEvents(kernel.Config{BufferSize: 32 << 20, BufferMaxGrowth: 32 << 20}, kernel.FlowGroups...)
	fatal(t, err)
	defer s.events.Close()

	const events, datagrams = 3000, 2000
	writeFlows(t, events)
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 3780)))
	fatal(t, err)
	defer conn.Close()
	for i := range uint32(datagrams) {
		_, err := conn.Write(wire.AppendControl(nil, wire.Header{Seq: i + 1, Flags: wire.FlagALIVE}))
		fatal(t, err)
	}

	loop := &loop{d: d, events: make([]flow.Event, eventBatch), datagrams: link.NewBatch(linkBatch, linkDatagram)}
	everything := [sources]bool{sourceTimer: true, sourceEvents: true, sourceLink: true}
	var took turn
	limit := time.Now().Add(20 * time.Second)
	for turns := 1; ; turns++ {
		last, err := loop.turn(&everything)
		fatal(t, err)
		if turns == 1 && (last.events != turnRounds*eventBatch || last.datagrams != turnRounds*linkBatch) {
			t.Errorf("the first turn took %d events and %d datagrams, want %d and %d", last.events, last.datagrams, turnRounds*eventBatch, turnRounds*linkBatch)
		}
		took.events += last.events
		took.datagrams += last.datagrams
		// The last datagrams may still be on their way through lo.
		if !last.more && took.datagrams >= datagrams {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("no end of turns: %d events and %d datagrams", took.events, took.datagrams)
		}
	}
	if took.events != events || took.datagrams != datagrams {
		t.Errorf("%d events and %d datagrams, want %d and %d", took.events, took.datagrams, events, datagrams)
	}
	if st := d.nodeStats(); st.Internal.Active != events {
		t.Errorf("%d entries, want %d", st.Internal.Active, events)
	}
}

// writeFlows makes n entries in the kernel's table.
func writeFlows(t *testing.T, n int) {
	t.Helper()
	w, err := kernel.OpenWriter(kernel.WriterConfig{})
	fatal(t, err)
	defer w.Close()
	flows, results := make([]flow.Flow, n), make([]kernel.Result, n)
	for i, ev := range someEvents(n) {
		f := &flows[i]
		f.Key = ev.Flow.Key
		f.Dst = [16]byte{172, 16, 0, 1}
		f.Has = flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasTimeout | flow.HasStatus
		f.Timeout, f.Status = 3000, flow.StatusConfirmed
	}
	fatal(t, w.Commit(flows, results))
	for i := range results {
		fatal(t, results[i].Err())
	}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
