package ftfw

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// cPeer is a model of the C daemon written from docs/protocol.md 4 and 5,
// with everything it does wrong.
type cPeer struct {
	station
	t       *testing.T
	resync  bool // StartupResync
	window0 uint32
	limit   int

	seq       uint32
	seqSet    bool
	first     uint32
	set       bool
	last      uint32
	hello     helloState
	sayBack   bool
	ackSet    bool
	ackFrom   uint32
	window    uint32
	tx        []*cItem
	resend    []*cItem
	objects   map[int]*cObject
	ext       flows
	timer     time.Duration
	dropped   int
	malformed int
}

type cStatus uint8

const (
	cNew cStatus = iota
	cAlive
	cDead
)

type cObject struct {
	id     int
	status cStatus
	item   *cItem // in a queue
}

// cItem is an element of a queue: an object, or a control message.
type cItem struct {
	o   *cObject
	h   wire.Header
	inR bool
}

func (p *cPeer) start(firstSeq uint32) {
	t, st, resync, window, limit := p.t, p.station, p.resync, p.window0, p.limit
	*p = cPeer{t: t, station: st, resync: resync, window0: window, limit: limit}
	p.up, p.started = true, false
	p.first, p.window = firstSeq, window
	p.objects, p.ext = map[int]*cObject{}, flows{}
	for _, id := range slices.Sorted(maps.Keys(p.kernel)) {
		p.objects[id] = &cObject{id: id}
	}
	p.timer = p.w.Now() + time.Second
	p.w.Logf("%s starts at %d", p.name, firstSeq)
	if p.resync {
		p.control(wire.FlagRESYNC, 0, 0)
	}
	p.nap()
}

func (p *cPeer) die() {
	p.w.Logf("%s dies", p.name)
	p.up = false
	p.alarm.Stop()
}

func (p *cPeer) external() flows { return p.ext }

func (p *cPeer) nap() { p.alarm.Set(p.w.Now() + p.w.Between(0, 3*time.Millisecond)) }

func (p *cPeer) changed(id int) {
	o := p.objects[id]
	switch {
	case p.kernel[id] == 0:
		if o == nil {
			return
		}
		o.status = cDead
	case o == nil || o.status == cDead:
		if o != nil {
			p.unqueue(o)
		}
		o = &cObject{id: id}
		p.objects[id] = o
	default:
		o.status = cAlive
	}
	p.enqueue(o)
	p.nap()
}

func (p *cPeer) enqueue(o *cObject) {
	switch {
	case o.item == nil:
		o.item = &cItem{o: o}
		p.tx = append(p.tx, o.item)
	case o.item.inR:
		p.toTx(o.item)
	}
}

func (p *cPeer) toTx(i *cItem) {
	p.resend = slices.DeleteFunc(p.resend, func(j *cItem) bool { return i == j })
	i.inR = false
	p.tx = append(p.tx, i)
}

func (p *cPeer) unqueue(o *cObject) {
	is := func(i *cItem) bool { return i == o.item }
	p.tx, p.resend = slices.DeleteFunc(p.tx, is), slices.DeleteFunc(p.resend, is)
	o.item = nil
}

// left is called for an element that left the resend queue for good.
func (p *cPeer) left(i *cItem) {
	if i.o == nil {
		return
	}
	i.o.item = nil
	if i.o.status == cDead && p.objects[i.o.id] == i.o {
		delete(p.objects, i.o.id)
	}
}

func (p *cPeer) control(flag uint8, from, to uint32) {
	p.tx = append(p.tx, &cItem{h: wire.Header{Type: wire.Control, Flags: flag, From: from, To: to}})
}

func (p *cPeer) receive(m message) {
	if p.receiveHeader(m.Header) == Deliver {
		if m.version == 0 {
			delete(p.ext, m.id)
		} else {
			p.ext[m.id] = m.version
		}
	}
	p.nap()
}

