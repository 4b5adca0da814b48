package flow

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestMirror(t *testing.T) {
	key := func(p uint8, sport, dport uint16) Key {
		k := between("10.0.0.1", "192.0.2.9").Key
		k.Proto, k.Sport, k.Dport, k.Zone = p, sport, dport, 7
		return k
	}
	for _, c := range []struct {
		name         string
		key          Key
		sport, dport uint16
		ok           bool
	}{
		{"TCP", key(ProtoTCP, 1, 2), 2, 1, true},
		{"UDP-Lite", key(ProtoUDPLite, 1, 2), 2, 1, true},
		{"GRE keys", key(ProtoGRE, 1, 2), 2, 1, true},
		{"no ports", key(50, 0, 0), 0, 0, true},
		{"echo request", key(ProtoICMP, 9, 8<<8), 9, 0, true},
		{"echo reply", key(ProtoICMP, 9, 0), 9, 8 << 8, true},
		{"timestamp", key(ProtoICMP, 9, 13<<8), 9, 14 << 8, true},
		{"timestamp reply", key(ProtoICMP, 9, 14<<8), 9, 13 << 8, true},
		{"information", key(ProtoICMP, 9, 15<<8), 9, 16 << 8, true},
		{"information reply", key(ProtoICMP, 9, 16<<8), 9, 15 << 8, true},
		{"address mask", key(ProtoICMP, 9, 17<<8), 9, 18 << 8, true},
		{"address mask reply", key(ProtoICMP, 9, 18<<8), 9, 17 << 8, true},
		{"the code stays", key(ProtoICMP, 9, 8<<8|3), 9, 3, true},
		{"unreachable has no answer", key(ProtoICMP, 9, 3<<8|1), 9, 3<<8 | 1, false},
		{"ICMPv6 echo request", key(ProtoICMPv6, 9, 128<<8), 9, 129 << 8, true},
		{"ICMPv6 echo reply", key(ProtoICMPv6, 9, 129<<8), 9, 128 << 8, true},
		{"ICMPv6 node information", key(ProtoICMPv6, 9, 139<<8), 9, 140 << 8, true},
		{"ICMPv6 type 8 is no echo", key(ProtoICMPv6, 9, 8<<8), 9, 8 << 8, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.key
			want.Src, want.Dst, want.Sport, want.Dport = c.key.Dst, c.key.Src, c.sport, c.dport
			got, ok := c.key.Mirror()
			if got != want || ok != c.ok {
				t.Errorf("got %v %v, want %v %v", got, ok, want, c.ok)
			}
			if back, _ := got.Mirror(); back != c.key {
				t.Errorf("mirrored twice: %v", back)
			}
		})
	}
}

func randomKey(r *rand.Rand) Key {
	k := Key{Sport: uint16(r.Uint32N(5)), Dport: uint16(r.Uint32N(5)), Zone: uint16(r.Uint32N(3)), Family: IPv4}
	k.Proto = []uint8{ProtoTCP, ProtoUDP, ProtoSCTP, ProtoDCCP, ProtoGRE, ProtoICMP, ProtoICMPv6}[r.IntN(7)]
	k.Src[0], k.Dst[0] = byte(r.Uint32N(3)), byte(r.Uint32N(3))
	if k.IsICMP() {
		k.Dport = []uint16{8, 0, 13, 128, 129}[r.IntN(5)]<<8 | uint16(r.Uint32N(2))
	}
	return k
}

// Whatever reply tuple is stored comes back, and the NAT bits say no more and
// no less than what differs.
func TestReplyRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[Has]int{}
	for range 20000 {
		f := Flow{Key: randomKey(r)}
		m, _ := f.Mirror()
		reply := m
		reply.Src[0], reply.Dst[0] = byte(r.Uint32N(3)), byte(r.Uint32N(3))
		reply.Sport = uint16(r.Uint32N(5))
		if !f.IsICMP() { // type and code are never translated
			reply.Dport = uint16(r.Uint32N(5))
		}
		f.Has = Has(r.Uint64()) // stale bits and values must not shine through
		f.NAT = NAT{Src: Addr{99}, Dst: Addr{98}, Sport: 97, Dport: 96}
		stale := f.Has
		f.SetReply(&reply)
		if got, _ := f.Reply(); got != reply {
			t.Fatalf("key %v: stored %v, got %v", f.Key, reply, got)
		}
		if !f.Has.Has(HasReply) || f.Has&^HasNAT != stale&^HasNAT|HasReply {
			t.Fatalf("bits %x became %x", stale, f.Has)
		}
		checkNATBits(t, &f, &m, &reply)
		seen[f.Has&HasNAT]++
	}
	if len(seen) != 16 {
		t.Errorf("only %d of 16 combinations of NAT seen", len(seen))
	}
}

