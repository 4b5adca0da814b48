package confparse

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// syncOf is a section that could be that of a node of a group; no warning is
// due with it.
func syncOf(mode, links string) string {
	return "General { UNIX { Path /s } } Sync { Mode " + mode + " " + links + " }\n"
}

const (
	udp4   = "UDP { Interface eth2 Port 3780 IPv4_address 192.0.2.1 } "
	udp6   = "UDP { Interface eth2 Port 3780 IPv6_address fd00::1 } "
	udp4to = "UDP { Interface eth2 Port 3780 IPv4_address 192.0.2.1 IPv4_Destination_Address 192.0.2.2 } "
	mcast4 = "Multicast { Interface eth2 Group 3780 IPv4_address 225.0.0.50 } "
	tcp4   = "TCP { Interface eth2 Port 3780 IPv4_address 192.0.2.1 IPv4_Destination_Address 192.0.2.2 } "
)

func addrs(list ...string) (addrs []netip.Addr) {
	for _, a := range list {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

func groupEffects(add func(string, string, func(*Config))) {
	group := func(peers ...string) func(*Config) {
		return func(c *Config) {
			c.Node.Group, c.Links[0].Group, c.Links[0].Peers = true, true, addrs(peers...)
			c.refusals = nil
		}
	}
	pair, many, six := syncOf("FTFW { }", udp4to), syncOf("FTFW { }", mcast4), syncOf("FTFW { }", udp6)
	add("Conntrackgo/Group", pair+"Conntrackgo { |Group on | }", group("192.0.2.2"))
	add("Conntrackgo/Group", pair+"Conntrackgo { |Group off Group on | }", group("192.0.2.2"))
	add("Conntrackgo/Group", pair+"Conntrackgo { |Group on Group off | }", func(*Config) {})
	add("Conntrackgo/Group", many+"Conntrackgo { |Group on | }", group())
	add("Conntrackgo/Peers", pair+"Conntrackgo { |Group on Peers { } | }", group("192.0.2.2"))
	add("Conntrackgo/Peers", "Conntrackgo { |Peers { } Peers { } Group on | }"+pair, group("192.0.2.2"))
	for peers, want := range map[string][]string{
		"IPv4_address 192.0.2.3 IPv4_address 192.0.2.4": {"192.0.2.2", "192.0.2.3", "192.0.2.4"},
		// Each once, the destination being one of them.
		"IPv4_address 192.0.2.3 IPv4_address 192.0.2.2 IPv4_address 192.0.2.3": {"192.0.2.2", "192.0.2.3"},
		"IPv4_address 127.0.0.1 IPv4_address 169.254.7.7":                      {"192.0.2.2", "127.0.0.1", "169.254.7.7"},
	} {
		add("Conntrackgo/Peers/IPv4_address", pair+"Conntrackgo { |Group on Peers { "+peers+" } | }", group(want...))
		add("Conntrackgo/Peers/IPv4_address", "|Conntrackgo { Peers { "+peers+" } Group on } |"+pair, group(want...))
	}
	add("Conntrackgo/Peers/IPv4_address", "|Conntrackgo { Peers { IPv4_address 192.0.2.9 } Group on Peers { IPv4_address 192.0.2.8 } } |"+
		syncOf("FTFW { }", udp4), group("192.0.2.9", "192.0.2.8"))
	add("Conntrackgo/Peers/IPv6_address", six+"Conntrackgo { |Group on Peers { IPv6_address fd00::2 IPv6_address fe80::3 } | }", group("fd00::2", "fe80::3"))
	add("Conntrackgo/Peers/IPv6_address", six+"Conntrackgo { |Group on Peers { IPv6_address fd00:0::2 IPv6_address fd00::2 } | }", group("fd00::2"))
}

// refusal is a file that does not start, and what must be said of it.
type refusal struct {
	text  string
	names []string
}

func groupRefusals() []refusal {
	const on, three = "Conntrackgo { Group on }", "Conntrackgo { Group on Peers { IPv4_address 192.0.2.2 IPv4_address 192.0.2.3 } }"
	list := []refusal{
		{syncOf("ALARM { }", mcast4) + on, []string{"Group", "Mode ALARM"}},
		{syncOf("NOTRACK { }", mcast4) + on, []string{"Group", "Mode NOTRACK"}},
		{"Stats { } " + on, []string{"Group", "Stats"}},
		{syncOf("FTFW { }", tcp4) + on, []string{"Group", "TCP"}},
		{syncOf("FTFW { }", mcast4+mcast4) + on, []string{"Group", "several links"}},
		{syncOf("FTFW { }", udp4to+udp4to) + on, []string{"Group", "several links"}},
		{syncOf("FTFW { } Mode NOTRACK { DisableInternalCache on }", mcast4) + on, []string{"Group", "DisableInternalCache"}},
		{syncOf("FTFW { DisableExternalCache on }", mcast4) + on, []string{"Group", "DisableExternalCache"}},
		{syncOf("FTFW { }", mcast4) + "Conntrackgo { Group on HoldInjected on }", []string{"Group", "HoldInjected"}},
		{syncOf("FTFW { DisableExternalCache on }", mcast4) + "Conntrackgo { Group on HoldInjected on }", []string{"Group", "HoldInjected"}},
		{syncOf("FTFW { }", mcast4) + "Conntrackgo { Group on Snapshot /x }", []string{"Group", "Snapshot"}},
		{syncOf("FTFW { }", udp4to) + "Conntrackgo { Peers { IPv4_address 192.0.2.3 } }", []string{"Peers", "Group on"}},
		{syncOf("FTFW { }", udp4to) + "Conntrackgo { Peers { } Group on Group off }", []string{"Peers", "Group on"}},
		{syncOf("FTFW { }", mcast4) + three, []string{"Peers", "Multicast"}},
		{syncOf("FTFW { }", mcast4) + "Conntrackgo { Group on Peers { } }", []string{"Peers", "Multicast"}},
		{syncOf("FTFW { }", udp4) + on, []string{"Group", "UDP", "without any peer"}},
		{syncOf("FTFW { }", udp4) + "Conntrackgo { Group on Peers { } }", []string{"Group", "UDP", "without any peer"}},
		{syncOf("FTFW { }", udp6) + three, []string{"192.0.2.2", "IPv6", "one family"}},
		{syncOf("FTFW { }", udp4to) + "Conntrackgo { Group on Peers { IPv6_address fd00::2 } }", []string{"fd00::2", "IPv4", "one family"}},
		{syncOf("FTFW { }", "UDP { Interface eth2 Port 1 IPv6_Destination_Address fd00::2 IPv4_address 192.0.2.1 }") + three, []string{"fd00::2", "one family"}},
		{syncOf("FTFW { }", udp4to) + "Conntrackgo { Group on Peers { IPv4_address 192.0.2.1 } }", []string{"192.0.2.1", "this node"}},
		{syncOf("FTFW { }", "UDP { Interface eth2 Port 1 IPv4_address 192.0.2.1 IPv4_Destination_Address 192.0.2.1 }") + three, []string{"192.0.2.1", "this node"}},
		{syncOf("FTFW { }", "UDP { Interface eth2 Port 1 }") + three, []string{"no address"}},
		{syncOf("FTFW { }", udp4to) + "Conntrackgo { Group on " + somePeers(3, 15) + " }", []string{"Group", "16 peers", "15"}},
	}
	return list
}

// somePeers is a Peers block of n addresses from 192.0.2.first on.
func somePeers(first, n int) string {
	text := "Peers { "
	for i := range n {
		text += fmt.Sprintf("IPv4_address 192.0.2.%d ", first+i)
	}
	return text + "}"
}

func TestGroupRefusals(t *testing.T) {
	texts := map[string]bool{}
	for _, r := range groupRefusals() {
		cfg, _ := mustParse(t, r.text) // clients are not concerned
		err := cfg.CheckStart()
		if err == nil {
			t.Errorf("starts: %s", r.text)
			continue
		}
		checkPlace(t, err)
		for _, name := range r.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s\n%v\nnothing of %q", r.text, err, name)
			}
		}
		texts[err.Error()] = true
	}
	if len(texts) < 15 {
		t.Errorf("only %d sentences", len(texts))
	}
}

