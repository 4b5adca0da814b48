package flow

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func addr(s string) Addr {
	var a Addr
	copy(a[:], netip.MustParseAddr(s).AsSlice())
	return a
}

func familyOf(s string) uint8 {
	if netip.MustParseAddr(s).Is4() {
		return IPv4
	}
	return IPv6
}

func prefix(s string) Prefix {
	p := netip.MustParsePrefix(s)
	return Prefix{Addr: addr(p.Addr().String()), Family: familyOf(p.Addr().String()), Bits: uint8(p.Bits())}
}

func prefixes(list ...string) (ps []Prefix) {
	for _, s := range list {
		ps = append(ps, prefix(s))
	}
	return ps
}

func between(src, dst string) Flow {
	var f Flow
	f.Src, f.Dst, f.Family, f.Proto = addr(src), addr(dst), familyOf(src), ProtoTCP
	f.Has = HasAddr | HasProto
	return f
}

func (f Flow) with(change func(*Flow)) Flow {
	change(&f)
	return f
}

func dnat(to string) func(*Flow) {
	return func(f *Flow) { f.Has |= HasDNAT; f.NAT.Dst = addr(to) }
}

func snat(to string) func(*Flow) {
	return func(f *Flow) { f.Has |= HasSNAT; f.NAT.Src = addr(to) }
}

func proto(p uint8) func(*Flow) { return func(f *Flow) { f.Proto = p } }

func state(s uint8) func(*Flow) {
	return func(f *Flow) { f.Has |= HasState; f.State = s }
}

func protocols(p Policy, list ...uint8) Filter {
	f := Filter{Protocols: p}
	for _, n := range list {
		f.Protocol[n] = true
	}
	return f
}

func states(p Policy, list ...uint8) Filter {
	f := Filter{States: p}
	for _, n := range list {
		f.State[n] = true
	}
	return f
}

func addresses(p Policy, list ...string) Filter {
	return Filter{Addresses: p, Prefixes: prefixes(list...)}
}

const (
	synSent     = 1
	established = 3
	timeWait    = 7
)

func TestPass(t *testing.T) {
	v4 := between("10.0.0.1", "192.0.2.9")
	v6 := between("fd00::1", "2001:db8::9")
	for _, c := range []struct {
		name   string
		filter Filter
		flow   Flow
		want   bool
	}{
		{"zero filter", Filter{}, v4, true},
		{"zero filter, nothing known", Filter{}, Flow{}, true},

		{"protocol accept, listed", protocols(Accept, ProtoTCP), v4, true},
		{"protocol accept, other", protocols(Accept, ProtoTCP), v4.with(proto(ProtoUDP)), false},
		{"protocol accept nothing", protocols(Accept), v4, false},
		{"protocol ignore, listed", protocols(Ignore, ProtoUDP), v4.with(proto(ProtoUDP)), false},
		{"protocol ignore, other", protocols(Ignore, ProtoUDP), v4, true},
		{"protocol ignore nothing", protocols(Ignore), v4, true},
		{"protocol 255", protocols(Ignore, 255), v4.with(proto(255)), false},
		{"protocol listed without policy", protocols(Unset, ProtoUDP), v4, true},

		{"accept original source", addresses(Accept, "10.0.0.0/8"), v4, true},
		{"accept destination without DNAT", addresses(Accept, "192.0.2.0/24"), v4, true},
		{"accept destination behind DNAT", addresses(Accept, "172.16.0.0/12"), v4.with(dnat("172.16.0.5")), true},
		{"accept not the destination before DNAT", addresses(Accept, "192.0.2.0/24"), v4.with(dnat("172.16.0.5")), false},
		{"accept not the source after SNAT", addresses(Accept, "198.51.100.0/24"), v4.with(snat("198.51.100.1")), false},
		{"accept the source before SNAT", addresses(Accept, "10.0.0.0/8"), v4.with(snat("198.51.100.1")), true},
		{"accept neither", addresses(Accept, "198.51.100.0/24"), v4, false},
		{"ignore original source", addresses(Ignore, "10.0.0.1/32"), v4, false},
		{"ignore destination behind DNAT", addresses(Ignore, "172.16.0.5/32"), v4.with(dnat("172.16.0.5")), false},
		{"ignore not the destination before DNAT", addresses(Ignore, "192.0.2.9/32"), v4.with(dnat("172.16.0.5")), true},
		{"ignore neither", addresses(Ignore, "10.0.0.2/32"), v4, true},
		{"addresses listed without policy", addresses(Unset, "198.51.100.0/24"), v4, true},

		{"host, one off", addresses(Accept, "10.0.0.2/32"), v4, false},
		{"everything of IPv4", addresses(Accept, "0.0.0.0/0"), v4, true},
		{"host bits in the list do not matter", addresses(Accept, "10.255.0.7/8"), v4, true},
		{"last bit inside", addresses(Accept, "10.0.0.0/31"), v4, true},
		{"IPv6 host", addresses(Accept, "fd00::1/128"), v6, true},
		{"IPv6 network across the middle", addresses(Accept, "2001:db8::/65"), v6, true},
		{"IPv6 other half of /65", addresses(Accept, "2001:db8:0:0:8000::/65"), v6, false},
		{"everything of IPv6", addresses(Ignore, "::/0"), v6, false},
		{"IPv6, behind DNAT", addresses(Accept, "fd99::/16"), v6.with(dnat("fd99::3")), true},

		{"accept with no address of the family", addresses(Accept, "0.0.0.0/0"), v6, false},
		{"ignore with no address of the family", addresses(Ignore, "0.0.0.0/0"), v6, true},
		{"accept IPv6 only, IPv4 flow", addresses(Accept, "::/0"), v4, false},
		{"ignore IPv6 only, IPv4 flow", addresses(Ignore, "::/0"), v4, true},
		{"accept with an empty list", addresses(Accept), v4, false},
		{"ignore with an empty list", addresses(Ignore), v4, true},
		{"both families", addresses(Accept, "10.0.0.0/8", "fd00::/8"), v6, true},

		{"state accept, listed", states(Accept, established), v4.with(state(established)), true},
		{"state accept, other", states(Accept, established), v4.with(state(timeWait)), false},
		{"state accept, unknown", states(Accept, established), v4, true},
		{"state accept, not TCP", states(Accept, established), v4.with(state(synSent)).with(proto(ProtoSCTP)), true},
		{"state accept nothing", states(Accept), v4.with(state(established)), false},
		{"state ignore, listed", states(Ignore, synSent), v4.with(state(synSent)), false},
		{"state ignore, other", states(Ignore, synSent), v4.with(state(established)), true},
		{"state accept, no such state", states(Accept, established), v4.with(state(200)), false},
		{"state ignore, no such state", states(Ignore, established), v4.with(state(200)), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.filter.Pass(&c.flow); got != c.want {
				t.Errorf("got %v", got)
			}
			c.filter.Compile()
			if got := c.filter.Pass(&c.flow); got != c.want {
				t.Errorf("compiled, got %v", got)
			}
		})
	}
}

