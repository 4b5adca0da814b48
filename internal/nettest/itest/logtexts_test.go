package itest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
)

// A logScene is something that users look for in the log. Both kinds of daemon
// play it, and each must log these lines in this order, whatever else it says.
// What is not C's text, word for word, fails with the C daemon.
type logScene struct {
	name   string
	change func(a, b *nettest.Config)
	rig    func(*testing.T, pairing) *rig // instead of change
	play   func(r *rig)                   // ends with a, the daemon under test, not running
	want   []string                       // regular expressions for whole lines
	not    string                         // a text that is in no line
}

var logScenes = []logScene{
	{name: "console", play: func(r *rig) {
		r.ok(r.a.Start(r.Context()))
		r.ok(r.a.Stop())
	}, want: []string{
		`\[notice\] netlink event socket buffer size has been set to 16777216 bytes`,
		`\[notice\] initialization completed`,
		`\[notice\] -- starting in console mode --`,
		`\[notice\] ---- shutdown received ----`,
	}},
	{name: "daemon", play: func(r *rig) {
		r.ok(r.a.WriteConfig())
		binary, err := r.a.Kind.Binary()
		r.ok(err)
		_, err = r.two.A.Run(binary, "-C", r.a.ConfigPath, "-d")
		r.ok(err)
		r.request(r.a, "-k")
		r.logEnds(r.a)
	}, want: []string{
		`\[notice\] initialization completed`,
		`\[notice\] -- starting in daemon mode --`,
		`\[notice\] ---- shutdown received ----`,
	}},
	{name: "caches", change: func(a, b *nettest.Config) {
		a.Mode, b.Mode = "NOTRACK", "NOTRACK"
		a.ModeLines = []string{noInternal, noExternal}
	}, play: func(r *rig) {
		r.ok(r.a.Start(r.Context()))
		r.requests(r.a, "-R", "-c")
		r.ok(r.a.Stop())
	}, want: []string{
		`\[notice\] disabling internal cache`,
		`\[notice\] disabling external cache`,
		`\[notice\] resync is unsupported in this mode`,
		`\[notice\] committing all external caches`,
	}},
	{name: "user-space filter", change: func(a, _ *nettest.Config) {
		a.FilterLines = []string{"Protocol Accept {", "TCP", "}"}
	}, play: startAndStop, want: []string{`\[notice\] using user-space event filtering`}},
	{name: "kernel-space filter", change: func(a, _ *nettest.Config) {
		a.GeneralLines = []string{"Filter From Kernelspace {", "Protocol Accept {", "TCP", "}", "}"}
	}, play: startAndStop, want: []string{`\[notice\] using kernel-space event filtering`}},
	{name: "reliable", change: func(a, _ *nettest.Config) {
		a.GeneralLines = []string{"NetlinkEventsReliable on"}
	}, play: startAndStop, want: []string{`\[notice\] reliable ctnetlink event delivery is ENABLED\.`}},
	{name: "polling", change: func(a, _ *nettest.Config) {
		a.GeneralLines = []string{"PollSecs 5"}
	}, play: startAndStop, want: []string{`\[notice\] running in polling mode`}},
	{name: "overrun", change: smallBuffer("NetlinkOverrunResync off"), play: playOverrun, want: overrunLines},
	{name: "overrun without internal cache", change: func(a, b *nettest.Config) {
		smallBuffer()(a, b)
		a.Mode, b.Mode = "NOTRACK", "NOTRACK"
		a.ModeLines = []string{noInternal}
	}, play: playOverrun, want: overrunLines},
	{name: "requests", change: func(a, _ *nettest.Config) { a.PurgeTimeout = 1 }, play: playRequests, want: []string{
		`\[notice\] resync requested by other node`,
		`\[notice\] sending bulk update`,
		`\[notice\] resync requested`,
		`\[notice\] sending bulk update`,
		`\[notice\] committing all external caches`,
		`\[notice\] Committed 40 new entries`,
		`\[notice\] commit has taken \d+\.\d{6} seconds`,
		`\[notice\] committing conntrack cache`,
		`\[notice\] Committed 40 new entries`,
		`\[notice\] commit has taken \d+\.\d{6} seconds`,
		`\[notice\] flushing caches`,
		`\[notice\] flushing internal cache`,
		`\[notice\] flushing external cache`,
		`\[notice\] resync with master conntrack table`,
		`\[notice\] committing all external caches`,
		`\[notice\] Committed 0 new entries`,
		`\[notice\] commit has taken \d+\.\d{6} seconds`,
		`\[notice\] flushing kernel conntrack table`,
		`\[notice\] flushing conntrack table in 1 secs`,
		`\[notice\] flushing kernel conntrack table \(scheduled\)`,
	}},
	{name: "asked without internal cache", change: func(a, b *nettest.Config) {
		a.Mode, b.Mode = "NOTRACK", "NOTRACK"
		a.ModeLines = []string{noInternal}
	}, play: func(r *rig) {
		r.start()
		r.request(r.b, "-n")
		r.eventually("the peer's request", func() error { return r.logs(r.a, "resync requested by other node") })
		r.requests(r.a, "-B", "-n")
		r.ok(r.a.Stop())
	}, want: []string{
		`\[notice\] resync requested by other node`,
		`\[notice\] resync requested`,
	}, not: "sending bulk update"},
	{name: "refused entries", change: func(_, b *nettest.Config) {
		b.FilterLines = []string{"Protocol Accept {", "UDP", "}"} // so that the master stays behind
	}, play: func(r *rig) {
		r.start()
		r.handshake()
		r.ok(r.two.B.Do(childrenWithoutMaster))
		r.cachesAgreeBut(3)
		r.request(r.a, "-c")
		r.ok(r.a.Stop())
	}, want: []string{
		`\[notice\] committing all external caches`,
		`\[ERROR\] commit-create: No such file or directory`,
		`udp      17 \d+ src=10\.9\.1\.1 dst=203\.0\.113\.1 sport=300\d dport=21 .*`,
		`\[ERROR\] commit-create: No such file or directory`,
		`\[ERROR\] commit-create: No such file or directory`,
		`\[notice\] Committed 0 new entries`,
		`\[notice\] 3 entries can't be committed`,
		`\[notice\] commit has taken \d+\.\d{6} seconds`,
	}},
	{name: "during a commit", change: func(a, b *nettest.Config) {
		a.HashSize = 8192 // then the C daemon believes for ever that one is in progress
		// It loses no events of many flows at once, however busy the machine is.
		b.GeneralLines = append(b.GeneralLines, "NetlinkBufferSize 134217728", "NetlinkBufferSizeMaxGrowth 134217728")
	}, play: playDuringCommit, want: []string{
		`\[notice\] committing all external caches`,
		`\[ERROR\] ignoring flush command, commit still in progress`,
	}},
	{name: "links", rig: func(t *testing.T, p pairing) *rig { return newTwoLinkRig(t, p, "UDP", 2, "") }, play: func(r *rig) {
		r.start()
		r.ok(cuts[0].cut(r))
		r.activeLink(r.a, secondIf)
		r.ok(r.two.A.IP("link set " + secondIf + " down"))
		r.eventually("no link", func() error { return r.logs(r.a, "no dedicated links") })
		r.ok(r.a.Stop())
	}, want: []string{
		"\\[notice\\] device `sy1' becomes dedicated link",
		`\[ERROR\] no dedicated links available!`,
	}},
}

