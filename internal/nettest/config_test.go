package nettest

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestConfigText(t *testing.T) {
	c := Config{
		Local: SyncA6, Peer: SyncB6, Interface: SyncIf, Port: 3780,
		StartupResync: true, PurgeTimeout: 5, CommitTimeout: 7, ModeLines: []string{"ACKWindowSize 20"},
		TCPWindowTracking: true, HashLimit: 1000, IgnoreAddresses: []netip.Addr{SyncA, SyncA6},
		FilterLines: []string{"Protocol Ignore { ICMP }"}, GeneralLines: []string{"NetlinkOverrunResync 5"},
		Ours: []string{"Group on"}, Extra: "# the end\n",
		Socket: "/tmp/x.ctl", Lock: "/tmp/x.lock", LogFile: "/tmp/x.log",
	}
	path := filepath.Join("testdata", "conntrackd.conf")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Text(); got != string(want) {
		t.Errorf("%s and the text differ:\n%s", path, got)
	}
}

// TestCDaemonTakesEveryConfig starts the C daemon with what the lab can write.
func TestCDaemonTakesEveryConfig(t *testing.T) {
	lab := Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := SyncConfigs(false)
	v6, _ := SyncConfigs(true)
	full := v6
	full.StartupResync, full.PurgeTimeout, full.CommitTimeout, full.ModeLines = true, 5, 7, []string{"ACKWindowSize 20"}
	full.TCPWindowTracking, full.ExpectationSync = true, true
	full.IgnoreAddresses = []netip.Addr{SyncA, SyncA6}
	full.FilterLines = []string{"Protocol Ignore { ICMP }"}
	full.GeneralLines = []string{"NetlinkOverrunResync 5"}
	notrack := plain
	notrack.Mode, notrack.ModeLines = "NOTRACK", []string{"DisableExternalCache on"}
	custom := plain
	custom.Link = "\tMulticast {\n\t\tIPv4_address 225.0.0.50\n\t\tGroup 3780\n\t\tIPv4_interface 192.168.100.1\n\t\tInterface sy0\n\t}"
	for name, cfg := range map[string]Config{"plain": plain, "v6": v6, "full": full, "notrack": notrack, "own link": custom} {
		t.Run(name, func(t *testing.T) {
			d, err := lab.NewDaemon(two.A, C, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEchoRoundTrips(t *testing.T) {
	lab := Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	if err := two.B.ServeEcho(7); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, to := range []string{"192.168.100.2:7", "[fd00:100::2]:7"} {
			c, err := two.A.Dial(network, to, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := c.RoundTrip(5 * time.Second); err != nil {
					t.Error(err)
				}
			}
			// What was sent in the dark is skipped afterwards.
			if err := two.B.IP("link set sy0 down"); err != nil {
				t.Fatal(err)
			}
			if err := c.RoundTrip(100 * time.Millisecond); err == nil {
				t.Errorf("%v: a round trip over a dead link", c)
			}
			if err := two.B.IP("link set sy0 up"); err != nil {
				t.Fatal(err)
			}
			if err := two.B.AddAddr(SyncIf, SyncB6.String()+"/64"); err != nil {
				t.Fatal(err) // the kernel removes IPv6 addresses with the link
			}
			if err := c.RoundTrip(10 * time.Second); err != nil {
				t.Errorf("after the link returned: %v", err)
			}
		}
	}
}
