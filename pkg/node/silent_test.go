package node

import (
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// silences are the notices of a node about the silence of its peer.
func silences(n *Node) (list []Notice) {
	for x, ok := n.NextNotice(); ok; x, ok = n.NextNotice() {
		if x.Kind == PeerSilent || x.Kind == PeerHeard {
			list = append(list, x)
		}
	}
	return list
}

func wantSilences(t *testing.T, when string, n *Node, want ...Notice) {
	t.Helper()
	if got := silences(n); !slices.Equal(got, want) {
		t.Errorf("%s: %+v, want %+v", when, got, want)
	}
}

// TestSilenceIsSaid: once when it begins and once when it ends, with how long it
// has lasted, by whom it concerns; a shorter one not at all.
func TestSilenceIsSaid(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		for _, nameless := range []bool{false, true} {
			p := speakers(t, mode)
			if nameless { // as C is
				p.a, p.b = New(p.cfg, 1, [2]uint64{1, 2}), New(p.cfg, 1000, [2]uint64{1, 2})
			}
			p.run(t, 10*time.Second, nil)
			wantSilences(t, "in step", p.a)
			for range 3 {
				p.run(t, 2900*time.Millisecond, lossOfAll)
				p.run(t, time.Second, nil)
			}
			wantSilences(t, "not for long enough", p.a)
			p.run(t, 7*time.Second, lossTo(p.a))
			wantSilences(t, "one direction", p.a, Notice{Kind: PeerSilent, Count: 5})
			wantSilences(t, "the other one", p.b)
			p.run(t, time.Minute, lossTo(p.a))
			wantSilences(t, "said already", p.a)
			p.run(t, 2*time.Second, nil)
			got := silences(p.a)
			if len(got) != 1 || got[0].Kind != PeerHeard || got[0].Count < 66 || got[0].Count > 69 {
				t.Errorf("after more than a minute: %+v", got)
			}
			p.run(t, 6*time.Second, lossOfAll)
			wantSilences(t, "again", p.a, Notice{Kind: PeerSilent, Count: 5})
			wantSilences(t, "of both", p.b, Notice{Kind: PeerSilent, Count: 5})
		}
	})
}

// TestSilenceOfOurOwn: who was stopped has not listened.
func TestSilenceOfOurOwn(t *testing.T) {
	speaking(t, func(t *testing.T, mode Mode) {
		p := speakers(t, mode)
		p.run(t, 5*time.Second, nil)
		p.now += 10 * time.Second
		p.run(t, 2*time.Second, nil)
		wantSilences(t, "it goes on", p.a)
		p.now += 10 * time.Second
		p.run(t, 4*time.Second, lossOfAll)
		wantSilences(t, "it has listened for four seconds", p.a)
		p.run(t, 2*time.Second, lossOfAll)
		got := silences(p.a)
		if len(got) != 1 || got[0].Kind != PeerSilent || got[0].Count < 14 || got[0].Count > 16 {
			t.Errorf("after six seconds: %+v", got)
		}
	})
}

// TestSilenceThatMeansNothing: of who was never heard, in ALARM, and in a group,
// which gives up who is silent.
func TestSilenceThatMeansNothing(t *testing.T) {
	alone := newNamed(simConfig(), 1, 1)
	for now := range 20 * time.Second / time.Second {
		alone.Tick(now * time.Second)
		sentTypes(alone, now*time.Second)
	}
	wantSilences(t, "never heard", alone)

	group := grouped(t, nil)
	group.run(t, 20*time.Second, lossOfAll)
	wantSilences(t, "group", group.a)

	alarm := New(alarmConfig(), 1, [2]uint64{1, 2})
	f := tcp(1, 3)
	alarm.Datagram(0, alarm.wire.AppendFlow(nil, wire.Header{Type: wire.CTNew, Seq: 7}, &f))
	if !alarm.peer.heard {
		t.Fatal("ALARM: not heard")
	}
	for now := range 20 * time.Second / time.Second {
		alarm.Tick(now * time.Second)
		sentTypes(alarm, now*time.Second)
	}
	wantSilences(t, "ALARM", alarm)
}
