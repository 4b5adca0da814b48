package daemontest_test

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"testing"
)

// shoot sends datagrams to a node's daemon from an address of B.
func (r *rig) shoot(from string, n int, datagram func(i int) []byte) {
	r.Helper()
	r.ok(r.two.B.Do(func() error {
		local := &net.UDPAddr{IP: net.ParseIP(from)}
		conn, err := net.DialUDP("udp4", local, &net.UDPAddr{IP: net.ParseIP("192.168.100.1"), Port: 3780})
		if err != nil {
			return err
		}
		defer conn.Close()
		for i := range n {
			if _, err := conn.Write(datagram(i)); err != nil {
				return err
			}
		}
		return nil
	}))
}

// number finds a counter in a report.
func (r *rig) number(report, pattern string) int {
	r.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(report)
	if m == nil {
		r.Fatalf("no %s in %q", pattern, report)
	}
	n, err := strconv.Atoi(m[1])
	r.ok(err)
	return n
}

// TestHostileDatagrams come from a foreign address, which is named once, and
// as rubbish from the other node's, which is counted. Replication goes on.
func TestHostileDatagrams(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 2000
	w := r.writer(r.two.B)
	r.must(w.Create(flows(1, 0, 100)))
	r.cached(r.a, -1, 100)
	r.ok(r.two.B.AddAddr("sy0", "203.0.113.5/32", "203.0.113.6/32"))
	lines := len(r.messages(r.a))
	for _, from := range []string{"203.0.113.5", "203.0.113.6"} {
		r.shoot(from, many, func(i int) []byte { return []byte{0x10, 0, 0, 8, 0, 0, byte(i >> 8), byte(i)} })
	}
	rubbish := func(i int) []byte {
		b := make([]byte, i%64+1)
		b[0] = byte(i) | 0x80 // a version that does not exist
		return b
	}
	r.shoot("192.168.100.2", many, rubbish)
	r.eventually("the counters", func() error {
		refused := r.number(r.request(r.a, "-s", "link"), `(\d+) Error recv`)
		malformed := r.number(r.request(r.a, "-s", "network"), `Malformed messages:\s+(\d+)`)
		if refused != 2*many || malformed < many {
			return fmt.Errorf("%d refused and %d malformed, want %d and at least %d", refused, malformed, 2*many, many)
		}
		return nil
	})
	r.must(w.Create(flows(1, 100, 200)))
	r.cached(r.a, -1, 200)
	// Each cause once; the counts are as of a moment after it began.
	want := []string{
		`^\[warning\] refused (a datagram|\d+ datagrams, the last one) from 203\.0\.113\.[56]: .*IPv4_Destination_Address`,
		`^\[warning\] malformed messages came over the sync link \(\d+\): `,
	}
	r.eventually("the lines about it", func() error {
		got := r.messages(r.a)[lines:]
		if len(got) != len(want) {
			return fmt.Errorf("the log got %d lines: %.500q", len(got), got)
		}
		for i := range want {
			if !regexp.MustCompile(want[i]).MatchString(got[i]) {
				return fmt.Errorf("the log got: %.500q", got)
			}
		}
		return nil
	})
}
