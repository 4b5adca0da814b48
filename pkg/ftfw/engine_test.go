package ftfw

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// pair returns an engine whose hello is answered and whose queues are empty,
// and a function that makes the peer's next message.
func pair(t testing.TB, cfg Config) (*Engine, func(flags uint8, from, to uint32) wire.Header) {
	t.Helper()
	if cfg.ACKWindow == 0 {
		cfg.ACKWindow, cfg.ResendQueue = 300, 131072
	}
	e := New(cfg, 0)
	seq := uint32(9000)
	next := func(flags uint8, from, to uint32) wire.Header {
		h := wire.Header{Flags: flags, Seq: seq, From: from, To: to}
		if flags&^(wire.FlagHELLO|wire.FlagHELLOBack) != 0 {
			h.Type = wire.Control
		}
		seq++
		return h
	}
	popAll(e)
	e.Receive(0, next(wire.FlagALIVE|wire.FlagHELLOBack, 0, 0))
	pullAll(e)
	if tx, resend := e.Pending(); tx+resend != 0 {
		t.Fatalf("queues are not empty: %d, %d", tx, resend)
	}
	return e, next
}

func popAll(e *Engine) (fs []Frame) {
	for f, ok := e.Pop(0); ok; f, ok = e.Pop(0) {
		fs = append(fs, f)
	}
	return fs
}

// sendAll is popAll without the list.
func sendAll(e *Engine) {
	for ok := true; ok; {
		_, ok = e.Pop(0)
	}
}

func pullAll(e *Engine) {
	for ok := true; ok; {
		_, ok = e.NextEvent()
	}
}

// TestRanges compares ACK and NACK of random ranges, from wherever in the
// queue and across the wrap, with the plain reading of the rule.
func TestRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 400 {
		first := r.Uint32()
		if round%2 == 0 {
			first = -uint32(r.IntN(100))
		}
		e, next := pair(t, Config{FirstSeq: first})
		for i := range 100 {
			e.Enqueue(Ref(i))
			popAll(e)
			if r.IntN(3) == 0 { // leave holes: an older one moves to the end
				e.Enqueue(Ref(r.IntN(i + 1)))
				popAll(e)
			}
		}
		from := first + uint32(r.IntN(200)) - 20
		to := from + uint32(r.IntN(120))
		if last := e.out.next - 1; wire.After(to, last) { // nobody knows of more
			to = last
			if wire.Before(to, from) {
				from = to
			}
		}
		var in, out []uint32
		for q := range e.ResendQueue() {
			if wire.Before(q.Seq, from) || wire.After(q.Seq, to) {
				out = append(out, q.Seq)
			} else {
				in = append(in, q.Seq)
			}
		}
		flag := []uint8{wire.FlagACK, wire.FlagNACK}[r.IntN(2)]
		e.Receive(0, next(flag, from, to))
		var left []uint32
		for q := range e.ResendQueue() {
			left = append(left, q.Seq)
		}
		if !slices.Equal(left, out) {
			t.Fatalf("round %d, range %d..%d: left %v, want %v", round, from, to, left, out)
		}
		gone := 0
		e.Released(func(Ref) { gone++ })
		if tx, _ := e.Pending(); flag == wire.FlagNACK && (tx != len(in) || gone != 0) ||
			flag == wire.FlagACK && (tx != 0 || gone != len(in)) {
			t.Fatalf("round %d: %d of %d queued again, %d released", round, tx, len(in), gone)
		}
		if e.Unacked() != len(out) {
			t.Fatalf("round %d: %d unacknowledged, want %d", round, e.Unacked(), len(out))
		}
	}
}

func TestResendQueueStops(t *testing.T) {
	e, _ := pair(t, Config{})
	for i := range 5 {
		e.Enqueue(Ref(i))
	}
	popAll(e)
	var seen []uint32
	for q := range e.ResendQueue() {
		if seen = append(seen, q.Seq); len(seen) == 3 {
			break
		}
	}
	if want := []uint32{1, 2, 3}; !slices.Equal(seen, want) {
		t.Errorf("saw %v, want %v", seen, want)
	}
}

