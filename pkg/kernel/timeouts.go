package kernel

import "github.com/conntrackgo/conntrackgo/pkg/flow"

// The states of TCP and SCTP in the order of their numbers; the names are
// those of the sysctls. TCP's last is a simultaneous open.
var (
	tcpTimeouts = [...]string{1: "syn_sent", "syn_recv", "established", "fin_wait", "close_wait",
		"last_ack", "time_wait", "close", "syn_sent"}
	sctpTimeouts = [...]string{1: "closed", "cookie_wait", "cookie_echoed", "established",
		"shutdown_sent", "shutdown_recd", "shutdown_ack_sent", "heartbeat_sent"}
)

// ReadTimeouts reads net.netfilter.nf_conntrack_*_timeout*, in the network
// namespace of the calling thread. What this kernel does not have is zero.
func ReadTimeouts() (t flow.Timeouts, err error) {
	read := func(name string, to *uint32) {
		v, e := readSysctl("nf_conntrack_" + name)
		if e != nil && err == nil {
			err = e
		}
		if e == nil && v != Unavailable {
			*to = uint32(v)
		}
	}
	for state, name := range tcpTimeouts {
		if name != "" {
			read("tcp_timeout_"+name, &t.TCP[state])
		}
	}
	for state, name := range sctpTimeouts {
		if name != "" {
			read("sctp_timeout_"+name, &t.SCTP[state])
		}
	}
	for name, to := range map[string]*uint32{
		"udp_timeout": &t.UDP, "udp_timeout_stream": &t.UDPStream,
		"gre_timeout": &t.GRE, "gre_timeout_stream": &t.GREStream,
		"icmp_timeout": &t.ICMP, "icmpv6_timeout": &t.ICMPv6,
		"generic_timeout": &t.Generic,
	} {
		read(name, to)
	}
	return t, err
}
