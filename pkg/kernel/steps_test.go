package kernel

import (
	"context"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// one returns the only entry of the table.
func one(t *testing.T) flow.Flow {
	t.Helper()
	all := table(t)
	if len(all) != 1 {
		t.Fatalf("kernel has %d entries, want 1", len(all))
	}
	for _, f := range all {
		return f
	}
	panic("unreachable")
}

// TestCommitOverExisting walks every way that a commit can take when the
// kernel has something already.
func TestCommitOverExisting(t *testing.T) {
	tcp, udp := newFlow(flow.IPv4, flow.ProtoTCP), newFlow(flow.IPv6, flow.ProtoUDP)
	mirrored := func(f flow.Flow) flow.Flow {
		m, _ := f.Mirror()
		f.Key = m
		return f
	}
	unassured := func(f *flow.Flow) { f.Status = flow.StatusConfirmed }
	for _, c := range []struct {
		name      string
		have, put flow.Flow
		want      Outcome
	}{
		{"same", tcp, tcp, Updated},
		{"other state", tcp, with(tcp, func(f *flow.Flow) { f.State = 7 }), Updated},
		{"other timeout", tcp, with(tcp, timeout(7000)), Updated},
		{"mark cleared", with(tcp, mark(5)), with(tcp, mark(0)), Updated},
		{"mark not said", with(tcp, mark(5)), tcp, Updated},
		{"labels replaced", with(tcp, labels(1, 2)), with(tcp, labels(4)), Updated},
		{"labels not said", with(tcp, labels(1, 2)), tcp, Updated},
		{"nat same", with(tcp, snat, dnat, spat, dpat), with(tcp, snat, dnat, spat, dpat), Updated},
		{"nat same v6", with(udp, snat, dnat), with(udp, snat, dnat), Updated},
		{"nat came", tcp, with(tcp, snat), Replaced},
		{"nat went", with(tcp, snat), tcp, Replaced},
		{"nat port differs", with(tcp, snat, spat), with(tcp, snat), Replaced},
		{"nat differs v6", with(udp, dnat), with(udp, dnat, dpat), Replaced},
		{"opposite direction", mirrored(tcp), tcp, Replaced},
		{"helper the same", with(tcp, helper("ftp")), with(tcp, helper("ftp")), Updated},
	} {
		t.Run(c.name, func(t *testing.T) {
			ownNetNS(t)
			w := openWriter(t, WriterConfig{})
			commit(t, w, Created, c.have)
			destroyed := watchDestroy(t)
			for want, existing := c.want, false; ; want, existing = Updated, true {
				w.existing = existing
				commit(t, w, want, c.put)
				got := one(t)
				for _, d := range diff(&c.put, &got) {
					t.Errorf("guess %v: %s", existing, d)
				}
				if kept := destroyed() == 0; kept != (want == Updated) {
					t.Errorf("guess %v: kept the entry: %v", existing, kept)
				}
				if existing {
					return
				}
			}
		})
		t.Run(c.name+" with a status only growing", func(t *testing.T) {
			ownNetNS(t)
			w := openWriter(t, WriterConfig{})
			commit(t, w, Created, c.have)
			commit(t, w, c.want, with(c.put, unassured))
			if got := one(t); (got.Status&statusGrowing == statusGrowing) != (c.want == Updated) {
				t.Errorf("status is %#x after outcome %d", got.Status, c.want)
			}
		})
	}
}

func TestCommitKnown(t *testing.T) {
	a := newFlow(flow.IPv4, flow.ProtoTCP)
	b := with(a, sport(2), snat)
	for _, c := range []struct {
		name string
		have []flow.Flow
		put  flow.Flow
		say  Known
		want Outcome
	}{
		{"nothing", nil, b, Unknown, Created},
		{"missing", nil, b, Missing, Created},
		{"missing, wrong", []flow.Flow{b}, b, Missing, Updated},
		{"same", []flow.Flow{b}, b, Same, Updated},
		{"same, status shrinks", []flow.Flow{b}, with(b, func(f *flow.Flow) { f.Status = 0 }), Same, Updated},
		{"same, wrong", []flow.Flow{a}, b, Same, Created},
	} {
		t.Run(c.name, func(t *testing.T) {
			ownNetNS(t)
			w := openWriter(t, WriterConfig{})
			commit(t, w, Created, c.have...)
			results := make([]Result, 1)
			if err := w.CommitKnown([]flow.Flow{c.put}, []Known{c.say}, results); err != nil || results[0].Outcome != c.want {
				t.Fatalf("got %+v, %v, want %d", results[0], err, c.want)
			}
			got := table(t)[c.put.Key]
			c.put.Status |= got.Status & statusGrowing
			for _, d := range diff(&c.put, &got) {
				t.Error(d)
			}
		})
	}
}

// TestCommitWithoutEvents: probes have no echo then, and the flows still come
// out right.
func TestCommitWithoutEvents(t *testing.T) {
	ownNetNS(t)
	setSysctl(t, "nf_conntrack_events", "0")
	w := openWriter(t, WriterConfig{})
	same, other := newFlow(flow.IPv4, flow.ProtoTCP), with(newFlow(flow.IPv6, flow.ProtoUDP), snat)
	commit(t, w, Created, same, with(other, dnat))
	results := make([]Result, 2)
	flows := []flow.Flow{with(same, mark(4)), other}
	if err := w.Commit(flows, results); err != nil {
		t.Fatal(err)
	}
	if results[0].Outcome != Updated || results[1].Outcome != Replaced {
		t.Errorf("got %+v, want Updated and Replaced", results)
	}
	compare(t, flows, []string{"same", "other"})
}

// TestCommitReplyTaken is about another entry that has the reply tuple.
// TestCommitMasterGone: a connection that was removed to be created anew comes
// back even if its master does not exist.
func TestCommitMasterGone(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	child := with(newFlow(flow.IPv4, flow.ProtoTCP), related)
	commit(t, w, Created, with(child, func(f *flow.Flow) { f.Has &^= flow.HasMaster | flow.HasMasterPort }))
	commit(t, w, Replaced, with(child, snat))
	if got := one(t); !got.Has.Has(flow.HasSNAT) || got.Has.Has(flow.HasMaster) {
		t.Errorf("the entry has %#x, want its translation and no master", got.Has)
	}
}

// TestRefusedChange: an entry that exists is deleted only if the kernel will
// never change it.
func TestRefusedChange(t *testing.T) {
	plain := newFlow(flow.IPv4, flow.ProtoTCP)
	for _, c := range []struct {
		name  string
		f     flow.Flow
		slot  slot
		errno syscall.Errno
		want  step
	}{
		{"out of memory", plain, slot{step: stepChange}, unix.ENOMEM, stepDone},
		{"out of buffers", plain, slot{step: stepProbe}, unix.ENOBUFS, stepDone},
		{"later", plain, slot{step: stepChange}, unix.EAGAIN, stepDone},
		{"interrupted", plain, slot{step: stepChange}, unix.EINTR, stepDone},
		{"no room for labels", with(plain, labels(1)), slot{step: stepChange}, unix.ENOSPC, stepChange},
		{"no labels in this kernel", with(plain, labels(1)), slot{step: stepChange}, unix.EOPNOTSUPP, stepChange},
		{"labels not the reason", with(plain, labels(1)), slot{step: stepChange, drop: flow.HasLabels}, unix.EOPNOTSUPP, stepLook},
		{"invalid", plain, slot{step: stepChange}, unix.EINVAL, stepLook},
		{"invalid, and it is the connection itself", plain, slot{step: stepChange, looked: true, same: true}, unix.EINVAL, stepDone},
		{"invalid, and it is another", plain, slot{step: stepChange, looked: true}, unix.EINVAL, stepRemove},
		{"status", plain, slot{step: stepChange}, unix.EBUSY, stepLook},
		{"status is not why", plain, slot{step: stepChange, looked: true}, unix.EBUSY, stepRemove},
		{"gone", plain, slot{step: stepChange}, unix.ENOENT, stepCreate},
	} {
		if got := c.slot.afterChange(&c.f, c.errno); got != c.want {
			t.Errorf("%s: step %d, want %d", c.name, got, c.want)
		}
	}
}

func TestCommitReplyTaken(t *testing.T) {
	f := with(newFlow(flow.IPv4, flow.ProtoUDP), snat, spat)
	r, _ := f.Reply()
	stray := newFlow(flow.IPv4, flow.ProtoUDP)
	stray.Key = r

	t.Run("by a stray packet", func(t *testing.T) {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{})
		stray := with(stray, func(f *flow.Flow) { f.Status = flow.StatusConfirmed })
		commit(t, w, Created, stray)
		commit(t, w, Replaced, f)
		if got := one(t); got.Key != f.Key {
			t.Errorf("the entry is %v", show(&got.Key))
		}
	})
	t.Run("by a connection in use", func(t *testing.T) {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{})
		commit(t, w, Created, stray)
		destroyed := watchDestroy(t)
		results := make([]Result, 1)
		if err := w.Commit([]flow.Flow{f}, results); err != nil || results[0].Err() != unix.EEXIST {
			t.Errorf("got %+v, %v, want EEXIST", results[0], err)
		}
		if destroyed() != 0 {
			t.Error("the connection in use is gone")
		}
	})
}

