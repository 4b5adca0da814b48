package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"golang.org/x/sys/unix"
)

// The filter of conntrackd.conf as a classic BPF program on the event socket:
// events it refuses never wake us. The verdicts are those of flow.Filter.Pass,
// except that
//
//   - the state does not matter for the end of a flow: one that is cached has to
//     leave the cache in whatever state it ended. Protocol and addresses do
//     matter: what they refuse was never cached, as they never change;
//   - whatever is no flow event, or lacks what the filter asks about, passes.
//
// The filter in user space judges again what has passed. So a program may
// refuse too little, never too much.
//
// Before all that it drops the flow events that one socket of our own caused,
// see Events.Ignore.

// Where things are in an event, and what the filter keeps in scratch memory.
const (
	typeOffset   = 4              // nlmsg_type, u16 in host byte order
	pidOffset    = 12             // nlmsg_pid, u32 in host byte order
	familyOffset = nlmsgHeaderLen // nfgen_family, u8
	attrsOffset  = nlmsgHeaderLen + nfgenLen

	memTuple = 0 // offset of CTA_TUPLE_ORIG
	memProto = 1 // protocol number

	wholeMessage = 1<<32 - 1
)

// Classic BPF instructions by what they do here.
const (
	opLoadConst  = unix.BPF_LD | unix.BPF_IMM
	opIndexConst = unix.BPF_LDX | unix.BPF_IMM
	opLoadMem    = unix.BPF_LD | unix.BPF_MEM
	opStoreMem   = unix.BPF_ST
	opAbsWord    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAbsHalf    = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	opAbsByte    = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	opIndByte    = unix.BPF_LD | unix.BPF_B | unix.BPF_IND
	opIndWord    = unix.BPF_LD | unix.BPF_W | unix.BPF_IND
	opIndex      = unix.BPF_MISC | unix.BPF_TAX
	opExtension  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
)

// Loads that search for attribute X: from offset A on, and in the one at A.
// They leave its offset in A, 0 if there is none (linux/filter.h: SKF_AD_OFF
// and SKF_AD_NLATTR, SKF_AD_NLATTR_NEST).
const (
	skfAdOff  = 1<<32 - 0x1000
	extAttr   = skfAdOff + 12
	extNested = skfAdOff + 16
)

// compileFilter returns the program for a filter and the port id of the socket
// to ignore, 0 for none; nil if it would be too long.
func compileFilter(f *flow.Filter, ignore uint32) []unix.SockFilter {
	c := compiler{filter: f, ignore: ignore}
	c.drop = c.ret(0)
	c.pass = c.ret(wholeMessage)
	next := c.states(c.pass)
	next = c.addresses(next)
	c.start(c.protocols(next))
	return c.assembled()
}

type compiler struct {
	program
	filter     *flow.Filter
	ignore     uint32
	pass, drop label
}

// listed and unlisted are where a policy sends a flow that the sets before
// and this one let go on.
func (c *compiler) listed(p flow.Policy, next label) (listed, unlisted label) {
	if p == flow.Accept {
		return next, c.drop
	}
	return c.drop, next
}

// start lets everything but flow events pass and remembers what the sets ask for.
func (c *compiler) start(next label) {
	if c.filter.Protocols != flow.Unset || c.filter.States != flow.Unset {
		next = c.then(opStoreMem, memProto, next)
		next = c.value(opIndByte, 0, next)
		next = c.find(extNested, ctaProtoNum, next)
		next = c.find(extNested, ctaTupleProto, next)
	}
	next = c.then(opStoreMem, memTuple, next)
	next = c.find(extAttr, ctaTupleOrig, next)
	next = c.then(opLoadConst, attrsOffset, next)
	if c.ignore != 0 {
		next = c.jump(unix.BPF_JEQ, wirePID(c.ignore), c.drop, next)
		next = c.then(opAbsWord, pidOffset, next)
	}
	other := c.jump(unix.BPF_JEQ, wireType(msgCtDelete), next, c.pass)
	next = c.jump(unix.BPF_JEQ, wireType(msgCtNew), next, other)
	c.then(opAbsHalf, typeOffset, next)
}

// wireType is how a load, which is big-endian, sees a message type.
func wireType(t uint16) uint32 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], t)
	return uint32(binary.BigEndian.Uint16(b[:]))
}

// wirePID is wireType for a port id.
func wirePID(id uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], id)
	return binary.BigEndian.Uint32(b[:])
}

// find looks for an attribute; a message without it passes.
func (c *compiler) find(how uint32, a attr, next label) label {
	next = c.jump(unix.BPF_JEQ, 0, c.pass, next)
	next = c.then(opExtension, how, next)
	return c.then(opIndexConst, uint32(a), next)
}

// value loads from the attribute at A, so many bytes into its value.
func (c *compiler) value(op uint16, at uint32, next label) label {
	next = c.then(op, nlattrLen+at, next)
	return c.then(opIndex, 0, next)
}