func TestBulkDoneBeforeEventIsPulled(t *testing.T) {
	e, next := pair(t, Config{})
	e.Receive(0, next(wire.FlagRESYNC, 0, 0))
	if ev, _ := e.NextEvent(); ev.Kind != BulkWanted {
		t.Fatalf("event %v", ev)
	}
	e.Receive(0, next(wire.FlagRESYNC, 0, 0))
	e.BulkDone() // the end of the bulk that the first one started
	if tx, _ := e.Pending(); tx != 0 {
		t.Fatalf("a RESYNC was acknowledged before its bulk: %d queued", tx)
	}
	if ev, _ := e.NextEvent(); ev.Kind != BulkWanted {
		t.Fatalf("event %v", ev)
	}
	e.BulkDone()
	if fs := popAll(e); len(fs) != 2 || fs[0].Header.From != 9001 || fs[1].Header.To != 9002 {
		t.Errorf("acknowledged %v", fs)
	}
}

// TestManyResyncs: of more RESYNCs than can wait for a bulk the latest do.
func TestManyResyncs(t *testing.T) {
	for _, window := range []int{2, 4, 300} {
		e, next := pair(t, Config{ACKWindow: window, ResendQueue: 131072})
		const late = 3
		acked := map[uint32]bool{}
		acks := func(now time.Duration) {
			e.Tick(now)
			for _, f := range popAll(e) {
				for n := f.Header.From; f.Header.Class() == wire.ACK && n <= f.Header.To; n++ {
					acked[n] = true
				}
			}
		}
		for range heldMax + late {
			e.Receive(0, next(wire.FlagRESYNC, 0, 0))
			acks(0)
		}
		acks(time.Second)
		for n := uint32(9001); n < 9001+heldMax+late; n++ {
			if want := n < 9001+late; acked[n] != want {
				t.Errorf("window %d, before the bulk: RESYNC %d acknowledged %v", window, n, acked[n])
			}
		}
		pullAll(e)
		for now := 2 * time.Second; e.out.bulks.Due; now += time.Second { // those that had to wait
			acks(now)
			pullAll(e)
		}
		e.BulkDone()
		acks(time.Minute)
		for n := uint32(9001); n < 9001+heldMax+late; n++ {
			if !acked[n] {
				t.Errorf("window %d, after the bulk: RESYNC %d is not acknowledged", window, n)
			}
		}
	}
}

// TestResyncEndsWithTheLatestBulk: whoever asks more often than the other side
// can keep in mind is told of the end when the last of the bulks has come.
func TestResyncEndsWithTheLatestBulk(t *testing.T) {
	asker, answerer := New(Config{FirstSeq: 1, ACKWindow: 300, ResendQueue: 1000}, 0), New(Config{FirstSeq: 9000, ACKWindow: 300, ResendQueue: 1000}, 0)
	objects := 0
	pass := func(from, to *Engine, now time.Duration) {
		from.Tick(now)
		for _, f := range popAll(from) {
			if to.Receive(now, f.Header) == Deliver {
				objects++
			}
		}
	}
	ends := func() (n int) {
		for ev, ok := asker.NextEvent(); ok; ev, ok = asker.NextEvent() {
			if ev.Kind == ResyncComplete {
				n++
			}
		}
		return n
	}
	now := time.Duration(0)
	both := func() {
		for range 2 {
			now += 50 * time.Millisecond
			pass(asker, answerer, now)
			pass(answerer, asker, now)
		}
	}
	both()
	for range heldMax + 3 {
		asker.RequestResync()
		both()
	}
	if n := ends(); n != 0 {
		t.Fatalf("%d resyncs ended before a bulk", n)
	}
	answerer.Enqueue(7)
	both()
	now += 1500 * time.Millisecond // so that no bulk has to wait any more
	both()
	pullAll(answerer)
	if n := ends(); n != 0 || objects != 1 {
		t.Fatalf("%d resyncs ended in the bulk, with %d objects", n, objects)
	}
	answerer.BulkDone()
	both()
	if n := ends(); n != 1 || asker.resync.outstanding != 0 {
		t.Errorf("%d resyncs ended after the bulk, %d RESYNCs wait", n, asker.resync.outstanding)
	}
}

