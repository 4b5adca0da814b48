package node

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// groupNet is a link between the nodes of a group.
type groupNet struct {
	t     *testing.T
	now   time.Duration
	nodes []*Group
	flows [][]flow.Flow // the tables of the kernels
	// down are the nodes that nobody hears, and that hear nobody.
	down map[int]bool
	sent int // messages, announcements excepted
}

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) }

func groupConfig(i int) Config {
	cfg := simConfig()
	cfg.Group = true
	cfg.Name = wire.NodeName{Node: uint64(i + 1), Epoch: 1}
	return cfg
}

// newGroupNet makes n nodes that know of each other, or find each other.
func newGroupNet(t *testing.T, n int, find bool) *groupNet {
	t.Helper()
	w := &groupNet{t: t, down: map[int]bool{}, flows: make([][]flow.Flow, n)}
	for i := range n {
		w.nodes = append(w.nodes, w.start(i, n, find))
	}
	return w
}

func (w *groupNet) start(i, n int, find bool) *Group {
	g := NewGroup(groupConfig(i), uint32(1000*(i+1))+seconds(w.now), [2]uint64{uint64(i), 2})
	if find {
		g.Announce()
	}
	for peer := range n {
		if !find && peer != i {
			g.Add(0, addr(peer))
		}
	}
	w.fill(g, i, Start)
	return g
}

// fill reads the table of a kernel.
func (w *groupNet) fill(g *Group, i int, why Purpose) {
	g.BeginSweep(why)
	for _, f := range w.flows[i] {
		g.Kernel(w.now, event1(flow.Dumped, f))
	}
	for !g.EndSweep(100) {
	}
	g.BeginExpectSweep(why)
	g.EndExpectSweep()
}

// run lets time pass.
func (w *groupNet) run(d time.Duration) {
	w.t.Helper()
	const step = 100 * time.Millisecond
	for end := w.now + d; w.now < end; {
		w.now += step
		for again := true; again; {
			again = false
			for i, g := range w.nodes {
				again = w.pull(i, g) || again
			}
		}
	}
}

// pull does what is due in a node and carries what it sends.
func (w *groupNet) pull(from int, g *Group) (sent bool) {
	g.Tick(w.now)
	for !g.Expire(100) {
	}
	if why, ok := g.SweepWanted(w.now); ok {
		w.fill(g, from, why)
	}
	if b := g.Announcement(w.now, nil); len(b) > 0 {
		for to := range w.nodes {
			w.carry(from, to, func(n *Group) { n.Hail(w.now, addr(from), b) })
		}
	}
	for range g.Turns() {
		peer := g.Turn()
		for b := g.Next(w.now, nil, 1472); len(b) > 0; b = g.Next(w.now, nil, 1472) {
			sent = true
			w.sent++
			if !peer.IsValid() {
				w.t.Fatal("a datagram for nobody")
			}
			b := bytes.Clone(b)
			w.carry(from, int(peer.As4()[3])-1, func(n *Group) { n.Datagram(w.now, addr(from), b) })
		}
	}
	return sent
}

func (w *groupNet) carry(from, to int, deliver func(*Group)) {
	if to != from && to < len(w.nodes) && !w.down[from] && !w.down[to] {
		deliver(w.nodes[to])
	}
}

// event changes a node's kernel.
func (w *groupNet) event(i int, op flow.Op, f flow.Flow) {
	w.flows[i] = slices.DeleteFunc(w.flows[i], func(g flow.Flow) bool { return g.Key == f.Key })
	if op != flow.Destroy {
		w.flows[i] = append(w.flows[i], f)
	}
	w.nodes[i].Kernel(w.now, event1(op, f))
}