// TestCommitKeepsTranslation: a flow whose source address and port an earlier
// flow has in another translation must still get its own.
func TestCommitKeepsTranslation(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	first := with(newFlow(flow.IPv4, flow.ProtoUDP), snat, spat)
	second := with(newFlow(flow.IPv4, flow.ProtoUDP), snat)
	second.Dst = addr("10.2.0.99")
	commit(t, w, Created, first, second)
	got := table(t)[second.Key]
	for _, d := range diff(&second, &got) {
		t.Error(d)
	}
}

func TestCommitUnknownHelper(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	f := with(newFlow(flow.IPv4, flow.ProtoTCP), helper("no-such-alg"))
	commit(t, w, Created, f)
	if got := one(t); got.Has.Has(flow.HasHelper) {
		t.Errorf("helper is %q", flow.Name(got.Helper[:]))
	}
	commit(t, w, Updated, f)
	f.Sport++
	wantWithout(t, w, flow.HasHelper, f)
}

// wantWithout commits a flow and wants to hear what the kernel did not take.
func wantWithout(t *testing.T, w *Writer, want flow.Has, f flow.Flow) {
	t.Helper()
	results := make([]Result, 1)
	if err := w.Commit([]flow.Flow{f}, results); err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.Outcome == Failed || r.Without != want {
		t.Errorf("%+v, want it without %v", r, want)
	}
}

