package confparse

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// filterRows are General { Filter { ... } }.
var filterRows = slices.Concat([]row{
	{
		in: "General", words: "Filter", arg: block, head: headFrom,
		set: func(b *builder, v value) error {
			b.cfg.Kernel.KernelFilter = v.head == "From Kernelspace"
			return nil
		},
		absent: "From Userspace",
		help:   "Which events are heeded. Several blocks add up; the last From counts.",
	},
	{
		in: "General/Filter", words: "Protocol", arg: block, head: headPolicy,
		set:  setFilterPolicy(func(f *flow.Filter) *flow.Policy { return &f.Protocols }),
		help: "Accept only these protocols, or Ignore them. The last word counts for the whole list.",
	},
	{
		in: "General/Filter/Protocol", words: "TCP", set: filterProtocol,
		help: "Protocol 6.",
	},
	{
		in: "General/Filter/Protocol", words: "UDP", set: filterProtocol,
		help: "Protocol 17.",
	},
	{
		in: "General/Filter/Protocol", words: "*", set: filterProtocol,
		help: "A protocol by its name in the protocols database, case-sensitive: sctp, SCTP, icmp, IPv6-ICMP, gre. Unknown names are skipped with a warning.",
	},
	{
		in: "General/Filter", words: "Address", arg: block, head: headPolicy,
		set:  setFilterPolicy(func(f *flow.Filter) *flow.Policy { return &f.Addresses }),
		help: "Accept only flows from or to these addresses, or Ignore them.",
	},
	{
		in: "General/Filter/Address", words: "IPv4_address", arg: address, set: filterAddress(flow.IPv4),
		help: "A host, or a network with its prefix length. What is none is skipped with a warning.",
	},
	{
		in: "General/Filter/Address", words: "IPv6_address", arg: address, set: filterAddress(flow.IPv6),
		help: "A host, or a network with its prefix length. What is none is skipped with a warning.",
	},
	{
		in: "General/Filter", words: "State", arg: block, head: headPolicy,
		set:  setFilterPolicy(func(f *flow.Filter) *flow.Policy { return &f.States }),
		done: closeStates,
		help: "Accept only TCP flows in these states, or Ignore them: states, then `for TCP`.",
	},
	{
		in: "General/Filter/State", words: "for", arg: literalTCP,
		set: func(b *builder, _ value) error {
			b.states = nil
			return nil
		},
		help: "Ends a list of states.",
	},
}, stateRows())

// states are the words of a list of states. The numbers are the kernel's;
// 9 was LISTEN once and is SYN_SENT2 today.
var states = []struct {
	words  string
	number uint8
}{
	{"SYN_SENT", 1},
	{"SYN_RECV", 2},
	{"ESTABLISHED", 3},
	{"FIN_WAIT", 4},
	{"CLOSE_WAIT", 5},
	{"LAST_ACK", 6},
	{"TIME_WAIT", 7},
	{"CLOSE CLOSED", 8},
	{"LISTEN", 9},
}

func stateRows() (rows []row) {
	for _, s := range states {
		rows = append(rows, row{
			in: "General/Filter/State", words: s.words,
			set: func(b *builder, v value) error {
				b.cfg.Node.Filter.State[s.number] = true
				b.states = append(b.states, v)
				return nil
			},
			help: fmt.Sprintf("TCP state %d of the kernel.", s.number),
		})
	}
	return rows
}

// closeStates refuses a list without its end.
func closeStates(b *builder, _ value) error {
	if len(b.states) > 0 {
		return fmt.Errorf("the list of states must end with `for TCP' after %s", b.states[len(b.states)-1].text)
	}
	return nil
}

func setFilterPolicy(field func(*flow.Filter) *flow.Policy) func(*builder, value) error {
	return func(b *builder, v value) error {
		*field(&b.cfg.Node.Filter) = flow.Accept
		if v.head == "Ignore" {
			*field(&b.cfg.Node.Filter) = flow.Ignore
		}
		return nil
	}
}

func filterProtocol(b *builder, v value) error {
	number, ok := protocolNumbers[v.text]
	if !ok {
		b.warnf(v.pos, "unknown protocol %s is skipped%s", quote(v.text), suggest(v.text, protocolNames))
		return nil
	}
	b.cfg.Node.Filter.Protocol[number] = true
	return nil
}

func filterAddress(family uint8) func(*builder, value) error {
	return func(b *builder, v value) error {
		text, length, hasLength := strings.Cut(v.text, "/")
		addr, err := b.address(value{pos: v.pos, text: text}, family)
		if err != nil {
			return err
		}
		if addr.Zone() != "" {
			return errors.New("an address in a filter cannot have a zone: " + quote(v.text))
		}
		if !addr.IsValid() {
			b.warnf(v.pos, "%s is not an IPv%d address and is skipped", quote(v.text), versions[family])
			return nil
		}
		bits := addr.BitLen()
		if hasLength {
			n, err := strconv.Atoi(length)
			if err != nil || n > bits {
				b.warnf(v.pos, "%s has a prefix longer than %d and is skipped", quote(v.text), bits)
				return nil
			}
			bits = n
		}
		p := flow.Prefix{Family: family, Bits: uint8(bits)}
		copy(p.Addr[:], addr.AsSlice())
		p.Addr = p.Addr.Mask(p.Bits)
		b.addPrefix(v, p, bits == addr.BitLen())
		return nil
	}
}

// addPrefix adds what is not there yet. A repeated host is nothing to talk
// about: generated files have them.
func (b *builder) addPrefix(v value, p flow.Prefix, host bool) {
	f := &b.cfg.Node.Filter
	switch {
	case !slices.Contains(f.Prefixes, p):
		f.Prefixes = append(f.Prefixes, p)
	case !host:
		b.warnf(v.pos, "network %s is repeated", quote(v.text))
	}
}
