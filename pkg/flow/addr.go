package flow

import "strconv"

// Append appends the address as inet_ntop writes it: lower case, the longest
// run of zero groups compressed, the last four bytes dotted in the
// IPv4-compatible and IPv4-mapped ranges.
func (a *Addr) Append(dst []byte, family uint8) []byte {
	if family == IPv4 {
		return appendDotted(dst, a[:4])
	}
	start, length := a.zeroRun()
	groups := 8
	if a.holdsIPv4(start, length) {
		groups = 6
	}
	for i := 0; i < groups; i++ {
		if i == start {
			dst = append(dst, ':', ':')
			i += length - 1
			continue
		}
		if i > 0 && i != start+length {
			dst = append(dst, ':')
		}
		dst = strconv.AppendUint(dst, uint64(a.group(i)), 16)
	}
	if groups == 6 {
		if start+length < 6 {
			dst = append(dst, ':')
		}
		dst = appendDotted(dst, a[12:])
	}
	return dst
}

func (a *Addr) group(i int) uint16 { return uint16(a[2*i])<<8 | uint16(a[2*i+1]) }

// zeroRun finds the first longest run of at least two zero groups; start is -1
// without one.
func (a *Addr) zeroRun() (start, length int) {
	start, length = -1, 1
	for i := 0; i < 8; i++ {
		n := 0
		for i+n < 8 && a.group(i+n) == 0 {
			n++
		}
		if n > length {
			start, length = i, n
		}
		i += n
	}
	return start, length
}

// holdsIPv4 reports whether the run of zero groups makes this ::a.b.c.d or
// ::ffff:a.b.c.d.
func (a *Addr) holdsIPv4(start, length int) bool {
	return start == 0 && (length == 6 || length == 5 && a.group(5) == 0xffff)
}

func appendDotted(dst, b []byte) []byte {
	for i, c := range b {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, uint64(c), 10)
	}
	return dst
}
