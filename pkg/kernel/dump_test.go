package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

func TestDumpSeesEveryFlow(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows := udpFlows(5000)
	v6 := newFlow(flow.IPv6, flow.ProtoUDP)
	zoned := with(newFlow(flow.IPv4, flow.ProtoUDP), zone(4), sport(9))
	apply(t, w.Commit, append(flows, v6, zoned))

	var d Dumper
	seen := map[flow.Key]int{}
	if err := d.Dump(context.Background(), func(f *flow.Flow) error {
		seen[f.Key]++
		return nil
	}, func() { t.Error("restarted") }); err != nil {
		t.Fatal(err)
	}
	for _, f := range append(flows, v6, zoned) {
		if seen[f.Key] != 1 {
			t.Errorf("%v port %d seen %d times", show(&f.Key), f.Sport, seen[f.Key])
		}
	}
	want := uint64(len(flows) + 2)
	if d.Stats != (DumpStats{Entries: want}) || len(seen) != int(want) {
		t.Errorf("%+v, %d keys", d.Stats, len(seen))
	}
	if n, err := readSysctl("nf_conntrack_count"); err != nil || n != int(want) {
		t.Errorf("the kernel counts %d, %v", n, err)
	}
}

func TestDumpErrors(t *testing.T) {
	ownNetNS(t)
	apply(t, openWriter(t, WriterConfig{}).Commit, udpFlows(2000))
	stop := errors.New("enough")
	n := 0
	if err := Dump(context.Background(), func(*flow.Flow) error {
		if n++; n == 700 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) || n != 700 {
		t.Errorf("after %d: %v", n, err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Dump(ctx, func(*flow.Flow) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	n = 0
	err := Dump(ctx, func(*flow.Flow) error {
		cancel()
		n++
		return nil
	})
	if !errors.Is(err, context.Canceled) || n == 2000 {
		t.Errorf("canceled in the middle, after %d: %v", n, err)
	}
}

// TestDumpWhileChanging deletes and creates flows during a dump: those that
// exist throughout are all seen.
func TestDumpWhileChanging(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	flows := udpFlows(6000)
	apply(t, w.Commit, flows)
	stable, changing := flows[:3000], flows[3000:]
	seen := map[flow.Key]bool{}
	d := Dumper{}
	n := 0
	err := d.Dump(context.Background(), func(f *flow.Flow) error {
		if n++; n%1000 == 1 {
			part := changing[(n/1000)%6*500:][:500]
			apply(t, w.Delete, part)
			apply(t, w.Commit, part)
		}
		seen[f.Key] = true
		return nil
	}, func() { clear(seen) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range stable {
		if !seen[stable[i].Key] {
			t.Fatalf("flow %d was there all the time and not seen; %+v", i, d.Stats)
		}
	}
}

func TestDumpMemory(t *testing.T) {
	ownNetNS(t)
	apply(t, openWriter(t, WriterConfig{}).Commit, udpFlows(20000))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	if err := Dump(context.Background(), func(*flow.Flow) error { n++; return nil }); err != nil || n != 20000 {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if mallocs := after.Mallocs - before.Mallocs; mallocs > 300 {
		t.Errorf("%d allocations for %d entries", mallocs, n)
	}
	if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 320<<10 {
		t.Errorf("%d bytes for %d entries", bytes, n)
	}
}

func TestDumpExpect(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	var want flow.Expect
	for _, m := range messages(t, corpus(t)["ftp"]) {
		if isExpect(&m) {
			if err := DecodeExpect(m.body, &want); err != nil {
				t.Fatal(err)
			}
		}
	}
	master := with(newFlow(flow.IPv4, flow.ProtoTCP), helper("ftp"))
	master.Key = want.Master
	master.Has |= flow.HasPorts
	apply(t, w.Commit, []flow.Flow{master})
	if err := w.CreateExpect(&want); err != nil {
		t.Fatal(err)
	}
	var got []flow.Expect
	if err := DumpExpect(context.Background(), func(e *flow.Expect) error {
		got = append(got, *e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Master != want.Master || got[0].Tuple != want.Tuple || got[0].Helper != want.Helper {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDumpParser follows dumps as the kernel would tear them; on this
// kernel conntrack dumps never carry the flag.
func TestDumpParser(t *testing.T) {
	const seq, pid = 9, 77
	entry := func(flags uint16) []byte {
		return frame(&message{typ: msgCtNew, flags: unix.NLM_F_MULTI | flags, seq: seq, pid: pid, body: fullFlow()})
	}
	end := func(typ, flags uint16, code int32) []byte {
		return frame(&message{typ: typ, flags: flags, seq: seq, pid: pid, body: binary.NativeEndian.AppendUint32(nil, uint32(code))})
	}
	stale := frame(&message{typ: msgCtNew, seq: seq - 1, pid: pid, flags: unix.NLM_F_DUMP_INTR, body: fullFlow()})
	foreign := frame(&message{typ: unix.NLMSG_DONE, seq: seq, pid: pid + 1, body: make([]byte, 4)})
	for _, c := range []struct {
		name       string
		datagrams  [][]byte
		entries    int
		torn, done bool
		err        error
	}{
		{"whole", [][]byte{append(entry(0), entry(0)...), end(unix.NLMSG_DONE, 0, 0)}, 2, false, true, nil},
		{"torn at an entry", [][]byte{append(entry(0), entry(unix.NLM_F_DUMP_INTR)...), entry(0), end(unix.NLMSG_DONE, 0, 0)}, 3, true, true, nil},
		{"torn at the end", [][]byte{entry(0), end(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 0)}, 1, true, true, nil},
		{"not ours", [][]byte{stale, foreign, entry(0)}, 1, false, false, nil},
		{"no-op", [][]byte{end(unix.NLMSG_NOOP, 0, 0), end(unix.NLMSG_DONE, 0, 0)}, 0, false, true, nil},
		{"nothing after the end", [][]byte{append(end(unix.NLMSG_DONE, 0, 0), entry(0)...)}, 0, false, true, nil},
		{"refused", [][]byte{end(unix.NLMSG_ERROR, 0, -int32(unix.EPERM))}, 0, false, true, unix.EPERM},
		{"failed at the end", [][]byte{entry(0), end(unix.NLMSG_DONE, 0, -int32(unix.ENOMEM))}, 1, false, true, unix.ENOMEM},
	} {
		entries := 0
		p := dumpParser{seq: seq, pid: pid}
		count := func(p *dumpParser) error {
			for p.next() {
				entries++
			}
			return nil
		}
		var err error
		for _, d := range c.datagrams {
			if err == nil {
				err = p.datagram(d, count)
			}
		}
		if entries != c.entries || p.torn != c.torn || p.done != c.done || !errors.Is(err, c.err) {
			t.Errorf("%s: %d entries, torn %v, done %v, error %v", c.name, entries, p.torn, p.done, err)
		}
	}
	p := dumpParser{}
	if err := p.datagram(make([]byte, 20), func(*dumpParser) error { return nil }); err == nil {
		t.Error("accepted a datagram without a message")
	}
}

// TestDumpPagesUnread takes one entry of each page: the dump ends all the same.
func TestDumpPagesUnread(t *testing.T) {
	ownNetNS(t)
	apply(t, openWriter(t, WriterConfig{}).Commit, udpFlows(2000))
	var d Dumper
	var f flow.Flow
	pages := 0
	err := d.Pages(context.Background(), func(p *Page) error {
		if p.Next(&f) {
			pages++
		}
		return nil
	}, nil)
	if err != nil || pages < 5 || d.Stats.Entries != uint64(pages) {
		t.Errorf("%d pages, %+v, %v", pages, d.Stats, err)
	}
}

// TestDumpEndsItsReader ends dumps early and whole: no goroutine is left.
func TestDumpEndsItsReader(t *testing.T) {
	ownNetNS(t)
	apply(t, openWriter(t, WriterConfig{}).Commit, udpFlows(3000))
	before := runtime.NumGoroutine()
	stop := errors.New("enough")
	for i := range 50 {
		if err := Dump(context.Background(), func(*flow.Flow) error {
			if i%2 == 0 {
				return stop
			}
			return nil
		}); i%2 == 0 && !errors.Is(err, stop) || i%2 == 1 && err != nil {
			t.Fatal(err)
		}
	}
	// The last one has said that it is done, and is about to end.
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// TestTornDumpIsRedone makes attempts that are torn.
func TestTornDumpIsRedone(t *testing.T) {
	for _, c := range []struct {
		attempts, torn  int // wanted at most, torn at first
		tries, restarts int
		err             error
	}{
		{0, 0, 1, 0, nil},
		{0, 2, 3, 2, nil},
		{0, 3, 3, 2, ErrTorn},
		{1, 1, 1, 0, ErrTorn},
		{5, 4, 5, 4, nil},
	} {
		d := Dumper{Attempts: c.attempts}
		tries, restarts := 0, 0
		err := d.redo(func() (bool, error) { tries++; return tries <= c.torn, nil }, func() { restarts++ })
		if tries != c.tries || restarts != c.restarts || !errors.Is(err, c.err) {
			t.Errorf("%+v: %d tries, %d restarts, %v", c, tries, restarts, err)
		}
		if d.Stats.Torn != min(c.torn, c.tries) {
			t.Errorf("%+v: %+v", c, d.Stats)
		}
	}
	d := Dumper{}
	if err := d.redo(func() (bool, error) { return true, os.ErrClosed }, nil); !errors.Is(err, os.ErrClosed) || d.Stats.Torn != 0 {
		t.Errorf("an error is not a torn dump: %v, %+v", err, d.Stats)
	}
	tries := 0
	if err := d.redo(func() (bool, error) { tries++; return tries == 1, nil }, nil); err != nil || tries != 2 {
		t.Errorf("without restart: %v after %d", err, tries)
	}
}

// A dump is torn, too, by a hash table that gets another size meanwhile.
func TestReshapedDumpIsRedone(t *testing.T) {
	for _, c := range []struct {
		sizes []int // before and after each attempt
		tries int
	}{
		{[]int{1024, 1024}, 1},
		{[]int{1024, 2048, 2048, 2048}, 2},
		{[]int{1024, 2048, 2048, 512, 512, 512}, 3},
		{[]int{Unavailable, Unavailable}, 1},
	} {
		sizes, tries := c.sizes, 0
		buckets := func() int {
			n := sizes[0]
			sizes = sizes[1:]
			return n
		}
		d := Dumper{}
		err := d.redo(reshaped(buckets, func() (bool, error) { tries++; return false, nil }), nil)
		if err != nil || tries != c.tries || d.Stats.Torn != tries-1 {
			t.Errorf("%v: %d tries, %v, %+v", c.sizes, tries, err, d.Stats)
		}
	}
	s, err := ReadSettings()
	if err != nil || buckets() != s.Buckets {
		t.Errorf("%d buckets, want %d, %v", buckets(), s.Buckets, err)
	}
}

func TestSettings(t *testing.T) {
	ownNetNS(t)
	setSysctl(t, "nf_conntrack_events", "2")
	setSysctl(t, "nf_conntrack_tcp_loose", "0")
	setSysctl(t, "nf_conntrack_acct", "1")
	used, most, err := Room()
	if err != nil || used < 0 || most <= used {
		t.Errorf("%d of %d entries, %v", used, most, err)
	}
	s, err := ReadSettings()
	if err != nil {
		t.Fatal(err)
	}
	if s.Events != EventsAuto || s.Loose != 0 || s.Accounting != 1 || s.Timestamps != 0 || s.Liberal != 0 || s.Max <= 0 || s.Buckets <= 0 {
		t.Errorf("%+v", s)
	}
	if v, err := readSysctl("no_such_setting"); v != Unavailable || err != nil {
		t.Errorf("absent setting: %d, %v", v, err)
	}
}