// lines are a cache as a client sees it.
func (w *groupNet) lines(i int, which Which) (lines []string) {
	var c Cursor
	var text []byte
	for !c.Done() {
		text = w.nodes[i].Dump(text, w.now, time.Time{}, which, false, &c, 3)
	}
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// told are the source ports of the external entries of node i that are from
// node from.
func (w *groupNet) told(i, from int) (ports []string) {
	for _, line := range w.lines(i, External) {
		if rest, ok := strings.CutSuffix(line, fmt.Sprintf(" [from %v]", addr(from))); ok {
			_, port, _ := strings.Cut(rest, "sport=")
			port, _, _ = strings.Cut(port, " ")
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return ports
}

// agree checks that everybody has what everybody else's kernel has.
func (w *groupNet) agree() {
	w.t.Helper()
	for i := range w.nodes {
		all := 0
		for from := range w.nodes {
			var want []string
			for _, f := range w.flows[from] {
				if from != i {
					want = append(want, fmt.Sprint(f.Sport))
				}
			}
			slices.Sort(want)
			if got := w.told(i, from); !slices.Equal(got, want) {
				w.t.Errorf("node %d has of node %d the flows %v, want %v", i, from, got, want)
			}
			all += len(want)
		}
		if got := len(w.lines(i, External)); got != all {
			w.t.Errorf("node %d has %d external entries, want %d", i, got, all)
		}
		if got, want := len(w.lines(i, Internal)), len(w.flows[i]); got != want {
			w.t.Errorf("node %d shows %d internal entries, want %d", i, got, want)
		}
	}
}

func TestGroupConverges(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		for _, find := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d nodes, find %v", n, find), func(t *testing.T) {
				w := newGroupNet(t, n, find)
				for i := range n {
					w.flows[i] = append(w.flows[i], tcp(uint16(100*i), 3))
					w.fill(w.nodes[i], i, Repair)
				}
				w.run(5 * time.Second)
				for i := range n {
					w.event(i, flow.New, tcp(uint16(100*i+1), 1))
					w.event(i, flow.New, tcp(uint16(100*i+2), 1))
					w.event(i, flow.Update, tcp(uint16(100*i+1), 3))
				}
				w.run(time.Second)
				for i := range n {
					w.event(i, flow.Destroy, tcp(uint16(100*i+2), 7))
					w.event(i, flow.Destroy, tcp(uint16(100*i), 7))
				}
				w.run(10 * time.Second)
				w.agree()
				for i, g := range w.nodes {
					all := g.Health(w.now)
					if len(all) != n-1 {
						t.Fatalf("node %d has %d peers, want %d", i, len(all), n-1)
					}
					for _, h := range all {
						if !h.InStep || h.Others || h.Away {
							t.Errorf("node %d and %v: %+v", i, h.Peer, h.Health)
						}
					}
					if !g.Ready() {
						t.Errorf("node %d is not ready", i)
					}
				}
			})
		}
	}
}

// A peer that is away holds up nobody, and is told everything when it is back.
func TestGroupPeerAway(t *testing.T) {
	w := newGroupNet(t, 3, true)
	w.run(5 * time.Second)
	for i := range uint16(20) {
		w.event(0, flow.New, tcp(i, 3))
		w.event(2, flow.New, tcp(1000+i, 3))
	}
	w.run(2 * time.Second)
	w.down[2] = true
	for i := range uint16(200) {
		w.event(0, flow.New, tcp(100+i, 3))
		w.run(100 * time.Millisecond)
		w.event(0, flow.Destroy, tcp(100+i, 7))
	}
	w.event(0, flow.Destroy, tcp(3, 7))
	w.event(2, flow.Destroy, tcp(1003, 7))
	w.run(time.Second)
	st := w.nodes[0].Stats()
	if st.TxQueue+st.Resend > 5 {
		t.Errorf("%d messages wait and %d are kept for a peer that is away", st.TxQueue, st.Resend)
	}
	if got := len(w.told(1, 0)); got != 19 {
		t.Errorf("the peer that is there has %d flows, want 19", got)
	}
	if got := len(w.told(0, 2)); got != 20 {
		t.Errorf("%d flows of the peer that is away are left, want 20", got)
	}
	for _, h := range w.nodes[0].Health(w.now) {
		if away := h.Peer == addr(2); h.Away != away || h.InStep == away {
			t.Errorf("%v: away %v, in step %v", h.Peer, h.Away, h.InStep)
		}
	}
	if !w.nodes[0].Ready() || !w.nodes[1].Ready() {
		t.Error("not ready without the peer that is away")
	}
	w.down[2] = false
	w.run(15 * time.Second)
	w.agree()
}

// Who joins a group gets everything, and leaves the others as ready as they
// were.
func TestGroupJoin(t *testing.T) {
	w := newGroupNet(t, 3, true)
	w.down[2] = true
	for i := range uint16(200) {
		w.event(0, flow.New, tcp(i, 3))
		w.event(1, flow.New, tcp(1000+i, 3))
	}
	w.run(5 * time.Second)
	w.flows[2] = []flow.Flow{tcp(5000, 3)}
	w.nodes[2] = w.start(2, 3, true)
	w.down[2] = false
	for range 100 {
		w.run(100 * time.Millisecond)
		if !w.nodes[0].Ready() || !w.nodes[1].Ready() {
			t.Fatal("not ready while another joins")
		}
	}
	w.agree()
	if !w.nodes[2].Ready() {
		t.Error("who joined is not ready")
	}
}

