package failover

import "testing"

func TestCounter(t *testing.T) {
	const snmp = "Ip: Forwarding RetransSegs\nIp: 1 9\nTcp: RtoMin InSegs RetransSegs\nTcp: 200 17 5\nUdp: InDatagrams\nUdp: 3\n"
	for _, test := range []struct {
		protocol, name string
		want           int
		ok             bool
	}{
		{"Tcp:", "RetransSegs", 5, true},
		{"Tcp:", "InSegs", 17, true},
		{"Udp:", "InDatagrams", 3, true},
		{"Udp:", "RetransSegs", 0, false},
		{"Sctp:", "RetransSegs", 0, false},
	} {
		if got, err := counter(snmp, test.protocol, test.name); got != test.want || (err == nil) != test.ok {
			t.Errorf("%s %s: %d, %v", test.protocol, test.name, got, err)
		}
	}
}
