package kernel

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// judge is what a program has to say of an event: what flow.Filter says,
// except that the last state of a flow does not matter.
func judge(f *flow.Filter, m *message, fl *flow.Flow) bool {
	if m.typ == msgCtDelete {
		ended := *f
		ended.States = flow.Unset
		return ended.Pass(fl)
	}
	return f.Pass(fl)
}

// filterCase is a filter by name.
type filterCase struct {
	name string
	flow.Filter
}

func protocolSet(p flow.Policy, list ...uint8) (f flow.Filter) {
	f.Protocols = p
	for _, n := range list {
		f.Protocol[n] = true
	}
	return f
}

func stateSet(p flow.Policy, list ...uint8) (f flow.Filter) {
	f.States = p
	for _, n := range list {
		f.State[n] = true
	}
	return f
}

func addressSet(p flow.Policy, list ...string) flow.Filter {
	f := flow.Filter{Addresses: p}
	for _, text := range list {
		f.Prefixes = append(f.Prefixes, prefix(netip.MustParsePrefix(text)))
	}
	return f
}

func prefix(p netip.Prefix) flow.Prefix {
	out := flow.Prefix{Addr: addr(p.Addr().String()), Family: flow.IPv6, Bits: uint8(p.Bits())}
	if p.Addr().Is4() {
		out.Family = flow.IPv4
	}
	return out
}

// join makes one filter of the sets of several.
func join(parts ...flow.Filter) (f flow.Filter) {
	for _, p := range parts {
		if p.Protocols != flow.Unset {
			f.Protocols, f.Protocol = p.Protocols, p.Protocol
		}
		if p.States != flow.Unset {
			f.States, f.State = p.States, p.State
		}
		if p.Addresses != flow.Unset {
			f.Addresses, f.Prefixes = p.Addresses, append(f.Prefixes, p.Prefixes...)
		}
	}
	return f
}

// filterCases speak of the addresses, protocols and states of the corpus.
func filterCases() (all []filterCase) {
	sets := [][]filterCase{{{name: "any protocol"}}, {{name: "any state"}}, {{name: "any address"}}}
	for _, p := range []flow.Policy{flow.Accept, flow.Ignore} {
		word := []string{"", "accept", "ignore"}[p]
		sets[0] = append(sets[0],
			filterCase{word + " no protocol", protocolSet(p)},
			filterCase{word + " TCP", protocolSet(p, flow.ProtoTCP)},
			filterCase{word + " UDP ICMP ICMPv6 GRE 255", protocolSet(p, flow.ProtoUDP, flow.ProtoICMP, flow.ProtoICMPv6, flow.ProtoGRE, 255)})
		sets[1] = append(sets[1],
			filterCase{word + " no state", stateSet(p)},
			filterCase{word + " ESTABLISHED", stateSet(p, 3)},
			filterCase{word + " SYN_SENT SYN_RECV TIME_WAIT CLOSE", stateSet(p, 1, 2, 7, 8)})
		for name, list := range map[string][]string{
			"no address": {}, "client": {client4 + "/32"}, "IPv6 client": {client6 + "/128"}, "both clients": {client4 + "/32", client6 + "/128"},
			"server": {server4 + "/32", server6 + "/128"}, "real server": {other4 + "/32", other6 + "/128"},
			"networks": {"10.1.0.0/16", "fd01::/64", "fd01::/33", "fd09::/96"}, "IPv4": {"0.0.0.0/0"}, "IPv6": {"::/0"},
			"overlap": {"10.0.0.0/8", "10.2.0.0/30", "fd00::/15", "fd02::/127", "fd02::2/128"},
			"others":  {"192.0.2.0/24", "10.1.0.1/32", "10.1.0.3/32", "fd01::1/128", "fd01::3/128", "fd01:0:0:1::/64"},
		} {
			sets[2] = append(sets[2], filterCase{word + " " + name, addressSet(p, list...)})
		}
	}
	for _, p := range sets[0] {
		for _, s := range sets[1] {
			for _, a := range sets[2] {
				all = append(all, filterCase{p.name + ", " + s.name + ", " + a.name, join(p.Filter, s.Filter, a.Filter)})
			}
		}
	}
	return all
}

