package flow

import "testing"

// ftpExpectation is the one of a real PORT command.
func ftpExpectation(t testing.TB) Expect {
	t.Helper()
	e := Expect{
		Has:     HasTimeout | HasMask | HasFlags | HasClass | HasHelper,
		Tuple:   tuple(t, ProtoTCP, "10.0.5.20", "192.168.1.10", 0, 51210),
		Mask:    tuple(t, ProtoTCP, "255.255.255.255", "255.255.255.255", 0, 65535),
		Master:  tuple(t, ProtoTCP, "192.168.1.10", "10.0.5.20", 59982, 21),
		Timeout: 298,
	}
	copy(e.Helper[:], "ftp")
	return e
}

func TestExpectText(t *testing.T) {
	const line = "proto=6 src=10.0.5.20 dst=192.168.1.10 sport=0 dport=51210 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=192.168.1.10 master-dst=10.0.5.20 sport=59982 dport=21 class=0 helper=ftp"
	const xml = `<flow><layer3 protonum="2" protoname="ipv4"><expected><src>10.0.5.20</src><dst>192.168.1.10</dst></expected><mask><src>255.255.255.255</src><dst>255.255.255.255</dst></mask><master><src>192.168.1.10</src><dst>10.0.5.20</dst></master></layer3><layer4 protonum="6" protoname="tcp"><expected><sport>0</sport><dport>51210</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master><sport>59982</sport><dport>21</dport></master></layer4><meta><helper-name>ftp</helper-name><class>0</class></meta></flow>`
	e := ftpExpectation(t)
	if got := string(e.AppendText(nil, TextOptions{Age: 1, ShowAge: true})); got != line+" [active since 1s]" {
		t.Errorf("cache: %s", got)
	}
	if got := string(e.AppendText(nil, TextOptions{Timeout: true})); got != "298 "+line {
		t.Errorf("no cache: %s", got)
	}
	if got := string(e.AppendXML(nil, TextOptions{})); got != xml {
		t.Errorf("\n got %s\nwant %s", got, xml)
	}
}

// An EPRT command, as conntrackd 1.4.7 shows it.
func TestExpectTextIPv6(t *testing.T) {
	const line = "proto=6 src=fd02::2 dst=fd01::2 sport=0 dport=39201 mask-src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff mask-dst=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff sport=0 dport=65535 master-src=fd01::2 master-dst=fd02::2 sport=48936 dport=21 class=0 helper=ftp [active since 0s]"
	const xml = `<flow><layer3 protonum="10" protoname="ipv6"><expected><src>fd02::2</src><dst>fd01::2</dst></expected><mask><src>ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff</src><dst>ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff</dst></mask><master><src>fd01::2</src><dst>fd02::2</dst></master></layer3><layer4 protonum="6" protoname="tcp"><expected><sport>0</sport><dport>39201</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master><sport>48936</sport><dport>21</dport></master></layer4><meta><helper-name>ftp</helper-name><class>0</class></meta></flow>`
	const ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	e := Expect{
		Has:    HasTimeout | HasMask | HasFlags | HasClass | HasHelper,
		Tuple:  tuple(t, ProtoTCP, "fd02::2", "fd01::2", 0, 39201),
		Mask:   tuple(t, ProtoTCP, ones, ones, 0, 65535),
		Master: tuple(t, ProtoTCP, "fd01::2", "fd02::2", 48936, 21),
	}
	copy(e.Helper[:], "ftp")
	if got := string(e.AppendText(nil, TextOptions{ShowAge: true})); got != line {
		t.Errorf("\n got %s\nwant %s", got, line)
	}
	if got := string(e.AppendXML(nil, TextOptions{})); got != xml {
		t.Errorf("\n got %s\nwant %s", got, xml)
	}
}

func TestExpectTextFlagsAndZone(t *testing.T) {
	e := ftpExpectation(t)
	e.Has |= HasZone
	e.Tuple.Zone = 7
	tests := []struct {
		flags     uint32
		text, xml string
	}{
		{0, "zone=7 class=0", "<zone>7</zone></meta>"},
		{ExpectPermanent, "zone=7 PERMANENT class=0", "<zone>7</zone><permanent/></meta>"},
		{ExpectInactive | ExpectUserspace, "zone=7 INACTIVE,USERSPACE class=0", "<zone>7</zone><inactive/><userspace/></meta>"},
		{7, "zone=7 PERMANENT,INACTIVE,USERSPACE class=0", "<zone>7</zone><permanent/><inactive/><userspace/></meta>"},
	}
	for _, test := range tests {
		e.Flags = test.flags
		if got, want := string(e.AppendText(nil, TextOptions{})), "sport=59982 dport=21 "+test.text+" helper=ftp"; !hasSuffix(got, want) {
			t.Errorf("got %s, want ... %s", got, want)
		}
		if got, want := string(e.AppendXML(nil, TextOptions{})), test.xml+"</flow>"; !hasSuffix(got, want) {
			t.Errorf("got %s, want ... %s", got, want)
		}
	}
}

func hasSuffix(s, suffix string) bool {
	return len(s) >= len(suffix) && s[len(s)-len(suffix):] == suffix
}

// The mask of a GRE expectation has keys, and that of IPv6 has IPv6 addresses,
// even if the mask itself names neither family nor protocol.
func TestExpectMaskFollowsTuple(t *testing.T) {
	e := Expect{Tuple: tuple(t, ProtoGRE, "fd00::1", "fd00::2", 0, 0x1234), Master: tuple(t, ProtoTCP, "fd00::2", "fd00::1", 1, 1723)}
	e.Mask.Dport = 0xffff
	want := "proto=47 src=fd00::1 dst=fd00::2 srckey=0x0 dstkey=0x1234 mask-src=:: mask-dst=:: srckey=0x0 dstkey=0xffff master-src=fd00::2 master-dst=fd00::1 sport=1 dport=1723"
	if got := string(e.AppendText(nil, TextOptions{})); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}