// childrenWithoutMaster writes three UDP flows that a TCP flow led to.
func childrenWithoutMaster() error {
	w, err := kernel.OpenWriter(kernel.WriterConfig{})
	if err != nil {
		return err
	}
	defer w.Close()
	master := flow.Flow{Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasState | flow.HasStatus | flow.HasTimeout}
	master.Family, master.Proto, master.Sport, master.Dport = flow.IPv4, flow.ProtoTCP, 1500, 21
	copy(master.Src[:], []byte{10, 9, 1, 1})
	copy(master.Dst[:], []byte{203, 0, 113, 1})
	master.State, master.Status, master.Timeout = 3, open, 1000
	all := []flow.Flow{master}
	for i := range uint16(3) {
		f := master
		f.Master, f.Proto, f.Sport = master.Key, flow.ProtoUDP, 3000+i
		f.Has = f.Has&^flow.HasState | flow.HasMaster | flow.HasMasterPort
		all = append(all, f)
	}
	results := make([]kernel.Result, len(all))
	err = w.Commit(all, results)
	for i := range results {
		err = errors.Join(err, results[i].Err())
	}
	return err
}

// cachesAgreeBut waits until A's external cache has n entries.
func (r *rig) cachesAgreeBut(n int) {
	r.Helper()
	r.eventually(fmt.Sprintf("%d entries", n), func() error {
		external, err := r.a.External(r.Context())
		if err == nil && len(external) != n {
			err = fmt.Errorf("there are %d", len(external))
		}
		return err
	})
}

// playDuringCommit orders a flush while a commit runs.
func playDuringCommit(r *rig) {
	r.Helper()
	r.start()
	r.handshake()
	n := 100
	if r.a.Kind == nettest.Go {
		n = 40000
	}
	r.must(r.flood(r.two.B).Create, load(0, n, 0, 0, nil))
	r.cachesAgreeBut(n)
	commit := r.ask(r.a, 46) // -c
	defer commit.Close()
	// It has begun when the first entries are there, and a client started only
	// then might come too late.
	for end := time.Now().Add(convergence); ; {
		if n, err := r.two.A.Held(); err != nil || n > 0 {
			r.ok(err)
			break
		}
		if time.Now().After(end) {
			r.Fatal("no commit begins")
		}
	}
	flush := r.ask(r.a, 45) // -f
	defer flush.Close()
	_, err := io.ReadAll(flush)
	r.ok(err)
	r.ok(r.a.Stop())
}

// ask sends the number of a request to a daemon.
func (r *rig) ask(d *nettest.Daemon, code uint32) net.Conn {
	r.Helper()
	conn, err := net.Dial("unix", d.Config.Socket)
	r.ok(err)
	r.ok(conn.SetDeadline(time.Now().Add(convergence)))
	_, err = conn.Write(binary.NativeEndian.AppendUint32(nil, code))
	r.ok(err)
	return conn
}