func (p *cPeer) receiveHeader(h wire.Header) Verdict {
	if h.Flags&wire.FlagHELLO != 0 {
		p.sayBack = true
	}
	if h.Flags&wire.FlagHELLOBack != 0 && p.hello == helloSay {
		p.hello = helloDone
	}
	if h.Flags&wire.FlagHELLO != 0 {
		if p.ackSet && wire.Before(h.Seq, p.ackFrom) {
			p.window, p.ackFrom = p.window0-1, h.Seq
		}
		for _, i := range p.resend {
			p.left(i)
		}
		p.resend = nil
		return p.accept(h)
	}
	switch {
	case !p.set || h.Seq == p.last+1:
		return p.accept(h)
	case wire.After(h.Seq, p.last+1):
		v := p.digest(h)
		if v == Bad {
			return Bad
		}
		if p.ackSet {
			p.control(wire.FlagACK, p.ackFrom, p.last)
		}
		p.control(wire.FlagNACK, p.last+1, h.Seq-1)
		p.window, p.ackFrom, p.ackSet = p.window0-1, h.Seq, true
		p.set, p.last = true, h.Seq
		return v
	}
	return Drop
}

func (p *cPeer) accept(h wire.Header) Verdict {
	v := p.digest(h)
	if v == Bad {
		return Bad
	}
	if !p.ackSet {
		p.ackSet, p.ackFrom = true, h.Seq
	}
	p.window-- // runs below zero, as in C
	if p.window == 0 {
		p.control(wire.FlagACK, p.ackFrom, h.Seq)
		p.window, p.ackSet = p.window0, false
	}
	p.set, p.last = true, h.Seq
	return v
}

func (p *cPeer) digest(h wire.Header) Verdict {
	switch c := h.Class(); c {
	case wire.Bad:
		p.malformed++
		return Bad
	case wire.Data:
		return Deliver
	case wire.ACK, wire.NACK:
		if wire.Before(h.To, h.From) {
			p.malformed++
			return Bad
		}
		for _, i := range slices.Clone(p.resend) {
			if wire.Before(i.h.Seq, h.From) {
				continue
			}
			if wire.After(i.h.Seq, h.To) {
				break
			}
			if c == wire.NACK {
				p.toTx(i)
				continue
			}
			p.resend = slices.DeleteFunc(p.resend, func(j *cItem) bool { return i == j })
			p.left(i)
		}
	case wire.RESYNC:
		for _, id := range slices.Sorted(maps.Keys(p.objects)) {
			p.enqueue(p.objects[id])
		}
	}
	return Control
}

func (p *cPeer) wake() {
	if !p.up {
		return
	}
	now := p.w.Now()
	if now >= p.timer {
		if p.ackSet && p.set {
			p.control(wire.FlagACK, p.ackFrom, p.last)
			p.ackSet = false
		} else {
			p.control(wire.FlagALIVE, 0, 0)
		}
		p.timer = now + time.Second
	}
	if len(p.tx) > 0 {
		p.runTx()
		p.timer = now + time.Second
	}
	p.alarm.Set(p.timer)
}

func (p *cPeer) runTx() {
	tx := p.tx
	p.tx = nil
	for _, i := range tx {
		if i.o != nil {
			i.h = wire.Header{Type: wire.CTNew + uint8(i.o.status)}
		}
		if p.hello == helloInit {
			p.hello = helloSay
		}
		if p.hello == helloSay {
			i.h.Flags |= wire.FlagHELLO
		}
		if p.sayBack {
			p.sayBack = false
			i.h.Flags |= wire.FlagHELLOBack
		}
		if !p.seqSet {
			p.seqSet, p.seq = true, p.first
		}
		i.h.Seq = p.seq
		p.seq++
		m := message{Header: i.h}
		if i.o != nil {
			m.id = i.o.id
			if i.o.status != cDead {
				m.version = p.kernel[m.id]
			}
		}
		p.transmit(p.t, m)
		if i.o == nil && i.h.Flags&(wire.FlagACK|wire.FlagNACK|wire.FlagRESYNC) == 0 {
			continue
		}
		if len(p.resend) >= p.limit {
			p.left(p.resend[0])
			p.resend = p.resend[1:]
			p.dropped++
		}
		i.inR = true
		p.resend = append(p.resend, i)
	}
}

