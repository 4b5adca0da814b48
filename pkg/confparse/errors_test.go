package confparse

import (
	"fmt"
	"strings"
	"testing"
)

// TestErrorTexts holds what people read: testdata/errors.golden has every
// refused file of the corpus, and these texts.
func TestErrorTexts(t *testing.T) {
	var b strings.Builder
	report := func(name, text string) {
		cfg, warnings, err := Parse(name, []byte(text))
		for _, w := range warnings {
			fmt.Fprintf(&b, "warning: %s\n", w)
		}
		if err == nil {
			if err = cfg.CheckStart(); err != nil {
				b.WriteString("start: ")
			}
		}
		if err != nil {
			fmt.Fprintf(&b, "%s\n", err)
		}
	}
	for _, v := range corpus(t) {
		report(strings.TrimPrefix(v.file, "invalid/"), readCorpus(t, v.file))
	}
	for i, text := range errorSnippets {
		fmt.Fprintf(&b, "\n%q\n", text)
		report(fmt.Sprintf("snippet%d", i+1), text)
	}
	golden(t, "testdata/errors.golden", b.String())
}

var errorSnippets = []string{
	// Near words, and words at the wrong place.
	"General { Hashsize 5 }",
	"General { HashSzie 5 }",
	"Snyc { }",
	"General { Uinx { Path /x } }",
	"Sync { Mode FTFW { ACKWindow 5 } }",
	"General { Type RR }",
	"General { General { } }",
	"General {\n  UNIX {\n    Path /x\n  Scheduler { Type RR }\n}\nSync { }",
	"General {\n  UNIX {\n    Path /x\nSync { }",
	"Sync {\n  Mode FTFW {\n  UDP {\n    Port 3780\n  }\n}",
	"General { UNIX { Path /run/x.ctl{ } }",
	"TCP { }",
	"on",
	"{ }",
	"General { 5 }",
	"General { { } }",
	"General { /x }",
	"General { \"HashSize\" 5 }",
	"General { Path\x00 }",
	"General { @ }",
	"General { é }",
	// Arguments.
	"General { HashSize }",
	"General { HashSize",
	"General { HashSize { } }",
	"General { HashSize HashLimit 5 }",
	"General { HashSize 5.5 }",
	"General { HashSize \"5x\" }",
	"General { HashSize 4294967297 }",
	"Conntrackgo { CoalesceTime 100001 }",
	"Conntrackgo { Snapshot state }",
	"Conntrackgo { Reconcile 86401 }",
	"Conntrackgo { SnapshotMaxAge 0 }",
	"Conntrackgo { SnapshotMaxAge 86401 }",
	"Conntrackgo { AcceptFrom { IPv4_address 10.0.0.0/33 } }",
	"Conntrackgo { AcceptFrom { IPv6_address 10.0.0.1 } }",
	"Conntrackgo { AcceptFrom { IPv6_address fe80::1%eth2 } }",
	"General { LogFile maybe }",
	"General { LockFile \"/x }\n",
	"General { LockFile \"x\" }\n",
	"General { LockFile /x y }\n",
	"General { LockFile \"/x\x00\" }\n",
	"General { LockFile /x\r\n}\n",
	"General { UNIX /x }",
	"General { Syslog FTFW }",
	"General { Syslog local9 }",
	"General { Scheduler { Priority 5 } }",
	"General { Filter From { } }",
	"General { Filter Userspace { } }",
	"General { Filter { Protocol { TCP } } }",
	"General { Filter { Protocol Accept TCP } }",
	"General { Filter { Protocol Accept { 200 Sync } } }",
	"General { Filter { Protocol Accept { tpc } } }",
	"General { Filter { Address Accept { IPv4_address fe80::1%eth0 IPv6_address fe80::1%eth0 } } }",
	"General { Filter { Address Accept { IPv6_address fe80::1%eth0 } } }",
	"General { Filter { Address Accept { IPv6_address ::ffff:1.2.3.4 } } }",
	"General { Filter { State Accept { ESTABLISHED for tcp } } }",
	"General { Filter { State Accept { ESTABLISHED for UDP } } }",
	"General { Filter { State Accept { SYN_SENT2 for TCP } } }",
	"Sync { Mode { } }",
	"Sync { Mode FTWF { } }",
	"Sync { Mode",
	"Sync { Options { ExpectationSync { ftp TCP } } }",
	"Sync { Options { ExpectationSync { ftp on } } }",
	"Sync { Options { ExpectationSync maybe } }",
	"Sync { UDP default { } }",
	// Links.
	"Sync { UDP Default { Interface Port 3780 } }",
	"Sync { UDP { Interface on } }",
	"Sync { UDP { Interface eth0:1 } }",
	"Sync { UDP { Interface 5 } }",
	"Sync { UDP { Interface \"a b\" } }",
	"Sync { UDP { IPv4_address 1.2.3 } }",
	"Sync { UDP { IPv4_address 1.2.3.4.5 } }",
	"Sync { UDP { IPv6_address fe80::1%eth0 Interface eth1 } }",
	"Sync { UDP { IPv6_address ::ffff:1.2.3.4 } }",
	"Sync { Mode FTFW { } UDP { Interface averylonginterfacename IPv4_address 010.1.2.3 Port 65536 } }",
	"Sync { Mode FTFW { } UDP { Port 1 Interface eth0 IPv4_address 1.2.3.4 IPv6_Destination_Address fd00::1 } }",
	"Sync { Mode FTFW { } UDP { Port 1 Interface eth0 IPv4_Destination_Address 1.2.3.4 IPv6_address fd00::1 } }",
	"Sync { Mode FTFW { } Multicast { Group 1 Interface eth0 IPv6_address ff15::1 IPv4_address 225.0.0.1 } }",
	"Sync { Mode FTFW { } Multicast { Group 1 Interface eth0 IPv4_interface 1.2.3.4 IPv6_address ff15::1 } }",
	"Sync { Mode FTFW { } Multicast { Group 1 Interface eth0 IPv4_interface 1.2.3.4 } }",
	"Sync { Mode FTFW { } Multicast { Group 1 Interface eth0 IPv6_address ff15::1 IPv4_interface 1.2.3.4 } }",
	"Sync { Mode FTFW { } TCP { Port 1 Interface eth0 } }",
	"Stats { } Sync { }",
	// Helper.
	"Helper { Type ftp inet tcp { QueueNum 3 }\nSync { Mode FTFW { } }",
	"Helper { ; }",
	"Helper {\n Type x {\n",
	// What holds what is injected.
	"Conntrackgo { HoldTimeout 1 }",
	"Conntrackgo { HoldTimeout 86401 }",
	"Sync { Mode FTFW { } } Conntrackgo { HoldInjected on }",
	// Settings of ours.
	"Conntrackgo { DoNotSync { mark } }",
	"Conntrackgo { DoNotSync { Timeout } }",
	"Conntrackgo { DoNotRestore { Mark on } }",
	"Conntrackgo { DoNotRestore Mark }",
	"Conntrackgo { Mark }",
	"Conntrackgo { DoNotSync { Mark PeerVersion 1.4.2 } }",
	"Conntrackgo { PeerVersion 1.4 }",
	"Conntrackgo { PeerVersion 1.4.1 }",
	"Conntrackgo { PeerVersion 1.4.2-1 }",
	"Conntrackgo { PeerVersion { } }",
	"Conntrackgo { PeerVersion 192.0.2.1 }",
	"Conntrackgo { PeerVersion 192.0.2.0/24 1.4.2 }",
	"Conntrackgo { PeerVersion fe80::1%eth2/64 1.4.2 }",
	"Conntrackgo { PeerVersion peer 1.4.2 }",
	"Conntrackgo { PeerVersion 192.0.2.9 1.4.2 }\nSync { Mode FTFW { } UDP { Port 1 Interface eth0 IPv4_address 192.0.2.1 IPv4_Destination_Address 192.0.2.2 } }",
	"Sync { Mode FTFW { } Options { ExpectationSync on } UDP { Port 1 Interface eth0 IPv4_address 192.0.2.1 IPv4_Destination_Address 192.0.2.2 } }\nConntrackgo { DoNotRestore { Helper } DoNotSync { Helper } }",
	// Groups.
	"Conntrackgo { Group 3 }",
	"Conntrackgo { Group }",
	"Sync { Multicast { Group on } }",
	"Sync { Peers { } }",
	"Sync { UDP { Peers { IPv4_address 192.0.2.2 } } }",
	"Conntrackgo { Peers 192.0.2.2 }",
	"Conntrackgo { Peers { 192.0.2.2 } }",
	"Conntrackgo { Peers { IPv4_address { 192.0.2.2 } } }",
	"Conntrackgo { Peers { IPv4_address fw3 } }",
	"Conntrackgo { Peers { IPv4_address 192.0.2.0/24 } }",
	"Conntrackgo { Peers { IPv4_address 192.0.2.256 } }",
	"Conntrackgo { Peers { IPv4_address fd00::2 } }",
	"Conntrackgo { Peers { IPv6_address 192.0.2.2 } }",
	"Conntrackgo { Peers { IPv6_address fe80::2%eth2 } }",
	"Conntrackgo { Peers { IPv6_address fd00::/64 } }",
	"Conntrackgo { Peers { IPv6_address ::ffff:192.0.2.2 } }",
	"Conntrackgo { Peers { IPv6_address ::ffff:c000:202 } }",
	"Conntrackgo { Peers { IPv6_address ff02::50 } }",
	"Conntrackgo { Peers { IPv6_address :: } }",
	"Conntrackgo { Peers { IPv4_address 225.0.0.50 } }",
	"Conntrackgo { Peers { IPv4_address 255.255.255.255 } }",
	"Conntrackgo { Peers { IPv4_address 0.0.0.0 } }",
}

