package abuse_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

const dumpExternal = 17

// served is how long a client may wait for its answer whatever others do. It
// includes the start of a process on a busy machine.
const served = 15 * time.Second

// answers fails unless a's clients are served.
func (r *rig) answers(what string) {
	r.Helper()
	start := time.Now()
	r.Request(r.A, "-s")
	if took := time.Since(start); took > served {
		r.Errorf("%s: a client waited %v", what, took)
	}
}

// TestClients has many bad clients of all kinds at the same time. Others are
// served, flows are replicated, and what they took goes back.
func TestClients(t *testing.T) {
	r := newRig(t, nil).start()
	const large, crowd = 50_000, 3000
	r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(30, 0, large)))
	r.inStep()
	before, lines, begun := r.usage(), len(r.lines(0)), time.Now()

	// Readers that stop in the middle of a large table.
	var readers []net.Conn
	for range 200 {
		conn := r.Dial(r.A, duo.Ask(dumpExternal))
		_ = conn.SetReadDeadline(time.Now().Add(served))
		if _, err := io.ReadFull(conn, make([]byte, 10_000)); err != nil {
			t.Fatalf("reader %d: %v", len(readers), err)
		}
		readers = append(readers, conn)
	}
	r.answers("readers that stop")

	// Silent ones, halves of a request, and unknown ones.
	for i := range crowd {
		r.Dial(r.A, [][]byte{nil, duo.Ask(21)[:1+i%3], duo.Ask(int32(i + 100))}[i%3])
		if i%500 == 0 {
			r.answers(fmt.Sprintf("%d clients", i))
			r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(31, i, i+1)))
		}
	}
	r.answers("all of them")
	r.bounded(before, 64<<10, 128+512+10)

	// One that was not in the way may go on reading, unless it has taken nothing
	// for half a minute.
	last := readers[len(readers)-1]
	_ = last.SetReadDeadline(time.Now().Add(duo.Patience))
	rest, err := io.ReadAll(last)
	if n := strings.Count(string(rest), "\n"); err != nil || n < large-1000 {
		t.Errorf("the last reader got %d lines, %v, want about %d", n, err, large)
	}
	r.recovered()
	for _, conn := range readers {
		conn.Close()
	}
	r.Eventually("descriptors to go back", func() error {
		if now := r.usage(); now.descriptors > before.descriptors+2 {
			return fmt.Errorf("%d, and %d before", now.descriptors, before.descriptors)
		}
		return nil
	})
	runtime := r.Request(r.A, "-s", "runtime")
	if n := r.Number(runtime, `local unknown request:\s+(\d+)`); n < crowd/3/2 {
		t.Errorf("%d unknown requests counted of %d", n, crowd/3)
	}
	r.saysOnce(lines, `clients of the control socket .* had to make room for others \(\d+\)`, begun)
	r.short(lines, 5)
}

// TestClientStorm connects and leaves as fast as it can, with and without a
// request.
func TestClientStorm(t *testing.T) {
	r := newRig(t, nil).start()
	before, lines := r.usage(), len(r.lines(0))
	end := time.Now().Add(floodTime(t) / 2)
	var storm sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for k := range 4 {
		storm.Go(func() {
			n := 0
			for ; time.Now().Before(end); n++ {
				conn, err := net.Dial("unix", r.A.Config.Socket)
				if errors.Is(err, unix.EAGAIN) { // the backlog is full
					time.Sleep(time.Millisecond)
					continue
				}
				if err != nil {
					t.Errorf("connect: %v", err)
					break
				}
				if k%2 == 0 {
					_, _ = conn.Write(duo.Ask([]int32{21, 28, 29, 30, 31, 36, -1}[n%7]))
				}
				conn.Close()
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	for i := range 5 {
		r.answers("in a storm")
		r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(31, i, i+1)))
	}
	storm.Wait()
	t.Logf("%d connections", total)
	r.recovered()
	r.bounded(before, 48<<10, 4)
	r.short(lines, 3)
}
