package itest_test

import (
	"fmt"
	"maps"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// side is one node of a cell. Its flows are [first, next).
type side struct {
	*nettest.Daemon
	w           *flood.Writer
	first, next int
	changes     uint32
	kernel      nettest.Table // what it has, nil if not read since the last change
}

// meeting is a cell being played.
type meeting struct {
	*rig
	cell
	a, b side
}

func newMeeting(r *rig, c cell) *meeting {
	return &meeting{
		rig: r, cell: c,
		a: side{Daemon: r.a, w: r.flood(r.two.A)},
		b: side{Daemon: r.b, w: r.flood(r.two.B), first: 10000, next: 10000},
	}
}

func (m *meeting) other(s *side) *side {
	if s == &m.a {
		return &m.b
	}
	return &m.a
}

// write runs a request of a side's writer over some of its flows.
func (m *meeting) write(s *side, run func(flood.Load) (flood.Result, error), from, to int) {
	m.Helper()
	s.kernel = nil
	_, err := run(flood.MixedFlows(from, to, s.changes))
	m.ok(err)
}

// begin makes n flows more.
func (m *meeting) begin(s *side, n int) {
	m.Helper()
	s.changes = 0
	m.write(s, s.w.Create, s.next, s.next+n)
	s.next += n
}

// change changes the newest n flows.
func (m *meeting) change(s *side, n int) {
	m.Helper()
	s.changes++
	m.write(s, s.w.Update, s.next-n, s.next)
}

// end ends the oldest n flows.
func (m *meeting) end(s *side, n int) {
	m.Helper()
	m.write(s, s.w.Delete, s.first, s.first+n)
	s.first += n
}

// play takes the pair of a cell through everything that has to work in it.
func (m *meeting) play() {
	m.start()
	if m.mode.mode == "FTFW" {
		m.handshake()
	}
	if m.mode.inject {
		m.playInjected()
	} else {
		m.playCached()
	}
	m.noErrors()
}

// playCached has flows on both sides. Each must be known to the other side in
// an external cache, and nowhere else.
func (m *meeting) playCached() {
	m.begin(&m.a, 160)
	m.begin(&m.b, 40)
	m.inStep("new flows")
	m.change(&m.a, 80)
	m.change(&m.b, 20)
	m.inStep("changes")
	m.end(&m.a, 40)
	m.end(&m.b, 10)
	m.inStep("ends")
	for _, s := range []*side{&m.b, &m.a} {
		m.refilled(s)
	}
	for _, s := range []*side{&m.b, &m.a} {
		m.restarted(s)
	}
	m.committed()
}

// refilled has a side lose what it knows and get it again by each request. In
// ALARM these do nothing, and it comes by itself.
func (m *meeting) refilled(s *side) {
	m.Helper()
	for _, order := range []struct {
		to      *side
		request string
	}{{s, "-n"}, {m.other(s), "-B"}} {
		m.request(s.Daemon, "-f", "external")
		m.request(order.to.Daemon, order.request)
		m.inStep("everything after " + order.request)
	}
}

// outage ends a daemon, calls meanwhile, and starts it again: over an IPv4
// link it is killed, over an IPv6 link told to end.
func (m *meeting) outage(s *side, meanwhile func()) {
	m.Helper()
	if m.over.v6 {
		m.request(s.Daemon, "-k")
		<-s.Proc().Done()
		m.ok(s.Proc().Err())
	} else {
		s.Kill9()
	}
	meanwhile()
	if s.Kind == nettest.C {
		m.ok(s.RemoveLock())
	}
	m.ok(s.Start(m.Context()))
}

// restarted restarts a side while flows begin, change and end on both. The
// restarted side must know all of the other's, which it asks for when it
// starts. The other must be right again too, by itself or when it asks; see
// modeRow.
func (m *meeting) restarted(s *side) {
	m.Helper()
	o := m.other(s)
	gone := maps.Clone(m.read(s))
	m.outage(s, func() {
		for _, x := range []*side{s, o} {
			m.begin(x, 10)
			m.change(x, 5)
			m.end(x, 10)
		}
	})
	for k := range m.read(s) {
		delete(gone, k)
	}
	m.eventually("the restarted side to know everything", func() error { return m.follows(o, s) })
	if !m.mode.unaided(o.Kind) {
		m.asks(s, o, gone)
	}
	m.inStep("all after a restart")
}

// asks has the survivor ask for what the restarted side has. What ended while
// that was down may be left until a flush.
func (m *meeting) asks(restarted, survivor *side, gone nettest.Table) {
	m.Helper()
	control := m.control()
	if control {
		m.hasToAsk(restarted, survivor)
	}
	m.request(survivor.Daemon, "-n")
	left := 0
	m.eventually("the survivor to know everything", func() error {
		external, err := survivor.External(m.Context())
		if err != nil {
			return err
		}
		known := external.Only(func(e *nettest.Entry) bool { return gone[e.Key] == nil })
		left = len(external) - len(known)
		return nettest.DiffCaches(m.read(restarted), known).Err()
	})
	if control && left != len(gone) {
		m.Errorf("the control forgets %d of %d ended flows", len(gone)-left, len(gone))
	}
	m.request(survivor.Daemon, "-f", "external")
	m.request(survivor.Daemon, "-n")
}

// hasToAsk fails unless a survivor that does not ask lacks what began while
// the other was down, although it knows what began afterwards.
func (m *meeting) hasToAsk(restarted, survivor *side) {
	m.Helper()
	m.begin(restarted, 1)
	news := key(flood.Mixed(restarted.next-1, 0))
	missed := key(flood.Mixed(restarted.next-2, 0))
	m.eventually("news of the restarted side", func() error {
		external, err := survivor.External(m.Context())
		if err != nil {
			return err
		}
		if external[news] == nil {
			return fmt.Errorf("%v is not known", news)
		}
		if external[missed] != nil {
			m.Errorf("the control knows %v by itself", missed)
		}
		return nil
	})
}

// committed commits on B: its kernel has A's flows then, beside its own.
func (m *meeting) committed() {
	m.Helper()
	own := m.read(&m.b)
	m.request(m.b.Daemon, "-c")
	m.eventually("the kernels to agree", func() error {
		return m.injected(func(e *nettest.Entry) bool { return own[e.Key] == nil })
	})
}

// playInjected has flows on A that B writes into its kernel. After a restart B
// takes them for its own, so that nothing may change or end while a side is
// down.
func (m *meeting) playInjected() {
	m.begin(&m.a, 160)
	m.inStep("new flows")
	before := m.rig.kernel(m.b.Node)
	m.change(&m.a, 80)
	m.inStep("changes")
	if m.b.Kind == nettest.Go {
		m.updatedInPlace(before, m.rig.kernel(m.b.Node))
	}
	m.end(&m.a, 40)
	m.inStep("ends")
	m.nothingIsTaken()

	for _, order := range []struct {
		to      *side
		request string
	}{{&m.b, "-n"}, {&m.a, "-B"}} {
		m.request(m.b.Daemon, "-F") // what others delete would be told to A
		m.eventually("B's kernel to be empty", func() error {
			n, err := m.b.Node.Count()
			if err == nil && n != 0 {
				err = fmt.Errorf("%d entries", n)
			}
			return err
		})
		m.request(order.to.Daemon, order.request)
		m.inStep("everything after " + order.request)
	}

	m.outage(&m.b, func() { m.begin(&m.a, 10) })
	m.inStep("what began while B was down")
	m.outage(&m.a, func() { m.begin(&m.a, 10) })
	m.request(m.b.Daemon, "-n")
	m.inStep("what began while A was down")
	m.end(&m.a, 20)
	m.inStep("ends after the restarts")
}

// updatedInPlace fails unless the entries are the very ones they were, those
// with IPv6 NAT included.
func (m *meeting) updatedInPlace(before, after nettest.Table) {
	m.Helper()
	for k, e := range before {
		if a := after[k]; a == nil || a.ID != e.ID {
			m.Errorf("%v was replaced by an update", k)
			return
		}
	}
}

// nothingIsTaken fails if B takes what it was told for its own.
func (m *meeting) nothingIsTaken() {
	m.Helper()
	if m.mode.bypass {
		return // it has the kernel's table only
	}
	internal, err := m.b.Internal(m.Context())
	m.ok(err)
	if len(internal) > 0 {
		m.Errorf("B's internal cache has %d flows that are A's", len(internal))
	}
}

// inStep waits until each side knows exactly the flows of the other.
func (m *meeting) inStep(what string) {
	m.Helper()
	m.eventually(what, func() error {
		if m.mode.inject {
			return m.injected(all)
		}
		if err := m.follows(&m.a, &m.b); err != nil {
			return err
		}
		return m.follows(&m.b, &m.a)
	})
}

// read returns the kernel's table of a side without what may be committed
// there: only the test changes it.
func (m *meeting) read(s *side) nettest.Table {
	m.Helper()
	if s.kernel != nil {
		return s.kernel
	}
	// A dump lacks entries if somebody resizes the machine's hash table.
	m.eventually("a complete dump", func() error {
		text, err := s.Node.Run("conntrack", "-L", "-o", "extended,id")
		if err != nil {
			return err
		}
		table, err := nettest.ParseTable(text)
		if err != nil {
			return err
		}
		if want := s.next - s.first; len(table) != want {
			return fmt.Errorf("the kernel of %s has %d entries, want %d", s.Node.Name, len(table), want)
		}
		s.kernel = table
		return nil
	})
	return s.kernel
}

// follows compares all there is on the way of a side's flows: its kernel, its
// internal cache, the other's external cache.
func (m *meeting) follows(from, to *side) error {
	kernel := m.read(from)
	internal, err := from.Internal(m.Context())
	if err != nil {
		return err
	}
	if err := nettest.DiffInternal(kernel, internal).Err(); err != nil {
		return err
	}
	external, err := to.External(m.Context())
	if err != nil {
		return err
	}
	return nettest.DiffCaches(internal, external).Err()
}

// injected compares A's kernel with what keep accepts of B's.
func (m *meeting) injected(keep func(*nettest.Entry) bool) error {
	original, err := m.a.Node.Kernel()
	if err != nil {
		return err
	}
	standby, err := m.b.Node.Kernel()
	if err != nil {
		return err
	}
	if want := m.a.next - m.a.first; len(original) != want {
		return fmt.Errorf("A's kernel has %d entries, want %d", len(original), want)
	}
	// Messages carry the timeout of the last event, which may be old.
	diff := nettest.KernelDiff{Tolerance: -1, Committer: m.b.Kind}
	return diff.Tables(original, standby.Only(keep)).Err()
}

// noErrors fails if a link of ours refused anything: both ends are what they
// are configured to be.
func (m *meeting) noErrors() {
	m.Helper()
	for _, s := range []*side{&m.a, &m.b} {
		if s.Kind != nettest.Go {
			continue
		}
		stats := m.request(s.Daemon, "-s", "link")
		if found := errorPattern.FindStringSubmatch(stats); found == nil || found[2] != "0" {
			m.Errorf("-s link of %s:\n%s", s, stats)
		}
	}
}
