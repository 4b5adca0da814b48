package wire

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/google/go-cmp/cmp"
)

// full are options under which everything travels.
var full = Options{WindowScale: true}

// staysHome are the fields that have no place on the wire
// (docs/protocol.md 3.4).
var staysHome = map[string]bool{
	"Flow.Has": true, "Flow.ID": true, "Flow.Use": true, "Flow.Counters": true,
	"Flow.Start": true, "Flow.Stop": true, "Flow.ZoneRepl": true, "Flow.Master.Zone": true,

	"Expect.Has": true, "Expect.ID": true, "Expect.Master.Zone": true, "Expect.Tuple.Zone": true,
	"Expect.Mask.Zone": true, "Expect.NAT.Zone": true,
	// The NAT tuple's family follows from its attributes, the mask's is the
	// expected tuple's.
	"Expect.NAT.Family": true, "Expect.Mask.Family": true,
}

// leaf is one scalar or array field, reached from the root by index.
type leaf struct {
	name string
	path []int
}

// flip is a bit that turns a value of the field into another legal one.
func (l leaf) flip() uint64 {
	if strings.HasSuffix(l.name, ".Family") {
		return uint64(flow.IPv4 ^ flow.IPv6)
	}
	return 1
}

func leaves(t reflect.Type, name string, path []int) (out []leaf) {
	if staysHome[name] {
		return nil
	}
	if t.Kind() != reflect.Struct {
		return []leaf{{name, append([]int(nil), path...)}}
	}
	for i := range t.NumField() {
		field := name + "." + t.Field(i).Name
		if t.Field(i).Anonymous {
			field = name
		}
		out = append(out, leaves(t.Field(i).Type, field, append(path, i))...)
	}
	return out
}

// disturb flips a bit in every scalar part of v, one after the other, and calls
// check after each change.
func disturb(v reflect.Value, flip uint64, check func()) {
	switch v.Kind() {
	case reflect.Array, reflect.Struct:
		n := v.Len
		part := v.Index
		if v.Kind() == reflect.Struct {
			n, part = v.NumField, v.Field
		}
		for i := range n() {
			disturb(part(i), flip, check)
		}
	default:
		old := v.Uint()
		v.SetUint(old ^ flip)
		check()
		v.SetUint(old)
	}
}

// TestEveryFieldOfFlowTravels fails when a field of flow.Flow has no row: each
// part of each field, changed on its own, must arrive changed with at least
// one kind of flow.
func TestEveryFieldOfFlowTravels(t *testing.T) {
	bases := richFlows()
	for _, l := range leaves(reflect.TypeFor[flow.Flow](), "Flow", nil) {
		arrived := map[int]bool{}
		parts := 0
		for _, base := range bases {
			f := base
			parts = 0
			disturb(reflect.ValueOf(&f).Elem().FieldByIndex(l.path), l.flip(), func() {
				var got flow.Flow
				if err := full.ParseFlow(full.AppendFlow(nil, Header{}, &f)[shortHeader:], &got); err == nil {
					g, w := reflect.ValueOf(got).FieldByIndex(l.path), reflect.ValueOf(f).FieldByIndex(l.path)
					if g.Interface() == w.Interface() {
						arrived[parts] = true
					}
				}
				parts++
			})
		}
		// Of a name, twelve bytes travel and the last of them is its NUL.
		if l.name == "Flow.Helper" {
			parts = maxHelper - 1
		}
		for i := range parts {
			if !arrived[i] {
				t.Errorf("%s, part %d: does not travel; it needs a row in flowRows or a line in staysHome", l.name, i)
			}
		}
	}
}

func TestEveryFieldOfExpectTravels(t *testing.T) {
	base := richExpect()
	for _, l := range leaves(reflect.TypeFor[flow.Expect](), "Expect", nil) {
		e, part := base, 0
		disturb(reflect.ValueOf(&e).Elem().FieldByIndex(l.path), l.flip(), func() {
			defer func() { part++ }()
			limits := map[string]int{"Expect.Helper": maxHelper - 1, "Expect.Fn": maxFn - 1}
			if n, isName := limits[l.name]; isName && part >= n {
				return
			}
			isAddr := strings.HasSuffix(l.name, ".Src") || strings.HasSuffix(l.name, ".Dst")
			if isAddr && part >= addrLen(flow.IPv4) {
				return
			}
			var got flow.Expect
			if err := full.ParseExpect(full.AppendExpect(nil, Header{}, &e)[shortHeader:], &got); err != nil {
				t.Fatalf("%s: %v", l.name, err)
			}
			g, w := reflect.ValueOf(got).FieldByIndex(l.path), reflect.ValueOf(e).FieldByIndex(l.path)
			if g.Interface() != w.Interface() {
				t.Errorf("%s, part %d: does not travel", l.name, part)
			}
		})
	}
}