// committed are the source ports of what is handed out for the kernel, and the
// state of each.
func (w *groupNet) committed(i int, from netip.Addr) map[uint16]uint8 {
	w.t.Helper()
	g := w.nodes[i]
	if !g.BeginCommit(from) {
		w.t.Fatal("a commit is under way")
	}
	if (!from.IsValid() || g.Has(from)) && (g.BeginCommit(from) || g.FlushExternal()) {
		w.t.Error("a second commit, or a flush, during a commit")
	}
	all := map[uint16]uint8{}
	batch := make([]flow.Flow, 7)
	for done := false; !done; {
		var n int
		n, done = g.NextCommit(w.now, batch)
		for _, f := range batch[:n] {
			if _, twice := all[f.Sport]; twice {
				w.t.Errorf("flow %d is committed twice", f.Sport)
			}
			all[f.Sport] = f.State
		}
	}
	return all
}

func TestGroupCommit(t *testing.T) {
	w := newGroupNet(t, 3, false)
	w.run(5 * time.Second)
	for i := range uint16(10) {
		w.event(0, flow.New, tcp(i, 1))
		w.event(1, flow.New, tcp(100+i, 2))
	}
	w.run(2 * time.Second)
	// Flow 4 moves to the other, 105 back and forth.
	w.event(1, flow.New, tcp(4, 3))
	w.event(0, flow.New, tcp(105, 3))
	w.run(2 * time.Second)
	w.event(1, flow.Update, tcp(105, 4))
	w.run(2 * time.Second)

	all := w.committed(2, netip.Addr{})
	if len(all) != 20 || all[4] != 3 || all[105] != 4 || all[5] != 1 || all[106] != 2 {
		t.Errorf("committed %v", all)
	}
	one := w.committed(2, addr(0))
	if len(one) != 11 || one[4] != 1 || one[105] != 3 {
		t.Errorf("of one peer: %v", one)
	}
	if none := w.committed(2, addr(7)); len(none) != 0 {
		t.Errorf("of nobody: %v", none)
	}
	if !w.nodes[2].FlushExternal() {
		t.Error("no flush after the commit")
	}
	if got := w.lines(2, External); len(got) != 0 {
		t.Errorf("%d entries after a flush", len(got))
	}
}

// What is committed is believed to be in the kernel by all relations, and the
// others are told when the script says so.
func TestGroupTakeover(t *testing.T) {
	w := newGroupNet(t, 3, true)
	w.run(5 * time.Second)
	for i := range uint16(10) {
		w.event(0, flow.New, tcp(i, 3))
	}
	w.run(2 * time.Second)
	w.down[0] = true
	g := w.nodes[1]
	batch := make([]flow.Flow, 100)
	g.BeginCommit(netip.Addr{})
	for done := false; !done; {
		var n int
		n, done = g.NextCommit(w.now, batch)
		for i := range batch[:n] {
			f := &batch[i]
			if held := g.Held(f); held != HeldMissing {
				t.Fatalf("held: %v", held)
			}
			g.Assume(w.now, f)
			w.flows[1] = append(w.flows[1], *f)
		}
	}
	g.Refute(&w.flows[1][0])
	w.flows[1] = w.flows[1][1:]
	g.SendBulk()
	w.run(5 * time.Second)
	if got := len(w.told(2, 1)); got != 9 {
		t.Errorf("the third has %d flows of the second, want 9", got)
	}
}

func TestGroupStrangers(t *testing.T) {
	w := newGroupNet(t, 2, true)
	g := w.nodes[0]
	g.Hail(w.now, addr(50), wire.AppendControl(nil, wire.Header{Flags: wire.FlagALIVE, Seq: 7}))
	g.Hail(w.now, addr(51), []byte{1, 2, 3})
	g.Hail(w.now, addr(0), wire.AppendHail(nil, &wire.Ext{Has: wire.ExtNode, Node: groupConfig(0).Name}))
	if s := g.Strangers(); s.Datagrams != 2 || s.Last != addr(51) || g.Turns() != 1 {
		t.Errorf("%+v, %d relations", s, g.Turns())
	}
	w.run(3 * time.Second)
	if h := g.Health(w.now); len(h) != 1 || h[0].Peer != addr(1) {
		t.Fatalf("health %v", h)
	}

	// Many who are not there.
	for i := range 100 {
		g.Hail(w.now, addr(100+i), wire.AppendHail(nil, &wire.Ext{Has: wire.ExtNode, Node: wire.NodeName{Node: uint64(100 + i)}}))
	}
	if g.Turns() != MaxPeers || g.Strangers().Refused != 100-MaxPeers+1 {
		t.Errorf("%d relations, %d refused", g.Turns(), g.Strangers().Refused)
	}
	before, _ := g.Bytes()
	for i := range uint16(10_000) {
		w.event(0, flow.New, tcp(i, 3))
	}
	w.run(time.Second)
	if _, wanted := g.SweepWanted(w.now); wanted {
		t.Error("the table is to be read for those who are not there")
	}
	if after, _ := g.Bytes(); after-before > 3<<20 {
		t.Errorf("%d bytes for 10,000 flows and those who are not there", after-before)
	}
	for i := range uint16(10_000) {
		w.event(0, flow.Destroy, tcp(i, 3))
	}
	w.event(0, flow.New, tcp(1, 3))
	w.run(forgetAfter + time.Second)
	if g.Turns() != 1 || !g.Has(addr(1)) {
		t.Errorf("%d relations after all have gone who never were there", g.Turns())
	}
	w.agree()
}

