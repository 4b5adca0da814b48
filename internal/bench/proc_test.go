package main

import (
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestParseChildrenTime(t *testing.T) {
	// The name holds what separates fields.
	const stat = `42 (a) b (c)) S 1 42 42 0 -1 4194304 100 200 0 0 11 22 33 44 20 0 1 0 12345 1000 10`
	got, err := parseChildrenTime(stat)
	if err != nil || got != 770*time.Millisecond {
		t.Errorf("got %v, %v, want 33+44 ticks", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1", strings.Replace(stat, "33", "x", 1)} {
		if got, err := parseChildrenTime(bad); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func TestParseSwitches(t *testing.T) {
	const status = "Name:\tx\nVmRSS:\t 12 kB\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"
	if n, err := parseSwitches(status); err != nil || n != 695 {
		t.Errorf("got %d, %v, want 150+545", n, err)
	}
	if n, err := parseSwitches("Name:\tx\nnonvoluntary_ctxt_switches:\t5\n"); err == nil {
		t.Errorf("a status without voluntary switches gave %d", n)
	}
}

func TestParseDrops(t *testing.T) {
	const head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
	const text = head +
		"0000000000000001 0   4321       00000000 0        0        0     2        7        1\n" + // rtnetlink
		"0000000000000002 12  4321       00000007 0        0        0     2        1000     2\n" + // the daemon's events
		"0000000000000003 12  4322       00000000 0        0        0     2        50       3\n" + // no groups
		"0000000000000004 12  4323       00000400 0        0        0     2        3        4\n"
	if n, err := parseDrops(text); err != nil || n != 1003 {
		t.Errorf("got %d, %v, want 1003", n, err)
	}
	if n, err := parseDrops(head); err != nil || n != 0 {
		t.Errorf("no sockets: %d, %v", n, err)
	}
	if n, err := parseDrops(strings.Replace(text, "Drops", "Other", 1)); err == nil {
		t.Errorf("unknown columns gave %d", n)
	}
}

func TestParseLinkBytes(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     111       2    0    0    0     0          0         0      222       2    0    0    0     0       0          0
   sy0: 1000000      12    0    0    0     0          0         0    500000     13    0    0    0     0       0          0
`
	if n, err := parseLinkBytes(text, "sy0"); err != nil || n != 1_500_000 {
		t.Errorf("got %v, %v, want both directions", n, err)
	}
	if n, err := parseLinkBytes(text, "sy1"); err == nil {
		t.Errorf("a missing interface gave %v", n)
	}
}

func TestParseCacheSizes(t *testing.T) {
	const (
		internal = "cache internal:\ncurrent active connections:\t          22\nconnections created:\t\t          23\tfailed:\t0\n\n"
		external = "cache external:\ncurrent active connections:\t           2\n"
		inject   = "external inject:\nconnections created:\t\t           3\tfailed:\t           0\n"
	)
	if i, e, err := parseCacheSizes(internal + external); i != 22 || e != 2 || err != nil {
		t.Errorf("got %d, %d, %v", i, e, err)
	}
	if i, e, err := parseCacheSizes(internal + inject); i != 22 || e != 0 || err != nil {
		t.Errorf("without external cache: %d, %d, %v", i, e, err)
	}
	for _, bad := range []string{"", internal, external} {
		if i, e, err := parseCacheSizes(bad); err == nil {
			t.Errorf("%q gave %d and %d", bad, i, e)
		}
	}
}

// TestCPUTimeMovesWithWork measures itself: it must see work, and not more
// than all CPUs can do.
func TestCPUTimeMovesWithWork(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	x := 1.0
	for now := before; now-before < 20*time.Millisecond; {
		for range 1000 {
			x = math.Sqrt(x + 1)
		}
		if now, err = cpuTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%v of work in %v", now-before, time.Since(begin))
		}
	}
	after, err := cpuTime(os.Getpid())
	if most := time.Since(begin) * time.Duration(runtime.NumCPU()+1); err != nil || after-before > most {
		t.Errorf("%v of work in %v, %v (%v)", after-before, time.Since(begin), err, x)
	}
	if n, err := switches(os.Getpid()); n == 0 || err != nil {
		t.Errorf("%d context switches, %v", n, err)
	}
	if rss, err := resident(os.Getpid()); rss < 1e6 || rss > 1e10 || err != nil {
		t.Errorf("%v bytes resident, %v", rss, err)
	}
}

func TestRefusal(t *testing.T) {
	const log = "[Mon] (pid=1) [warning] Helper is not supported: ignored\n[Mon] (pid=1) [ERROR] DisableExternalCache is not supported: remove it\n"
	if got := refusal(log); !strings.Contains(got, "DisableExternalCache") {
		t.Errorf("got %q", got)
	}
	if got := refusal("[Mon] (pid=1) [ERROR] lock exists\n"); got != "" {
		t.Errorf("another error is no refusal: %q", got)
	}
}

func TestMarkersIn(t *testing.T) {
	datagram := []byte{1, 2, 3}
	for _, i := range []int{5, 70_000} {
		datagram = append(datagram, 0, 12, 0, 0, markerFrom, byte(i>>16), byte(i>>8), byte(i), 203, 0, 113, 77)
	}
	datagram = append(datagram, 10, 0, 0, 1, 203, 0, 113, 77) // somebody else's
	datagram = append(datagram, markerFrom, 0, 0, 9, 203, 0, 113)
	got := markersIn(datagram)
	if len(got) != 2 || got[0] != 5 || got[1] != 70_000 {
		t.Errorf("got %v", got)
	}
}