// TestDroppedNACK: a NACK of ours that the full resend queue dropped may never
// be heard, so a RESYNC follows some time later, and one only.
func TestDroppedNACK(t *testing.T) {
	e, next := pair(t, Config{ACKWindow: 300, ResendQueue: 1})
	for range 3 {
		next(0, 0, 0)
		e.Receive(0, next(0, 0, 0))
	}
	resyncs := func(now time.Duration) (n int) {
		e.Tick(now)
		for f, ok := e.Pop(now); ok; f, ok = e.Pop(now) {
			if f.Header.Class() == wire.RESYNC {
				n++
			}
		}
		e.Flushed(now)
		return n
	}
	if n := resyncs(0); n != 0 {
		t.Fatalf("%d RESYNCs at once", n)
	}
	if d := e.Deadline(); d > resyncPause {
		t.Errorf("deadline %v", d)
	}
	if n := resyncs(resyncPause); n != 1 {
		t.Errorf("%d RESYNCs after the pause", n)
	}
	if n := resyncs(2 * resyncPause); n != 0 {
		t.Errorf("%d more RESYNCs", n)
	}
}

// TestAmendsAreSpaced: what overflowed is made up for at once the first time,
// then not more often than every few seconds.
func TestAmendsAreSpaced(t *testing.T) {
	e, next := pair(t, Config{ACKWindow: 300, ResendQueue: 1})
	now := time.Duration(0)
	overflow := func() {
		e.Enqueue(1)
		e.Enqueue(2)
		popAll(e)
		e.Receive(now, next(wire.FlagNACK, e.out.next-2, e.out.next-2))
	}
	bulks := func() (n int) {
		for ev, ok := e.NextEvent(); ok; ev, ok = e.NextEvent() {
			if ev.Kind == BulkWanted {
				n++
			}
		}
		return n
	}
	overflow()
	if n := bulks(); n != 1 {
		t.Fatalf("%d bulks wanted", n)
	}
	now += time.Second
	overflow()
	e.Tick(now)
	if n := bulks(); n != 0 {
		t.Fatalf("%d bulks wanted a second later", n)
	}
	if now = e.Deadline(); now > resyncPause {
		t.Fatalf("deadline %v", now)
	}
	for now < resyncPause {
		e.Tick(now)
		now = e.Deadline()
	}
	e.Tick(now)
	if n := bulks(); n != 1 || now != resyncPause {
		t.Errorf("%d bulks wanted at %v", n, now)
	}
	if fs := popAll(e); len(fs) == 0 || fs[0].Header.Flags&wire.FlagHELLO == 0 {
		t.Errorf("no hello with it: %v", fs)
	}
}

// TestUnanswered: it begins with the first message that waits for an
// acknowledgement, and anew with each ACK or NACK of what we sent.
func TestUnanswered(t *testing.T) {
	e, next := pair(t, Config{FirstSeq: 1})
	at := func(now, want time.Duration, what string) {
		t.Helper()
		if got := e.Unanswered(now); got != want {
			t.Errorf("%v: %v after %s, want %v", now, got, what, want)
		}
	}
	at(time.Hour, 0, "nothing")
	var seqs []uint32
	for i := range 3 {
		e.Enqueue(Ref(i + 1))
		f, _ := e.Pop(time.Duration(10+i) * time.Second)
		seqs = append(seqs, f.Header.Seq)
	}
	at(14*time.Second, 4*time.Second, "messages")
	e.Receive(15*time.Second, next(wire.FlagALIVE, 0, 0))
	at(16*time.Second, 6*time.Second, "an ALIVE")
	e.Receive(17*time.Second, next(wire.FlagACK, seqs[0]+1000, seqs[0]+2000))
	at(18*time.Second, 8*time.Second, "an ACK of something else")
	e.Receive(20*time.Second, next(wire.FlagACK, seqs[0], seqs[0]))
	at(21*time.Second, time.Second, "an ACK")
	e.Receive(22*time.Second, next(wire.FlagNACK, seqs[1], seqs[1]))
	at(24*time.Second, 2*time.Second, "a NACK")
	e.Receive(25*time.Second, next(wire.FlagACK, seqs[2], seqs[2]))
	at(25*time.Second, 0, "the last ACK")
}

