package nettest

import (
	"bufio"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Tuple is one direction of a flow as the text formats show it.
type Tuple struct {
	Src, Dst     netip.Addr
	Sport, Dport uint16 // GRE: the keys
	Type, Code   uint8  // ICMP and ICMPv6
	ID           uint16 // ICMP and ICMPv6
}

// Key identifies a flow: original tuple and zone.
type Key struct {
	Proto uint8
	Tuple
	Zone uint16
}

func (k Key) String() string {
	s := fmt.Sprintf("proto %d %v:%d > %v:%d", k.Proto, k.Src, k.Sport, k.Dst, k.Dport)
	if k.Type != 0 || k.ID != 0 {
		s += fmt.Sprintf(" type %d code %d id %d", k.Type, k.Code, k.ID)
	}
	if k.Zone != 0 {
		s += fmt.Sprintf(" zone %d", k.Zone)
	}
	return s
}

// Entry is one flow of "conntrack -L -o extended,id" or of a daemon's dump. A
// mark that isn't shown is 0: the daemons and the kernel leave it out or print
// mark=0 depending on how they learnt the entry.
type Entry struct {
	Key
	Timeout   int    // seconds, -1 if not shown
	State     string // of TCP, SCTP, DCCP
	Reply     Tuple
	HasReply  bool // external caches don't show the reply tuple
	Unreplied bool
	Assured   bool
	Offload   string // "OFFLOAD", "HW_OFFLOAD"
	Mark      uint32
	ZoneOrig  uint16
	ZoneReply uint16
	Helper    string
	Use, ID   uint32
	Active    int        // "active since", seconds; -1 if not shown
	From      netip.Addr // the node that told of it, in a group
	Raw       *RawEntry
}

// Table holds flows by key.
type Table map[Key]*Entry

// ParseTable reads the plain text of a daemon's dump or of "conntrack -L",
// with or without the extended prefix. Two lines with one key are an error.
func ParseTable(text string) (Table, error) {
	t := Table{}
	return t, parseLines(text, t.add)
}

// ParseTables reads the plain text of a group's external caches: one table for
// each node that told of something.
func ParseTables(text string) (map[netip.Addr]Table, error) {
	all := map[netip.Addr]Table{}
	return all, parseLines(text, func(e *Entry) error {
		if !e.From.IsValid() {
			return fmt.Errorf("parse table: nobody told of %v", e.Key)
		}
		if all[e.From] == nil {
			all[e.From] = Table{}
		}
		return all[e.From].add(e)
	})
}

func (t Table) add(e *Entry) error {
	if t[e.Key] != nil {
		return fmt.Errorf("parse table: %v is there twice", e.Key)
	}
	t[e.Key] = e
	return nil
}

func parseLines(text string, add func(*Entry) error) error {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if lines.Text() == "" {
			return fmt.Errorf("parse table: empty line")
		}
		e, err := ParseEntry(lines.Text())
		if err != nil {
			return err
		}
		if err := add(e); err != nil {
			return err
		}
	}
	return lines.Err()
}

// ParseEntry reads one line of such a table.
func ParseEntry(line string) (*Entry, error) {
	e := &Entry{Timeout: -1, Active: -1}
	rest, err := e.parseSuffixes(line)
	if err != nil {
		return nil, fmt.Errorf("parse entry %q: %w", line, err)
	}
	words := strings.Fields(rest)
	if len(words) > 1 && (words[0] == "ipv4" || words[0] == "ipv6") {
		words = words[2:]
	}
	if len(words) < 3 {
		return nil, fmt.Errorf("parse entry %q: too short", line)
	}
	proto, err := strconv.ParseUint(words[1], 10, 8)
	if err != nil {
		return nil, fmt.Errorf("parse entry %q: %w", line, err)
	}
	e.Proto = uint8(proto)
	p := entryParser{Entry: e}
	for _, w := range words[2:] {
		if err := p.word(w); err != nil {
			return nil, fmt.Errorf("parse entry %q: %w", line, err)
		}
	}
	if p.sources == 0 {
		return nil, fmt.Errorf("parse entry %q: no addresses", line)
	}
	e.HasReply = p.sources > 1
	return e, nil
}

// parseSuffixes takes "[active since 3s]", "[expires in 4s]" and what may
// follow, "[from ADDRESS]", off a line.
func (e *Entry) parseSuffixes(line string) (string, error) {
	if head, tail, ok := strings.Cut(line, " [from "); ok {
		from, err := netip.ParseAddr(strings.TrimSuffix(tail, "]"))
		if err != nil {
			return "", err
		}
		e.From, line = from, head
	}
	if head, tail, ok := strings.Cut(line, " [active since "); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(tail, "s]"))
		if err != nil {
			return "", err
		}
		e.Active, line = n, head
	}
	if head, _, ok := strings.Cut(line, " [expires in "); ok {
		line = head
	}
	return line, nil
}

// entryParser knows which direction a repeated word belongs to: the second
// "src=" begins the reply.
type entryParser struct {
	*Entry
	sources int
}

func (p *entryParser) tuple() *Tuple {
	if p.sources > 1 {
		return &p.Reply
	}
	return &p.Tuple
}

func (p *entryParser) word(w string) error {
	name, value, isPair := strings.Cut(w, "=")
	if isPair {
		return p.pair(name, value)
	}
	switch w {
	case "[UNREPLIED]":
		p.Unreplied = true
	case "[ASSURED]":
		p.Assured = true
	case "[OFFLOAD]", "[HW_OFFLOAD]":
		p.Offload = strings.Trim(w, "[]")
	default:
		if n, err := strconv.Atoi(w); err == nil {
			p.Timeout = n
			return nil
		}
		if strings.HasPrefix(w, "[") || p.State != "" || p.sources > 0 {
			return fmt.Errorf("unknown word %q", w)
		}
		p.State = w
	}
	return nil
}

func (p *entryParser) pair(name, value string) error {
	switch name {
	case "src", "dst":
		a, err := netip.ParseAddr(value)
		if err != nil {
			return err
		}
		if name == "src" {
			p.sources++
			p.tuple().Src = a
		} else {
			p.tuple().Dst = a
		}
		return nil
	case "helper":
		p.Helper = value
		return nil
	case "secctx":
		return nil
	}
	n, err := strconv.ParseUint(value, 0, 64)
	if err != nil {
		return err
	}
	return p.number(name, n)
}

func (p *entryParser) number(name string, n uint64) error {
	t := p.tuple()
	switch name {
	case "sport", "srckey":
		t.Sport = uint16(n)
	case "dport", "dstkey":
		t.Dport = uint16(n)
	case "type":
		t.Type = uint8(n)
	case "code":
		t.Code = uint8(n)
	case "id":
		// The kernel's entry id follows "use="; an ICMP id belongs to a tuple.
		if p.isICMP() && p.Use == 0 {
			t.ID = uint16(n)
		} else {
			p.Entry.ID = uint32(n) //nolint:staticcheck // p.ID would be the ICMP id of the tuple
		}
	case "mark":
		p.Mark = uint32(n)
	case "zone":
		p.Zone = uint16(n)
	case "zone-orig":
		p.ZoneOrig = uint16(n)
	case "zone-reply":
		p.ZoneReply = uint16(n)
	case "use":
		p.Use = uint32(n)
	case "packets", "bytes", "secmark", "delta-time":
	default:
		return fmt.Errorf("unknown field %q", name)
	}
	return nil
}

func (e *Entry) isICMP() bool { return e.Proto == 1 || e.Proto == 58 }