// TestGroupRefusalsAreGroups: without Group each of these files starts, but
// for those that are about Peers or have no address.
func TestGroupRefusalsAreGroups(t *testing.T) {
	for _, r := range groupRefusals() {
		if strings.Contains(r.text, "Peers") {
			continue
		}
		cfg, _ := mustParse(t, strings.ReplaceAll(r.text, "Group on", ""))
		if err := cfg.CheckStart(); err != nil || cfg.Node.Group {
			t.Errorf("%s\nwithout Group: %v", r.text, err)
		}
	}
}

func TestGroupPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"Conntrackgo {\nGroup on }\n" + syncOf("ALARM { }", mcast4):                                                                                       "x:2:7: ",
		"Conntrackgo {\nGroup on\n Peers {\nIPv4_address 192.0.2.1 } }\n" + syncOf("FTFW { }", udp4to):                                                    "x:4:14: ",
		"Conntrackgo {\nPeers { }\n Peers { } }\n" + syncOf("FTFW { }", udp4to):                                                                           "x:2:1: ",
		"Conntrackgo {\nGroup on\n HoldInjected on }\n" + syncOf("FTFW { DisableExternalCache on }", mcast4):                                              "x:3:15: ",
		"Conntrackgo { Group on\n Peers { } }\n" + syncOf("FTFW { }", mcast4):                                                                             "x:2:2: ",
		"Conntrackgo { Group on }\nSync { Mode FTFW { }\n UDP { Interface eth2 Port 1 IPv4_address 192.0.2.1 " + "IPv4_Destination_Address 192.0.2.1 } }": "x:3:2: ",
	} {
		cfg, _ := mustParse(t, text)
		if err := cfg.CheckStart(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s\n%v, want it at %s", text, err, want)
		}
	}
}