func TestCommitLabelsUnused(t *testing.T) {
	ownNetNS(t)
	nft(t, "flush ruleset\ntable inet t { chain c { type filter hook input priority 0; ct state new counter; }; }")
	w := openWriter(t, WriterConfig{})
	f := with(newFlow(flow.IPv4, flow.ProtoTCP), labels(1))
	commit(t, w, Created, f)
	destroyed := watchDestroy(t)
	commit(t, w, Updated, f)
	if destroyed() != 0 {
		t.Error("replaced only because of labels that nobody uses")
	}
	wantWithout(t, w, flow.HasLabels, f)
	f.Sport++
	wantWithout(t, w, flow.HasLabels, f)
	wantWithout(t, w, 0, with(newFlow(flow.IPv4, flow.ProtoUDP), labels(0)))
}

// Where labels are used there is nothing to be said.
func TestCommitLabelsUsed(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	wantWithout(t, w, 0, with(newFlow(flow.IPv4, flow.ProtoTCP), labels(1)))
}

func related(f *flow.Flow) {
	f.Has |= flow.HasMaster | flow.HasMasterPort
	m := newFlow(f.Family, flow.ProtoTCP)
	f.Master = m.Key
	f.Dport = 2021
}

func TestCommitRelated(t *testing.T) {
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{})
		master := newFlow(family, flow.ProtoTCP)
		child := with(newFlow(family, flow.ProtoTCP), related, snat)

		results := make([]Result, 2)
		if err := w.Commit([]flow.Flow{child, master}, results); err != nil {
			t.Fatal(err)
		}
		if results[0].Err() != unix.ENOENT || results[1].Outcome != Created {
			t.Errorf("without its master: %+v, want ENOENT", results[0])
		}
		commit(t, w, Updated, master)
		commit(t, w, Created, child)
		got := table(t)[child.Key]
		for _, d := range diff(&child, &got) {
			t.Error(d)
		}
		destroyed := watchDestroy(t)
		commit(t, w, Updated, master, child)
		before := w.Stats.Requests
		if err := w.Update([]flow.Flow{child}, results); err != nil || results[0].Outcome != Updated {
			t.Errorf("update of a related flow: %+v, %v", results[0], err)
		}
		if n := w.Stats.Requests - before; n != 1 {
			t.Errorf("update of a related flow took %d requests", n)
		}
		if got := table(t)[child.Key]; destroyed() != 0 || got.Status&flow.StatusExpected == 0 {
			t.Errorf("related flow was replaced, status %#x", got.Status)
		}
	}
}