// TestFilterOfCorpus demands of every filter the verdicts of the user-space
// filter about everything that the kernel was ever recorded to say.
func TestFilterOfCorpus(t *testing.T) {
	type recorded struct {
		name string
		message
		raw []byte
		flow.Flow
	}
	var all []recorded
	recordings := corpus(t)
	for _, name := range slices.Sorted(maps.Keys(recordings)) {
		for _, m := range messages(t, recordings[name]) {
			r := recorded{name: name, message: m, raw: frame(&m)}
			if !isExpect(&m) {
				if err := DecodeFlow(m.body, &r.Flow); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, r)
		}
	}
	s := newBPFSocket(t)
	passed, refused := 0, 0
	for _, c := range filterCases() {
		s.load(t, compileFilter(&c.Filter, 0))
		for i := range all {
			r := &all[i]
			want := isExpect(&r.message) || judge(&c.Filter, &r.message, &r.Flow)
			if got := s.passes(t, r.raw); got != want {
				t.Fatalf("filter %q, message %d of %s passes: %v, want %v: %s", c.name, i, r.name, got, want,
					r.Flow.AppendText(nil, flow.TextOptions{}))
			}
			if want {
				passed++
			} else {
				refused++
			}
		}
	}
	if len(all) < 150 || passed < 10_000 || refused < 10_000 {
		t.Errorf("too little tried: %d messages, %d passed, %d refused", len(all), passed, refused)
	}
}

// randomPrefixes are hosts and networks that share parts, as people's do.
func randomPrefixes(r *rand.Rand, family uint8, n int) (all []flow.Prefix) {
	size := 4
	if family == flow.IPv6 {
		size = 16
	}
	var a flow.Addr
	for range n {
		for i := r.IntN(size); i < size; i++ {
			a[i] = byte(r.Uint32())
		}
		bits := 8 * size
		if r.IntN(3) == 0 {
			bits = 9 + r.IntN(bits-8)
		}
		all = append(all, flow.Prefix{Addr: a, Family: family, Bits: uint8(bits)})
	}
	return all
}

// near is an address at the edge of a prefix, on either side.
func near(r *rand.Rand, p *flow.Prefix) flow.Addr {
	size := 4
	if p.Family == flow.IPv6 {
		size = 16
	}
	a := p.Addr.Mask(p.Bits)
	if r.IntN(2) == 0 { // the last one
		for bit := int(p.Bits); bit < 8*size; bit++ {
			a[bit/8] |= 0x80 >> (bit % 8)
		}
	}
	step := []int{-1, 0, 0, 1}[r.IntN(4)]
	for i := size - 1; i >= 0 && step != 0; i-- {
		v := int(a[i]) + step
		if a[i] = byte(v); 0 <= v && v <= 255 {
			break
		}
	}
	return a
}

// readdress puts other source addresses into the tuples of an event.
func readdress(raw []byte, from, to flow.Addr, family uint8) []byte {
	size := 4
	source := uint16(ctaIPv4Src)
	if family == flow.IPv6 {
		size, source = 16, uint16(ctaIPv6Src)
	}
	out := slices.Clone(raw)
	next := from
	for _, tuple := range []attr{ctaTupleOrig, ctaTupleReply} {
		v := within(within(out[nlmsgHeaderLen+nfgenLen:], tuple), ctaTupleIP)
		copy(within(v, attr(source))[:size], next[:])
		next = to
	}
	return out
}

// within returns the value of an attribute, in place.
func within(b []byte, want attr) []byte {
	for {
		t, v, rest, ok := nextAttr(b)
		if !ok {
			return nil
		}
		if t == want {
			return v
		}
		b = rest
	}
}

// TestFilterOfManyAddresses goes along the edges of long random lists.
func TestFilterOfManyAddresses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	recordings := corpus(t)
	samples := map[uint8][]byte{}
	for _, m := range messages(t, recordings["tcp"]) {
		var f flow.Flow
		if err := DecodeFlow(m.body, &f); err != nil {
			t.Fatal(err)
		}
		samples[f.Family] = frame(&m)
	}
	s := newBPFSocket(t)
	for _, size := range []int{1, 2, 5, 20, 127, 130} {
		for round := range 6 {
			f := flow.Filter{Addresses: []flow.Policy{flow.Accept, flow.Ignore}[round%2]}
			f.Prefixes = append(randomPrefixes(r, flow.IPv4, size), randomPrefixes(r, flow.IPv6, size)...)
			s.load(t, compileFilter(&f, 0))
			f.Compile()
			for range 500 {
				p := &f.Prefixes[r.IntN(len(f.Prefixes))]
				q := p
				for q.Family != p.Family || q == p && r.IntN(2) == 0 && size > 1 {
					q = &f.Prefixes[r.IntN(len(f.Prefixes))]
				}
				raw := readdress(samples[p.Family], near(r, p), near(r, q), p.Family)
				var fl flow.Flow
				if err := DecodeFlow(raw[nlmsgHeaderLen:], &fl); err != nil {
					t.Fatal(err)
				}
				if got, want := s.passes(t, raw), f.Pass(&fl); got != want {
					t.Fatalf("%d prefixes, policy %d: %s passes: %v, want %v", len(f.Prefixes), f.Addresses,
						fl.AppendText(nil, flow.TextOptions{}), got, want)
				}
			}
		}
	}
}

