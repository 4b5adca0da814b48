package kernel

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// newExpect is what the FTP helper announces for a passive transfer.
func newExpect(family uint8) flow.Expect {
	master := newFlow(family, flow.ProtoTCP)
	x := flow.Expect{
		Has: flow.HasAddr | flow.HasProto | flow.HasPorts | flow.HasMaster | flow.HasMasterPort | flow.HasMask |
			flow.HasTimeout | flow.HasFlags | flow.HasClass | flow.HasHelper,
		Master:  master.Key,
		Tuple:   master.Key,
		Timeout: 250,
		Flags:   flow.ExpectPermanent,
	}
	x.Tuple.Sport, x.Tuple.Dport = 0, 2021
	x.Mask = flow.Key{Family: family, Proto: flow.ProtoTCP, Dport: 0xffff}
	for i := range 4 {
		x.Mask.Src[i], x.Mask.Dst[i] = 0xff, 0xff
	}
	if family == flow.IPv6 {
		for i := range x.Mask.Src {
			x.Mask.Src[i], x.Mask.Dst[i] = 0xff, 0xff
		}
	}
	copy(x.Helper[:], "ftp")
	return x
}

func expectNAT(x *flow.Expect) {
	x.Has |= flow.HasSNAT | flow.HasSPAT | flow.HasNATDir | flow.HasFn
	x.NAT = flow.Key{Family: x.Tuple.Family, Proto: flow.ProtoTCP, Src: x.Master.Src, Sport: 40001}
	x.NATDir = 1
	copy(x.Fn[:], "nat-follow-master")
}

func expects(t *testing.T) (all []flow.Expect) {
	t.Helper()
	err := DumpExpect(context.Background(), func(x *flow.Expect) error {
		c := *x
		c.ID, c.Has = 0, c.Has&^flow.HasID
		all = append(all, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCreateExpect(t *testing.T) {
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		for _, change := range []func(*flow.Expect){
			func(*flow.Expect) {},
			expectNAT,
			func(x *flow.Expect) { x.Has |= flow.HasZone; x.Tuple.Zone = 6 },
			func(x *flow.Expect) { x.Has &^= flow.HasTimeout; x.Timeout = 0 },
		} {
			ownNetNS(t)
			w := openWriter(t, WriterConfig{})
			x := newExpect(family)
			change(&x)
			if err := w.CreateExpect(&x); !errors.Is(err, unix.ENOENT) {
				t.Errorf("without a master: %v, want ENOENT", err)
			}
			master := with(newFlow(family, flow.ProtoTCP), helper("ftp"))
			if x.Has.Has(flow.HasZone) {
				zone(x.Tuple.Zone)(&master)
			}
			commit(t, w, Created, master)
			for range 2 {
				if err := w.CreateExpect(&x); err != nil {
					t.Fatal(err)
				}
				compareExpect(t, x, expects(t))
			}
			if err := w.DeleteExpect(&x); err != nil {
				t.Fatal(err)
			}
			if n := len(expects(t)); n != 0 {
				t.Errorf("%d expectations left", n)
			}
			if err := w.DeleteExpect(&x); err != nil {
				t.Errorf("delete of a missing expectation: %v", err)
			}
		}
	}
}

// compareExpect leaves out what the kernel keeps to itself: it replaces the
// timeout by that of the helper's policy and reports no zone.
func compareExpect(t *testing.T, want flow.Expect, all []flow.Expect) {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("%d expectations, want 1", len(all))
	}
	got := all[0]
	if got.Timeout == 0 {
		t.Error("no timeout")
	}
	want.Has = want.Has&^flow.HasZone | flow.HasTimeout
	want.Tuple.Zone, want.Timeout = 0, got.Timeout
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("expectation (-want +got):\n%s", d)
	}
}

// TestEncodeExpect reads back all that was written, also what the kernel
// keeps to itself.
func TestEncodeExpect(t *testing.T) {
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		want := newExpect(family)
		expectNAT(&want)
		want.Has |= flow.HasZone
		want.Tuple.Zone, want.Class, want.Flags = 6, 3, flow.ExpectInactive
		e := encoder{}
		e.expect(msgExpNew, 9, &want)
		m, rest, ok := nextMessage(e.buf)
		if !ok || len(rest) != 0 || m.typ != msgExpNew || m.seq != 9 {
			t.Fatalf("not one message: %+v", m)
		}
		var got flow.Expect
		if err := DecodeExpect(m.body, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("family %d (-want +got):\n%s", family, d)
		}
	}
}

func TestFlushExpect(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	commit(t, w, Created, with(newFlow(flow.IPv4, flow.ProtoTCP), helper("ftp")), with(newFlow(flow.IPv6, flow.ProtoTCP), helper("ftp")))
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		x := newExpect(family)
		if err := w.CreateExpect(&x); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(expects(t)); n != 2 {
		t.Fatalf("%d expectations, want 2", n)
	}
	if err := w.FlushExpect(); err != nil {
		t.Fatal(err)
	}
	if n := len(expects(t)); n != 0 {
		t.Errorf("%d expectations left", n)
	}
	if n := len(table(t)); n != 2 {
		t.Errorf("%d flows left, want the 2 masters", n)
	}
}
