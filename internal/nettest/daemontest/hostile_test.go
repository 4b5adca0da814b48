package daemontest_test

import (
	"fmt"
	"net"
	"regexp"
	"testing"
)

// shoot sends datagrams to a node's daemon from an address of B.
func (r *rig) shoot(from string, n int, datagram func(i int) []byte) {
	r.Helper()
	r.OK(r.Two.B.Do(func() error {
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

// TestHostileDatagrams come from a foreign address, which is named once, and
// as rubbish from the other node's, which is counted. Replication goes on.
func TestHostileDatagrams(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 2000
	w := r.Writer(r.Two.B)
	r.Must(w.Create(flows(1, 0, 100)))
	r.cached(r.A, -1, 100)
	r.OK(r.Two.B.AddAddr("sy0", "203.0.113.5/32", "203.0.113.6/32"))
	lines := len(own(r.Messages(r.A)))
	for _, from := range []string{"203.0.113.5", "203.0.113.6"} {
		r.shoot(from, many, func(i int) []byte { return []byte{0x10, 0, 0, 8, 0, 0, byte(i >> 8), byte(i)} })
	}
	rubbish := func(i int) []byte {
		b := make([]byte, i%64+1)
		b[0] = byte(i) | 0x80 // a version that does not exist
		return b
	}
	r.shoot("192.168.100.2", many, rubbish)
	r.Eventually("the counters", func() error {
		refused := r.Number(r.Request(r.A, "-s", "link"), `(\d+) Error recv`)
		malformed := r.Number(r.Request(r.A, "-s", "network"), `Malformed messages:\s+(\d+)`)
		if refused != 2*many || malformed < many {
			return fmt.Errorf("%d refused and %d malformed, want %d and at least %d", refused, malformed, 2*many, many)
		}
		return nil
	})
	r.Must(w.Create(flows(1, 100, 200)))
	r.cached(r.A, -1, 200)
	// Each cause once; the counts are as of a moment after it began.
	want := []string{
		`^\[warning\] refused (a datagram|\d+ datagrams, the last one) from 203\.0\.113\.[56]: .*IPv4_Destination_Address`,
		`^\[warning\] malformed messages came over the sync link \(\d+\): `,
	}
	r.Eventually("the lines about it", func() error {
		got := own(r.Messages(r.A))[lines:]
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