// TestConditionsAreFree: the bits of the conditions are not attributes.
func TestConditionsAreFree(t *testing.T) {
	if highest := flow.HasFn; anyCondition <= highest || anyCondition&(highest<<1-1) != 0 {
		t.Errorf("conditions %x overlap the attributes below %x", anyCondition, highest)
	}
}

func TestRowsAreWhole(t *testing.T) {
	checkRows(t, flowRows, numZone)
	checkRows(t, expectRows, 20)
}

func checkRows[T any](t *testing.T, rows []row[T], newest uint8) {
	t.Helper()
	var nums uint64
	names := map[string]bool{}
	for _, r := range rows {
		nums |= bit(r.num)
		names[r.name] = true
		if r.read == nil || r.put == nil || r.min > r.max || r.name == "" {
			t.Errorf("row %d is incomplete", r.num)
		}
	}
	if nums != bit(newest+1)-1 || len(rows) != int(newest)+1 || len(names) != len(rows) {
		t.Errorf("%d rows with numbers %b", len(rows), nums)
	}
}

// TestRandomFlows: what is sent arrives, for every protocol and every subset
// of the attributes.
func TestRandomFlows(t *testing.T) {
	for proto, extra := range protoHas {
		r := rand.New(rand.NewPCG(uint64(proto), 7))
		for range 2000 {
			has := randomHas(r, everything|extra, flow.HasAddr|flow.HasProto|flow.HasStatus)
			if sendsPorts(proto) {
				has |= flow.HasPorts
			}
			if !has.Has(flow.HasMaster) {
				has &^= flow.HasMasterPort
			}
			if !has.Has(flow.HasSeqOrig | flow.HasSeqRepl) {
				has &^= flow.HasSeqOrig | flow.HasSeqRepl
			}
			if !has.Has(flow.HasState) {
				has &^= flow.HasWScaleOrig | flow.HasWScaleRepl | flow.HasVtag | flow.HasRole
			} else {
				has |= extra & (flow.HasVtag | flow.HasRole) // travel with the state
			}
			f := randomFlow(r, proto, []uint8{flow.IPv4, flow.IPv6}[r.IntN(2)], has)
			o := full
			o.BigEndian = r.IntN(2) == 1
			h := Header{Type: uint8(r.IntN(3)), Flags: uint8(r.IntN(4)) << 5, Seq: r.Uint32()}
			checkFlowTrip(t, &o, h, &f)
		}
	}
}

// randomHas returns a random subset of all that contains must.
func randomHas(r *rand.Rand, all, must flow.Has) flow.Has {
	return flow.Has(r.Uint64())&all | must
}

func checkFlowTrip(t *testing.T, o *Options, h Header, f *flow.Flow) {
	t.Helper()
	raw := o.AppendFlow([]byte("kept"), h, f)
	m, rest, err := Next(raw[4:])
	if string(raw[:4]) != "kept" || err != nil || len(rest) != 0 || m.Header != h {
		t.Fatalf("%+v: framed as %+v, %d bytes left, %v", h, m.Header, len(rest), err)
	}
	if len(m.Raw)%4 != 0 || len(m.Raw) > MaxMessage {
		t.Fatalf("message of %d bytes", len(m.Raw))
	}
	var got flow.Flow
	if err := o.ParseFlow(m.Body, &got); err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	if got != *f {
		t.Fatalf("flow (-sent +arrived):\n%s", cmp.Diff(*f, got))
	}
}

func TestRandomExpects(t *testing.T) {
	const optional = flow.HasMask | flow.HasTimeout | flow.HasClass | flow.HasSNAT | flow.HasHelper | flow.HasFn
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 5000 {
		family := []uint8{flow.IPv4, flow.IPv6}[i%2]
		has := randomHas(r, optional, expectNeeds)
		if has.Has(flow.HasSNAT) {
			has |= flow.HasSPAT | flow.HasNATDir
			if family == flow.IPv6 { // no number for the addresses
				has &^= flow.HasSNAT
			}
		}
		e := randomExpect(r, family, has)
		h := Header{Type: ExpNew + uint8(r.IntN(3)), Seq: r.Uint32()}
		raw := full.AppendExpect(nil, h, &e)
		m, _, err := Next(raw)
		if err != nil || m.Header != h || len(m.Raw) != len(raw) || len(raw) > MaxMessage {
			t.Fatalf("%+v framed as %+v, %v", h, m.Header, err)
		}
		var got flow.Expect
		if err := full.ParseExpect(m.Body, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Fatalf("expectation (-sent +arrived):\n%s", diff)
		}
	}
}

