package node

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

const allOptional = flow.HasMark | flow.HasHelper | flow.HasLabels

// dressed is a flow with a mark, labels, a helper and a translation.
func dressed(sport uint16) flow.Flow {
	f := tcp(sport, 3)
	f.Has |= allOptional | flow.HasSNAT
	f.Mark, f.Labels = 0xa1b2c3d4, [4]uint32{8, 0, 8192, 0}
	copy(f.Helper[:], "ftp")
	f.Status |= flow.StatusSrcNAT | flow.StatusSrcNATDone
	f.NAT.Src = flow.Addr{10, 2, 0, 1}
	return f
}

// received is what arrives of a flow, less attributes.
func received(f flow.Flow, without flow.Has) flow.Flow {
	f.Has &^= without | flow.HasReply | flow.HasID
	f.ID = 0
	if without.Has(flow.HasMark) {
		f.Mark = 0
	}
	if without.Has(flow.HasHelper) {
		f.Helper = [16]byte{}
	}
	if without.Has(flow.HasLabels) {
		f.Labels = [4]uint32{}
	}
	return f
}

// attributesSent returns the numbers in the messages about flows.
func attributesSent(n *Node, now time.Duration) (nums []byte) {
	for _, m := range messages(n, now) {
		for b := m.Body; len(b) > 0; b = b[(int(b[1])+3)&^3:] {
			nums = append(nums, b[3])
		}
	}
	return nums
}

// TestDoNotSync: one node is enough, whichever, and what is left of the flow
// is whole. Its control is the first case.
func TestDoNotSync(t *testing.T) {
	for _, c := range []struct {
		name             string
		sender, receiver flow.Has
	}{
		{"nothing", 0, 0},
		{"mark, by the sender", flow.HasMark, 0},
		{"helper, by the sender", flow.HasHelper, 0},
		{"labels, by the sender", flow.HasLabels, 0},
		{"mark, by the receiver", 0, flow.HasMark},
		{"helper, by the receiver", 0, flow.HasHelper},
		{"labels, by the receiver", 0, flow.HasLabels},
		{"all, by both", allOptional, allOptional},
	} {
		for name, direct := range map[string]bool{"cached": false, "direct": true} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				cfg := simConfig()
				cfg.Mode, cfg.DisableInternalCache = NOTRACK, direct
				cfg.DoNotSync = c.sender
				a := New(cfg, 1, [2]uint64{1, 2})
				cfg.DoNotSync, cfg.DisableExternalCache = c.receiver, direct
				b := New(cfg, 1, [2]uint64{3, 4})
				b.Tick(0)
				f := dressed(1)
				a.Kernel(0, event1(flow.New, f))
				ms := messages(a, 0)
				for _, m := range ms {
					b.Datagram(0, m.Raw)
				}
				var got flow.Flow
				if direct {
					events := b.Injections(nil)
					if len(events) != 1 {
						t.Fatalf("%d flows to inject", len(events))
					}
					got = events[0].Flow
				} else {
					batch := make([]flow.Flow, 4)
					b.BeginCommit()
					if filled, _ := b.NextCommit(0, batch); filled != 1 {
						t.Fatalf("%d flows to commit", filled)
					}
					got = batch[0]
				}
				if d := cmp.Diff(received(f, c.sender|c.receiver), got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				a.Kernel(0, event1(flow.Update, f))
				sent := attributesSent(a, 0)
				for num, has := range map[byte]flow.Has{7: flow.HasMark, 27: flow.HasHelper, 28: flow.HasLabels, 12: flow.HasSNAT} {
					if got := slices.Contains(sent, num); got != (c.sender&has == 0) {
						t.Errorf("attribute %d sent: %v", num, got)
					}
				}
			})
		}
	}
}

// TestDoNotRestore: what is not restored is replicated and shown all the same,
// and not handed out. That an entry has labels is then no reason to ask the
// kernel about it.
func TestDoNotRestore(t *testing.T) {
	for _, c := range []struct {
		sync, restore flow.Has
		want          Held
	}{
		{0, 0, HeldOther},
		{0, flow.HasLabels, HeldSame},
		{flow.HasLabels, 0, HeldSame},
		{flow.HasMark | flow.HasHelper, flow.HasMark, HeldOther},
		{0, allOptional, HeldSame},
	} {
		p := newPairOf(t, func(cfg *Config) { cfg.DoNotSync, cfg.DoNotRestore = c.sync, c.restore })
		f := dressed(1)
		f.Status |= flow.StatusHelper
		p.a.Kernel(p.now, event1(flow.New, f))
		p.exchange()
		var got flow.Flow
		p.b.external.load(p.b.external.lookup(&f.Key), &got)
		if d := cmp.Diff(received(f, c.sync), got); d != "" {
			t.Errorf("%x, %x: replicated (-want +got):\n%s", c.sync, c.restore, d)
		}
		want := received(f, c.sync|c.restore)
		if (c.sync | c.restore).Has(flow.HasHelper) {
			want.Status &^= flow.StatusHelper
		}
		batch := make([]flow.Flow, 4)
		p.b.BeginCommit()
		if filled, _ := p.b.NextCommit(p.now, batch); filled != 1 || batch[0] != want {
			t.Errorf("%x, %x: %d to commit (-want +got):\n%s", c.sync, c.restore, filled, cmp.Diff(want, batch[0]))
		}
		p.b.Kernel(p.now, event1(flow.New, f))
		ask := received(f, flow.HasLabels)
		if got := p.b.Held(&ask); got != c.want {
			t.Errorf("%x, %x: held %d, want %d", c.sync, c.restore, got, c.want)
		}
	}
}