// TestGroupWithoutDestination: who the peers are says Peers, so nobody is to be
// warned that there is no destination; but for other things.
func TestGroupWithoutDestination(t *testing.T) {
	text := syncOf("FTFW { }", strings.Replace(udp4, "Port 3780", "", 1))
	said := func(text string) (texts string) {
		_, warnings := mustParse(t, text)
		for _, w := range warnings {
			texts += w.String() + "\n"
		}
		return texts
	}
	alone, both := said(text), said(text+"Conntrackgo { Group on Peers { IPv4_address 192.0.2.2 } }")
	if !strings.Contains(alone, "no destination address") || !strings.Contains(alone, "no Port") {
		t.Errorf("warnings of a pair: %s", alone)
	}
	if strings.Contains(both, "no destination address") || !strings.Contains(both, "no Port") {
		t.Errorf("warnings of a group: %s", both)
	}
	if got := said(syncOf("FTFW { }", udp4) + "Conntrackgo { Group on }"); !strings.Contains(got, "no destination address") {
		t.Errorf("a group without anybody: %s", got)
	}
	if got := said(syncOf("FTFW { }", mcast4) + "Conntrackgo { Group on HoldInjected on }"); got != "" {
		t.Errorf("advice that does not help: %s", got)
	}
}

func TestGroupOfSixteen(t *testing.T) {
	cfg, warnings := mustParse(t, syncOf("FTFW { }", udp4to)+"Conntrackgo { Group on "+somePeers(2, 15)+" }")
	if err := cfg.CheckStart(); err != nil || len(warnings) > 0 || len(cfg.Links[0].Peers) != 15 {
		t.Errorf("%d peers: %v %v", len(cfg.Links[0].Peers), err, warnings)
	}
}

// TestPeerVersionOfPeers: a member of the group is nobody unknown.
func TestPeerVersionOfPeers(t *testing.T) {
	const version = "PeerVersion 192.0.2.3 1.4.6"
	_, warnings := mustParse(t, syncOf("FTFW { }", udp4to)+"Conntrackgo { Group on Peers { IPv4_address 192.0.2.3 } "+version+" }")
	if len(warnings) > 0 {
		t.Errorf("warnings %v", warnings)
	}
	if _, warnings = mustParse(t, syncOf("FTFW { }", udp4to)+"Conntrackgo { "+version+" }"); len(warnings) != 1 {
		t.Errorf("of a stranger: %v", warnings)
	}
}

// TestSamples: what is in contrib starts, without a word.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob("../../contrib/*.conf")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	transports := map[link.Transport]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg, warnings := mustParse(t, string(text))
		if err := cfg.CheckStart(); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %v", file, err, warnings)
		}
		l := cfg.Links[0]
		transports[l.Transport] = true
		if !cfg.Node.Group || !l.Group || cfg.Node.Mode != node.FTFW {
			t.Errorf("%s: group %v, mode %s", file, cfg.Node.Group, cfg.Node.Mode)
		}
		if want := addrs("192.168.100.2", "192.168.100.3"); l.Transport == link.UDP && !slices.Equal(l.Peers, want) {
			t.Errorf("%s: peers %v, want %v", file, l.Peers, want)
		}
	}
	if !transports[link.UDP] || !transports[link.Multicast] || len(transports) != 2 {
		t.Errorf("transports %v", transports)
	}
}
