package kernel

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// openEvents subscribes.
func openEvents(t testing.TB, cfg Config, groups ...Group) *Events {
	t.Helper()
	if len(groups) == 0 {
		groups = FlowGroups
	}
	e, err := OpenEvents(cfg, groups...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// await waits until there is something to read, and ten seconds at most.
func await(t testing.TB, e *Events) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(e.FD()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := unix.Poll(p, int(time.Until(deadline).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case n != 1 || err != nil:
			t.Fatalf("no event in ten seconds: %v", err)
		default:
			return
		}
	}
}

// udpFlows are n flows that differ in their source port.
func udpFlows(n int) []flow.Flow {
	flows := make([]flow.Flow, n)
	for i := range flows {
		flows[i] = newFlow(flow.IPv4, flow.ProtoUDP)
		flows[i].Sport, flows[i].Dport = uint16(i), uint16(53+i>>16)
		flows[i].Has |= flow.HasPorts
	}
	return flows
}

// apply writes flows and demands that none fails.
func apply(t testing.TB, write func([]flow.Flow, []Result) error, flows []flow.Flow) {
	t.Helper()
	results := make([]Result, len(flows))
	if err := write(flows, results); err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err() != nil {
			t.Fatalf("flow %d: %v", i, r.Err())
		}
	}
}

// readN reads until it has n events.
func readN(t testing.TB, e *Events, n int) (all []flow.Event) {
	t.Helper()
	dst := make([]flow.Event, 50)
	for len(all) < n {
		got, err := e.Read(dst)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(all), n, err)
		}
		if got == 0 { // nor is anything left of what was received before
			await(t, e)
		}
		all = append(all, dst[:got]...)
	}
	return all
}

func TestEventsOpsAndOrigin(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{})
	w := openWriter(t, WriterConfig{})
	stranger := openWriter(t, WriterConfig{})
	e.AddSelf(12345)
	e.AddSelf(w.PortID())

	flows := udpFlows(1)
	apply(t, w.Commit, flows)
	flows[0].Mark, flows[0].Has = 7, flows[0].Has|flow.HasMark
	apply(t, stranger.Update, flows)
	e.RemoveSelf(12345)
	apply(t, w.Delete, flows)
	got := readN(t, e, 3)
	if len(got) != 3 {
		t.Fatalf("%d events", len(got))
	}
	for i, want := range []flow.Event{
		{Op: flow.New, Origin: flow.Self}, {Op: flow.Update, Origin: flow.Other}, {Op: flow.Destroy, Origin: flow.Self},
	} {
		if got[i].Op != want.Op || got[i].Origin != want.Origin || got[i].Flow.Key != flows[0].Key {
			t.Errorf("event %d: %d by %d about %+v", i, got[i].Op, got[i].Origin, got[i].Flow.Key)
		}
	}
	if got[1].Flow.Mark != 7 {
		t.Errorf("mark %d", got[1].Flow.Mark)
	}

	e.RemoveSelf(w.PortID())
	apply(t, w.Commit, flows)
	if got := readN(t, e, 1); got[0].Origin != flow.Other {
		t.Error("still self after RemoveSelf")
	}
	if s := e.Stats(); s.Received != 4 || s.Failed+s.Unknown+s.Overruns+s.Lost+s.Truncated != 0 {
		t.Errorf("%+v", s)
	}
}

// TestEventsKeepLeftovers reads many events through a small dst: none is lost
// and the order is the kernel's.
func TestEventsKeepLeftovers(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{BufferSize: 8 << 20, BufferMaxGrowth: 8 << 20})
	w := openWriter(t, WriterConfig{})
	const n = 500
	apply(t, w.Commit, udpFlows(n))
	next := uint16(0)
	for size := 1; next < n; size = size%70 + 1 {
		dst := make([]flow.Event, size)
		got, err := e.Read(dst)
		if err != nil || got == 0 {
			t.Fatalf("after %d: %d, %v", next, got, err)
		}
		for i := range dst[:got] {
			if dst[i].Flow.Sport != next {
				t.Fatalf("event of port %d instead of %d", dst[i].Flow.Sport, next)
			}
			next++
		}
	}
	if got, err := e.Read(make([]flow.Event, 8)); got != 0 || err != nil {
		t.Errorf("Read of nothing: %d, %v", got, err)
	}
	if s := e.Stats(); s.Received != n {
		t.Errorf("%+v", s)
	}
}

func TestReadTakesWhatIsThere(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{})
	w := openWriter(t, WriterConfig{})
	apply(t, w.Commit, udpFlows(40))
	dst := make([]flow.Event, 100)
	total := 0
	for range 3 {
		n, err := e.Read(dst)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != 40 {
		t.Errorf("%d events", total)
	}
	if n, err := e.Read(nil); n != 0 || err != nil {
		t.Errorf("Read into nothing: %d, %v", n, err)
	}
}

