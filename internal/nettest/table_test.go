package nettest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var compareAddr = cmpopts.EquateComparable(netip.Addr{})

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestParseEntry(t *testing.T) {
	tests := map[string]struct {
		line string
		want Entry
	}{
		"kernel tcp with everything": {
			"ipv4     2 tcp      6 431999 ESTABLISHED src=10.1.0.2 dst=10.1.0.1 sport=40001 dport=80 src=10.2.0.2 dst=10.2.0.1 sport=8080 dport=50000 [ASSURED] mark=5 zone=3 helper=ftp use=1 id=2874087472",
			Entry{
				Key:     Key{Proto: 6, Tuple: Tuple{Src: addr("10.1.0.2"), Dst: addr("10.1.0.1"), Sport: 40001, Dport: 80}, Zone: 3},
				Timeout: 431999, State: "ESTABLISHED", HasReply: true, Assured: true, Mark: 5, Helper: "ftp", Use: 1, ID: 2874087472, Active: -1,
				Reply: Tuple{Src: addr("10.2.0.2"), Dst: addr("10.2.0.1"), Sport: 8080, Dport: 50000},
			},
		},
		"kernel icmp with an entry id": {
			"ipv4     2 icmp     1 29 src=10.1.0.2 dst=10.2.0.2 type=8 code=0 id=4711 src=10.2.0.2 dst=10.1.0.2 type=0 code=0 id=4711 mark=0 use=1 id=77",
			Entry{
				Key:     Key{Proto: 1, Tuple: Tuple{Src: addr("10.1.0.2"), Dst: addr("10.2.0.2"), Type: 8, ID: 4711}},
				Timeout: 29, HasReply: true, Use: 1, ID: 77, Active: -1,
				Reply: Tuple{Src: addr("10.2.0.2"), Dst: addr("10.1.0.2"), ID: 4711},
			},
		},
		"internal cache, unreplied": {
			"udp      17 src=192.168.1.10 dst=10.0.5.20 sport=42461 dport=9999 [UNREPLIED] src=10.0.5.20 dst=192.168.1.10 sport=9999 dport=42461 mark=0 delta-time=1 [active since 24s]",
			Entry{
				Key:     Key{Proto: 17, Tuple: Tuple{Src: addr("192.168.1.10"), Dst: addr("10.0.5.20"), Sport: 42461, Dport: 9999}},
				Timeout: -1, HasReply: true, Unreplied: true, Active: 24,
				Reply: Tuple{Src: addr("10.0.5.20"), Dst: addr("192.168.1.10"), Sport: 9999, Dport: 42461},
			},
		},
		"external cache, icmpv6": {
			"icmpv6   58 src=fd00:1::10 dst=fd00:5::20 type=128 code=0 id=4712 [expires in 4s] [active since 2s]",
			Entry{
				Key:     Key{Proto: 58, Tuple: Tuple{Src: addr("fd00:1::10"), Dst: addr("fd00:5::20"), Type: 128, ID: 4712}},
				Timeout: -1, Active: 2,
			},
		},
		"external cache of a group": {
			"udp      17 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] [active since 2s] [from fd00:100::3]",
			Entry{Key: Key{Proto: 17, Tuple: Tuple{Src: addr("1.1.1.1"), Dst: addr("2.2.2.2"), Sport: 1, Dport: 2}}, Timeout: -1, Unreplied: true, Active: 2, From: addr("fd00:100::3")},
		},
		"gre": {
			"gre      47 src=1.1.1.1 dst=2.2.2.2 srckey=0x1 dstkey=0x20 [active since 24s]",
			Entry{Key: Key{Proto: 47, Tuple: Tuple{Src: addr("1.1.1.1"), Dst: addr("2.2.2.2"), Sport: 1, Dport: 0x20}}, Timeout: -1, Active: 24},
		},
		"a protocol without ports": {
			"unknown  50 src=1.1.1.1 dst=2.2.2.3 [active since 23s]",
			Entry{Key: Key{Proto: 50, Tuple: Tuple{Src: addr("1.1.1.1"), Dst: addr("2.2.2.3")}}, Timeout: -1, Active: 23},
		},
		"direction zones, offloaded, counters": {
			"udp      17 src=1.1.1.1 dst=2.2.2.3 sport=1 dport=2 zone-orig=4 packets=1 bytes=30 src=2.2.2.3 dst=1.1.1.1 sport=2 dport=1 zone-reply=5 packets=1 bytes=30 [OFFLOAD]",
			Entry{
				Key:     Key{Proto: 17, Tuple: Tuple{Src: addr("1.1.1.1"), Dst: addr("2.2.2.3"), Sport: 1, Dport: 2}},
				Timeout: -1, Active: -1, HasReply: true, ZoneOrig: 4, ZoneReply: 5, Offload: "OFFLOAD",
				Reply: Tuple{Src: addr("2.2.2.3"), Dst: addr("1.1.1.1"), Sport: 2, Dport: 1},
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseEntry(tt.line)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&tt.want, got, compareAddr); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseRefusesNonsense(t *testing.T) {
	good := "udp      17 src=1.1.1.1 dst=2.2.2.3 sport=1 dport=2"
	for _, text := range []string{
		"\n",
		"udp\n",
		"udp 300 src=1.1.1.1 dst=2.2.2.2\n",
		"udp 17 sport=1 dport=2\n",
		"udp 17 src=nowhere dst=2.2.2.2\n",
		good + " surprise=1\n",
		good + " [SURPRISE]\n",
		good + " sport=many\n",
		good + " [active since long]\n",
		good + " [from nobody]\n",
		good + "\n" + good + "\n",
		good + "\n\n",
	} {
		if got, err := ParseTable(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
	if got, err := ParseTable(""); err != nil || len(got) != 0 {
		t.Errorf("empty text: %v, %v", got, err)
	}
}

// TestParseTables: nodes may tell of the same flow, each once.
func TestParseTables(t *testing.T) {
	flow := func(sport int, from string) string {
		return fmt.Sprintf("udp      17 src=1.1.1.1 dst=2.2.2.2 sport=%d dport=2 [active since 1s]%s\n", sport, from)
	}
	const a, b = " [from 192.0.2.1]", " [from 192.0.2.2]"
	all, err := ParseTables(flow(1, a) + flow(1, b) + flow(2, b))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || len(all[addr("192.0.2.1")]) != 1 || len(all[addr("192.0.2.2")]) != 2 {
		t.Errorf("read as %v", all)
	}
	for _, text := range []string{flow(1, ""), flow(1, a) + flow(1, a), "nonsense"} {
		if got, err := ParseTables(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
	if _, err := ParseTable(flow(1, a) + flow(1, b)); err == nil {
		t.Error("one table has a flow twice")
	}
}

// entries returns two equal entries that a case of a diff test then changes.
func entries() (Table, Table, *Entry) {
	base := func() *Entry {
		return &Entry{
			Key:     Key{Proto: 6, Tuple: Tuple{Src: addr("10.1.0.2"), Dst: addr("10.2.0.2"), Sport: 1, Dport: 2}},
			Timeout: 100, State: "ESTABLISHED", HasReply: true, Assured: true, Raw: &RawEntry{Status: 0x18e},
			Reply: Tuple{Src: addr("10.2.0.2"), Dst: addr("10.1.0.2"), Sport: 2, Dport: 1},
		}
	}
	a, b := base(), base()
	return Table{a.Key: a}, Table{b.Key: b}, b
}

func TestKernelDiffSeesEveryField(t *testing.T) {
	if a, b, _ := entries(); (KernelDiff{}).Tables(a, b).Err() != nil {
		t.Fatal("equal tables differ")
	}
	for name, change := range map[string]func(*Entry){
		"state":          func(e *Entry) { e.State = "CLOSE" },
		"unreplied":      func(e *Entry) { e.Unreplied = true },
		"assured":        func(e *Entry) { e.Assured = false },
		"mark":           func(e *Entry) { e.Mark = 1 },
		"helper":         func(e *Entry) { e.Helper = "ftp" },
		"reply tuple":    func(e *Entry) { e.Reply.Dport = 9 },
		"zone-orig":      func(e *Entry) { e.ZoneOrig = 1 },
		"timeout":        func(e *Entry) { e.Timeout += 4 },
		"status":         func(e *Entry) { e.Raw.Status |= 1 << 13 },
		"labels":         func(e *Entry) { e.Raw.Labels = "\x01" },
		"seq":            func(e *Entry) { e.Raw.SeqAdj[1].Position = 1 },
		"synproxy":       func(e *Entry) { e.Raw.Synproxy.ISN = 1 },
		"master":         func(e *Entry) { e.Raw.Master = "x" },
		"sctp tags":      func(e *Entry) { e.Raw.SCTPVtag[1] = 1 },
		"window scale":   func(e *Entry) { e.Raw.WScale[0] = 7 },
		"netlink dump":   func(e *Entry) { e.Raw = nil },
		"translated bit": func(e *Entry) { e.Raw.Status |= 1 << 4 },
	} {
		a, b, e := entries()
		change(e)
		if (KernelDiff{Tolerance: 3, Windows: true}).Tables(a, b).Err() == nil {
			t.Errorf("a different %s is not seen", name)
		}
	}
}

func TestKernelDiffAllowances(t *testing.T) {
	a, b, e := entries()
	e.Timeout -= 3
	e.Raw.WScale[0] = 7
	e.Raw.TCPFlags[0] = 8
	e.Raw.Status &^= 1<<7 | 1<<8 // settled without translation
	if err := (KernelDiff{Tolerance: 3}).Tables(a, b).Err(); err != nil {
		t.Errorf("allowed differences are seen: %v", err)
	}
	for _, x := range []*Entry{a[e.Key], e} {
		x.Proto, x.Raw.SCTPVtag = 132, [2]uint32{0x11223344, 5}
	}
	e.Raw.SCTPVtag[0] = 0x11223308
	for kind, equal := range map[Kind]bool{C: true, Go: false} {
		err := (KernelDiff{Tolerance: 3, Committer: kind}).Tables(a, b).Err()
		if (err == nil) != equal {
			t.Errorf("committed by %s: %v", kind, err)
		}
	}
}

func TestDiffCaches(t *testing.T) {
	internal, external, e := entries()
	e.HasReply, e.Reply, e.Timeout = false, Tuple{}, -1
	if err := DiffCaches(internal, external).Err(); err != nil {
		t.Errorf("an external cache has no reply tuple: %v", err)
	}
	e.Mark = 4
	other := *e
	other.Sport = 99
	external[other.Key] = &other
	lonely := other
	lonely.Sport = 98
	internal[lonely.Key] = &lonely
	err := DiffCaches(internal, external).Err()
	if err == nil {
		t.Fatal("no differences")
	}
	for _, want := range []string{"3 differences", "10.1.0.2:1 > 10.2.0.2:2: in the external cache mark 4, not 0",
		":98 > 10.2.0.2:2: missing in the external cache", ":99 > 10.2.0.2:2: in the external cache but not in the internal cache"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