// TestFilterCapacity says how many addresses fit; conntrackd's is 127 and 20.
func TestFilterCapacity(t *testing.T) {
	for _, c := range []struct {
		name      string
		fits, not int
		make      func(i int) flow.Prefix
	}{
		{"scattered IPv4 hosts", 900, 4000, func(i int) flow.Prefix {
			var a flow.Addr
			binary.BigEndian.PutUint32(a[:], uint32(i)*2654435761)
			return flow.Prefix{Addr: a, Family: flow.IPv4, Bits: 32}
		}},
		{"neighbours, which are few ranges", 30_000, -1, func(i int) flow.Prefix {
			return flow.Prefix{Addr: flow.Addr{10, 1, byte(i >> 8), byte(i)}, Family: flow.IPv4, Bits: 32}
		}},
		{"hosts of one IPv6 network", 400, 4000, func(i int) flow.Prefix {
			a := addr("2001:db8:1:2::")
			binary.BigEndian.PutUint64(a[8:], uint64(i)*0x9e3779b97f4a7c15)
			return flow.Prefix{Addr: a, Family: flow.IPv6, Bits: 128}
		}},
		{"scattered IPv6 hosts", 220, 2000, func(i int) (p flow.Prefix) {
			p = flow.Prefix{Family: flow.IPv6, Bits: 128}
			binary.BigEndian.PutUint64(p.Addr[:], uint64(i)*0x9e3779b97f4a7c15)
			binary.BigEndian.PutUint64(p.Addr[8:], uint64(i)*0xbf58476d1ce4e5b9)
			return p
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := func(n int) *flow.Filter {
				f := &flow.Filter{Addresses: flow.Ignore}
				for i := range n {
					f.Prefixes = append(f.Prefixes, c.make(i))
				}
				return f
			}
			program := compileFilter(list(c.fits), 0)
			if program == nil {
				t.Errorf("%d do not fit", c.fits)
			}
			t.Logf("%d need %d instructions", c.fits, len(program))
			if c.not > 0 && compileFilter(list(c.not), 0) != nil {
				t.Errorf("%d fit", c.not)
			}
		})
	}
}

// TestFilterOddMessages: what is no flow event, or lacks what is asked for,
// is for user space.
func TestFilterOddMessages(t *testing.T) {
	s := newBPFSocket(t)
	f := join(protocolSet(flow.Accept), stateSet(flow.Accept), addressSet(flow.Accept))
	s.load(t, compileFilter(&f, 0))
	plain := frame(&message{typ: msgCtNew, body: []byte{flow.IPv4, 0, 0, 0}})
	for name, raw := range map[string][]byte{
		"no attributes":    plain,
		"an error message": frame(&message{typ: 2, body: make([]byte, 20)}),
		"an expectation":   frame(&message{typ: msgExpNew, body: make([]byte, 20)}),
		"another family":   frame(&message{typ: msgCtNew, body: []byte{flow.IPv4, 0, 0, 0, 4, 0, 1, 0x80}}),
	} {
		if !s.passes(t, raw) {
			t.Errorf("%s is refused", name)
		}
	}
}

// TestFilterInTheKernel: what is refused does not reach the socket, what was
// accepted is heard of to its end whatever its last state.
func TestFilterInTheKernel(t *testing.T) {
	ownNetNS(t)
	f := join(protocolSet(flow.Accept, flow.ProtoTCP), stateSet(flow.Accept, 3),
		addressSet(flow.Ignore, "10.1.0.3/32"))
	filtered := openEvents(t, Config{Filter: &f})
	everything := openEvents(t, Config{BufferSize: 4 << 20, BufferMaxGrowth: 4 << 20})
	if err := filtered.FilterProblem(); err != nil {
		t.Fatal(err)
	}
	w := openWriter(t, WriterConfig{})
	flows := udpFlows(200)
	for i := range 10 {
		fl := newFlow(flow.IPv4, flow.ProtoTCP)
		fl.Sport, fl.Dport, fl.State = uint16(1000+i), 80, 3
		fl.Has |= flow.HasPorts | flow.HasState
		if i >= 5 {
			fl.Src = addr("10.1.0.3")
		}
		flows = append(flows, fl)
	}
	apply(t, w.Commit, flows)
	for i := range flows {
		if flows[i].Proto == flow.ProtoTCP {
			flows[i].State = 7 // TIME_WAIT
		}
	}
	tcp := flows[200:]
	apply(t, w.Update, tcp)
	apply(t, w.Delete, flows)
	readN(t, everything, len(flows)+len(tcp)+len(flows))
	got := readN(t, filtered, 10)
	for i, ev := range got {
		want := flow.New
		if i >= 5 {
			want = flow.Destroy
		}
		if ev.Flow.Sport != uint16(1000+i%5) || ev.Op != want || (i >= 5) != (ev.Flow.State == 7) {
			t.Errorf("event %d: op %d: %s", i, ev.Op, ev.Flow.AppendText(nil, flow.TextOptions{}))
		}
	}
	if n, err := filtered.Read(make([]flow.Event, 8)); n != 0 || err != nil {
		t.Errorf("%d more, %v", n, err)
	}
	all, some := everything.Stats(), filtered.Stats()
	t.Logf("%d events, %d of them delivered", all.Received, some.Received)
	if all.Received != 430 || some.Received != 10 || some.Lost != 0 {
		t.Errorf("%+v, %+v", all, some)
	}
}