func checkNATBits(t *testing.T, f *Flow, m, reply *Key) {
	t.Helper()
	var want Has
	set := func(bit Has, differs bool) {
		if differs {
			want |= bit
		}
	}
	set(HasSNAT, reply.Dst != m.Dst)
	set(HasDNAT, reply.Src != m.Src)
	if f.IsICMP() {
		set(HasSPAT, reply.Sport != m.Sport)
	} else {
		set(HasSPAT, reply.Dport != m.Dport)
		set(HasDPAT, reply.Sport != m.Sport)
	}
	if got := f.Has & HasNAT; got != want {
		t.Fatalf("key %v, reply %v: NAT bits %x, want %x", f.Key, *reply, got, want)
	}
	zero := NAT{}
	if !f.Has.Has(HasSNAT) && f.NAT.Src != zero.Src || !f.Has.Has(HasDNAT) && f.NAT.Dst != zero.Dst ||
		!f.Has.Has(HasSPAT) && f.NAT.Sport != 0 || !f.Has.Has(HasDPAT) && f.NAT.Dport != 0 {
		t.Fatalf("NAT %v has values without bits %x", f.NAT, f.Has)
	}
}

func TestReplyOfNATedFlow(t *testing.T) {
	f := between("10.0.0.1", "192.0.2.9")
	f.Sport, f.Dport = 4000, 80
	f.Has |= HasNAT
	f.NAT = NAT{Src: addr("198.51.100.1"), Dst: addr("172.16.0.5"), Sport: 61000, Dport: 8080}
	want := f.Key
	want.Src, want.Dst, want.Sport, want.Dport = addr("172.16.0.5"), addr("198.51.100.1"), 8080, 61000
	if got, ok := f.Reply(); got != want || !ok {
		t.Errorf("got %v %v", got, ok)
	}
}

// merged says which fields of a Flow an attribute owns. A new attribute must
// get a row here, see TestMergeKnowsEveryField.
var merged = map[string]Has{
	"Status": HasStatus, "Timeout": HasTimeout, "Mark": HasMark, "ID": HasID, "Use": HasUse,
	"State": HasState, "Role": HasRole, "ZoneRepl": HasZoneRepl, "Vtag": HasVtag,
	"Master": HasMaster, "Synproxy": HasSynproxy, "Helper": HasHelper, "Labels": HasLabels,
	"Counters": HasCounters, "Start": HasStart, "Stop": HasStop,
	"WScale": HasWScaleOrig | HasWScaleRepl, "SeqAdj": HasSeqOrig | HasSeqRepl,
	"NAT": HasNAT, "Key": HasAddr | HasProto | HasPorts | HasZone | HasZoneOrig, "Has": 0,
}

// fill sets every byte of a value that holds no pointers.
func fill(v reflect.Value, b uint8) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), b)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), b)
		}
	default:
		v.SetUint(uint64(b))
	}
}

func filled(b uint8, has Has) Flow {
	var f Flow
	fill(reflect.ValueOf(&f).Elem(), b)
	f.Has = has
	return f
}