// TestAroundTimeout: a message says the same with another timeout or with none,
// and nothing else is passed over.
func TestAroundTimeout(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	said := func(o Options, e flow.Expect) string {
		m, _, err := Next(o.AppendExpect(nil, Header{Type: ExpNew}, &e))
		must(t, err)
		before, behind := AroundTimeout(m.Body)
		if whole := len(m.Body) - len(before) - len(behind); whole != 0 && whole != 8 {
			t.Fatalf("%d bytes of %x are left out", whole, m.Body)
		}
		return string(before) + string(behind)
	}
	for i := range 2000 {
		e := randomExpect(r, []uint8{flow.IPv4, flow.IPv6}[i%2], randomHas(r, flow.HasMask|flow.HasClass|flow.HasHelper, expectNeeds|flow.HasTimeout))
		was := said(Options{}, e)
		later, other := e, e
		later.Timeout++
		if said(Options{}, later) != was || said(Options{OmitTimeout: true}, e) != was {
			t.Fatalf("the timeout makes a difference: %+v", e)
		}
		if other.Flags++; said(Options{}, other) == was {
			t.Fatalf("the flags make none: %+v", e)
		}
	}
	for _, body := range [][]byte{nil, {0}, {0, 0, 0, 1}, {0, 0, 0, 1, 0, 0, 0, 0, 9}, {0xff, 0xff, 0, 12, 1}, {0, 8, 0, 12, 1}} {
		if before, behind := AroundTimeout(body); len(before)+len(behind) > len(body) {
			t.Errorf("%x is %x and %x", body, before, behind)
		}
	}
}

// TestMaxMessage: the bound holds and is reached.
func TestMaxMessage(t *testing.T) {
	longest := 0
	for _, f := range richFlows() {
		f.Master.Family = flow.IPv6
		longest = max(longest, len(full.AppendFlow(nil, Header{}, &f)))
	}
	if longest != MaxMessage {
		t.Errorf("the longest conntrack message has %d bytes, MaxMessage is %d", longest, MaxMessage)
	}
	e := richExpect()
	e.Master.Family, e.Tuple.Family = flow.IPv6, flow.IPv6
	if n := len(full.AppendExpect(nil, Header{}, &e)); n > MaxMessage {
		t.Errorf("an expectation message has %d bytes", n)
	}
}

// numbers returns the attribute numbers of a message in their order.
func numbers(raw []byte) (nums []int) {
	for b := raw[8:]; len(b) > 0; b = b[(int(b[1])+3)&^3:] {
		nums = append(nums, int(b[3]))
	}
	return nums
}