func TestDeadline(t *testing.T) {
	e := New(Config{FirstSeq: 1, ACKWindow: 300, ResendQueue: 10, HelloHold: 1500 * time.Millisecond}, time.Second)
	if d := e.Deadline(); d != 2*time.Second {
		t.Errorf("at the start %v", d)
	}
	e.Flushed(1900 * time.Millisecond)
	if d := e.Deadline(); d != 2500*time.Millisecond {
		t.Errorf("with the hold's end first %v", d)
	}
	e.Tick(2500 * time.Millisecond)
	if d := e.Deadline(); d != 2900*time.Millisecond {
		t.Errorf("after the hold %v", d)
	}
}

// TestSparseRefs: the table grows to any Ref, in pages.
func TestSparseRefs(t *testing.T) {
	e, next := pair(t, Config{})
	refs := []Ref{5, 3*refPage - 1, 3 * refPage, 100 * refPage}
	for _, r := range refs {
		if e.Queued(r) {
			t.Errorf("%d is queued", r)
		}
		if !e.Enqueue(r) || e.Enqueue(r) || !e.Queued(r) {
			t.Errorf("%d is not queued once", r)
		}
	}
	popAll(e)
	e.Receive(0, next(wire.FlagACK, 0, e.out.next-1))
	var got []Ref
	e.Released(func(r Ref) { got = append(got, r) })
	if !slices.Equal(got, refs) {
		t.Errorf("released %v, want %v", got, refs)
	}
	pages := 0
	for _, p := range e.q.refs {
		if p != nil {
			pages++
		}
	}
	if pages != 4 {
		t.Errorf("%d pages for four far references", pages)
	}
}

// TestForgetReleased: an object forgotten between its release and the owner's
// hearing of it is not reported, and its Ref starts afresh.
func TestForgetReleased(t *testing.T) {
	for name, forget := range map[string]func(*Engine){
		"one": func(e *Engine) { e.Forget(1) },
		"all": func(e *Engine) { e.ForgetAll() },
	} {
		e, next := pair(t, Config{})
		e.Enqueue(1)
		popAll(e)
		e.Receive(0, next(wire.FlagACK, 0, e.out.next-1))
		forget(e)
		e.Released(func(r Ref) { t.Errorf("%s: released %d", name, r) })
		if !e.Enqueue(1) {
			t.Errorf("%s: not pinned again", name)
		}
	}
}

// TestEnqueueReleased: queued again before the owner heard of its release, an
// object was pinned all the time.
func TestEnqueueReleased(t *testing.T) {
	e, next := pair(t, Config{})
	e.Enqueue(1)
	popAll(e)
	e.Receive(0, next(wire.FlagACK, 0, e.out.next-1))
	if e.Enqueue(1) {
		t.Error("pinned twice")
	}
	e.Released(func(r Ref) { t.Errorf("released %d while queued", r) })
	popAll(e)
	e.Receive(0, next(wire.FlagACK, 0, e.out.next-1))
	released := 0
	e.Released(func(Ref) { released++ })
	if released != 1 {
		t.Errorf("released %d times", released)
	}
}

// churn is a steady state: events, transmission, acknowledgement.
func churn(e *Engine, next func(uint8, uint32, uint32) wire.Header, release func(Ref)) {
	for r := range Ref(100) {
		e.Enqueue(r)
		e.Enqueue(r)
	}
	first := e.out.next
	sendAll(e)
	e.Flushed(0)
	e.Receive(0, next(wire.FlagNACK, first, first+3))
	sendAll(e)
	e.Receive(0, next(wire.FlagACK, first, e.out.next-1))
	for range 100 {
		e.Receive(0, next(0, 0, 0))
	}
	next(0, 0, 0)
	e.Receive(0, next(wire.FlagRESYNC, 0, 0))
	e.RequestResync()
	e.BulkDone()
	e.Tick(time.Second)
	pullAll(e)
	e.Released(release)
}

