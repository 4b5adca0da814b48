package kernel

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

var record = flag.Bool("record", false, "record testdata/corpus anew from the running kernel (root)")

const corpusDir = "testdata/corpus"

// scenario makes the kernel talk about flows of one kind. run is called with
// rules loaded, in a namespace whose only interface is lo with the addresses
// 10.1.0.2, 10.2.0.2, 10.2.0.3, fd01::2, fd02::2 and fd02::3.
type scenario struct {
	name  string
	rules string // of table inet t
	run   func(t *testing.T)
}

const (
	client4, server4, other4 = "10.1.0.2", "10.2.0.2", "10.2.0.3"
	client6, server6, other6 = "fd01::2", "fd02::2", "fd02::3"

	outRaw = "chain r { type filter hook output priority raw; %s; }"
	outNAT = "chain n { type nat hook output priority -100; %s; }"
	srcNAT = "chain s { type nat hook postrouting priority 100; %s; }"
	outCt  = "chain o { type filter hook output priority 0; %s; }"
)

var scenarios = []scenario{
	{name: "tcp", run: func(t *testing.T) {
		talkTCP(t, client4, server4, server4, 8080)
		talkTCP(t, client6, server6, server6, 8080)
	}},
	{name: "tcp-refused", run: func(t *testing.T) {
		c, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", net.JoinHostPort(server4, "8081"))
		if err == nil {
			t.Fatal(c.Close(), "port 8081 answers")
		}
	}},
	{name: "udp", run: func(t *testing.T) {
		talkUDP(t, client4, server4, server4, 5353)
		talkUDP(t, client6, server6, server6, 5353)
	}},
	{name: "icmp", run: func(t *testing.T) {
		ping(t, unix.AF_INET, client4, server4)
		ping(t, unix.AF_INET6, client6, server6)
	}},
	{name: "icmp-nat", rules: fmt.Sprintf(srcNAT, "ip protocol icmp snat to 10.2.0.3"), run: func(t *testing.T) {
		ping(t, unix.AF_INET, client4, server4)
	}},
	{name: "other-protocols", run: func(t *testing.T) {
		sendRaw(t, unix.IPPROTO_GRE, []byte{0x20, 0x01, 0x88, 0x0b, 0, 4, 0x12, 0x34, 1, 2, 3, 4})
		sendRaw(t, 89, make([]byte, 24))
		sendRaw(t, unix.IPPROTO_SCTP, sctpInit())
		sendRaw(t, unix.IPPROTO_UDPLITE, []byte{0x0b, 0xb8, 0x0f, 0xa0, 0, 8, 0, 0})
	}},
	{name: "inserted", run: func(t *testing.T) {
		conntrack(t, "-I -p tcp -s 10.9.0.1 -d 10.8.0.1 --sport 1000 --dport 80 --state ESTABLISHED -t 1000 -m 77")
		conntrack(t, "-U -p tcp -s 10.9.0.1 -d 10.8.0.1 --sport 1000 --dport 80 --state FIN_WAIT -t 10 -m 0")
		conntrack(t, "-I -p sctp -s 10.9.0.1 -d 10.8.0.1 --sport 3000 --dport 4000 --state ESTABLISHED --orig-vtag 100 --reply-vtag 200 -t 1000")
		conntrack(t, "-I -p gre -s 10.9.0.1 -d 10.8.0.1 --srckey 17 --dstkey 18 -t 1000")
		conntrack(t, "-I -p udplite -s 10.9.0.1 -d 10.8.0.1 --sport 5 --dport 6 -t 1000")
		conntrack(t, "-I -p icmpv6 -s fd09::1 -d fd08::1 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 4660 -t 1000")
		conntrack(t, "-I -p udp -s 10.9.0.1 -d 10.8.0.1 --sport 7 --dport 8 -t 1000 --zone 9")
		conntrack(t, "-I -p udp -s 10.9.0.1 -d 10.8.0.1 --sport 9 --dport 10 -t 1000 --src-nat 10.7.0.1:99")
		conntrack(t, "-I -p udp -s fd09::1 -d fd08::1 --sport 9 --dport 10 -t 1000 --dst-nat [fd07::1]:98")
	}},
	{name: "extensions", run: insertExtensions},
	{name: "dnat", rules: fmt.Sprintf(outNAT, "tcp dport 80 dnat ip to 10.2.0.3:8080; tcp dport 80 dnat ip6 to [fd02::3]:8080; udp dport 53 dnat ip to 10.2.0.3:5353"),
		run: func(t *testing.T) {
			talkVia(t, "tcp", client4, server4, other4, 80, 8080)
			talkVia(t, "tcp", client6, server6, other6, 80, 8080)
			talkVia(t, "udp", client4, server4, other4, 53, 5353)
		}},
	{name: "snat-dnat", rules: fmt.Sprintf(outNAT, "tcp dport 80 dnat ip to 10.2.0.3:8080") + "\n" +
		fmt.Sprintf(srcNAT, "tcp dport 8080 ip saddr 10.1.0.2 snat ip to 10.2.0.2:50000-50010"),
		run: func(t *testing.T) { talkVia(t, "tcp", client4, server4, other4, 80, 8080) }},
	{name: "mark-label", rules: fmt.Sprintf(outCt, "udp dport 5353 ct mark set 0xa1b2c3d4 ct label set 77; udp dport 5354 ct label set 127 ct mark set 1"),
		run: func(t *testing.T) {
			talkUDP(t, client4, server4, server4, 5353)
			talkUDP(t, client4, server4, server4, 5354)
			clearMarks(t)
		}},
	{name: "zone", rules: fmt.Sprintf(outRaw, "udp dport 5353 ct zone set 5"), run: func(t *testing.T) {
		sendUDP(t, client4, server4, 5353)
	}},
	{name: "zone-orig", rules: fmt.Sprintf(outRaw, "udp dport 5353 ct original zone set 7"), run: func(t *testing.T) {
		talkUDP(t, client4, server4, server4, 5353)
	}},
	{name: "zone-repl", rules: fmt.Sprintf(outRaw, "udp dport 5353 ct reply zone set 8"), run: func(t *testing.T) {
		sendUDP(t, client4, server4, 5353)
	}},
	{name: "ftp", rules: ftpHelper, run: func(t *testing.T) { talkFTP(t, client4, server4) }},
	{name: "ftp6", rules: ftpHelper, run: func(t *testing.T) { talkFTP(t, client6, server6) }},
	{name: "ftp-nat", rules: ftpHelper + fmt.Sprintf(srcNAT, "tcp dport 21 ip saddr 10.1.0.2 snat ip to 10.2.0.3"),
		run: func(t *testing.T) { talkFTP(t, client4, server4) }},
	{name: "accounting", run: func(t *testing.T) {
		setSysctl(t, "nf_conntrack_acct", "1")
		setSysctl(t, "nf_conntrack_timestamp", "1")
		talkTCP(t, client4, server4, server4, 8080)
		talkUDP(t, client6, server6, server6, 5353)
		setSysctl(t, "nf_conntrack_acct", "0")
		setSysctl(t, "nf_conntrack_timestamp", "0")
	}},
}