// Each set must pass, whatever the others say.
func TestPassIsConjunction(t *testing.T) {
	f := protocols(Accept, ProtoTCP)
	f.Addresses, f.Prefixes = Ignore, prefixes("127.0.0.1/32")
	f.States, f.State[established] = Accept, true
	good := between("10.0.0.1", "192.0.2.9").with(state(established))
	if !f.Pass(&good) {
		t.Error("refused what each set passes")
	}
	for name, change := range map[string]func(*Flow){
		"protocol": proto(ProtoUDP),
		"address":  func(f *Flow) { f.Src = addr("127.0.0.1") },
		"state":    state(timeWait),
	} {
		bad := good.with(change)
		if f.Pass(&bad) {
			t.Errorf("passed with a bad %s", name)
		}
	}
}

func TestCompileDropsNested(t *testing.T) {
	given := prefixes("10.1.2.3/32", "10.0.0.0/8", "10.1.0.0/16", "::/0", "9.0.0.0/8", "fd00::/8", "10.9.9.9/8", "11.0.0.0/32")
	f := Filter{Addresses: Accept, Prefixes: slices.Clone(given)}
	shared := f.Prefixes
	f.Compile()
	if want := prefixes("9.0.0.0/8", "10.0.0.0/8", "11.0.0.0/32", "::/0"); !slices.Equal(f.Prefixes, want) {
		t.Errorf("compiled to %v", f.Prefixes)
	}
	if !slices.Equal(shared, given) {
		t.Error("Compile changed the slice it was given")
	}
}

// randomPrefix favours a small space, so that prefixes nest and touch.
func randomPrefix(r *rand.Rand) Prefix {
	p := Prefix{Family: IPv4, Addr: Addr{10, byte(r.Uint32N(4)), byte(r.Uint32()), byte(r.Uint32())}, Bits: uint8(8 + r.Uint32N(25))}
	if r.Uint32N(2) == 0 {
		p.Family = IPv6
		p.Addr[15] = byte(r.Uint32())
		p.Bits = uint8(8 + r.Uint32N(121))
	}
	return p
}

func TestCompiledEqualsPlain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hits := 0
	for range 300 {
		plain := Filter{Addresses: Accept}
		for range 1 + r.IntN(60) {
			plain.Prefixes = append(plain.Prefixes, randomPrefix(r))
		}
		fast := plain
		fast.Compile()
		for range 200 {
			a, b := randomPrefix(r), randomPrefix(r)
			fl := Flow{Key: Key{Src: a.Addr, Dst: b.Addr, Family: a.Family}}
			want := plain.Pass(&fl)
			if want {
				hits++
			}
			if got := fast.Pass(&fl); got != want {
				t.Fatalf("prefixes %v, flow %v: compiled %v, plain %v", plain.Prefixes, fl.Key, got, want)
			}
		}
	}
	if hits < 1000 || hits > 59000 {
		t.Errorf("%d of 60000 flows passed: the test sees one side only", hits)
	}
}

func TestMaskAgainstNetip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		var a Addr
		for i := range a {
			a[i] = byte(r.Uint32())
		}
		bits := r.IntN(129)
		want, err := netip.AddrFrom16(a).Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Mask(uint8(bits)); got != Addr(want.Addr().As16()) {
			t.Fatalf("%x/%d: got %x", a, bits, got)
		}
	}
}

func manyPrefixes(n int) Filter {
	r := rand.New(rand.NewPCG(5, 6))
	f := Filter{Addresses: Ignore}
	for range n {
		f.Prefixes = append(f.Prefixes, randomPrefix(r))
	}
	f.Prefixes = slices.DeleteFunc(f.Prefixes, func(p Prefix) bool { return p.Bits < 20 })
	return f
}

func TestPassAllocatesNothing(t *testing.T) {
	fl := between("10.0.0.1", "192.0.2.9").with(state(established))
	for _, compiled := range []bool{false, true} {
		f := manyPrefixes(500)
		if compiled {
			f.Compile()
		}
		if n := testing.AllocsPerRun(100, func() { f.Pass(&fl) }); n != 0 {
			t.Errorf("compiled %v: %v allocations", compiled, n)
		}
	}
}

func BenchmarkPass5000Prefixes(b *testing.B) {
	f := manyPrefixes(5000)
	f.Compile()
	fl := between("10.0.0.1", "192.0.2.9").with(state(established))
	b.ReportAllocs()
	for b.Loop() {
		f.Pass(&fl)
	}
}