// overrunLines are said once each, however often events are lost.
var overrunLines = []string{
	`\[notice\] netlink event socket buffer size has been set to 16384 bytes`,
	`\[notice\] netlink event socket buffer size has been doubled to 32768 bytes`,
	`\[notice\] netlink event socket buffer size has been doubled to 65536 bytes`,
	`\[warning\] netlink event socket buffer size cannot be doubled further since it will exceed NetlinkBufferSizeMaxGrowth\. We are likely to be losing events, this may lead to unsynchronized replicas\. Please, consider increasing netlink socket buffer size via NetlinkBufferSize and NetlinkBufferSizeMaxGrowth clauses in conntrackd\.conf`,
	`\[notice\] ---- shutdown received ----`,
}

func smallBuffer(lines ...string) func(a, b *nettest.Config) {
	return func(a, _ *nettest.Config) {
		a.GeneralLines = append([]string{"NetlinkBufferSize 16384", "NetlinkBufferSizeMaxGrowth 70000"}, lines...)
	}
}

func startAndStop(r *rig) {
	r.Helper()
	r.ok(r.a.Start(r.Context()))
	r.ok(r.a.Stop())
}

// playOverrun loses events five times.
func playOverrun(r *rig) {
	r.Helper()
	r.ok(r.a.Start(r.Context()))
	w := r.flood(r.two.A)
	for i := range 5 {
		r.ok(r.a.Proc().Signal(syscall.SIGSTOP))
		r.must(w.Create, load(i*2000, (i+1)*2000, 0, 0, nil))
		r.ok(r.a.Proc().Signal(syscall.SIGCONT))
		r.eventually("an overrun", func() error {
			m := overrunPattern.FindStringSubmatch(r.request(r.a, "-s", "runtime"))
			if m == nil || m[1] == fmt.Sprint(i) {
				return errors.New("none counted")
			}
			return nil
		})
	}
	r.ok(r.a.Stop())
}

var overrunPattern = regexp.MustCompile(`netlink overrun:\s+(\d+)`)

func playRequests(r *rig) {
	r.Helper()
	r.start()
	r.handshake()
	r.must(r.flood(r.two.B).Create, load(0, 40, 0, 0, nil))
	r.cachesAgree(r.b, r.a, 40)
	r.request(r.b, "-n")
	r.eventually("the peer's request", func() error { return r.logs(r.a, "sending bulk update") })
	// What -n brings must be there before the cache is emptied for good.
	r.request(r.a, "-f", "external")
	r.request(r.a, "-n")
	r.cachesAgree(r.b, r.a, 40)
	r.requests(r.a, "-B", "-c")
	r.request(r.a, "-c", "ct")
	r.requests(r.a, "-f")
	r.request(r.a, "-f", "internal")
	r.request(r.a, "-f", "external")
	r.requests(r.a, "-R", "-c", "-F", "-t")
	r.eventually("the purge", func() error { return r.logs(r.a, "(scheduled)") })
	r.ok(r.a.Stop())
}

// logs fails as long as a text is not in a daemon's log file.
func (r *rig) logs(d *nettest.Daemon, text string) error {
	all, err := os.ReadFile(d.Config.LogFile)
	if err == nil && !strings.Contains(string(all), text) {
		err = fmt.Errorf("%q is not in the log", text)
	}
	return err
}

func (r *rig) logEnds(d *nettest.Daemon) {
	r.Helper()
	r.eventually("the end", func() error { return r.logs(d, "---- shutdown received ----") })
}

// TestLogTexts has both kinds of daemon log the same lines.
func TestLogTexts(t *testing.T) {
	t.Parallel()
	for _, s := range logScenes {
		for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
			t.Run(s.name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				nettest.Need(t, nettest.C, kind)
				p := pairing{kind, nettest.C}
				var r *rig
				if s.rig != nil {
					r = s.rig(t, p)
				} else {
					r = newRig(t, p, s.change)
				}
				s.play(r)
				r.inLog(s.want, s.not)
			})
		}
	}
}

// logLine is a message, or an entry.
var logLine = regexp.MustCompile(`^(?:\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] \(pid=\d+\) |\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\t)(.*)$`)

// inLog fails unless the log of a has these lines in this order.
func (r *rig) inLog(want []string, not string) {
	r.Helper()
	text, err := os.ReadFile(r.a.Config.LogFile)
	r.ok(err)
	at := 0
	for line := range strings.Lines(string(text)) {
		m := logLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			r.Errorf("no log line: %q", line)
		} else if at < len(want) && regexp.MustCompile("^"+want[at]+"$").MatchString(m[1]) {
			at++
		}
	}
	if not != "" && strings.Contains(string(text), not) {
		r.Errorf("in the log: %s\n%s", not, text)
	}
	if at < len(want) {
		r.Errorf("not in the log, or not in this order: %s\n%s", want[at], text)
	}
}
