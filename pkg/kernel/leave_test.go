package kernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// dress gives a flow all that may be left alone.
func dress(f *flow.Flow) {
	mark(0xa1b2c3d4)(f)
	labels(8, 0, 8192)(f)
	helper("ftp")(f)
}

// less is the flow without attributes.
func less(f flow.Flow, has flow.Has) flow.Flow {
	f.Has &^= has
	if has.Has(flow.HasMark) {
		f.Mark = 0
	}
	if has.Has(flow.HasLabels) {
		f.Labels = [4]uint32{}
	}
	if has.Has(flow.HasHelper) {
		f.Helper = [16]byte{}
		f.Status &^= flow.StatusHelper
	}
	return f
}

// everyLeave are the sets of attributes to leave alone; none is the control.
func everyLeave() (sets []flow.Has) {
	for set := range 8 {
		var has flow.Has
		for i, one := range []flow.Has{flow.HasMark, flow.HasLabels, flow.HasHelper} {
			if set>>i&1 != 0 {
				has |= one
			}
		}
		sets = append(sets, has)
	}
	return sets
}

// TestLeaveOfNew: a new entry has the attributes, less those.
func TestLeaveOfNew(t *testing.T) {
	for _, leave := range everyLeave() {
		for name, write := range map[string]func(*Writer, []flow.Flow, []Result) error{"commit": (*Writer).Commit, "create": (*Writer).Create, "update": (*Writer).Update} {
			ownNetNS(t)
			w := openWriter(t, WriterConfig{Leave: leave})
			f := with(newFlow(flow.IPv4, flow.ProtoTCP), dress)
			f.Status |= flow.StatusHelper // as received
			results := make([]Result, 1)
			if err := write(w, []flow.Flow{f}, results); err != nil || results[0].Outcome != Created {
				t.Fatalf("%s leaving %x: %+v, %v", name, leave, results[0], err)
			}
			want, got := less(f, leave), one(t)
			for _, d := range diff(&want, &got) {
				t.Errorf("%s leaving %x: %s", name, leave, d)
			}
		}
	}
}

// TestLeaveOfExisting: an entry that is updated in place keeps its own, also
// where the flow's absence of labels and mark would clear them.
func TestLeaveOfExisting(t *testing.T) {
	own := with(newFlow(flow.IPv4, flow.ProtoTCP), mark(7), labels(1, 2, 3, 4))
	for _, leave := range everyLeave() {
		for name, say := range map[string]func(*flow.Flow){"dressed": dress, "bare": func(*flow.Flow) {}} {
			for _, known := range []Known{Unknown, Missing, Exists, Same} {
				if known == Same && name == "bare" && !leave.Has(flow.HasLabels) {
					continue // a false belief: nothing says that there are labels
				}
				ownNetNS(t)
				commit(t, openWriter(t, WriterConfig{}), Created, own)
				destroyed := watchDestroy(t)
				w := openWriter(t, WriterConfig{Leave: leave})
				f := with(newFlow(flow.IPv4, flow.ProtoTCP), say, func(f *flow.Flow) { f.State = 4 })
				results := make([]Result, 1)
				if err := w.CommitKnown([]flow.Flow{f}, []Known{known}, results); err != nil || results[0].Outcome != Updated {
					t.Fatalf("%s leaving %x: %+v, %v", name, leave, results[0], err)
				}
				want, got := less(f, flow.HasHelper), one(t) // no update can have one
				if leave.Has(flow.HasMark) {
					want.Mark = own.Mark
				}
				if leave.Has(flow.HasLabels) {
					want.Labels = own.Labels
				}
				for _, d := range diff(&want, &got) {
					t.Errorf("%s leaving %x, belief %d: %s", name, leave, known, d)
				}
				if destroyed() != 0 {
					t.Errorf("%s leaving %x, belief %d: replaced", name, leave, known)
				}
			}
		}
	}
}

// TestLeaveInUpdate: an injected update changes nothing of them.
func TestLeaveInUpdate(t *testing.T) {
	own := with(newFlow(flow.IPv4, flow.ProtoTCP), mark(7), labels(1, 2, 3, 4))
	for _, leave := range everyLeave() {
		ownNetNS(t)
		commit(t, openWriter(t, WriterConfig{}), Created, own)
		w := openWriter(t, WriterConfig{Leave: leave})
		f := with(newFlow(flow.IPv4, flow.ProtoTCP), dress, func(f *flow.Flow) { f.State = 4 })
		results := make([]Result, 1)
		if err := w.Update([]flow.Flow{f}, results); err != nil || results[0].Outcome != Updated {
			t.Fatalf("leaving %x: %+v, %v", leave, results[0], err)
		}
		want, got := less(f, flow.HasHelper), one(t)
		if leave.Has(flow.HasMark) {
			want.Mark = own.Mark
		}
		if leave.Has(flow.HasLabels) {
			want.Labels = own.Labels
		}
		for _, d := range diff(&want, &got) {
			t.Errorf("leaving %x: %s", leave, d)
		}
	}
}

// TestLeaveHelperOfExisting: the helper of the entry stays, as ever.
func TestLeaveHelperOfExisting(t *testing.T) {
	ownNetNS(t)
	f := with(newFlow(flow.IPv4, flow.ProtoTCP), helper("ftp"))
	commit(t, openWriter(t, WriterConfig{}), Created, f)
	commit(t, openWriter(t, WriterConfig{Leave: flow.HasHelper}), Updated, f)
	if got := one(t); flow.Name(got.Helper[:]) != "ftp" {
		t.Errorf("the helper is %q", got.Helper)
	}
}

// TestLeaveUnknownHelper: what is not written is no reason to try again.
func TestLeaveUnknownHelper(t *testing.T) {
	ownNetNS(t)
	f := with(newFlow(flow.IPv4, flow.ProtoTCP), helper("nosuch"))
	for _, c := range []struct {
		leave    flow.Has
		requests uint64
	}{{0, 2}, {flow.HasHelper, 1}} {
		w := openWriter(t, WriterConfig{Leave: c.leave})
		commit(t, w, Created, f)
		if w.Stats.Requests != c.requests {
			t.Errorf("leaving %x: %d requests, want %d", c.leave, w.Stats.Requests, c.requests)
		}
		results := make([]Result, 1)
		if err := w.Delete([]flow.Flow{f}, results); err != nil || results[0].Outcome != Deleted {
			t.Fatalf("%+v, %v", results[0], err)
		}
	}
}

// TestExpectationNeedsHelper is why confparse warns of ExpectationSync without
// helpers.
func TestExpectationNeedsHelper(t *testing.T) {
	for _, c := range []struct {
		leave flow.Has
		want  error
	}{{0, nil}, {flow.HasHelper, unix.EOPNOTSUPP}} {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{Leave: c.leave})
		commit(t, w, Created, with(newFlow(flow.IPv4, flow.ProtoTCP), helper("ftp")))
		x := newExpect(flow.IPv4)
		if err := w.CreateExpect(&x); !errors.Is(err, c.want) {
			t.Errorf("leaving %x: %v, want %v", c.leave, err, c.want)
		}
	}
}