// TestDoNotRestoreAssumed: what the internal cache takes for granted of an
// entry without an event is what the writer leaves there: nothing in one that
// a commit makes, its own in one that the peer has taken over.
func TestDoNotRestoreAssumed(t *testing.T) {
	theirs := dressed(1)
	ours := dressed(1)
	ours.Mark, ours.Labels = 7, [4]uint32{1}
	inside := func(n *Node) (f flow.Flow) {
		n.internal.load(n.internal.lookup(&theirs.Key), &f)
		return f
	}
	for _, on := range []bool{false, true} {
		has, wantMark, wantOwn := flow.Has(0), theirs.Mark, theirs.Mark
		if on {
			has, wantMark, wantOwn = allOptional, 0, ours.Mark
		}
		p := newPairOf(t, func(cfg *Config) { cfg.DoNotRestore = has })
		p.a.Kernel(p.now, event1(flow.New, theirs))
		p.exchange()
		batch := make([]flow.Flow, 1)
		p.b.BeginCommit()
		p.b.NextCommit(p.now, batch)
		p.b.Assume(p.now, &batch[0])
		if got := inside(p.b); got.Mark != wantMark || got.Has.Any(has) {
			t.Errorf("%v: assumed mark %#x, %x", on, got.Mark, got.Has)
		}

		for _, op := range []uint8{wire.CTNew, wire.CTUpd} {
			cfg := simConfig()
			cfg.Mode, cfg.DisableExternalCache, cfg.DoNotRestore = NOTRACK, true, has
			n := New(cfg, 1, [2]uint64{1, 2})
			n.Kernel(0, event1(flow.New, ours))
			sender := wire.Options{}
			n.Datagram(0, sender.AppendFlow(nil, wire.Header{Type: op}, &theirs))
			if got := inside(n); got.Mark != wantOwn || got.State != theirs.State || len(n.Injections(nil)) != 1 {
				t.Errorf("%v, type %d: mark %#x inside, want %#x", on, op, got.Mark, wantOwn)
			}
		}
	}
}

// TestPeerVersion: an old peer gets NAT addresses its way round and no zone,
// and is read likewise. The bytes are those of wire's TestOldMessages.
func TestPeerVersion(t *testing.T) {
	for _, c := range []struct {
		version wire.Version
		snat    []byte
		zone    bool
	}{
		{wire.Since147, []byte{0, 8, 0, 12, 10, 2, 0, 1}, true},
		{wire.Since145, []byte{0, 8, 0, 12, 1, 0, 2, 10}, false},
		{wire.Since142, []byte{0, 8, 0, 12, 1, 0, 2, 10}, false},
	} {
		p := newPairOf(t, func(cfg *Config) { cfg.PeerVersion = c.version })
		f := dressed(1)
		f.Zone, f.Has = 7, f.Has|flow.HasZone
		p.a.Kernel(p.now, event1(flow.New, f))
		raw := p.a.Next(p.now, nil, 1472)
		if !bytes.Contains(raw, c.snat) || bytes.Contains(raw, []byte{0, 6, 0, 32, 0, 7}) != c.zone {
			t.Errorf("version %d gets %x", c.version, raw)
		}
		p.b.Datagram(p.now, raw)
		want := received(f, 0)
		if !c.zone {
			want.Zone, want.Has = 0, want.Has&^flow.HasZone
		}
		batch := make([]flow.Flow, 4)
		p.b.BeginCommit()
		if filled, _ := p.b.NextCommit(p.now, batch); filled != 1 || batch[0] != want {
			t.Errorf("version %d: committed %d (-want +got):\n%s", c.version, filled, cmp.Diff(want, batch[0]))
		}
		if got := noticeKinds(p.b); slices.Contains(got, PeerLooksOlder) || slices.Contains(got, PeerLooksNewer) {
			t.Errorf("version %d: noticed %v", c.version, got)
		}
	}
}

// TestPeerVersionDoubted: a wrong version is said once, with an external cache
// or without, and the messages are taken all the same.
func TestPeerVersionDoubted(t *testing.T) {
	for _, c := range []struct {
		sender, reader wire.Version
		want           []NoticeKind
	}{
		{wire.Since147, wire.Since147, nil},
		{wire.Since142, wire.Since142, nil},
		{wire.Since142, wire.Since147, []NoticeKind{PeerLooksOlder}},
		{wire.Since147, wire.Since142, []NoticeKind{PeerLooksNewer}},
	} {
		for _, direct := range []bool{false, true} {
			cfg := simConfig()
			cfg.Mode, cfg.DisableExternalCache = NOTRACK, direct
			cfg.PeerVersion = c.reader
			n := New(cfg, 1, [2]uint64{1, 2})
			sender := wire.Options{Peer: c.sender}
			taken := 0
			for i := range uint16(5) {
				f := dressed(i)
				f.NAT.Src = flow.Addr{10, 2, 0, 240 + byte(i)}
				n.Datagram(0, sender.AppendFlow(nil, wire.Header{Type: wire.CTNew, Seq: uint32(i)}, &f))
				taken += len(n.Injections(nil))
			}
			if got := noticeKinds(n); !slices.Equal(got, c.want) {
				t.Errorf("version %d read as %d: noticed %v, want %v", c.sender, c.reader, got, c.want)
			}
			if taken += n.external.live(); taken != 5 {
				t.Errorf("version %d read as %d: %d flows taken", c.sender, c.reader, taken)
			}
		}
	}
}