func TestNoAllocations(t *testing.T) {
	e, next := pair(t, Config{})
	released := 0
	release := func(Ref) { released++ }
	for range 10 {
		churn(e, next, release)
	}
	if n := testing.AllocsPerRun(100, func() { churn(e, next, release) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if released < 100*100 {
		t.Errorf("released %d", released)
	}
}

// BenchmarkObject is the whole life of an update here: queued, sent,
// acknowledged, released.
func BenchmarkObject(b *testing.B) {
	e, next := pair(b, Config{})
	release := func(Ref) {}
	b.ReportAllocs()
	for b.Loop() {
		for r := range Ref(100) {
			e.Enqueue(r)
		}
		sendAll(e)
		e.Receive(0, next(wire.FlagACK, 0, e.out.next-1))
		e.Released(release)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/object")
}

// BenchmarkMerge queues objects that are queued.
func BenchmarkMerge(b *testing.B) {
	e, _ := pair(b, Config{})
	e.Enqueue(1)
	for b.Loop() {
		e.Enqueue(1)
	}
}

// BenchmarkReceive takes data messages, acknowledgements included.
func BenchmarkReceive(b *testing.B) {
	e, next := pair(b, Config{})
	for b.Loop() {
		e.Receive(0, next(0, 0, 0))
		if tx, _ := e.Pending(); tx > 0 {
			popAll(e)
			e.ForgetAll()
			e.Receive(0, next(wire.FlagACK, 0, e.out.next-1))
		}
	}
}

// BenchmarkForgedRange asks again and again for nothing in the middle of a
// long queue, the worst a peer can do.
func BenchmarkForgedRange(b *testing.B) {
	e, next := pair(b, Config{})
	for r := range Ref(131072) {
		e.Enqueue(r)
	}
	popAll(e)
	mid := e.out.next - 65536
	e.Forget(65536)
	for b.Loop() {
		e.Receive(0, next(wire.FlagNACK, mid, mid))
	}
}

// TestHoldAfterALongLife: the wait is as long after months as on the first day.
func TestHoldAfterALongLife(t *testing.T) {
	for _, age := range []time.Duration{0, 60 * 24 * time.Hour, 20 * 365 * 24 * time.Hour} {
		e := New(Config{FirstSeq: 1, ACKWindow: 300, ResendQueue: 100, Reorder: 50 * time.Millisecond}, 0)
		e.Receive(age, wire.Header{Seq: 9})
		e.Receive(age, wire.Header{Seq: 10})
		if v := e.Receive(age, wire.Header{Seq: 12}); v != Hold {
			t.Fatalf("after %v: verdict %d", age, v)
		}
		// A number far ahead ends this wait, and not the next one.
		e.Receive(age, wire.Header{Seq: 1 << 20})
		if seq, ok := e.Held(age); !ok || seq != 12 {
			t.Fatalf("after %v: %d, %v", age, seq, ok)
		}
		e.Receive(age, wire.Header{Seq: 12})
		e.Receive(age, wire.Header{Seq: 1 << 21})
		e.Receive(age, wire.Header{Seq: 15})
		sendAll(e)
		e.Flushed(age) // or the timer of a second would be due long since
		if wait := e.Deadline() - age; wait < 50*time.Millisecond || wait > 51*time.Millisecond {
			t.Errorf("after %v: the deadline is %v later", age, wait)
		}
		if seq, ok := e.Held(age + 49*time.Millisecond); ok {
			t.Errorf("after %v: %d does not wait", age, seq)
		}
		if seq, ok := e.Held(age + 51*time.Millisecond); !ok || seq != 15 {
			t.Errorf("after %v: %d, %v", age, seq, ok)
		}
	}
}
