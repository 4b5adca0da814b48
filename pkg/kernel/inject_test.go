package kernel

import (
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