func TestCommitLiberal(t *testing.T) {
	for _, liberal := range []bool{false, true} {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{BeLiberal: liberal})
		f := newFlow(flow.IPv4, flow.ProtoTCP)
		scaled := with(f, sport(40001), func(f *flow.Flow) {
			f.Has |= flow.HasWScaleOrig | flow.HasWScaleRepl
			f.WScale = [2]uint8{3, 4}
		})
		commit(t, w, Created, f, scaled)
		commit(t, w, Updated, f, scaled)
		flags := tcpFlags(t)
		var plain uint8
		if liberal {
			plain = tcpBeLiberal
		}
		if got, want := flags[f.Sport], [2]uint8{plain, plain}; got != want {
			t.Errorf("liberal %v: flags %v, want %v", liberal, got, want)
		}
		plain |= tcpWindowScale
		if got, want := flags[scaled.Sport], [2]uint8{plain, plain}; got != want {
			t.Errorf("liberal %v: flags with scale %v, want %v", liberal, got, want)
		}
		if got := table(t)[scaled.Key].WScale; got != scaled.WScale {
			t.Errorf("liberal %v: window scale %v", liberal, got)
		}
	}
}

// TestCommitMakesNoDestroy looks at events, as the ID of an entry proves
// nothing: one made anew in the same memory gets the same.
func TestCommitMakesNoDestroy(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows, _ := everyFlow()
	commit(t, w, Created, flows...)
	watch := watchDestroy(t)
	commit(t, w, Updated, flows...)
	if n := watch(); n != 0 {
		t.Errorf("%d flows were destroyed", n)
	}
	results := make([]Result, 1)
	if err := w.Delete(flows[:1], results); err != nil || results[0].Outcome != Deleted {
		t.Fatalf("delete: %+v, %v", results[0], err)
	}
	if n := watch(); n != 1 {
		t.Errorf("%d destroys seen after one delete: the watch is blind", n)
	}
}

// bad is a flow that the kernel refuses: its master does not exist.
func bad(f *flow.Flow) {
	related(f)
	f.Master.Sport = 1
}

func TestErrorFindsItsFlow(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows := make([]flow.Flow, 301)
	for i := range flows {
		flows[i] = with(newFlow(flow.IPv4, flow.ProtoTCP), sport(uint16(1000+i)))
	}
	wrong := map[int]syscall.Errno{0: unix.ENOENT, 150: unix.ENOENT, 255: unix.ERANGE, 256: unix.ENOENT, 300: unix.ERANGE}
	for i, errno := range wrong {
		if errno == unix.ENOENT {
			bad(&flows[i])
		} else {
			flows[i].State = 200
		}
	}
	results := make([]Result, len(flows))
	if err := w.Commit(flows, results); err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if errno, ok := wrong[i]; ok && (r.Outcome != Failed || r.Errno != errno) {
			t.Errorf("flow %d: %+v, want %v", i, r, errno)
		} else if !ok && r.Outcome != Created {
			t.Errorf("flow %d: %+v", i, r)
		}
	}
	if n := len(table(t)); n != len(flows)-len(wrong) {
		t.Errorf("kernel has %d entries", n)
	}
}

// TestNoErrorLost: also with a receive buffer that holds a few answers only.
func TestNoErrorLost(t *testing.T) {
	for _, buffer := range []int{writerBuffer, 24 << 10} {
		ownNetNS(t)
		w := openWriter(t, WriterConfig{})
		if _, err := w.sock.forceReadBuffer(buffer); err != nil {
			t.Fatal(err)
		}
		flows := make([]flow.Flow, 2000)
		for i := range flows {
			flows[i] = with(newFlow(flow.IPv4, flow.ProtoTCP), sport(uint16(1000+i)), bad)
		}
		results := make([]Result, len(flows))
		if err := w.Commit(flows, results); err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err() != unix.ENOENT {
				t.Fatalf("buffer %d, flow %d: %+v, want ENOENT", buffer, i, r)
			}
		}
		if lossy := buffer < writerBuffer; (w.Stats.Losses > 0) != lossy {
			t.Errorf("buffer %d: %d losses", buffer, w.Stats.Losses)
		}
	}
}

func TestWriterClosed(t *testing.T) {
	ownNetNS(t)
	w, err := OpenWriter(WriterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if w.PortID() == 0 {
		t.Error("no port")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit([]flow.Flow{newFlow(flow.IPv4, flow.ProtoTCP)}, make([]Result, 1)); err == nil {
		t.Error("commit on a closed writer succeeded")
	}
	if _, err := w.Flush(context.Background(), Flushing{}); err != nil {
		t.Errorf("flush of an empty table: %v", err)
	}
}
