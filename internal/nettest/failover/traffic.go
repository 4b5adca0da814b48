package failover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// pace is the pause of a busy flow between an answer and the next question.
const pace = 10 * time.Millisecond

// Role is how much a flow says.
type Role string

// The roles.
const (
	Busy Role = "busy" // TCP, question after question
	Idle Role = "idle" // TCP, silent until probed
	UDP  Role = "udp"  // question after question, whatever gets lost
	// Called flows are UDP too, but all that is said comes from the server: a
	// firewall that does not know them lets nothing through.
	Called Role = "called"
)

// Flow is one connection through the firewalls. Questions and answers carry
// numbers, so that lost, repeated and reordered data is found out.
type Flow struct {
	Role  Role
	Class string // snat, dnat+snat, published
	conn  net.Conn
	probe sync.Mutex // one probe at a time

	mu       sync.Mutex
	asked    uint64 // number of the last question
	answered uint64 // number of the last answer
	last     time.Time
	gap      time.Duration // longest since watch
	seen     string        // address the server saw first
	err      error         // why it is dead
}

func target(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// open connects from the node and exchanges a first question and answer.
func open(n *nettest.Node, role Role, class, addr string) (*Flow, error) {
	network := "tcp"
	if role == UDP || role == Called {
		network = "udp"
	}
	// Without keep-alive probes an idle connection is silent.
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	f := &Flow{Role: role, Class: class, last: time.Now()}
	err := n.Do(func() (err error) {
		f.conn, err = dialer.Dial(network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s %s: %w", role, class, err)
	}
	if err = f.ask(); err == nil {
		err = f.await(time.Now().Add(10 * time.Second))
	}
	if err != nil {
		f.conn.Close()
		return nil, fmt.Errorf("open %s: %w", f, err)
	}
	return f, nil
}

func (f *Flow) String() string {
	return fmt.Sprintf("%s %s %v > %v", f.Role, f.Class, f.conn.LocalAddr(), f.conn.RemoteAddr())
}

// A question is its number; the answer the number and the address and port
// from which the server got the question.
const (
	questionSize = 8
	answerSize   = questionSize + 16 + 2
)

func appendAnswer(dst []byte, question []byte, from netip.AddrPort) []byte {
	dst = append(dst, question...)
	addr := from.Addr().Unmap().As16()
	dst = append(dst, addr[:]...)
	return binary.BigEndian.AppendUint16(dst, from.Port())
}

// ask sends the next question.
func (f *Flow) ask() error {
	f.mu.Lock()
	f.asked++
	b := binary.BigEndian.AppendUint64(nil, f.asked)
	f.mu.Unlock()
	_, err := f.conn.Write(b)
	return err
}

// await reads answers until the one to the last question.
func (f *Flow) await(until time.Time) error {
	if err := f.conn.SetReadDeadline(until); err != nil {
		return err
	}
	var b [answerSize]byte
	for {
		if _, err := io.ReadFull(f.conn, b[:]); err != nil {
			return err
		}
		if done, err := f.take(b, time.Now()); done || err != nil {
			return err
		}
	}
}

// take notes an answer and reports whether nothing is outstanding.
func (f *Flow) take(b [answerSize]byte, now time.Time) (done bool, err error) {
	number := binary.BigEndian.Uint64(b[:questionSize])
	from := netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[questionSize:])).Unmap(), binary.BigEndian.Uint16(b[answerSize-2:])).String()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.seen == "":
		f.seen = from
	case f.seen != from:
		return false, fmt.Errorf("translated anew: the server saw %s, now %s", f.seen, from)
	}
	switch {
	case number > f.asked && f.Role != Called:
		return false, fmt.Errorf("answer %d to a question never asked (last %d)", number, f.asked)
	case (f.Role == Busy || f.Role == Idle) && number != f.answered+1:
		return false, fmt.Errorf("answer %d after %d: data lost or repeated", number, f.answered)
	case number <= f.answered:
		return false, nil // a late datagram
	}
	f.answered = number
	f.gap = max(f.gap, now.Sub(f.last))
	f.last = now
	return number == f.asked, nil
}

// fail notes why the flow is dead.
func (f *Flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

// watch begins a new measurement.
func (f *Flow) watch(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gap = 0
	f.last = now
}

// stall is the longest time without an answer since watch, the present one
// included.
func (f *Flow) stall(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.gap, now.Sub(f.last))
}

// state is when the last answer came, and why the flow is dead, if it is.
func (f *Flow) state() (last time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.err
}

// lost says why the flow does not work: it is dead, or has had no answer since.
func (f *Flow) lost(since time.Time) error {
	last, err := f.state()
	if err == nil && last.Before(since) {
		err = errors.New("no answer")
	}
	return err
}

