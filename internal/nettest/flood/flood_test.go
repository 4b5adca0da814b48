package flood_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
	"golang.org/x/sys/unix"
)

func open(t *testing.T) (*nettest.Node, *flood.Writer) {
	t.Helper()
	lab := nettest.Get(t)
	n, err := lab.NewNode("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.EnableLabels(); err != nil {
		t.Fatal(err)
	}
	w, err := flood.Open(n.Do)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return n, w
}

func one(f flood.Flow) flood.Load {
	return flood.Load{To: 1, Flow: func(_ int, g *flood.Flow) { *g = f }}
}

// TestCreateSetsEverything reads back with the conntrack tool and ti-mo's
// decoder what was written.
func TestCreateSetsEverything(t *testing.T) {
	n, w := open(t)
	a4, b4 := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.8.0.1")
	a6, b6 := netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd08::1")
	tests := map[string]struct {
		flow   flood.Flow
		reply  nettest.Tuple
		state  string
		status uint32
	}{
		"tcp": {
			flow: flood.Flow{Proto: flood.TCP, Src: a4, Dst: b4, Sport: 1, Dport: 2, Timeout: 500, State: 3,
				Status: flood.SeenReply | flood.Assured, Mark: 7, Zone: 5, Labels: []byte{8, 0, 0, 0},
				SNAT: netip.MustParseAddrPort("1.2.3.4:55"), DNAT: netip.MustParseAddrPort("5.6.7.8:66")},
			reply:  nettest.Tuple{Src: netip.MustParseAddr("5.6.7.8"), Dst: netip.MustParseAddr("1.2.3.4"), Sport: 66, Dport: 55},
			state:  "ESTABLISHED",
			status: 0x1be, // seen, assured, confirmed, both NAT, both done
		},
		"udp6": {
			flow:   flood.Flow{Proto: flood.UDP, Src: a6, Dst: b6, Sport: 1, Dport: 2, Timeout: 500, SNAT: netip.MustParseAddrPort("[fd00::7]:0")},
			reply:  nettest.Tuple{Src: b6, Dst: netip.MustParseAddr("fd00::7"), Sport: 2, Dport: 1},
			status: 0x198,
		},
		"icmp": {
			flow:   flood.Flow{Proto: flood.ICMP, Src: a4, Dst: b4, Sport: 77, Type: 8, Timeout: 500},
			reply:  nettest.Tuple{Src: b4, Dst: a4, ID: 77, Type: 0},
			status: flood.Confirmed,
		},
		"icmpv6": {
			flow:   flood.Flow{Proto: flood.ICMPv6, Src: a6, Dst: b6, Sport: 77, Type: 128, Timeout: 500},
			reply:  nettest.Tuple{Src: b6, Dst: a6, ID: 77, Type: 129},
			status: flood.Confirmed,
		},
		"sctp": {
			flow:   flood.Flow{Proto: flood.SCTP, Src: a4, Dst: b4, Sport: 1, Dport: 2, Timeout: 500, State: 4, Vtag: [2]uint32{0x1234, 0x5678}},
			reply:  nettest.Tuple{Src: b4, Dst: a4, Sport: 2, Dport: 1},
			state:  "ESTABLISHED",
			status: flood.Confirmed,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := w.Create(one(tt.flow)); err != nil {
				t.Fatal(err)
			}
			table, err := n.Kernel()
			if err != nil {
				t.Fatal(err)
			}
			if len(table) != 1 {
				t.Fatalf("%d entries", len(table))
			}
			for _, e := range table {
				if e.Reply != tt.reply || e.State != tt.state || e.Mark != tt.flow.Mark || e.Zone != tt.flow.Zone {
					t.Errorf("got %+v", e)
				}
				if e.Raw == nil || e.Raw.Status != tt.status || e.Raw.SCTPVtag != tt.flow.Vtag {
					t.Fatalf("raw %+v, want status %#x", e.Raw, tt.status)
				}
				if tt.flow.Labels != nil && !strings.HasPrefix(e.Raw.Labels, string(tt.flow.Labels)) {
					t.Errorf("labels %x", e.Raw.Labels)
				}
				if e.Timeout < 490 || e.Timeout > 500 {
					t.Errorf("timeout %d", e.Timeout)
				}
			}
			if _, err := w.Delete(one(tt.flow)); err != nil {
				t.Fatal(err)
			}
			if left, err := n.Count(); left != 0 || err != nil {
				t.Errorf("%d entries left, %v", left, err)
			}
		})
	}
}

func TestErrorsAreCounted(t *testing.T) {
	_, w := open(t)
	load := flood.Load{To: 300, Flow: func(i int, f *flood.Flow) {
		// Every third flow repeats its predecessor's tuple.
		if i%3 == 2 {
			i--
		}
		*f = flood.Flow{Proto: flood.UDP, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Sport: uint16(i), Dport: 9, Timeout: 100}
	}}
	r, err := w.Create(load)
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("error %v", err)
	}
	if r.OK != 200 || r.Failed[unix.EEXIST] != 100 || len(r.Failed) != 1 {
		t.Errorf("result %+v", r)
	}
	r, err = w.Update(load)
	if err != nil || r.OK != 300 {
		t.Errorf("update: %+v, %v", r, err)
	}
	r, err = w.Delete(load)
	if !errors.Is(err, unix.ENOENT) || r.OK != 200 {
		t.Errorf("delete: %+v, %v", r, err)
	}
}

func TestRateIsKept(t *testing.T) {
	_, w := open(t)
	r, err := w.Create(flood.Load{To: 1000, Rate: 5000, Flow: func(i int, f *flood.Flow) {
		*f = flood.Flow{Proto: flood.UDP, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Sport: uint16(i), Dport: 9, Timeout: 100}
	}})
	if err != nil {
		t.Fatal(err)
	}
	// Never faster; how much slower depends on the machine.
	if r.Took < 190*time.Millisecond || r.Took > 5*time.Second {
		t.Errorf("1000 requests at 5000 a second took %v", r.Took)
	}
}

// TestMixed: the kernel takes every flow, and no two of them meet.
func TestMixed(t *testing.T) {
	n, w := open(t)
	const flows = 1024
	for i, do := range []func(flood.Load) (flood.Result, error){w.Create, w.Update, w.Delete} {
		result, err := do(flood.MixedFlows(0, flows, uint32(i)))
		if err != nil || result.OK != flows {
			t.Fatalf("request %d: %+v, %v", i, result, err)
		}
		if i == 2 {
			break
		}
		table, err := n.Kernel()
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		for key, e := range table {
			if e.Mark>>20 != uint32(i) {
				t.Fatalf("%v has mark %#x after %d changes", key, e.Mark, i)
			}
			mirrored := e.Reply.Src == key.Dst && e.Reply.Dst == key.Src && e.Reply.Sport == key.Dport && e.Reply.Dport == key.Sport
			kinds[fmt.Sprintf("proto %d, IPv4 %v, translated %v", key.Proto, key.Src.Is4(), !mirrored && !isICMP(key.Proto))]++
		}
		if len(table) != flows || len(kinds) != 10 {
			t.Errorf("%d flows in the kernel: %v", len(table), kinds)
		}
	}
}

func isICMP(proto uint8) bool { return proto == flood.ICMP || proto == flood.ICMPv6 }
