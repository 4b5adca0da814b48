package flow

import "testing"

func TestTimeoutsOf(t *testing.T) {
	all := Timeouts{UDP: 30, UDPStream: 120, GRE: 31, GREStream: 180, ICMP: 32, ICMPv6: 33, Generic: 600}
	all.TCP[3], all.TCP[7] = 432000, 120
	all.SCTP[4] = 210
	has := func(proto, state uint8) Flow {
		return Flow{Key: Key{Proto: proto}, Has: HasState, State: state}
	}
	plain := func(proto uint8, status uint32) Flow {
		return Flow{Key: Key{Proto: proto}, Has: HasStatus, Status: status}
	}
	for _, tt := range []struct {
		name string
		flow Flow
		want uint32
	}{
		{"TCP established", has(ProtoTCP, 3), 432000},
		{"TCP time wait", has(ProtoTCP, 7), 120},
		{"TCP, state not known", plain(ProtoTCP, StatusAssured), 0},
		{"TCP, a state that does not exist", has(ProtoTCP, 200), 0},
		{"SCTP established", has(ProtoSCTP, 4), 210},
		{"SCTP, a state that does not exist", has(ProtoSCTP, 9), 0},
		{"UDP", plain(ProtoUDP, StatusSeenReply), 30},
		{"UDP stream", plain(ProtoUDP, StatusAssured), 120},
		{"UDP-Lite stream", plain(ProtoUDPLite, StatusAssured), 120},
		{"GRE", plain(ProtoGRE, 0), 31},
		{"GRE stream", plain(ProtoGRE, StatusAssured), 180},
		{"ICMP", plain(ProtoICMP, 0), 32},
		{"ICMPv6", plain(ProtoICMPv6, 0), 33},
		{"DCCP", has(ProtoDCCP, 3), 0},
		{"another protocol", plain(50, StatusAssured), 600},
	} {
		if got := all.Of(&tt.flow); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
