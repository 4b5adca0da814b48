package kernel

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// commitFlows are n flows with what most flows have; every second is
// translated.
func commitFlows(n int) []flow.Flow {
	flows := make([]flow.Flow, n)
	for i := range flows {
		flows[i] = with(newFlow(flow.IPv4, flow.ProtoTCP), mark(1))
		flows[i].Src[2], flows[i].Src[3] = byte(i>>8), byte(i)
		if i%2 == 1 {
			snat(&flows[i])
			flows[i].Has |= flow.HasSPAT
			flows[i].NAT.Sport = uint16(i)
		}
	}
	return flows
}

func BenchmarkEncodeCreate(b *testing.B) {
	f := with(newFlow(flow.IPv4, flow.ProtoTCP), mark(1), snat)
	e := encoder{buf: make([]byte, 0, sendLimit)}
	b.ReportAllocs()
	for b.Loop() {
		e.buf = e.buf[:0]
		e.flow(reqCreate, 1, &f)
	}
}

// BenchmarkCommit commits 1000 flows, half of them translated.
func BenchmarkCommit(b *testing.B) {
	const n = 1000
	flows, results := commitFlows(n), make([]Result, n)
	same := make([]Known, n)
	for i := range same {
		same[i] = Same
	}
	for _, c := range []struct {
		name   string
		before func(*Writer) error
		commit func(*Writer) error
	}{
		{"empty table", func(w *Writer) error { return w.Delete(flows, results) }, func(w *Writer) error { return w.Commit(flows, results) }},
		{"all exist", func(*Writer) error { return nil }, func(w *Writer) error { return w.Commit(flows, results) }},
		{"all known", func(*Writer) error { return nil }, func(w *Writer) error { return w.CommitKnown(flows, same, results) }},
		{"delete", func(w *Writer) error { return w.Commit(flows, results) }, func(w *Writer) error { return w.Delete(flows, results) }},
		{"inject update", func(*Writer) error { return nil }, func(w *Writer) error { return w.Update(flows, results) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			ownNetNS(b)
			w := openWriter(b, WriterConfig{})
			hear(b)
			if err := w.Commit(flows, results); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := c.before(w); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := c.commit(w); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/flow")
			for i, r := range results {
				if r.Outcome == Failed {
					b.Fatalf("flow %d: errno %d", i, r.Errno)
				}
			}
		})
	}
}

// BenchmarkReplace is what the C daemon does when the entry exists.
func BenchmarkReplace(b *testing.B) {
	const n = 1000
	ownNetNS(b)
	hear(b)
	w := openWriter(b, WriterConfig{})
	flows, results := commitFlows(n), make([]Result, n)
	for b.Loop() {
		if err := w.Delete(flows, results); err != nil {
			b.Fatal(err)
		}
		w.existing = false
		if err := w.Commit(flows, results); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/flow")
}

// hear subscribes to all events, as the daemon does, and throws them away.
func hear(b *testing.B) {
	s, err := dial()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.forceReadBuffer(16 << 20); err != nil {
		b.Fatal(err)
	}
	for _, group := range []uint32{1, 2, 3} {
		if err := s.conn.JoinGroup(group); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{})
	b.Cleanup(func() { s.Close(); <-done })
	go func() {
		defer close(done)
		r := newReceiver(s, answerBatch, answerSize)
		for {
			if err := r.receive(true); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
		}
	}()
}