func (c *compiler) protocols(next label) label {
	if c.filter.Protocols == flow.Unset {
		return next
	}
	listed, unlisted := c.listed(c.filter.Protocols, next)
	next = c.search(numbers(c.filter.Protocol[:], listed, unlisted))
	return c.then(opLoadMem, memProto, next)
}

func (c *compiler) states(next label) label {
	if c.filter.States == flow.Unset {
		return next
	}
	listed, unlisted := c.listed(c.filter.States, next)
	next = c.search(numbers(c.filter.State[:], listed, unlisted))
	next = c.value(opIndByte, 0, next)
	next = c.find(extNested, ctaTCPState, next)
	next = c.find(extNested, ctaProtoinfoTCP, next)
	next = c.find(extAttr, ctaProtoinfo, next)
	next = c.then(opLoadConst, attrsOffset, next)
	next = c.jump(unix.BPF_JEQ, wireType(msgCtDelete), c.pass, next)
	next = c.then(opAbsHalf, typeOffset, next)
	next = c.jump(unix.BPF_JEQ, uint32(flow.ProtoTCP), next, c.pass)
	return c.then(opLoadMem, memProto, next)
}

// numbers are the segments of a set of small numbers.
func numbers(set []bool, listed, unlisted label) []segment {
	s := segments{rest: unlisted}
	for i, in := range set {
		if in {
			s.add(uint32(i), uint32(i), listed)
		}
	}
	return s.all()
}

func (c *compiler) addresses(next label) label {
	if c.filter.Addresses == flow.Unset {
		return next
	}
	set := *c.filter
	set.Compile() // sorted, disjoint
	var v4, v6 []flow.Prefix
	for _, p := range set.Prefixes {
		if p.Family == flow.IPv4 {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	listed, unlisted := c.listed(c.filter.Addresses, next)
	six := c.family(v6, ctaIPv6Src, listed, unlisted)
	four := c.family(v4, ctaIPv4Src, listed, unlisted)
	next = c.jump(unix.BPF_JEQ, uint32(flow.IPv6), six, c.pass)
	next = c.jump(unix.BPF_JEQ, uint32(flow.IPv4), four, next)
	return c.then(opAbsByte, familyOffset, next)
}

// family looks for the original source and then the reply source, which is
// the destination behind DNAT, among the prefixes of one family.
func (c *compiler) family(set []flow.Prefix, source attr, listed, unlisted label) label {
	if len(set) == 0 {
		return unlisted
	}
	next := c.words(set, 0, listed, unlisted)
	next = c.source(source, next)
	next = c.find(extAttr, ctaTupleReply, next)
	second := c.then(opLoadConst, attrsOffset, next)
	next = c.words(set, 0, listed, second)
	next = c.source(source, next)
	return c.then(opLoadMem, memTuple, next)
}

// source loads the first word of the source address of the tuple at A and
// leaves the offset of the attribute in X.
func (c *compiler) source(source attr, next label) label {
	next = c.value(opIndWord, 0, next)
	next = c.find(extNested, source, next)
	return c.find(extNested, ctaTupleIP, next)
}

// words searches for an address whose words before this one are those of
// every prefix of the set. A holds the word, X the attribute.
func (c *compiler) words(set []flow.Prefix, word int, listed, unlisted label) label {
	s := segments{rest: unlisted}
	for len(set) > 0 {
		p := &set[0]
		first := addrWord(p, word)
		if used := int(p.Bits) - 32*word; used <= 32 {
			s.add(first, first|uint32(1<<32-1)>>used, listed)
			set = set[1:]
			continue
		}
		n := 1
		for n < len(set) && addrWord(&set[n], word) == first {
			n++
		}
		deeper := c.words(set[:n], word+1, listed, unlisted)
		s.add(first, first, c.then(opIndWord, nlattrLen+4*uint32(word+1), deeper))
		set = set[n:]
	}
	return c.search(s.all())
}

func addrWord(p *flow.Prefix, word int) uint32 {
	return binary.BigEndian.Uint32(p.Addr[4*word:])
}

// errTooLong is why a filter is not judged in the kernel as a whole.
var errTooLong = fmt.Errorf("more addresses than fit into the %d instructions of a BPF program", maxProgram)

// attachFilter puts the filter on the socket, before it can receive anything.
// Where the kernel has no room for all of it, the addresses are left to user
// space and problem says why. It is an error only if the socket is closed.
func (s *socket) attachFilter(f *flow.Filter, ignore uint32) (problem error) {
	program := compileFilter(f, ignore)
	if program == nil {
		problem = errTooLong
	} else if problem = s.attach(program); problem == nil {
		return nil
	}
	without := *f
	if without.Addresses = flow.Unset; ignore == 0 && without.Protocols == flow.Unset && without.States == flow.Unset {
		return problem
	}
	if err := s.attach(compileFilter(&without, ignore)); err != nil {
		return errors.Join(problem, err)
	}
	return problem
}

func (s *socket) attach(program []unix.SockFilter) error {
	err := s.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("attach socket filter of %d instructions: %w (raise net.core.optmem_max)", len(program), err)
	}
	if err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	return nil
}