func TestSuggest(t *testing.T) {
	known := []string{"Port", "Interface", "IPv4_address", "IPv6_address", "Checksum"}
	tests := []struct{ word, want string }{
		{"port", "Port"},
		{"CHECKSUM", "Checksum"},
		{"Prot", "Port"},
		{"Por", "Port"},
		{"Poort", "Port"},
		{"Ptro", ""},
		{"Ifac", ""},
		{"Inter", "Interface"}, // how a keyword starts
		{"Int", ""},
		{"Inteface", "Interface"},
		{"IPv5_address", "IPv4_address"}, // of equals the first
		{"IPv4_adddress", "IPv4_address"},
		{"Frobnicate", ""},
		{"Pxxt", ""}, // a short word has one edit
		{"", ""},
		{strings.Repeat("x", 1<<20), ""},
	}
	for _, tt := range tests {
		want := ""
		if tt.want != "" {
			want = "; did you mean `" + tt.want + "'?"
		}
		if got := suggest(tt.word, known); got != want {
			t.Errorf("%.20s: %q, want %q", tt.word, got, want)
		}
	}
}

func TestRetiredWords(t *testing.T) {
	blocks := []string{"%s", "Sync { %s }", "General { %s }", "Sync { Mode FTFW { %s } }", "Sync { Multicast { %s } }"}
	for w, instead := range retired {
		for _, block := range blocks {
			_, _, err := Parse("x", []byte(fmt.Sprintf(block, w+" 5 { }")))
			if err == nil || !strings.Contains(err.Error(), quote(w)) || !strings.Contains(err.Error(), instead) {
				t.Errorf("%s in %q: %v", w, block, err)
			}
		}
		// They are words otherwise: an interface may be called Family.
		if _, _, err := Parse("x", []byte("Sync { UDP { Interface "+w+" } }")); err != nil {
			t.Errorf("interface %s: %v", w, err)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"x y": "`x y'", "é": "`é'", "a\tb": `"a\tb"`, "\x00": `"\x00"`, "\xff": `"\xff"`, "\u00a0": `"\u00a0"`,
	} {
		if got := quote(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestWarningOrder(t *testing.T) {
	_, warnings, err := Parse("f", []byte("General { Syslog x }\nSync { UDP { Port 70000 IPv4_address dead IPv4_address 1.2.3.4 Interface eth0 } }\nGeneral { Nice +1 }"))
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, w := range warnings {
		places = append(places, fmt.Sprintf("%d:%d", w.Line, w.Column))
	}
	if got, want := strings.Join(places, " "), "1:18 2:1 2:1 2:8 2:19 2:38 3:16"; got != want {
		t.Errorf("warnings at %s, want %s: %v", got, want, warnings)
	}
}