const ftpHelper = `ct helper ftp { type "ftp" protocol tcp; }
` + "chain o { type filter hook output priority 0; tcp dport 21 ct helper set \"ftp\"; }\n"

// insertExtensions uses our own writer for what the conntrack tool cannot
// say: window scales, sequence adjustments and synproxy.
func insertExtensions(t *testing.T) {
	w := openWriter(t, WriterConfig{})
	f := newFlow(flow.IPv4, flow.ProtoTCP)
	f.Sport, f.Dport = 4000, 5000
	f.Has |= flow.HasPorts | flow.HasState | flow.HasWScaleOrig | flow.HasWScaleRepl | flow.HasSeqOrig | flow.HasSeqRepl | flow.HasSynproxy
	f.Status |= flow.StatusSeqAdjust
	f.State, f.WScale = 3, [2]uint8{7, 9}
	f.SeqAdj = [2]flow.SeqAdj{{Pos: 1 << 31, Before: 0, After: 3}, {Pos: 5, Before: 0xffffffff, After: 0xfffffffe}}
	f.Synproxy = flow.Synproxy{ISN: 0xdeadbeef, ITS: 17, TSOff: 0x80000000}
	commit(t, w, Created, f)
}

// clearMarks takes marks and labels away from every flow.
func clearMarks(t *testing.T) {
	w := openWriter(t, WriterConfig{})
	for _, f := range table(t) {
		f.Has = f.Has&(flow.HasAddr|flow.HasProto|flow.HasPorts) | flow.HasMark | flow.HasLabels
		f.Mark, f.Labels = 0, [4]uint32{}
		result := make([]Result, 1)
		if err := w.Update([]flow.Flow{f}, result); err != nil || result[0].Outcome != Updated {
			t.Fatal(err, result)
		}
	}
}

