package difftest_test

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// Programs that drive the daemon and read what it prints. Each does to either
// daemon what it does to conntrackd, in its order; what it relies on has to
// hold. The C daemon is the control.

// consumer is one of them at work.
type consumer struct {
	*stage
	*process
}

func forKinds(t *testing.T, config string, run func(c *consumer)) {
	nettest.Need(t, nettest.Go)
	for _, kind := range []nettest.Kind{nettest.Go, nettest.C} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			fill(t, s.self, 1)
			s.launch(s.peer, nettest.C, mirrored.Replace(config))
			p := s.launch(s.self, kind, config)
			if !p.running() {
				t.Fatal(p.Tail(20))
			}
			fill(t, s.peer, 2)
			s.quiet(p)
			run(&consumer{s, p})
		})
	}
}

// does runs a command that must succeed, without a word on stderr.
func (c *consumer) does(args ...string) string {
	c.T.Helper()
	stdout, stderr, code, err := c.client(args...)
	ok(c.T, err)
	if code != 0 || stderr != "" {
		c.T.Fatalf("%q: exit code %d, %q on stderr", args, code, stderr)
	}
	return stdout
}

// vyos is what its generator writes: a Helper section that only needs to be
// parsed, several own addresses in one link, names of protocols in its
// spelling. The C daemon does not start with the Helper section here.
const vyos = `
Sync {
    Mode FTFW {
        StartupResync on
    }
    UDP {
        IPv4_address 10.10.10.1
        IPv4_address 192.168.100.100
        IPv4_Destination_Address 192.168.100.101
        Port 3780
        Interface eth2
        SndSocketBuffer 1048576
        RcvSocketBuffer 1048576
        Checksum on
    }
}
General {
    HashSize 32768
    HashLimit 65536
    LogFile off
    Syslog off
    LockFile /var/lock/conntrack.lock
    UNIX {
        Path /var/run/conntrackd.ctl
    }
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    NetlinkOverrunResync off
    NetlinkEventsReliable on
    Filter From Userspace {
        Address Ignore {
            IPv4_address 127.0.0.1
            IPv6_address ::1
        }
        Protocol Accept {
            TCP
            SCTP
            DCCP
            UDP
            ICMP
            IPv6-ICMP
        }
    }
}
`

// flowXML is what the cache views of VyOS take out of a line: meta elements
// with their direction; of the original one addresses, ports and protocol.
type flowXML struct {
	XMLName xml.Name `xml:"flow"`
	Meta    []struct {
		Direction string `xml:"direction,attr"`
		Layer3    *struct {
			Src *string `xml:"src"`
			Dst *string `xml:"dst"`
		} `xml:"layer3"`
		Layer4 *struct {
			Name  string  `xml:"protoname,attr"`
			Sport *uint16 `xml:"sport"`
			Dport *uint16 `xml:"dport"`
		} `xml:"layer4"`
	} `xml:"meta"`
}

// cacheView reads a cache as its operational mode does: every line is a
// document of its own. It returns the number of flows.
func (c *consumer) cacheView(args ...string) (flows int) {
	c.T.Helper()
	for line := range strings.Lines(c.does(args...)) {
		var f flowXML
		if err := xml.Unmarshal([]byte(line), &f); err != nil {
			c.T.Fatalf("%q: %v in %q", args, err, line)
		}
		if len(f.Meta) < 2 {
			c.T.Fatalf("%q: meta is no list in %q", args, line)
		}
		seen := 0
		for _, m := range f.Meta {
			if m.Direction != "original" {
				continue
			}
			seen++
			ports := m.Layer4 != nil && (m.Layer4.Name == "tcp" || m.Layer4.Name == "udp")
			if m.Layer3 == nil || m.Layer3.Src == nil || m.Layer3.Dst == nil || m.Layer4 == nil || m.Layer4.Name == "" ||
				ports && (m.Layer4.Sport == nil || m.Layer4.Dport == nil) {
				c.T.Fatalf("%q: not all there in %q", args, line)
			}
		}
		if seen != 1 {
			c.T.Fatalf("%q: %d original directions in %q", args, seen, line)
		}
		flows++
	}
	return flows
}

func TestVyOS(t *testing.T) {
	forKinds(t, vyos, func(c *consumer) {
		// Its service manager's restart: both requests come at once.
		c.does("-n")
		c.does("-B")
		c.quiet(c.process)
		// Views.
		for _, cache := range []string{"-e", "-i"} {
			if n := c.cacheView(cache, "ct", "-x"); n < 40 {
				c.T.Errorf("%s has %d flows", cache, n)
			}
			if out := c.does(cache, "expect", "-x"); out != "" {
				c.T.Errorf("%s expect -x without ExpectationSync printed %q", cache, out)
			}
		}
		if out := c.does("-s"); !strings.HasPrefix(out, "cache internal:\n") {
			c.T.Errorf("-s printed %q", out)
		}
		c.does("-s", "exp")
		// The VRRP script, to master: a second commit follows the first.
		for _, args := range []string{"-c", "-c exp", "-f", "-R", "-B"} {
			c.does(strings.Fields(args)...)
		}
		if strings.Contains(c.Tail(100), "already in progress") {
			c.T.Errorf("the second commit came too early for:\n%s", c.Tail(100))
		}
		if n := c.cacheView("-i", "ct", "-x"); n < 80 {
			c.T.Errorf("%d flows after the commit", n)
		}
		// To backup.
		if out := c.does("-s"); out == "" {
			c.T.Error("-s printed nothing")
		}
		c.does("-t")
		c.does("-n")
		// Resets.
		for _, args := range []string{"-f external", "-f internal", "-R", "-n", "-B"} {
			c.does(strings.Fields(args)...)
		}
		c.does("-f")
		if n := c.cacheView("-i", "ct", "-x"); n != 0 {
			c.T.Errorf("%d flows in a flushed cache", n)
		}
	})
}