// A UDP group knows its peers, and nobody else.
func TestGroupOfPeersOnly(t *testing.T) {
	g := NewGroup(groupConfig(0), 1, [2]uint64{1, 2})
	g.Add(0, addr(1))
	g.Add(0, addr(2))
	g.Datagram(0, addr(9), wire.AppendControl(nil, wire.Header{Flags: wire.FlagALIVE, Seq: 7}))
	if s := g.Strangers(); s.Datagrams != 1 || s.Last != addr(9) {
		t.Errorf("%+v", s)
	}
	for range 100 {
		g.Tick(forgetAfter * 2)
	}
	if g.Turns() != 2 {
		t.Errorf("%d relations, want 2", g.Turns())
	}
	if g.Has(addr(9)) || !g.Has(addr(2)) {
		t.Error("wrong peers")
	}
}

// Without Config.Group there is one relation, with whoever speaks.
func TestPairIsAGroupOfOne(t *testing.T) {
	cfg := simConfig()
	g := NewGroup(cfg, 1, [2]uint64{1, 2})
	g.Datagram(0, addr(5), wire.AppendControl(nil, wire.Header{Flags: wire.FlagALIVE | wire.FlagHELLO, Seq: 7}))
	if g.Turns() != 1 || g.Turn().IsValid() || g.Stats().Engine.HellosReceived != 1 || g.Has(addr(5)) {
		t.Errorf("%d relations, %+v", g.Turns(), g.Stats().Engine)
	}
	if b := g.Announcement(time.Hour, nil); len(b) != 0 {
		t.Error("a pair announces itself")
	}
	if b := g.Next(0, nil, 1472); len(b) == 0 {
		t.Error("a pair says nothing")
	}
}

// An event, and what is sent of it, allocates nothing however many peers there
// are.
func TestGroupAllocatesNothing(t *testing.T) {
	w := newGroupNet(t, 4, false)
	w.run(5 * time.Second)
	g := w.nodes[0]
	born, gone := event1(flow.New, tcp(1, 3)), event1(flow.Destroy, tcp(1, 7))
	buf := make([]byte, 0, 2000)
	send := func() {
		for range g.Turns() {
			g.Turn()
			for len(g.Next(w.now, buf, 1472)) > 0 {
			}
		}
	}
	send()
	if n := testing.AllocsPerRun(200, func() {
		g.Kernel(w.now, born)
		send()
		g.Kernel(w.now, gone)
		send()
		g.Tick(w.now)
		g.Deadline()
		g.Ready()
		g.Expire(10)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What each relation counts of the own kernel counts once, all else is added.
func TestGroupStats(t *testing.T) {
	w := newGroupNet(t, 3, false)
	w.run(5 * time.Second)
	for i := range uint16(10) {
		w.event(0, flow.New, tcp(i, 3))
		w.event(1, flow.New, tcp(100+i, 3))
		w.event(2, flow.New, tcp(200+i, 3))
	}
	w.run(2 * time.Second)
	st := w.nodes[0].Stats()
	if st.Internal.Active != 10 || st.Internal.Created != 10 || st.External.Active != 20 {
		t.Errorf("%d internal, %d created, %d external", st.Internal.Active, st.Internal.Created, st.External.Active)
	}
	if st.Sent[wire.CTNew] != 20 {
		t.Errorf("%d CT_NEW sent, want 20", st.Sent[wire.CTNew])
	}
	var all Stats
	fill(reflect.ValueOf(&all).Elem())
	twice := all
	sum(reflect.ValueOf(&twice).Elem(), reflect.ValueOf(all))
	if n := doubled(t, reflect.ValueOf(all), reflect.ValueOf(twice)); n < 50 {
		t.Errorf("%d counters", n)
	}
}

// fill makes every counter 1.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Uint64:
		v.SetUint(1)
	case reflect.Int:
		v.SetInt(1)
	}
}

func doubled(t *testing.T, one, two reflect.Value) (n int) {
	switch one.Kind() {
	case reflect.Struct:
		for i := range one.NumField() {
			n += doubled(t, one.Field(i), two.Field(i))
		}
	case reflect.Array:
		for i := range one.Len() {
			n += doubled(t, one.Index(i), two.Index(i))
		}
	case reflect.Uint64, reflect.Int:
		n = 1
		if got := fmt.Sprint(two); got != "2" {
			t.Errorf("a counter of 1 and 1 is %s", got)
		}
	default:
		t.Errorf("a counter of kind %v is not summed", one.Kind())
	}
	return n
}
