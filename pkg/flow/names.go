package flow

// protoNames are the protocols that text output knows by name.
var protoNames = [256]string{
	ProtoICMP:    "icmp",
	ProtoTCP:     "tcp",
	ProtoUDP:     "udp",
	ProtoDCCP:    "dccp",
	ProtoGRE:     "gre",
	ProtoICMPv6:  "icmpv6",
	ProtoSCTP:    "sctp",
	ProtoUDPLite: "udplite",
}

func protoName(proto uint8) string {
	if name := protoNames[proto]; name != "" {
		return name
	}
	return "unknown"
}

// The states by the kernel's number: enum tcp_conntrack, enum sctp_conntrack
// and enum ct_dccp_states.
var (
	tcpStates = []string{
		"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
		"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
	}
	sctpStates = []string{
		"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT",
		"SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED",
	}
	dccpStates = []string{
		"NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN",
		"CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE", "INVALID",
	}
)

// stateName names a state. A number beyond the table is NONE, a protocol
// without states has the empty name.
func stateName(proto, state uint8) string {
	var names []string
	switch proto {
	case ProtoTCP:
		names = tcpStates
	case ProtoSCTP:
		names = sctpStates
	case ProtoDCCP:
		names = dccpStates
	default:
		return ""
	}
	if int(state) >= len(names) {
		state = 0
	}
	return names[state]
}