// TestVyOSHelperSection: its generator always writes one.
func TestVyOSHelperSection(t *testing.T) {
	nettest.Need(t, nettest.Go)
	s := newStage(t)
	p := s.launch(s.self, nettest.Go, vyos+"\nHelper {\nType rpc inet tcp {\nQueueNum 3\nPolicy rpc {\nExpectMax 1\nExpectTimeout 300\n}\n}\n}\n")
	c := &consumer{s, p}
	c.does("-s")
}

// pacemaker is the resource agent's view of a node: the configuration tells
// where the socket is, its presence whether the daemon runs.
type pacemaker struct {
	*consumer
	socket string
}

// running is the agent's monitor action.
func (a *pacemaker) running() bool {
	a.T.Helper()
	if st, err := os.Stat(a.socket); err != nil || st.Mode().Type() != os.ModeSocket {
		return false
	}
	a.does("-s")
	return true
}

func TestPacemaker(t *testing.T) {
	forKinds(t, strings.Replace(vyos, "LogFile off", "LogFile on", 1), func(c *consumer) {
		text, err := os.ReadFile(c.conf)
		ok(c.T, err)
		m := regexp.MustCompile(`UNIX\s*\{\s*Path (\S+)`).FindSubmatch(text)
		if m == nil {
			c.T.Fatal("no socket in the configuration")
		}
		a := &pacemaker{c, string(m[1])}
		// Stop: -k, and the socket is gone when it returns, else the agent
		// asks again and fails.
		if !a.running() {
			c.T.Fatal("not running at the beginning")
		}
		c.does("-k")
		if a.running() {
			c.T.Fatal("the socket is there after -k")
		}
		// Start: -d, and everything works when it returns.
		_, stderr, code, err := c.client("-d")
		ok(c.T, err)
		if code != 0 {
			c.T.Fatalf("-d: exit code %d, %q", code, stderr)
		}
		defer func() { _, _, _, _ = c.client("-k") }()
		if !a.running() {
			c.T.Fatal("not running after -d")
		}
		c.does("-n")
		// Promote, monitor, demote, notify.
		for _, option := range []string{"-c", "-f", "-R", "-B"} {
			c.does(option)
		}
		if !a.running() {
			c.T.Fatal("not running as master")
		}
		c.does("-t")
		c.does("-n")
		c.does("-B")
		c.does("-k")
		if a.running() {
			c.T.Fatal("the socket is there after the second -k")
		}
		if _, _, code, _ := c.client("-s"); code != 1 {
			c.T.Errorf("-s without a daemon: exit code %d", code)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(c.conf), "conntrack.lock")); err == nil {
			c.T.Error("the lock is left, the next start would fail")
		}
	})
}

// TestSos collects what a support report holds: each command to its end, with
// a text for every view that the configuration has.
func TestSos(t *testing.T) {
	forKinds(t, vyos, func(c *consumer) {
		for view, begins := range map[string]string{
			"network": "network statistics:\n", "cache": "cache:internal\t", "runtime": "daemon uptime: ", "link": "UDP traffic device=eth2 status=RUNNING role=ACTIVE:\n",
			"rsqueue": "resent queue (len=", "queue": "allocated queue nodes:", "ct": "cache internal:\n", "expect": "",
		} {
			if out := c.does("-s", view); !strings.HasPrefix(out, begins) || (out == "") != (begins == "") {
				c.T.Errorf("-s %s printed %q, want it to begin with %q", view, out, begins)
			}
		}
	})
}

// TestMonitoring takes numbers out of -s as check plug-ins do.
func TestMonitoring(t *testing.T) {
	forKinds(t, vyos, func(c *consumer) {
		out := c.does("-s")
		for pattern, want := range map[string]int{
			`current active connections:\s+(\d+)`: 2, `failed:\s+(\d+)`: 6, `(\d+) Lost msgs`: 1, `(\d+) Malformed msgs`: 1, `(\d+) Error recv`: 1,
		} {
			if got := regexp.MustCompile(pattern).FindAllString(out, -1); len(got) != want {
				c.T.Errorf("%s: %q, want %d", pattern, got, want)
			}
		}
		lines := strings.Count(c.does("-i"), "\n")
		if active := fmt.Sprintf("current active connections:\t%12d\n", lines); !strings.Contains(out, active) {
			c.T.Errorf("%d lines of -i, -s says %q", lines, out)
		}
	})
}