// TestEmission has one line for each condition of docs/protocol.md 3.4 and 10.
func TestEmission(t *testing.T) {
	const done = flow.StatusSrcNATDone | flow.StatusDstNATDone
	tcp := func(change func(*flow.Flow)) *flow.Flow {
		f := richFlows()["tcp4"]
		f.Has, f.Status = flow.HasAddr|flow.HasProto|flow.HasPorts|flow.HasStatus, 0
		change(&f)
		return &f
	}
	for _, tt := range []struct {
		name string
		opts Options
		flow *flow.Flow
		want []int
	}{
		{"least", full, tcp(func(f *flow.Flow) {}), []int{0, 5, 2, 3}},
		{"status not known", full, tcp(func(f *flow.Flow) { f.Has &^= flow.HasStatus }), []int{0, 5, 2, 3}},
		{"ports not known", full, tcp(func(f *flow.Flow) { f.Has &^= flow.HasPorts }), []int{0, 5, 2, 3}},
		{"UDP-Lite", full, tcp(func(f *flow.Flow) { f.Proto = flow.ProtoUDPLite }), []int{0, 5, 2, 3}},
		{"GRE without its keys", full, tcp(func(f *flow.Flow) {
			f.Proto = flow.ProtoGRE
			f.Has &^= flow.HasPorts
		}), []int{0, 5, 2}},
		{"other protocol", full, tcp(func(f *flow.Flow) { f.Proto = 89 }), []int{0, 5, 2}},
		{"window scale without state", full, tcp(func(f *flow.Flow) { f.Has |= flow.HasWScaleOrig }), []int{0, 5, 2, 3}},
		{"one window scale", full, tcp(func(f *flow.Flow) { f.Has |= flow.HasState | flow.HasWScaleRepl }), []int{0, 5, 2, 3, 4, 26}},
		{"window scale off", Options{}, tcp(func(f *flow.Flow) {
			f.Has |= flow.HasState | flow.HasWScaleOrig | flow.HasWScaleRepl
		}), []int{0, 5, 2, 3, 4}},
		{"SCTP without state", full, tcp(func(f *flow.Flow) {
			f.Proto = flow.ProtoSCTP
			f.Has |= flow.HasVtag
		}), []int{0, 5, 2, 3}},
		{"SCTP, tags not known", full, tcp(func(f *flow.Flow) {
			f.Proto = flow.ProtoSCTP
			f.Has |= flow.HasState
		}), []int{0, 5, 2, 3, 17, 18, 19}},
		{"DCCP, role not known", full, tcp(func(f *flow.Flow) {
			f.Proto = flow.ProtoDCCP
			f.Has |= flow.HasState
		}), []int{0, 5, 2, 3, 20, 21}},
		{"timeout", full, tcp(func(f *flow.Flow) { f.Has |= flow.HasTimeout }), []int{0, 5, 2, 3, 6}},
		{"timeout omitted", Options{OmitTimeout: true}, tcp(func(f *flow.Flow) { f.Has |= flow.HasTimeout }), []int{0, 5, 2, 3}},
		{"mark 0", full, tcp(func(f *flow.Flow) { f.Has, f.Mark = f.Has|flow.HasMark, 0 }), []int{0, 5, 2, 3, 7}},
		{"NAT not done", full, tcp(func(f *flow.Flow) { f.Has |= flow.HasNAT }), []int{0, 5, 2, 3}},
		{"NAT done", full, tcp(func(f *flow.Flow) { f.Has, f.Status = f.Has|flow.HasNAT, done }), []int{0, 5, 2, 3, 12, 13, 14, 15}},
		{"source NAT done", full, tcp(func(f *flow.Flow) {
			f.Has, f.Status = f.Has|flow.HasNAT, flow.StatusSrcNATDone
		}), []int{0, 5, 2, 3, 12, 14}},
		{"destination NAT done", full, tcp(func(f *flow.Flow) {
			f.Has, f.Status = f.Has|flow.HasNAT, flow.StatusDstNATDone
		}), []int{0, 5, 2, 3, 13, 15}},
		{"ICMP never has translated ports", full, tcp(func(f *flow.Flow) {
			f.Proto, f.Has, f.Status = flow.ProtoICMP, f.Has|flow.HasNAT, done
		}), []int{0, 5, 2, 22, 23, 24, 12, 13}},
		{"one sequence adjustment", full, tcp(func(f *flow.Flow) { f.Has |= flow.HasSeqOrig }), []int{0, 5, 2, 3}},
		{"helper of 11 characters", full, tcp(func(f *flow.Flow) {
			f.Has, f.Helper = f.Has|flow.HasHelper, [16]byte([]byte("abcdefghijk\x00\x00\x00\x00\x00"))
		}), []int{0, 5, 2, 3, 27}},
		{"helper of 12 characters", full, tcp(func(f *flow.Flow) {
			f.Has, f.Helper = f.Has|flow.HasHelper, [16]byte([]byte("abcdefghijkl\x00\x00\x00\x00"))
		}), []int{0, 5, 2, 3}},
		{"helper of 16 characters", full, tcp(func(f *flow.Flow) {
			f.Has, f.Helper = f.Has|flow.HasHelper, [16]byte([]byte("abcdefghijklmnop"))
		}), []int{0, 5, 2, 3}},
		{"no label", full, tcp(func(f *flow.Flow) { f.Has, f.Labels = f.Has|flow.HasLabels, [4]uint32{} }), []int{0, 5, 2, 3}},
		{"synproxy of zeros", full, tcp(func(f *flow.Flow) {
			f.Has, f.Synproxy = f.Has|flow.HasSynproxy, flow.Synproxy{}
		}), []int{0, 5, 2, 3}},
		{"zone 0", full, tcp(func(f *flow.Flow) { f.Has, f.Zone = f.Has|flow.HasZone, 0 }), []int{0, 5, 2, 3}},
		{"zone of one direction", full, tcp(func(f *flow.Flow) { f.Has, f.Zone = f.Has|flow.HasZoneOrig, 7 }), []int{0, 5, 2, 3}},
	} {
		if got := numbers(tt.opts.AppendFlow(nil, Header{}, tt.flow)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: attributes %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestByteOrders: the three doubly swapped numbers and the NAT addresses of
// old peers, on the wire and back.
func TestByteOrders(t *testing.T) {
	f := flow.Flow{Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasStatus | flow.HasSNAT | flow.HasSPAT}
	f.Key = flow.Key{Src: flow.Addr{10, 1, 0, 2}, Dst: flow.Addr{10, 2, 0, 2}, Family: flow.IPv4, Proto: flow.ProtoTCP}
	f.Status = flow.StatusSrcNATDone
	f.NAT.Src, f.NAT.Sport = flow.Addr{10, 2, 0, 1}, 50006
	icmp := f
	icmp.Proto, icmp.Sport = flow.ProtoICMP, 0x1234
	icmp.Has &^= flow.HasSNAT | flow.HasSPAT
	icmp.NAT = flow.NAT{}
	for _, tt := range []struct {
		opts           Options
		snat, spat, id []byte
	}{
		{Options{}, []byte{10, 2, 0, 1}, []byte{0x56, 0xc3}, []byte{0x34, 0x12}},
		{Options{BigEndian: true}, []byte{10, 2, 0, 1}, []byte{0xc3, 0x56}, []byte{0x12, 0x34}},
		{Options{Peer: Since145}, []byte{1, 0, 2, 10}, []byte{0x56, 0xc3}, []byte{0x34, 0x12}},
		{Options{Peer: Since142, BigEndian: true}, []byte{10, 2, 0, 1}, []byte{0xc3, 0x56}, []byte{0x12, 0x34}},
		{Options{Peer: Since142}, []byte{1, 0, 2, 10}, []byte{0x56, 0xc3}, []byte{0x34, 0x12}},
	} {
		name := fmt.Sprintf("%+v", tt.opts)
		raw := tt.opts.AppendFlow(nil, Header{}, &f)
		for _, a := range [][]byte{attr(12, tt.snat...), attr(14, tt.spat...)} {
			if !bytes.Contains(raw, a) {
				t.Errorf("%s: no %x in %x", name, a, raw)
			}
		}
		if raw := tt.opts.AppendFlow(nil, Header{}, &icmp); !bytes.Contains(raw, attr(24, tt.id...)) {
			t.Errorf("%s: no %x in %x", name, attr(24, tt.id...), raw)
		}
		checkFlowTrip(t, &tt.opts, Header{}, &f)
		checkFlowTrip(t, &tt.opts, Header{}, &icmp)
	}
}

// TestExpectPorts: whether ports travel is the master's protocol's to say.
func TestExpectPorts(t *testing.T) {
	ports := bit(3) | bit(7) | bit(11) | bit(16)
	for proto := range protoHas {
		e := richExpect()
		e.Master.Proto = proto
		var got uint64
		for _, n := range numbers(full.AppendExpect(nil, Header{}, &e)) {
			got |= bit(uint8(n))
		}
		want := uint64(0)
		if sendsPorts(proto) {
			want = ports
		}
		if got&ports != want {
			t.Errorf("master of protocol %d: %d port attributes", proto, bits.OnesCount64(got&ports))
		}
	}
}

// TestExpectEmission has one line for each condition of docs/protocol.md 3.7.
func TestExpectEmission(t *testing.T) {
	all := []int{0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 16, 18, 19, 20}
	without := func(drop ...int) (out []int) {
		for _, n := range all {
			if !slices.Contains(drop, n) {
				out = append(out, n)
			}
		}
		return out
	}
	for _, tt := range []struct {
		name   string
		opts   Options
		change func(*flow.Expect)
		want   []int
	}{
		{"everything", full, func(e *flow.Expect) {}, all},
		{"timeout omitted", Options{OmitTimeout: true}, func(e *flow.Expect) {}, without(12)},
		{"class not known", full, func(e *flow.Expect) { e.Has &^= flow.HasClass }, without(14)},
		{"flags not known", full, func(e *flow.Expect) { e.Has &^= flow.HasFlags }, all},
		{"no NAT", full, func(e *flow.Expect) { e.Has &^= flow.HasSNAT | flow.HasSPAT }, without(15, 17, 16, 18)},
		{"NAT of IPv6", full, func(e *flow.Expect) { e.NAT.Family = flow.IPv6 }, without(15)},
		{"long helper", full, func(e *flow.Expect) { copy(e.Helper[:], "abcdefghijklmnop") }, without(19)},
		{"long function", full, func(e *flow.Expect) { copy(e.Fn[:], "abcdefghijklmnopabcdefghijklmnop") }, without(20)},
	} {
		e := richExpect()
		tt.change(&e)
		if got := numbers(tt.opts.AppendExpect(nil, Header{}, &e)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: attributes %v, want %v", tt.name, got, tt.want)
		}
	}
}