// TestSimulateGoC: the engine and a C daemon. Nobody can make C forget what
// was destroyed before its peer's last start, or survive HELLOs the network
// repeats, so these are left out, and so is an overflow of our resend queue,
// which loses the news of what died.
func TestSimulateGoC(t *testing.T) {
	t.Parallel()
	forSeeds(t, func(t *testing.T, seed uint64) *scene {
		s := newScene(t, seed)
		faults := []*sim.Faults{s.randomFaults(false), s.randomFaults(false)}
		s.peers[0] = s.goPeer(0, true, false)
		c := &cPeer{t: t, resync: s.w.Chance(0.5), limit: 131072, window0: 2 + s.w.Rand().Uint32N(30)}
		c.station = station{w: s.w, name: "cB", kernel: s.kernels[1]}
		c.alarm = sim.NewAlarm(s.w, c.wake)
		s.peers[1] = c
		s.join(faults)
		s.play(faults, [2]int{s.w.Rand().IntN(3), s.w.Rand().IntN(3)})
		for i := range 2 {
			if d := s.differ(i, i == 0); d != "" {
				t.Errorf("not in step: %s", d)
			}
			s.checkFrames(i)
		}
		if c.malformed > 0 {
			t.Errorf("the engine sent C %d malformed messages", c.malformed)
		}
		return s
	})
}

// TestCModel: the model shows what docs/protocol.md says about C alone, so
// that the simulation means something.
func TestCModel(t *testing.T) {
	w := sim.New(1)
	var sent []message
	c := &cPeer{t: t, limit: 10, window0: 5}
	c.station = station{w: w, name: "c", kernel: flows{1: 1, 2: 1}, send: func(m message) { sent = append(sent, m) }}
	c.alarm = sim.NewAlarm(w, c.wake)
	c.start(1)
	got := func(do func()) (lines []string) {
		sent = nil
		do()
		w.Run(w.Now() + 10*time.Millisecond)
		for _, m := range sent {
			lines = append(lines, m.String())
		}
		return lines
	}
	data := func(seq uint32, flags uint8) func() {
		return func() { c.receive(message{Header: wire.Header{Seq: seq, Flags: flags}}) }
	}
	for _, step := range []struct {
		what string
		do   func()
		want []string
	}{
		{"data 100 ends the hello", data(100, wire.FlagHELLOBack), nil},
		{"an event", func() { c.kernel[1] = 2; c.changed(1) }, []string{"flow 1.2 seq 1 HELLO"}},
		{"data 103", func() {
			data(101, wire.FlagHELLOBack)()
			data(104, 0)()
		}, []string{"ACK seq 2 100..101", "NACK seq 3 102..103"}},
		{"NACK of all", func() {
			c.receive(message{Header: wire.Header{Type: wire.Control, Flags: wire.FlagNACK, Seq: 105, From: 1, To: 3}})
		}, []string{"flow 1.2 seq 4", "ACK seq 5 100..101", "NACK seq 6 102..103"}},
		{"window", func() {
			data(106, 0)()
			data(107, 0)()
		}, nil},
		{"window used up", data(108, 0), []string{"ACK seq 7 104..108"}},
		{"a hello empties the resend queue", data(50, wire.FlagHELLO), nil},
		{"so nothing is resent", func() {
			c.receive(message{Header: wire.Header{Type: wire.Control, Flags: wire.FlagNACK, Seq: 51, From: 1, To: 7}})
		}, nil},
		{"destroyed", func() { delete(c.kernel, 2); c.changed(2) }, []string{"flow 2.0 seq 8 HELLO_BACK"}},
	} {
		if lines := got(step.do); !slices.Equal(lines, step.want) {
			t.Errorf("%s: C sends %q, want %q", step.what, lines, step.want)
		}
	}
	if len(c.resend) != 1 || c.dropped != 0 {
		t.Errorf("%d in the resend queue, %d dropped", len(c.resend), c.dropped)
	}
}
