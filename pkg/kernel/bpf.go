package kernel

import "golang.org/x/sys/unix"

// maxProgram is BPF_MAXINSNS: the longest classic BPF program the kernel takes.
const maxProgram = 4096

// A label is an instruction of a program under construction.
type label int

// program builds a classic BPF program from its end: code only jumps forward,
// so whoever emits an instruction knows where its targets are. Conditional
// jumps reach 255 instructions; for what is farther a long jump is put in
// between and shared by all who come near it. Once the program is longer than
// the kernel takes, full is set and what is built is of no use.
type program struct {
	code []unix.SockFilter // last instruction first
	near map[label]label   // the latest long jump to a label
	full bool
}

// assembled returns the instructions in their order, nil if there are too many.
func (p *program) assembled() []unix.SockFilter {
	if p.full {
		return nil
	}
	n := len(p.code)
	out := make([]unix.SockFilter, n)
	for i, in := range p.code {
		out[n-1-i] = in
	}
	return out
}

func (p *program) emit(in unix.SockFilter) label {
	if len(p.code) == maxProgram {
		p.full = true
		return maxProgram - 1
	}
	p.code = append(p.code, in)
	return label(len(p.code) - 1)
}

// distance is the offset of a jump to l in the instruction emitted next.
func (p *program) distance(l label) int { return len(p.code) - int(l) - 1 }

// ret ends the program: the socket gets so many bytes of the message.
func (p *program) ret(bytes uint32) label {
	return p.emit(unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: bytes})
}

func (p *program) long(to label) label {
	return p.emit(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(p.distance(to))})
}

// then emits an instruction that goes on with next.
func (p *program) then(code uint16, k uint32, next label) label {
	if p.distance(next) != 0 {
		p.long(next)
	}
	return p.emit(unix.SockFilter{Code: code, K: k})
}

// jump emits a comparison of A with k.
func (p *program) jump(op uint16, k uint32, yes, no label) label {
	const reach = 255
	if yes == no {
		return yes
	}
	yes = p.within(reach-1, yes) // a long jump for the other may move it away by one
	no = p.within(reach, no)
	return p.emit(unix.SockFilter{
		Code: unix.BPF_JMP | op | unix.BPF_K, K: k,
		Jt: uint8(p.distance(yes)), Jf: uint8(p.distance(no)),
	})
}

// within returns a place at most reach instructions ahead that leads to a label.
func (p *program) within(reach int, to label) label {
	if p.distance(to) <= reach {
		return to
	}
	if near, ok := p.near[to]; ok && p.distance(near) <= reach {
		return near
	}
	if p.near == nil {
		p.near = make(map[label]label)
	}
	near := p.long(to)
	p.near[to] = near
	return near
}

// A segment is where to go with the values from first on, up to the next
// segment.
type segment struct {
	first uint32
	to    label
}

// search emits a binary search for A. The first segment starts at 0.
func (p *program) search(s []segment) label {
	switch {
	case len(s) == 1:
		return s[0].to
	case len(s) == 3 && s[0].to == s[2].to && s[2].first-s[1].first == 1:
		return p.jump(unix.BPF_JEQ, s[1].first, s[1].to, s[0].to)
	}
	mid := len(s) / 2
	above := p.search(s[mid:])
	below := p.search(s[:mid])
	return p.jump(unix.BPF_JGE, s[mid].first, above, below)
}

// segments collects segments in ascending order; gaps lead to rest.
type segments struct {
	list []segment
	rest label
	next uint64 // the first value that has no segment yet
}

// add leads the values first to last somewhere.
func (s *segments) add(first, last uint32, to label) {
	if uint64(first) > s.next {
		s.put(uint32(s.next), s.rest)
	}
	s.put(first, to)
	s.next = uint64(last) + 1
}

func (s *segments) put(first uint32, to label) {
	if n := len(s.list); n == 0 || s.list[n-1].to != to {
		s.list = append(s.list, segment{first, to})
	}
}

// all returns the segments, which cover every value of a word.
func (s *segments) all() []segment {
	if s.next < 1<<32 {
		s.put(uint32(s.next), s.rest)
	}
	return s.list
}