func TestMergeKnowsEveryField(t *testing.T) {
	const tuple = HasAddr | HasProto | HasPorts | HasZone | HasZoneOrig
	typ := reflect.TypeFor[Flow]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		has, known := merged[name]
		if !known {
			t.Errorf("field %s: add it to Merge and to this test", name)
			continue
		}
		src, dst := filled(2, has), filled(1, HasStatus)
		dst.Merge(&src)
		for j := range typ.NumField() {
			other := typ.Field(j).Name
			got := reflect.ValueOf(dst).Field(j).Interface()
			want := reflect.ValueOf(filled(1, HasStatus|has&^tuple)).Field(j).Interface()
			if other == name && name != "Key" && name != "Has" {
				want = reflect.ValueOf(src).Field(j).Interface()
			}
			if got != want {
				t.Errorf("merging %s: field %s is %v, want %v", name, other, got, want)
			}
		}
	}
}

func TestMergeOneOfTwo(t *testing.T) {
	for _, c := range []struct {
		name string
		has  Has
		want func(f, src *Flow)
	}{
		{"original scale", HasWScaleOrig, func(f, src *Flow) { f.WScale[0] = src.WScale[0] }},
		{"reply scale", HasWScaleRepl, func(f, src *Flow) { f.WScale[1] = src.WScale[1] }},
		{"original adjustment", HasSeqOrig, func(f, src *Flow) { f.SeqAdj[0] = src.SeqAdj[0] }},
		{"reply adjustment", HasSeqRepl, func(f, src *Flow) { f.SeqAdj[1] = src.SeqAdj[1] }},
		{"SNAT", HasSNAT, func(f, src *Flow) { f.NAT.Src = src.NAT.Src }},
		{"DNAT", HasDNAT, func(f, src *Flow) { f.NAT.Dst = src.NAT.Dst }},
		{"SPAT", HasSPAT, func(f, src *Flow) { f.NAT.Sport = src.NAT.Sport }},
		{"DPAT", HasDPAT, func(f, src *Flow) { f.NAT.Dport = src.NAT.Dport }},
		{"nothing", 0, func(f, src *Flow) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, src := filled(1, HasMark), filled(2, c.has)
			want := filled(1, HasMark|c.has)
			c.want(&want, &src)
			if got.Merge(&src); got != want {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
}

// A known reply tuple settles all of NAT, also that there is none.
func TestMergeReplyReplacesNAT(t *testing.T) {
	f := Flow{Has: HasReply | HasNAT, NAT: NAT{Src: Addr{1}, Dst: Addr{2}, Sport: 3, Dport: 4}}
	src := Flow{Has: HasReply | HasSPAT, NAT: NAT{Sport: 9}}
	f.Merge(&src)
	if f.NAT != src.NAT || f.Has != src.Has {
		t.Errorf("got %v with bits %x", f.NAT, f.Has)
	}
	f.Merge(&Flow{Has: HasReply})
	if f.NAT != (NAT{}) || f.Has != HasReply {
		t.Errorf("after a reply without NAT: %v with bits %x", f.NAT, f.Has)
	}
}

func TestMergeAllocatesNothing(t *testing.T) {
	dst, src := filled(1, HasStatus), filled(2, ^Has(0))
	if n := testing.AllocsPerRun(100, func() { dst.Merge(&src) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct{ in, want string }{{"ftp\x00\x00", "ftp"}, {"full", "full"}, {"\x00x", ""}, {"", ""}} {
		if got := Name([]byte(c.in)); got != c.want {
			t.Errorf("%q: got %q", c.in, got)
		}
	}
}

// Flow, Key and Expect lie in slabs and are compared: no pointer, and no
// padding in the key, which would cost its comparison dearly.
func TestNoPointersAndNoPadding(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[Flow](), reflect.TypeFor[Expect](), reflect.TypeFor[Event]()} {
		if p := pointerIn(typ); p != "" {
			t.Errorf("%s holds a pointer in %s", typ, p)
		}
	}
	key, sum := reflect.TypeFor[Key](), uintptr(0)
	for i := range key.NumField() {
		sum += key.Field(i).Type.Size()
	}
	if key.Size() != sum {
		t.Errorf("Key is %d bytes, its fields %d", key.Size(), sum)
	}
}

func pointerIn(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Array:
		return pointerIn(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if p := pointerIn(t.Field(i).Type); p != "" {
				return t.Field(i).Name + " " + p
			}
		}
	case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return t.Kind().String()
	}
	return ""
}