// recordAll runs every scenario in a namespace of its own and returns the
// messages the kernel sent for each: events first, then dumps.
func recordAll(t *testing.T) map[string][]byte {
	t.Helper()
	ownNetNS(t)
	if _, err := exec.LookPath("conntrack"); err != nil {
		skipOrFail(t, "program missing: %v", err)
	}
	command(t, "", "ip", "link", "set", "lo", "up")
	for _, a := range []string{client4, server4, other4} {
		command(t, "", "ip", "address", "add", a+"/32", "dev", "lo")
	}
	for _, a := range []string{client6, server6, other6} {
		command(t, "", "ip", "address", "add", a+"/128", "dev", "lo", "nodad")
	}
	all := map[string][]byte{}
	for _, s := range scenarios {
		command(t, "flush ruleset\ntable inet t {\nchain track { type filter hook input priority 0; ct state new counter; }\n"+s.rules+"\n}\n", "nft", "-f", "-")
		all[s.name] = recordOne(t, s)
	}
	return all
}

func recordOne(t *testing.T, s scenario) (out []byte) {
	e, err := OpenEvents(Config{BufferSize: 4 << 20, BufferMaxGrowth: 4 << 20},
		append(FlowGroups, ExpectGroups...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(e)
	s.run(t)
	dumps := append(rawDump(t, msgCtGet), rawDump(t, msgExpGet)...)
	conntrack(t, "-F")
	conntrack(t, "-F expect")
	return append(collect(t, e), dumps...)
}

// collect returns the raw messages queued on e up to a marker entry made now.
func collect(t *testing.T, e *Events) (out []byte) {
	conntrack(t, "-I -p 253 -s 192.0.2.1 -d 192.0.2.2 -t 100")
	conntrack(t, "-D -p 253")
	for {
		await(t, e)
		if err := e.rx.receive(false); err != nil {
			t.Fatal(err)
		}
		for e.rx.more() {
			b, cut := e.rx.datagram()
			if cut {
				t.Fatal("event longer than the buffer")
			}
			var f flow.Flow
			m, _, ok := nextMessage(b)
			if ok && DecodeFlow(m.body, &f) == nil && f.Proto == 253 {
				if m.typ == msgCtDelete {
					return out
				}
				continue
			}
			out = append(out, b...)
			out = append(out, make([]byte, align4(len(b))-len(b))...)
		}
	}
}

// rawDump returns the entries of a dump as they came.
func rawDump(t *testing.T, request uint16) (out []byte) {
	t.Helper()
	if _, err := dumpOnce(context.Background(), request, func(p *dumpParser) error {
		for p.next() {
			out = append(out, frame(&p.cur)...)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// frame is m as it was in the datagram.
func frame(m *message) []byte {
	b := make([]byte, align4(nlmsgHeaderLen+len(m.body)))
	binary.NativeEndian.PutUint32(b, uint32(nlmsgHeaderLen+len(m.body)))
	binary.NativeEndian.PutUint16(b[4:], m.typ)
	binary.NativeEndian.PutUint16(b[6:], m.flags)
	binary.NativeEndian.PutUint32(b[8:], m.seq)
	binary.NativeEndian.PutUint32(b[12:], m.pid)
	copy(b[nlmsgHeaderLen:], m.body)
	return b
}

// TestRecord writes what the other tests replay.
func TestRecord(t *testing.T) {
	if !*record {
		t.Skip("only with -record")
	}
	all := recordAll(t)
	if err := os.MkdirAll(corpusDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range all {
		if err := os.WriteFile(filepath.Join(corpusDir, name+".bin"), b, 0o644); err != nil {
			t.Error(err)
		}
	}
}
