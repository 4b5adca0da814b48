package node

import (
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// swap lets every second datagram of a overtake the one before it.
func (p *pair) swap(events []flow.Event) {
	var before []byte
	for i := range events {
		p.a.Kernel(p.now, events[i:i+1])
		b := p.a.Next(p.now, p.bufs[i%2], 1472)
		p.bufs[i%2] = b
		if i%2 == 0 {
			before = b
			continue
		}
		p.b.Datagram(p.now, b)
		p.b.Datagram(p.now, before)
		if i%100 == 99 {
			p.exchange() // so that neither has much to remember
		}
	}
}

// Messages that came in another order are applied in the peer's, nothing is
// asked for, and nothing is allocated for it.
func TestSwappedMessagesAreApplied(t *testing.T) {
	p := newPair(t)
	events := churnEvents(400, flow.IPv4)
	cycle := func() {
		p.swap(events)
		p.exchange()
	}
	for range 5 {
		cycle()
	}
	nacks := p.b.Stats().Engine.NACKsSent
	if got := testing.AllocsPerRun(3, cycle); got != 0 {
		t.Errorf("%v allocations", got)
	}
	st := p.b.Stats()
	if st.Engine.NACKsSent != nacks || st.Engine.Lost != 0 {
		t.Errorf("%d NACKs, %d lost", st.Engine.NACKsSent-nacks, st.Engine.Lost)
	}
	if got := len(p.b.early.pages); got != 1 {
		t.Errorf("%d pages for one message at a time", got)
	}
	if st.External.Active != 0 || st.External.Created == 0 {
		t.Errorf("%d entries left of %d", st.External.Active, st.External.Created)
	}
}

// A message that is too long to be kept is asked for like a lost one.
func TestTooLongToKeep(t *testing.T) {
	p := newPair(t)
	f := tcp(1, 3)
	p.a.Kernel(p.now, event1(flow.New, f))
	first := p.a.Next(p.now, nil, 1472)
	m, _, _ := wire.Next(first)
	// A label set of 128 words, which a C peer may send.
	long := p.a.wire.AppendFlow(nil, wire.Header{Type: wire.CTNew, Seq: m.Seq + 1}, &f)
	long = append(long, make([]byte, 516)...)
	at := len(long) - 516
	copy(long[at:], []byte{2, 4, 0, 28})
	long[2], long[3] = byte(len(long)>>8), byte(len(long))
	p.b.Datagram(p.now, long)
	p.b.Datagram(p.now, first)
	if got := p.b.Stats().External; got.Created != 1 {
		t.Fatalf("%d entries, want the first", got.Created)
	}
	alive := wire.AppendControl(nil, wire.Header{Flags: wire.FlagALIVE, Seq: m.Seq + 2})
	p.b.Datagram(p.now, alive)
	p.now += 2 * reorder
	p.b.Tick(p.now)
	if got := p.b.Stats().Engine.Lost; got != 1 {
		t.Errorf("%d lost, want 1", got)
	}
}

// What waits is not forgotten when nothing else comes.
func TestEarlyMessageIsNotLate(t *testing.T) {
	p := newPair(t)
	p.a.Kernel(p.now, event1(flow.New, tcp(1, 3)))
	p.a.Next(p.now, nil, 1472) // lost
	p.a.Kernel(p.now, event1(flow.New, tcp(2, 3)))
	p.b.Datagram(p.now, p.a.Next(p.now, nil, 1472))
	if d := p.b.Deadline(); d > p.now+reorder+time.Millisecond {
		t.Errorf("deadline in %v", d-p.now)
	}
	p.now = p.b.Deadline()
	p.b.Tick(p.now)
	k := tcp(2, 3).Key
	if p.b.external.lookup(&k) == none {
		t.Error("the second flow is not here after the wait")
	}
	p.exchange()
	p.now += time.Second
	p.a.Tick(p.now)
	p.exchange()
	if got := p.b.Stats().External.Active; got != 2 {
		t.Errorf("%d flows, want both", got)
	}
}

// A link that does all at once: delays by up to 20 ms each, so that messages
// overtake each other, repeats a fifth and loses a fifth. What both nodes send
// for an update stays below three frames, at any pace.
func TestFramesUnderJitter(t *testing.T) {
	for _, pace := range []time.Duration{500 * time.Microsecond, 5 * time.Millisecond, 50 * time.Millisecond} {
		t.Run(pace.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(5) {
				if frames, updates := jittered(t, pace, seed); frames > 3*updates {
					t.Errorf("seed %d: %d frames for %d updates", seed, frames, updates)
				} else {
					t.Logf("seed %d: %.2f frames for an update", seed, float64(frames)/float64(updates))
				}
			}
		})
	}
}

func jittered(t *testing.T, pace time.Duration, seed uint64) (frames, updates int) {
	s := newScene(t, seed, simConfig())
	a, b := s.sides[0], s.sides[1]
	a.start()
	b.start()
	s.Run(5 * time.Second)
	for _, f := range s.faults {
		*f = sim.Faults{Loss: 0.2, Duplicate: 0.2, Late: 20 * time.Millisecond, Reorder: 1}
	}
	before := a.link.Sent + b.link.Sent
	for updates = range 2000 {
		f := tcp(uint16(updates%500), uint8(updates/500))
		op := flow.Update
		if updates < 500 {
			op = flow.New
		}
		a.node.Kernel(a.clock(), event1(op, f))
		a.pump()
		s.Run(s.Now() + pace)
	}
	frames = a.link.Sent + b.link.Sent - before
	s.Run(s.Now() + 10*time.Second)
	external := b.node.Stats().External
	if external.Active != 500 || external.Created != 500 {
		t.Errorf("seed %d: %d flows created, %d here", seed, external.Created, external.Active)
	}
	for i := range 500 {
		want := tcp(uint16(i), 3)
		r := b.node.external.lookup(&want.Key)
		if b.node.external.load(r, &b.node.other); b.node.other.State != 3 {
			t.Fatalf("seed %d: flow %d has state %d", seed, i, b.node.other.State)
		}
	}
	return frames, updates + 1
}
