package confparse

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/snapshot"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// diff compares two configs, what CheckStart says included.
func diff(want, got *Config) string {
	return cmp.Diff(want, got, cmp.AllowUnexported(Config{}),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

func mustParse(t testing.TB, text string) (*Config, []Warning) {
	t.Helper()
	cfg, warnings, err := Parse("x", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return cfg, warnings
}

// empty is what an empty file means, written out.
func empty() *Config {
	return &Config{
		Node: node.Config{
			HashSize:        65536,
			HashLimit:       262144,
			PurgeTimeout:    60 * time.Second,
			RefreshTime:     60 * time.Second,
			CacheTimeout:    180 * time.Second,
			ResendQueueSize: 131072,
			ACKWindowSize:   300,
		},
		Kernel:              kernel.Config{OverrunResync: 30 * time.Second},
		ErrorQueueLength:    128,
		LockFile:            "/var/lock/conntrackd.lock",
		EventIterationLimit: 100,
		Scheduler:           Scheduler{Policy: "RR", Priority: 99},
		Systemd:             true,
		CoalesceTime:        1500 * time.Microsecond,
		CommitVerify:        true,
		Snapshot:            snapshot.Config{MaxAge: time.Minute},
	}
}

func TestDefaults(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# nothing\n", "General { }", "General { Filter { } UNIX { } Scheduler { } }",
		"General { HashSize 0 HashLimit 0 EventIterationLimit 0 NetlinkOverrunResync 0 }",
		"General { HashSize 4294967296 NetlinkOverrunResync on LogFile off Syslog off }",
	} {
		cfg, _ := mustParse(t, text)
		if d := diff(empty(), cfg); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
	cfg, _ := mustParse(t, "Sync { RefreshTime 0 CacheTimeout 0 PurgeTimeout 0 CommitTimeout 0 Mode FTFW { ResendQueueSize 0 ACKWindowSize 0 }"+
		"TCP { ErrorQueueLength 0 Interface eth0 IPv4_address 1.2.3.4 } }")
	want := empty()
	want.Sync, want.Node.Mode = true, node.FTFW
	want.Links = []link.Config{{Transport: link.TCP, Interface: "eth0", Local: netip.MustParseAddr("1.2.3.4"), ErrorQueue: 128}}
	if d := diff(want, cfg); d != "" {
		t.Error(d)
	}
}

// effect is one keyword: a text with it and what differs from the same text
// without it.
type effect struct {
	row    string // block/keyword
	text   string // | starts and ends what is to be left out for comparison
	change func(*Config)
}

// in General and in a Sync with a complete link, which has the number 0.
func general(text string) string { return "General { |" + text + " | }" }
func syncs(text string) string {
	return "Sync { Mode FTFW { } UDP { Interface eth2 IPv4_address 1.2.3.4 } |" + text + " | } General { UNIX { Path /s } }"
}
func modeBlock(mode, text string) string {
	return "Sync { Mode " + mode + " { |" + text + " | } UDP { Interface eth2 IPv4_address 1.2.3.4 } }"
}
func links(kind, text string) string {
	base := "IPv4_address 225.0.0.50"
	if kind != "Multicast" {
		base = "IPv4_address 1.2.3.4 IPv4_Destination_Address 1.2.3.5"
	}
	return "Sync { Mode FTFW { } " + kind + " { " + base + " Interface eth2 |" + text + " | } }"
}

func effects() (list []effect) {
	add := func(row, text string, change func(*Config)) { list = append(list, effect{row, text, change}) }
	generalEffects(add)
	filterEffects(add)
	syncEffects(add)
	linkEffects(add)
	add("/Conntrackgo", "|Conntrackgo { } |", func(*Config) {})
	for text, want := range map[string]time.Duration{"0": 0, "250": 250 * time.Microsecond, "100000": 100 * time.Millisecond} {
		add("Conntrackgo/CoalesceTime", "Conntrackgo { |CoalesceTime "+text+" | }", func(c *Config) { c.CoalesceTime = want })
	}
	add("Conntrackgo/ReadyFile", "Conntrackgo { |ReadyFile /run/ready | }", func(c *Config) { c.ReadyFile = "/run/ready" })
	add("Conntrackgo/Snapshot", "Conntrackgo { |Snapshot /var/lib/conntrackgo/state | }", func(c *Config) { c.Snapshot.Path = "/var/lib/conntrackgo/state" })
	add("Conntrackgo/SnapshotMaxAge", "Conntrackgo { |SnapshotMaxAge 1 | }", func(c *Config) { c.Snapshot.MaxAge = time.Second })
	for text, want := range map[string]time.Duration{"off": 0, "on": 5 * time.Minute, "7": 7 * time.Second, "0": 0} {
		add("Conntrackgo/Reconcile", "Conntrackgo { |Reconcile "+text+" | }", func(c *Config) { c.Reconcile = want })
	}
	add("Conntrackgo/Reconcile", "General { PollSecs 3 } Conntrackgo { |Reconcile 7 | }", func(*Config) {})
	add("Conntrackgo/CommitVerify", "Conntrackgo { |CommitVerify off | }", func(c *Config) { c.CommitVerify = false })
	add("Conntrackgo/ReturnToDefault", "Conntrackgo { |ReturnToDefault on | }", func(c *Config) { c.ReturnToDefault = true })
	add("Conntrackgo/WaitForInterface", "Conntrackgo { |WaitForInterface on | }", func(c *Config) { c.WaitForInterface = true })
	inject := func(hold time.Duration) func(c *Config) {
		return func(c *Config) { c.Node.DisableExternalCache, c.Node.Hold = true, hold }
	}
	const noExternal = "Sync { Mode FTFW { DisableExternalCache on } } Conntrackgo { "
	add("Conntrackgo/HoldInjected", noExternal+"|HoldInjected on| }", inject(10*time.Minute))
	add("Conntrackgo/HoldInjected", noExternal+"|HoldInjected off HoldTimeout 30| }", inject(0))
	for text, want := range map[string]time.Duration{"2": 2 * time.Second, "86400": 24 * time.Hour} {
		add("Conntrackgo/HoldTimeout", noExternal+"|HoldTimeout "+text+" HoldInjected on| }", inject(want))
		add("Conntrackgo/HoldTimeout", noExternal+"|HoldInjected on HoldTimeout "+text+"| }", inject(want))
	}
	add("Conntrackgo/Snapshot", "Sync { Mode FTFW { DisableExternalCache on } UDP { IPv4_address 1.2.3.4 Interface eth2 } } Conntrackgo { |Snapshot /a | }", func(*Config) {})
	for kind, base := range map[string]string{"UDP": "IPv4_address 1.2.3.4", "Multicast": "IPv6_address ff02::50"} {
		sync := "Sync { Mode FTFW { } " + kind + " { " + base + " Interface eth2 } } Conntrackgo { "
		accept := func(list ...string) func(c *Config) {
			return func(c *Config) {
				for _, p := range list {
					c.Links[0].AcceptFrom = append(c.Links[0].AcceptFrom, netip.MustParsePrefix(p))
				}
			}
		}
		add("Conntrackgo/AcceptFrom", sync+"|AcceptFrom { } | }", accept())
		add("Conntrackgo/AcceptFrom/IPv4_address", sync+"|AcceptFrom { IPv4_address 10.1.2.3/8 IPv4_address 192.0.2.1 } | }", accept("10.0.0.0/8", "192.0.2.1/32"))
		add("Conntrackgo/AcceptFrom/IPv6_address", sync+"|AcceptFrom { IPv6_address fd00::1 IPv6_address fe80::/10 } | }", accept("fd00::1/128", "fe80::/10"))
	}
	groupEffects(add)
	attributeEffects(add)
	peerEffects(add)
	helper := func(c *Config) { c.HelperSections = 1 }
	for _, text := range []string{
		"Setup yes", "Type ftp inet tcp { Setup no }", "QueueNum 3", "QueueLen 10", "Type ftp inet tcp { Policy ftp { ExpectMax 1 } }",
		"Policy ftp { }", "Policy ftp { ExpectMax 1 }", "Policy ftp { ExpectTimeout 300 }",
	} {
		add("Helper/"+strings.Fields(text)[0], "|Helper { "+text+" } |", helper)
	}
	add("Helper/ExpectMax", "|Helper { ExpectMax 1 } |", helper)
	add("Helper/ExpectTimeout", "|Helper { ExpectTimeout 1 } |", helper)
	return list
}

func attributeEffects(add func(string, string, func(*Config))) {
	for block, field := range map[string]func(*Config) *flow.Has{
		"DoNotSync":    func(c *Config) *flow.Has { return &c.Node.DoNotSync },
		"DoNotRestore": func(c *Config) *flow.Has { return &c.Node.DoNotRestore },
	} {
		in := "Conntrackgo/" + block
		set := func(has flow.Has) func(*Config) { return func(c *Config) { *field(c) = has } }
		add(in, "Conntrackgo { |"+block+" { } | }", set(0))
		add(in+"/Mark", "Conntrackgo { |"+block+" { Mark } | }", set(flow.HasMark))
		add(in+"/Labels", "Conntrackgo { "+block+" { |Labels| } }", set(flow.HasLabels))
		add(in+"/Helper", "Conntrackgo { "+block+" { Mark |Helper| Mark } }", set(flow.HasMark|flow.HasHelper))
		add(in+"/Helper", "|Conntrackgo { "+block+" { Labels } "+block+" { Helper } } Conntrackgo { "+block+" { Mark } } |",
			set(flow.HasMark|flow.HasLabels|flow.HasHelper))
	}
}

func peerEffects(add func(string, string, func(*Config))) {
	version := func(v wire.Version) func(*Config) { return func(c *Config) { c.Node.PeerVersion = v } }
	udp := func(peers ...string) string {
		text := "Sync { Mode FTFW { } "
		for _, p := range peers {
			keyword := "IPv4_Destination_Address "
			if strings.Contains(p, ":") {
				keyword = "IPv6_Destination_Address "
			}
			text += "UDP { Interface eth2 Port 3780 " + keyword + p + " } "
		}
		return text + "} Conntrackgo { |"
	}
	for _, e := range []struct {
		peers []string
		text  string
		want  wire.Version
	}{
		{[]string{"192.0.2.1"}, "PeerVersion 1.4.2", wire.Since142},
		{[]string{"192.0.2.1"}, "PeerVersion 1.4.4", wire.Since144},
		{[]string{"192.0.2.1"}, `PeerVersion "1.4.6"`, wire.Since145},
		{[]string{"192.0.2.1"}, "PeerVersion 1.4.9", wire.Since147},
		{[]string{"192.0.2.1"}, "PeerVersion 1.4.2 PeerVersion 1.4.7", wire.Since147}, // the last counts
		{[]string{"192.0.2.1"}, "PeerVersion 192.0.2.1 1.4.3", wire.Since142},
		{[]string{"192.0.2.1"}, "PeerVersion 192.0.2.1 1.4.9 PeerVersion 1.4.3", wire.Since147}, // the address counts
		{[]string{"192.0.2.1"}, "PeerVersion 192.0.2.2 1.4.3", wire.Since147},
		{[]string{"192.0.2.1", "192.0.2.2"}, "PeerVersion 192.0.2.2 1.4.5", wire.Since145},
		{[]string{"192.0.2.1", "192.0.2.2"}, "PeerVersion 1.4.4 PeerVersion 192.0.2.2 1.4.5", wire.Since144}, // the oldest counts
		{[]string{"fe80::1%eth2"}, "PeerVersion fe80:0::1%eth2 1.4.5", wire.Since145},
		{[]string{"fd00::1"}, "PeerVersion fd00::1 1.4.5", wire.Since145},
		{nil, "PeerVersion 1.4.2", wire.Since147}, // there is nobody
		{[]string{"192.0.2.1"}, "PeerVersion 192.0.2.2 1.4.5 | Group on Peers { IPv4_address 192.0.2.2 IPv4_address 192.0.2.3 }", wire.Since145},
		{[]string{"192.0.2.1"}, "PeerVersion 1.4.5 PeerVersion 192.0.2.1 1.4.7 | Group on Peers { IPv4_address 192.0.2.2 }", wire.Since145},
	} {
		text, rest, _ := strings.Cut(e.text, "|")
		add("Conntrackgo/PeerVersion", udp(e.peers...)+text+" |"+rest+" }", version(e.want))
	}
	add("Conntrackgo/PeerVersion", "Sync { Mode ALARM { } Multicast { Interface eth2 IPv4_address 225.0.0.50 Group 3780 } } Conntrackgo { |PeerVersion 1.4.6 | }",
		version(wire.Since145))
}

// TestOurWordsAreNames: a file of conntrackd means what it meant before we had
// keywords of our own.
func TestOurWordsAreNames(t *testing.T) {
	if !ourWords["Mark"] || !ourWords["PeerVersion"] || ourWords["Helper"] || ourWords["IPv4_address"] || ourWords["UDP"] {
		t.Errorf("our words: %v", ourWords)
	}
	for w, ours := range ourWords {
		if !ours {
			continue
		}
		cfg, warnings := mustParse(t, "Sync { Options { ExpectationSync { "+w+" } } UDP { Interface "+w+" Port 3780 IPv4_address 1.2.3.4 IPv4_Destination_Address 1.2.3.5 } }"+
			"General { Filter { Protocol Ignore { "+w+" } } UNIX { Path /s } }")
		if cfg.Links[0].Interface != w || !slices.Equal(cfg.Node.ExpectHelpers, []string{w}) {
			t.Errorf("%s: interface %q, helpers %q", w, cfg.Links[0].Interface, cfg.Node.ExpectHelpers)
		}
		if len(warnings) != 2 { // no Mode, no such protocol
			t.Errorf("%s: %v", w, warnings)
		}
	}
}

func generalEffects(add func(string, string, func(*Config))) {
	none := func(*Config) {}
	add("/General", "|General { HashSize 7 } General { HashLimit 8 } |", func(c *Config) { c.Node.HashSize, c.Node.HashLimit = 7, 8 })
	add("/Stats", "|Stats { } |", func(c *Config) { c.Stats = true })
	add("/Helper", "|Helper { } Helper { } |", func(c *Config) { c.HelperSections = 2 })
	add("General/HashSize", general("HashSize 5 HashSize 32768"), func(c *Config) { c.Node.HashSize = 32768 })
	add("General/HashLimit", general("HashLimit 4294967295"), func(c *Config) { c.Node.HashLimit = 4294967295 })
	add("General/LogFile", general("LogFile on LogFile off"), func(c *Config) { c.LogFile = "/var/log/conntrackd.log" })
	add("General/LogFile", general("LogFile on LogFile /x.log"), func(c *Config) { c.LogFile = "/x.log" })
	add("General/LogFile", general("LogFile /x.log LogFile on"), func(c *Config) { c.LogFile = "/var/log/conntrackd.log" })
	add("General/Syslog", general("Syslog Yes"), func(c *Config) { c.Syslog = "daemon" })
	add("General/Syslog", general("Syslog local7 Syslog kern Syslog Local1"), func(c *Config) { c.Syslog = "local7" })
	add("General/Syslog", general("Syslog on Syslog no"), none)
	add("General/LockFile", general("LockFile /x"), func(c *Config) { c.LockFile = "/x" })
	add("General/UNIX", general("UNIX { } UNIX { Path /s }"), func(c *Config) { c.Socket = "/s" })
	add("General/UNIX/Path", general("UNIX { Path /a Path /b }"), func(c *Config) { c.Socket = "/b" })
	add("General/UNIX/Backlog", general("UNIX { Backlog 20 }"), none)
	for _, w := range []string{"NetlinkBufferSize", "SocketBufferSize"} {
		add("General/"+w, general(w+" 2097152"), func(c *Config) { c.Kernel.BufferSize = 2097152 })
	}
	for _, w := range []string{"NetlinkBufferSizeMaxGrowth", "SocketBufferSizeMaxGrowth", "SocketBufferSizeMaxGrown"} {
		add("General/"+w, general(w+" 8388608"), func(c *Config) { c.Kernel.BufferMaxGrowth = 8388608 })
	}
	add("General/NetlinkOverrunResync", general("NetlinkOverrunResync off"), func(c *Config) { c.Kernel.OverrunResync = 0 })
	add("General/NetlinkOverrunResync", general("NetlinkOverrunResync off NetlinkOverrunResync on"), none)
	add("General/NetlinkOverrunResync", general("NetlinkOverrunResync 10"), func(c *Config) { c.Kernel.OverrunResync = 10 * time.Second })
	add("General/NetlinkEventsReliable", general("NetlinkEventsReliable on"), func(c *Config) { c.Kernel.Reliable = true })
	add("General/EventIterationLimit", general("EventIterationLimit 200"), func(c *Config) { c.EventIterationLimit = 200 })
	add("General/PollSecs", general("PollSecs 15"), func(c *Config) { c.Kernel.Poll = 15 * time.Second })
	add("General/Nice", general("Nice -15 Nice +3"), none)
	add("General/Scheduler", general("Scheduler { Type fifo } Scheduler { Priority 50 }"), func(c *Config) { c.Scheduler = Scheduler{"FIFO", 50} })
	add("General/Scheduler/Type", general("Scheduler { Type Rr }"), func(c *Config) { c.Scheduler = Scheduler{"RR", 0} })
	add("General/Scheduler/Priority", general("Scheduler { Type RR Priority 0 }"), func(c *Config) { c.Scheduler = Scheduler{"RR", 0} })
	add("General/Scheduler/Priority", general("Scheduler { Priority 4294967296 }"), none)
	add("General/Systemd", general("Systemd off"), func(c *Config) { c.Systemd = false })
	add("Stats/LogFile", "Stats { |LogFile on | }", func(c *Config) { c.StatsLogFile = "/var/log/conntrackd-stats.log" })
	add("Stats/LogFile", "Stats { |LogFile /x LogFile no | }", func(c *Config) { c.StatsLogFile = "/x" })
	add("Stats/Syslog", "Stats { |Syslog on | }", func(c *Config) { c.StatsSyslog = "daemon" })
	add("Stats/Syslog", "Stats { |Syslog local0 | } General { Syslog local1 }", func(c *Config) { c.StatsSyslog = "local1" })
}

func filterEffects(add func(string, string, func(*Config))) {
	filter := func(text string) string { return general("Filter { " + text + " }") }
	add("General/Filter", general("Filter From Kernelspace { }"), func(c *Config) { c.Kernel.KernelFilter = true })
	add("General/Filter", general("Filter From Kernelspace { } Filter From Userspace { }"), func(*Config) {})
	add("General/Filter", general("Filter From Kernelspace { } Filter { }"), func(*Config) {})
	protocol := func(policy flow.Policy, numbers ...uint8) func(*Config) {
		return func(c *Config) {
			c.Node.Filter.Protocols = policy
			for _, n := range numbers {
				c.Node.Filter.Protocol[n] = true
			}
		}
	}
	add("General/Filter/Protocol", filter("Protocol Accept { }"), protocol(flow.Accept))
	add("General/Filter/Protocol", filter("Protocol Accept { TCP } Protocol Ignore { UDP }"), protocol(flow.Ignore, 6, 17))
	add("General/Filter/Protocol/TCP", filter("Protocol Accept { TCP }"), protocol(flow.Accept, 6))
	add("General/Filter/Protocol/UDP", filter("Protocol Ignore { UDP }"), protocol(flow.Ignore, 17))
	add("General/Filter/Protocol/*", filter("Protocol Ignore { tcp SCTP DCCP icmp IPv6-ICMP gre udplite ip nosuch Tcp esp }"),
		protocol(flow.Ignore, 6, 132, 33, 1, 58, 47, 136, 0, 50))
	prefix := func(text string) flow.Prefix {
		n := netip.MustParsePrefix(text)
		p := flow.Prefix{Family: flow.IPv6, Bits: uint8(n.Bits())}
		if n.Addr().Is4() {
			p.Family = flow.IPv4
		}
		copy(p.Addr[:], n.Addr().AsSlice())
		return p
	}
	address := func(policy flow.Policy, list ...flow.Prefix) func(*Config) {
		return func(c *Config) { c.Node.Filter.Addresses, c.Node.Filter.Prefixes = policy, list }
	}
	add("General/Filter/Address", filter("Address Ignore { } Address Accept { }"), address(flow.Accept))
	add("General/Filter/Address/IPv4_address",
		filter("Address Ignore { IPv4_address 127.0.0.1 IPv4_address 10.1.2.3/8 IPv4_address 127.0.0.1/32 IPv4_address 10.0.0.0/33"+
			" IPv4_address 300.1.1.1 IPv4_address 10.0.0.0/08 IPv4_address ::1 IPv4_address dead IPv4_address 10.0.0.0/0 }"),
		address(flow.Ignore, prefix("127.0.0.1/32"), prefix("10.0.0.0/8"), prefix("0.0.0.0/0")))
	add("General/Filter/Address/IPv6_address",
		filter("Address Ignore { IPv6_address ::1 IPv6_address fe80::1/10 IPv6_address ::1/129 IPv6_address 1.2.3.4 IPv6_address 64:ff9b::1.2.3.4 }"),
		address(flow.Ignore, prefix("::1/128"), prefix("fe80::/10"), prefix("64:ff9b::102:304/128")))
	state := func(policy flow.Policy, numbers ...uint8) func(*Config) {
		return func(c *Config) {
			c.Node.Filter.States = policy
			for _, n := range numbers {
				c.Node.Filter.State[n] = true
			}
		}
	}
	add("General/Filter/State", filter("State Ignore { }"), state(flow.Ignore))
	add("General/Filter/State/for", filter("State Accept { for TCP SYN_SENT for TCP LAST_ACK FIN_WAIT for TCP }"), state(flow.Accept, 1, 6, 4))
	for i, words := range []string{"SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE CLOSED", "LISTEN"} {
		for _, w := range strings.Fields(words) {
			add("General/Filter/State/"+w, filter("State Accept { "+w+" for TCP }"), state(flow.Accept, uint8(i+1)))
		}
	}
}

func syncEffects(add func(string, string, func(*Config))) {
	add("/Sync", "|Sync { Mode FTFW { } UDP { Interface eth2 IPv4_address 1.2.3.4 } } |", func(c *Config) {
		c.Sync, c.Node.Mode = true, node.FTFW
		c.Links = []link.Config{{Transport: link.UDP, Interface: "eth2", Local: netip.MustParseAddr("1.2.3.4")}}
	})
	for _, list := range []struct {
		text string
		mode node.Mode
	}{
		{"Mode ALARM { }", node.ALARM},
		{"Mode NoTrack { }", node.NOTRACK},
		{"Mode pErsistent { }", node.ALARM},
		{"Mode NOTRACK { } Mode alarm { }", node.ALARM},
		{"Mode NOTRACK { } Mode nack { } Mode ALARM { }", node.FTFW},
	} {
		add("Sync/Mode", "Sync { UDP { Interface eth2 IPv4_address 1.2.3.4 } |"+list.text+" | }", func(c *Config) { c.Node.Mode = list.mode })
	}
	seconds := map[string]func(*Config) *time.Duration{
		"RefreshTime":   func(c *Config) *time.Duration { return &c.Node.RefreshTime },
		"CacheTimeout":  func(c *Config) *time.Duration { return &c.Node.CacheTimeout },
		"CommitTimeout": func(c *Config) *time.Duration { return &c.Node.CommitTimeout },
		"PurgeTimeout":  func(c *Config) *time.Duration { return &c.Node.PurgeTimeout },
	}
	for w, field := range seconds {
		change := func(c *Config) { *field(c) = 4000000000 * time.Second }
		add("Sync/"+w, syncs(w+" 1 "+w+" 4000000000"), change)
		for _, mode := range []string{"FTFW", "ALARM", "NOTRACK"} {
			if index["Sync/Mode "+mode][w] != nil {
				add("Sync/Mode "+mode+"/"+w, modeBlock(mode, w+" 4000000000"), change)
			}
		}
	}
	add("Sync/Mode FTFW/ResendQueueSize", modeBlock("FTFW", "ResendQueueSize 4096"), func(c *Config) { c.Node.ResendQueueSize = 4096 })
	add("Sync/Mode FTFW/ACKWindowSize", modeBlock("FTFW", "ACKWindowSize 64"), func(c *Config) { c.Node.ACKWindowSize = 64 })
	add("Sync/Mode NOTRACK/DisableInternalCache", modeBlock("NOTRACK", "DisableInternalCache ON"), func(c *Config) { c.Node.DisableInternalCache = true })
	for _, mode := range []string{"FTFW", "NOTRACK"} {
		add("Sync/Mode "+mode+"/DisableExternalCache", modeBlock(mode, "DisableExternalCache yes CommitTimeout 100"), func(c *Config) { c.Node.DisableExternalCache = true })
		add("Sync/Mode "+mode+"/StartupResync", modeBlock(mode, "StartupResync yes"), func(c *Config) { c.Node.StartupResync = true })
	}
	add("Sync/Options", syncs("Options { }"), func(*Config) {})
	add("Sync/Options/TCPWindowTracking", syncs("Options { TCPWindowTracking on }"), func(c *Config) { c.Node.TCPWindowTracking = true })
	expect := func(helpers ...string) func(*Config) {
		return func(c *Config) { c.Node.ExpectationSync, c.Node.ExpectHelpers = true, helpers }
	}
	add("Sync/Options/ExpectationSync", syncs("Options { ExpectationSync on }"), expect())
	add("Sync/Options/ExpectationSync", syncs("Options { ExpectationSync { } }"), expect())
	add("Sync/Options/ExpectationSync", syncs("Options { ExpectationSync { ftp } ExpectationSync on }"), expect("ftp"))
	add("Sync/Options/ExpectationSync", syncs("Options { ExpectationSync { ftp } ExpectationSync off }"), func(*Config) {})
	add("Sync/Options/ExpectationSync/*", syncs(`Options { ExpectationSync { ftp q.931 sip-5060 } ExpectationSync { netbios_ns ace "Type" } }`),
		expect("ftp", "q.931", "sip-5060", "netbios_ns", "ace", "Type"))
}

func linkEffects(add func(string, string, func(*Config))) {
	one := func(change func(*link.Config)) func(*Config) { return func(c *Config) { change(&c.Links[0]) } }
	for _, kind := range []string{"Multicast", "UDP", "TCP"} {
		in := "Sync/" + kind
		transport := map[string]link.Transport{"Multicast": link.Multicast, "UDP": link.UDP, "TCP": link.TCP}[kind]
		local := netip.MustParseAddr(map[string]string{"Multicast": "225.0.0.50", "UDP": "1.2.3.4", "TCP": "1.2.3.4"}[kind])
		whole := kind + " { Interface eth2 IPv4_address " + local.String() + " } "
		config := link.Config{Transport: transport, Interface: "eth2", Local: local}
		if transport == link.TCP {
			config.ErrorQueue = 128
		}
		add(in, "Sync { Mode FTFW { } "+whole+"|"+whole+"| }", func(c *Config) { c.Links = append(c.Links, config) })
		add(in, "Sync { Mode FTFW { } "+whole+"|"+strings.Replace(whole+whole+whole, kind, kind+" Default", 2)+"| }", func(c *Config) {
			marked := config
			marked.Default = true
			c.Links = append(c.Links, config, marked, config)
		})
		addr := map[string]string{"Multicast": "239.1.2.3", "UDP": "10.0.0.1", "TCP": "10.0.0.1"}[kind]
		add(in+"/IPv4_address", links(kind, "IPv4_address 9.9.9.9 IPv4_address "+addr+" IPv4_address 1.2.3.4/24 IPv4_address dead"),
			one(func(l *link.Config) { l.Local = netip.MustParseAddr(addr) }))
		add(in+"/IPv6_address", "Sync { Mode FTFW { } "+kind+" { Interface eth2 |IPv6_address ff15::1%eth2 IPv6_address 1:2 | } }", func(c *Config) {
			c.Links[0].Local = netip.MustParseAddr("ff15::1")
			c.refusals = nil
		})
		add(in+"/Interface", "Sync { Mode FTFW { } "+kind+" { IPv4_address "+addr+" |Interface eth1 Interface fab0 | } }", func(c *Config) {
			c.Links[0].Interface = "fab0"
			c.refusals = nil
		})
		add(in+"/SndSocketBuffer", links(kind, "SndSocketBuffer 1249280"), one(func(l *link.Config) { l.SendBuffer = 1249280 }))
		add(in+"/RcvSocketBuffer", links(kind, "RcvSocketBuffer 1249280"), one(func(l *link.Config) { l.ReceiveBuffer = 1249280 }))
		add(in+"/Checksum", links(kind, "Checksum off"), one(func(l *link.Config) { l.NoChecksum = true }))
		add(in+"/Checksum", links(kind, "Checksum off Checksum on"), one(func(*link.Config) {}))
		if kind == "Multicast" {
			add(in+"/Group", links(kind, "Group 3780"), one(func(l *link.Config) { l.Port = 3780 }))
			add(in+"/IPv4_interface", links(kind, "IPv4_interface 192.168.0.1"), one(func(l *link.Config) { l.MulticastInterface = netip.MustParseAddr("192.168.0.1") }))
			add(in+"/IPv6_interface", links(kind, "IPv6_interface fe80::1"), one(func(*link.Config) {}))
			continue
		}
		add(in+"/Port", links(kind, "Port 70000"), one(func(l *link.Config) { l.Port = 4464 }))
		add(in+"/IPv4_Destination_Address", links(kind, "IPv4_Destination_Address 010.1.2.3"), one(func(l *link.Config) { l.Peer = netip.MustParseAddr("8.1.2.3") }))
		add(in+"/IPv6_Destination_Address", "Sync { Mode FTFW { } "+kind+" { Interface eth2 IPv6_address fe80::1 |IPv6_Destination_Address fe80::2%eth2 | } }",
			one(func(l *link.Config) { l.Peer = netip.MustParseAddr("fe80::2") }))
	}
	add("Sync/TCP/ErrorQueueLength", links("TCP", "ErrorQueueLength 512"), func(c *Config) { c.ErrorQueueLength, c.Links[0].ErrorQueue = 512, 512 })
}

func TestEffects(t *testing.T) {
	for _, e := range effects() {
		parts := strings.Split(e.text, "|")
		if len(parts) != 3 {
			t.Fatalf("%s: %q", e.row, e.text)
		}
		want, _ := mustParse(t, parts[0]+parts[2])
		e.change(want)
		got, _ := mustParse(t, strings.Join(parts, ""))
		if d := diff(want, got); d != "" {
			t.Errorf("%s: %s\n%s", e.row, e.text, d)
		}
	}
}

// TestEveryKeywordIsTested holds the table and the tests together.
func TestEveryKeywordIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, e := range effects() {
		tested[e.row] = true
	}
	for in, words := range index {
		for w, r := range words {
			if !tested[in+"/"+w] {
				t.Errorf("no effect of %s/%s is tested", in, w)
			}
			delete(tested, in+"/"+w)
			if r.help == "" {
				t.Errorf("%s/%s has no help", in, w)
			}
			if skipped := in == "Helper"; r.set == nil && r.arg != block && !skipped {
				t.Errorf("%s/%s sets nothing", in, w)
			}
		}
	}
	for row := range tested {
		t.Errorf("there is no row %s", row)
	}
}

// TestEverySettingIsSet fails for a field that no keyword reaches.
func TestEverySettingIsSet(t *testing.T) {
	unset := map[string]bool{}
	mark := func(c *Config, unset map[string]bool, differs bool) {
		walkFields(reflect.ValueOf(*c), "Config", func(name string, v reflect.Value) {
			if !differs {
				unset[name] = true
				return
			}
			base, ok := fieldByPath(reflect.ValueOf(*empty()), name)
			if !ok && !v.IsZero() || ok && !reflect.DeepEqual(base.Interface(), v.Interface()) {
				delete(unset, name)
			}
		})
	}
	full := empty()
	full.Links = []link.Config{{}}
	mark(full, unset, false)
	if len(unset) < 40 {
		t.Fatalf("only %d fields", len(unset))
	}
	for _, e := range effects() {
		cfg, _ := mustParse(t, strings.ReplaceAll(e.text, "|", ""))
		mark(cfg, unset, true)
	}
	delete(unset, "Config.Node.Filter.Compiled") // set by Compile only
	delete(unset, "Config.Kernel.Filter")        // set by the daemon
	delete(unset, "Config.Node.BulkWindow")      // likewise
	delete(unset, "Config.Node.Name.Node")       // likewise
	delete(unset, "Config.Node.Name.Epoch")      // likewise
	delete(unset, "Config.Node.Software")        // by the command
	for name := range unset {
		t.Errorf("no keyword sets %s", name)
	}
}

// walkFields visits the exported leaves; all links are one.
func walkFields(v reflect.Value, name string, visit func(string, reflect.Value)) {
	switch {
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[netip.Addr]():
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				walkFields(v.Field(i), name+"."+f.Name, visit)
			}
		}
	case v.Type() == reflect.TypeFor[[]link.Config]():
		for i := range v.Len() {
			walkFields(v.Index(i), name, visit)
		}
	default:
		visit(name, v)
	}
}

// fieldByPath finds Config.Node.Mode; not the fields of links.
func fieldByPath(v reflect.Value, name string) (reflect.Value, bool) {
	for _, f := range strings.Split(name, ".")[1:] {
		if v.Kind() != reflect.Struct {
			return v, false
		}
		v = v.FieldByName(f)
	}
	return v, true
}

func TestDefaultLinkIsOne(t *testing.T) {
	cfg, _, err := Load("testdata/configs/valid/v21-udp-four-links-two-defaults.conf")
	if err != nil {
		t.Fatal(err)
	}
	var marks []bool
	for _, l := range cfg.Links {
		marks = append(marks, l.Default)
	}
	if want := []bool{false, false, true, false}; !slices.Equal(marks, want) {
		t.Errorf("Default of the links: %v, want %v", marks, want)
	}
}
