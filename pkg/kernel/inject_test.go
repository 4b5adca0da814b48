package kernel

import (
	"slices"
	"syscall"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestUpdate(t *testing.T) {
	base := newFlow(flow.IPv4, flow.ProtoTCP)
	for _, c := range []struct {
		name      string
		have, put flow.Flow
		want      Outcome
	}{
		{"same", base, base, Updated},
		{"mark cleared", with(base, mark(5)), with(base, mark(0)), Updated},
		{"nat v4", with(base, snat, dpat), with(base, snat, dpat, timeout(900)), Updated},
		{"nat v6", with(newFlow(flow.IPv6, flow.ProtoUDP), snat, dnat, spat), with(newFlow(flow.IPv6, flow.ProtoUDP), snat, dnat, spat), Updated},
		{"helper", with(base, helper("ftp")), with(base, helper("ftp")), Updated},
		{"status shrinks", base, with(base, func(f *flow.Flow) { f.Status = 0 }), Updated},
		{"fixed timeout", with(base, func(f *flow.Flow) { f.Status |= flow.StatusFixedTimeout }), with(base, func(f *flow.Flow) { f.Status |= flow.StatusFixedTimeout }, timeout(299)), Updated},
		{"missing", with(base, sport(1)), with(base, snat), Created},
	} {
		t.Run(c.name, func(t *testing.T) {
			ownNetNS(t)
			w := openWriter(t, WriterConfig{})
			commit(t, w, Created, c.have)
			old := table(t)[c.put.Key]
			destroyed := watchDestroy(t)
			results := make([]Result, 1)
			if err := w.Update([]flow.Flow{c.put}, results); err != nil || results[0].Outcome != c.want {
				t.Fatalf("got %+v, %v, want %d", results[0], err, c.want)
			}
			got := table(t)[c.put.Key]
			want := c.put
			want.Status |= old.Status & statusGrowing
			for _, d := range diff(&want, &got) {
				t.Error(d)
			}
			if destroyed() != 0 {
				t.Error("replaced")
			}
		})
	}
}

// TestUpdateKeepsUnsaid: an update changes what it names and nothing else.
func TestUpdateKeepsUnsaid(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	full := with(newFlow(flow.IPv4, flow.ProtoTCP), mark(5), labels(1, 2), snat)
	commit(t, w, Created, full)
	sparse := flow.Flow{Key: full.Key, Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasState, State: 5}
	results := make([]Result, 1)
	if err := w.Update([]flow.Flow{sparse}, results); err != nil || results[0].Outcome != Updated {
		t.Fatalf("got %+v, %v", results[0], err)
	}
	full.State = 5
	got := one(t)
	for _, d := range diff(&full, &got) {
		t.Error(d)
	}
}

func TestDelete(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	a := newFlow(flow.IPv4, flow.ProtoTCP)
	b := with(a, zone(3))
	c := with(newFlow(flow.IPv6, flow.ProtoUDP), snat, dnat)
	commit(t, w, Created, a, b, c)
	otherID := with(a, func(f *flow.Flow) { f.Has |= flow.HasID; f.ID = 12345 })

	results := make([]Result, 4)
	if err := w.Delete([]flow.Flow{otherID, b, c, b}, results); err != nil {
		t.Fatal(err)
	}
	for i, want := range []Outcome{Absent, Deleted, Deleted, Absent} {
		if results[i].Outcome != want {
			t.Errorf("delete %d: %+v, want %d", i, results[i], want)
		}
	}
	if got := one(t); got.Key != a.Key {
		t.Errorf("wrong flow left: %v zone %d", show(&got.Key), got.Zone)
	}
}

// TestRenew: only the timeout changes, whatever else the flow says.
func TestRenew(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{BeLiberal: true})
	full := with(newFlow(flow.IPv4, flow.ProtoTCP), mark(5), labels(1, 2), snat)
	zoned := with(newFlow(flow.IPv6, flow.ProtoUDP), zone(3))
	fixed := with(newFlow(flow.IPv4, flow.ProtoUDP), func(f *flow.Flow) { f.Status |= flow.StatusFixedTimeout })
	strict := openWriter(t, WriterConfig{})
	commit(t, strict, Created, full, zoned, fixed)
	before := table(t)
	renewed := []flow.Flow{
		with(full, mark(7), timeout(5000), func(f *flow.Flow) { f.State = 7 }),
		with(zoned, timeout(6000)),
		with(full, sport(9), timeout(5000)),
		with(fixed, timeout(5000)),
	}
	destroyed := watchDestroy(t)
	results := make([]Result, len(renewed))
	if err := w.Renew(renewed, results); err != nil {
		t.Fatal(err)
	}
	want := []Result{{Outcome: Updated}, {Outcome: Updated}, {Outcome: Absent}, {Errno: syscall.EPERM}}
	if !slices.Equal(results, want) {
		t.Errorf("got %+v, want %+v", results, want)
	}
	after := table(t)
	if len(after) != 3 || destroyed() != 0 {
		t.Errorf("%d entries, %d were destroyed", len(after), destroyed())
	}
	for i, least := range []uint32{4990, 5990} {
		f := after[renewed[i].Key]
		if f.Timeout < least || f.Timeout > least+10 {
			t.Errorf("flow %d has a timeout of %d", i, f.Timeout)
		}
		f.Timeout = before[f.Key].Timeout
		if f != before[f.Key] {
			t.Errorf("flow %d was %+v, is %+v", i, before[f.Key], f)
		}
	}
}

func TestReadTimeouts(t *testing.T) {
	ownNetNS(t)
	setSysctl(t, "nf_conntrack_udp_timeout", "31")
	setSysctl(t, "nf_conntrack_udp_timeout_stream", "121")
	setSysctl(t, "nf_conntrack_tcp_timeout_established", "4321")
	setSysctl(t, "nf_conntrack_sctp_timeout_established", "211")
	got, err := ReadTimeouts()
	if err != nil {
		t.Fatal(err)
	}
	if got.UDP != 31 || got.UDPStream != 121 || got.TCP[3] != 4321 || got.SCTP[4] != 211 {
		t.Errorf("%+v", got)
	}
	if got.TCP[1] == 0 || got.TCP[9] != got.TCP[1] || got.TCP[0] != 0 || got.ICMP == 0 || got.ICMPv6 == 0 || got.GREStream == 0 || got.Generic == 0 {
		t.Errorf("%+v", got)
	}
}