// talk asks question after question over TCP.
func (f *Flow) talk(ctx context.Context) {
	pause := time.NewTicker(pace)
	defer pause.Stop()
	for ctx.Err() == nil {
		err := f.ask()
		if err == nil {
			err = f.await(time.Time{})
		}
		if err != nil {
			f.fail(err)
			return
		}
		<-pause.C
	}
}

// talkUDP asks on whether there are answers or not; a refusal is no end.
func (f *Flow) talkUDP(ctx context.Context) {
	go f.listen()
	f.conn.SetReadDeadline(time.Time{})
	pause := time.NewTicker(pace)
	defer pause.Stop()
	for ctx.Err() == nil {
		f.ask()
		<-pause.C
	}
}

// listen takes datagrams until the flow is closed.
func (f *Flow) listen() {
	var b [answerSize]byte
	for {
		n, err := f.conn.Read(b[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != answerSize {
			continue
		}
		if _, err := f.take(b, time.Now()); err != nil {
			f.fail(err)
		}
	}
}

// streamAge is when the kernel takes a UDP flow with answers for a stream.
const streamAge = 2 * time.Second

// wantCalls asks the server to call, until the kernel has taken the flow for a
// stream.
func (f *Flow) wantCalls() error {
	pause := time.NewTicker(10 * pace)
	defer pause.Stop()
	for end := time.Now().Add(streamAge + streamAge/4); time.Now().Before(end); <-pause.C {
		if _, err := f.conn.Write(make([]byte, questionSize+1)); err != nil {
			return err
		}
	}
	return f.conn.SetReadDeadline(time.Time{})
}

// Probe asks an idle connection one question. One that is only late is asked
// again the next time; one that was reset is dead for good.
func (f *Flow) Probe(timeout time.Duration) error {
	f.probe.Lock()
	defer f.probe.Unlock()
	if _, err := f.state(); err != nil {
		return err
	}
	err := f.ask()
	if err == nil {
		err = f.await(time.Now().Add(timeout))
	}
	var late net.Error
	if err != nil && !(errors.As(err, &late) && late.Timeout()) {
		f.fail(err)
	}
	return err
}

// Traffic is all flows of a rig.
type Traffic struct {
	Flows  []*Flow
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// start lets the busy flows talk.
func (t *Traffic) start() {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	for _, f := range t.Flows {
		switch f.Role {
		case Busy:
			t.wg.Go(func() { f.talk(ctx) })
		case UDP:
			t.wg.Go(func() { f.talkUDP(ctx) })
		case Called:
			t.wg.Go(f.listen)
		}
	}
}

// stop ends all flows.
func (t *Traffic) stop() {
	if t.cancel != nil {
		t.cancel()
	}
	for _, f := range t.Flows {
		f.conn.Close()
	}
	t.wg.Wait()
}

// Of are the flows of a role.
func (t *Traffic) Of(role Role) []*Flow {
	return slices.Collect(func(yield func(*Flow) bool) {
		for _, f := range t.Flows {
			if f.Role == role && !yield(f) {
				return
			}
		}
	})
}

func (t *Traffic) watch(now time.Time) {
	for _, f := range t.Flows {
		f.watch(now)
	}
}

// progressed is nil if every talking flow that lives has had an answer since.
// A dead flow is not waited for; Alive counts it.
func (t *Traffic) progressed(since time.Time) error {
	var missing []*Flow
	for _, f := range t.Flows {
		if last, err := f.state(); f.Role != Idle && err == nil && last.Before(since) {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d flows without an answer, the first is %s", len(missing), missing[0])
	}
	return nil
}

// Probe asks the idle connections the filter chooses, all at once, and returns
// their number and the errors of those that did not answer in time.
func (t *Traffic) Probe(timeout time.Duration, choose func(i int) bool) (asked int, failed map[*Flow]error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed = map[*Flow]error{}
	for i, f := range t.Of(Idle) {
		if !choose(i) {
			continue
		}
		asked++
		wg.Go(func() {
			if err := f.Probe(timeout); err != nil {
				mu.Lock()
				failed[f] = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return asked, failed
}

// Lost has every flow show that it works, each within a time, and returns those
// that don't.
func (t *Traffic) Lost(ctx context.Context, within time.Duration) map[*Flow]error {
	since := time.Now()
	// Those that fail are found below, one by one.
	_ = nettest.Eventually(ctx, within, "flows to work", func() error { return t.progressed(since) })
	_, lost := t.Probe(within, Everyone)
	for _, f := range t.Flows {
		if err := f.lost(since); err != nil && f.Role != Idle {
			lost[f] = err
		}
	}
	return lost
}

// stalls are the sorted stalls of a role's flows.
func (t *Traffic) stalls(role Role, now time.Time) []time.Duration {
	var list []time.Duration
	for _, f := range t.Of(role) {
		list = append(list, f.stall(now))
	}
	slices.Sort(list)
	return list
}