// TestIgnore: the flow events that a socket causes do not come, with a filter
// and without; those of others and of expectations do.
func TestIgnore(t *testing.T) {
	ownNetNS(t)
	f := join(protocolSet(flow.Accept, flow.ProtoUDP))
	f.Compile()
	quiet, other := openWriter(t, WriterConfig{}), openWriter(t, WriterConfig{})
	for _, filter := range []*flow.Filter{nil, &f} {
		e := openEvents(t, Config{Filter: filter})
		e.Ignore(quiet.PortID())
		if err := e.FilterProblem(); err != nil {
			t.Fatal(err)
		}
		flows := udpFlows(20)
		apply(t, quiet.Commit, flows[:10])
		apply(t, quiet.Update, flows[:10])
		apply(t, other.Commit, flows[10:])
		apply(t, other.Delete, flows[:10])
		apply(t, quiet.Delete, flows[10:])
		for i, ev := range readN(t, e, 20) {
			want := flow.New
			if i >= 10 {
				want = flow.Destroy
			}
			if ev.Op != want || ev.Flow.Sport != flows[(i+10)%20].Sport || ev.Origin != flow.Other {
				t.Errorf("event %d: op %d by %d about port %d", i, ev.Op, ev.Origin, ev.Flow.Sport)
			}
		}
		if s := e.Stats(); s.Received != 20 {
			t.Errorf("%d events", s.Received)
		}
	}
	s := newBPFSocket(t)
	s.load(t, compileFilter(new(flow.Filter), 0x12345678))
	for _, m := range []message{{typ: msgExpNew}, {typ: msgCtNew}, {typ: msgCtDelete}} {
		m.pid, m.body = 0x12345678, make([]byte, 20)
		if got := s.passes(t, frame(&m)); got != (m.typ == msgExpNew) {
			t.Errorf("type %#x of the ignored socket passes: %v", m.typ, got)
		}
		m.pid++
		if !s.passes(t, frame(&m)) {
			t.Errorf("type %#x of another socket is dropped", m.typ)
		}
	}
}

// TestFilterTooLongForTheKernel leaves the addresses to user space and says so.
func TestFilterTooLongForTheKernel(t *testing.T) {
	ownNetNS(t)
	f := protocolSet(flow.Ignore, flow.ProtoUDP)
	f.Addresses = flow.Ignore
	for i := range 5000 {
		f.Prefixes = append(f.Prefixes, prefix(netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.%d/32", 100+i%7, i/250, i%250))))
	}
	e := openEvents(t, Config{Filter: &f})
	if e.FilterProblem() != errTooLong {
		t.Fatalf("problem: %v", e.FilterProblem())
	}
	w := openWriter(t, WriterConfig{})
	flows := udpFlows(2)
	flows[1] = newFlow(flow.IPv4, flow.ProtoGRE)
	apply(t, w.Commit, flows)
	if got := readN(t, e, 1); got[0].Flow.Proto != flow.ProtoGRE {
		t.Errorf("%+v", got[0].Flow.Key)
	}
}

// BenchmarkFilteredEvents shows the cost of a refused event to us: none.
func BenchmarkFilteredEvents(b *testing.B) {
	ownNetNS(b)
	for _, c := range []struct {
		name   string
		filter *flow.Filter
	}{{"user", nil}, {"kernel", new(protocolSet(flow.Ignore, flow.ProtoUDP))}} {
		b.Run(c.name, func(b *testing.B) {
			e := openEvents(b, Config{BufferSize: 16 << 20, BufferMaxGrowth: 16 << 20, Filter: c.filter})
			w := openWriter(b, WriterConfig{})
			flows := udpFlows(1000)
			dst := make([]flow.Event, 256)
			var reading time.Duration
			events := 0
			for b.Loop() {
				apply(b, w.Commit, flows)
				apply(b, w.Delete, flows)
				start := time.Now()
				for {
					n, err := e.Read(dst)
					if err != nil {
						b.Fatal(err)
					}
					if n == 0 {
						break
					}
					events += n
				}
				reading += time.Since(start)
			}
			b.ReportMetric(float64(events)/float64(b.N), "delivered/op")
			b.ReportMetric(float64(reading.Nanoseconds())/float64(b.N), "reading-ns/op")
		})
	}
}