func TestClosed(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Read(make([]flow.Event, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if err := e.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if s := e.Stats(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestOverrun fills a small buffer: the overrun is said, the buffer grows step
// by step within its limit, and reading goes on.
func TestOverrun(t *testing.T) {
	ownNetNS(t)
	const start, limit = 16384, 70000
	e := openEvents(t, Config{BufferSize: start, BufferMaxGrowth: limit})
	if got := e.Stats().Buffer; got != start {
		t.Fatalf("buffer %d", got)
	}
	w := openWriter(t, WriterConfig{})
	flows := udpFlows(1000)
	var sizes []int
	for round := range 4 {
		write := w.Commit
		if round%2 == 1 {
			write = w.Delete
		}
		apply(t, write, flows)
		overrun, events := drain(t, e)
		if overrun == nil {
			t.Fatalf("round %d: no overrun after %d events", round, events)
		}
		if events == 0 || events >= len(flows) {
			t.Errorf("round %d: %d events survived", round, events)
		}
		if overrun.Grown != (round < 2) {
			t.Errorf("round %d: %v", round, overrun)
		}
		sizes = append(sizes, overrun.Buffer)
	}
	if want := []int{32768, 65536, 65536, 65536}; !slices.Equal(sizes, want) {
		t.Errorf("buffer sizes %v, want %v", sizes, want)
	}
	s := e.Stats()
	if s.Overruns != 4 || s.Failed != 4 || s.Buffer != 65536 || s.Received+s.Lost != 4000 {
		t.Errorf("%+v", s)
	}
	apply(t, w.Commit, flows[:5])
	if got := readN(t, e, 5); len(got) != 5 {
		t.Errorf("%d events after the overruns", len(got))
	}
}

// drain reads everything that is queued.
func drain(t *testing.T, e *Events) (overrun *OverrunError, events int) {
	t.Helper()
	dst := make([]flow.Event, 64)
	for {
		n, err := e.Read(dst)
		events += n
		switch {
		case errors.Is(err, ErrOverrun):
			if overrun != nil || !errors.As(err, &overrun) {
				t.Errorf("another overrun: %v", err)
			}
		case err != nil:
			t.Fatal(err)
		case n == 0:
			return overrun, events
		}
	}
}

func TestReliableNeverOverruns(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{BufferSize: 16384, BufferMaxGrowth: 16384, Reliable: true})
	apply(t, openWriter(t, WriterConfig{}).Commit, udpFlows(1000))
	if overrun, events := drain(t, e); overrun != nil || events == 0 {
		t.Errorf("%v, %d events", overrun, events)
	}
}

func TestBufferSizeRule(t *testing.T) {
	ownNetNS(t)
	standard := openEvents(t, Config{}).Stats().Buffer
	for _, c := range []struct{ size, limit, want int }{
		{0, 1 << 20, standard},
		{1 << 16, 1 << 16, 1 << 16},
		{1 << 17, 1 << 16, standard},
		{64 << 20, 64 << 20, 64 << 20}, // above net.core.rmem_max
	} {
		if got := openEvents(t, Config{BufferSize: c.size, BufferMaxGrowth: c.limit}).Stats().Buffer; got != c.want {
			t.Errorf("size %d, limit %d: %d, want %d", c.size, c.limit, got, c.want)
		}
	}
}

func TestExpectEvents(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{}, append(slices.Clone(ExpectGroups), FlowGroups...)...)
	var m message
	for _, x := range messages(t, corpus(t)["ftp"]) {
		if x.typ == msgExpNew && x.flags&unix.NLM_F_CREATE != 0 {
			m = x
		}
	}
	whole := frame(&m)
	fake(e, append(slices.Clone(whole), whole...), whole)
	if n, err := e.Read(make([]flow.Event, 4)); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	got := e.Expects()
	if len(got) != 3 || got[0].Op != flow.New || got[2].Expect.Tuple.Dport != 40020 {
		t.Errorf("%+v", got)
	}
	if _, err := e.Read(make([]flow.Event, 4)); err != nil || len(e.Expects()) != 0 {
		t.Errorf("still there in the next read: %v, %v", e.Expects(), err)
	}
}

// fake puts datagrams where a receive would have left them.
func fake(e *Events, datagrams ...[]byte) {
	e.rx.next, e.rx.count = 0, len(datagrams)
	for i, d := range datagrams {
		e.rx.hdrs[i].len = uint32(copy(e.rx.bufs[i*e.rx.size:(i+1)*e.rx.size], d))
		e.rx.hdrs[i].hdr.Flags = 0
	}
}

// TestOddDatagrams are things that the kernel does not send today.
func TestOddDatagrams(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{})
	good := frame(&message{typ: msgCtNew, body: fullFlow()})
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	fake(e,
		join(good, good, good),                                  // several messages
		join(good, frame(&message{typ: unix.NLMSG_NOOP}), good), // a message that is no event
		join(good, make([]byte, 20)),                            // no message
		good,                                                    // cut, see below
		join(frame(&message{typ: msgCtNew, body: body()}), good), // not understood
	)
	e.rx.hdrs[3].hdr.Flags = unix.MSG_TRUNC
	dst := make([]flow.Event, 2)
	total := 0
	for {
		n, err := e.Read(dst)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	if total != 7 {
		t.Errorf("%d events", total)
	}
	want := EventStats{Received: 7, Unknown: 1, Failed: 3, Truncated: 1, Buffer: e.Stats().Buffer}
	if got := e.Stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	ownNetNS(t)
	e := openEvents(t, Config{BufferSize: 16 << 20, BufferMaxGrowth: 16 << 20})
	w := openWriter(t, WriterConfig{})
	flows := udpFlows(200)
	dst := make([]flow.Event, 128)
	apply(t, w.Commit, flows)
	readN(t, e, len(flows))
	const runs = 10
	for range runs {
		apply(t, w.Delete, flows)
		apply(t, w.Commit, flows)
	}
	// One run is a read of 128 events, each decoded and its origin judged.
	allocs := testing.AllocsPerRun(runs, func() {
		if n, err := e.Read(dst); err != nil || n != len(dst) {
			t.Fatal(n, err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations in a read of %d events", allocs, len(dst))
	}
}
