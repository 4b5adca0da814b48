package ftfw

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/sim"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// goPeer is a node around the engine, with the owner's duties done as the
// package asks.
type goPeer struct {
	station
	t        *testing.T
	resync   bool // StartupResync
	limit    int
	window   int
	e        *Engine
	objects  []object // by Ref; internal cache
	byID     map[int]Ref
	free     []Ref
	ext      map[int]entry
	gen      int
	bulkAt   int           // next Ref of the bulk under way, -1 for none
	bulkFrom time.Duration // when it begins, or began
	bulks    int
	resyncIn time.Duration // 0: none wanted
	born     time.Duration

	group  bool          // holds its objects for ever, and leaves a silent peer
	stoic  bool          // goes on queueing for a peer that is away
	away   bool          // left, and not answered since
	inStep time.Duration // since when the peer has answered
	leaves int
	bury   func() // what is destroyed so far has no messenger
}

type object struct {
	id     int
	dead   bool
	pinned bool
}

type entry struct{ version, gen int }

func (p *goPeer) start(firstSeq uint32) {
	cfg := Config{
		FirstSeq: firstSeq, ACKWindow: p.window, ResendQueue: p.limit,
		StartupResync: p.resync, HelloHold: 3 * time.Second,
	}
	if p.group {
		cfg.HelloHold = Forever
	}
	p.e = New(cfg, p.w.Now())
	p.up, p.started, p.born = true, false, p.w.Now()
	p.away, p.inStep = false, 0
	p.objects, p.byID, p.free = nil, map[int]Ref{}, nil
	p.ext = map[int]entry{}
	p.bulkAt, p.bulkFrom, p.resyncIn = -1, -time.Hour, 0
	for _, id := range slices.Sorted(maps.Keys(p.kernel)) {
		p.add(id)
	}
	p.w.Logf("%s starts at %d", p.name, firstSeq)
	p.wake()
}

func (p *goPeer) die() {
	p.w.Logf("%s dies", p.name)
	p.up = false
	p.alarm.Stop()
}

func (p *goPeer) add(id int) Ref {
	r := Ref(len(p.objects))
	if n := len(p.free); n > 0 {
		r, p.free = p.free[n-1], p.free[:n-1]
	} else {
		p.objects = append(p.objects, object{})
	}
	p.objects[r] = object{id: id}
	p.byID[id] = r
	return r
}

func (p *goPeer) changed(id int) {
	r, known := p.byID[id]
	if !known {
		r = p.add(id)
	}
	dead := p.kernel[id] == 0
	p.objects[r].dead = dead // else the new flow takes over a dead one's place
	switch {
	case !p.away || p.stoic:
		p.enqueue(r)
	case dead && !p.objects[r].pinned:
		p.remove(r)
	}
	p.nap()
}

// remove forgets a dead object that is in no queue.
func (p *goPeer) remove(r Ref) {
	delete(p.byID, p.objects[r].id)
	p.free = append(p.free, r)
	p.objects[r] = object{dead: true}
}

// leave gives the peer up, as it has been silent for long, or for no reason.
func (p *goPeer) leave() {
	if !p.up || p.away {
		return
	}
	p.w.Logf("%s leaves its peer", p.name)
	p.e.Leave(p.w.Now())
	p.away, p.bulkAt, p.resyncIn = true, -1, 0
	p.leaves++
	p.bury()
	p.settle()
	for r := range p.objects {
		if p.objects[r].pinned {
			p.t.Fatalf("%s: object %d is pinned for a peer that was left", p.name, r)
		}
	}
	p.nap()
}

// leaveAtRandom is for no reason. A HELLO_BACK that is still on its way would be
// taken for the answer to the new hello, so there must not be one: who leaves
// a peer has waited for it, far longer.
func (p *goPeer) leaveAtRandom() {
	if p.up && p.e.InTouch() && p.w.Now()-p.inStep > time.Second {
		p.leave()
	}
}

// leaveAfter is how long a peer may acknowledge nothing.
const leaveAfter = 4 * time.Second

// nap wakes the node up soon; events until then collapse.
func (p *goPeer) nap() { p.alarm.Set(p.w.Now() + p.w.Between(0, 3*time.Millisecond)) }

func (p *goPeer) enqueue(r Ref) {
	pinned := p.e.Enqueue(r)
	if pinned == p.objects[r].pinned {
		p.t.Fatalf("%s: Enqueue said pinned=%v of an object whose pin is %v", p.name, pinned, p.objects[r].pinned)
	}
	p.objects[r].pinned = true
}

func (p *goPeer) receive(m message) {
	if p.e.Receive(p.w.Now(), m.Header) == Deliver {
		if m.version == 0 {
			delete(p.ext, m.id)
		} else {
			p.ext[m.id] = entry{m.version, p.gen}
		}
	}
	p.settle()
	p.nap()
}

func (p *goPeer) settle() {
	p.e.Released(func(r Ref) {
		o := &p.objects[r]
		if !o.pinned {
			p.t.Fatalf("%s: released an object that was not pinned", p.name)
		}
		o.pinned = false
		if o.dead {
			p.remove(r)
		}
	})
	p.backInTouch()
	for ev, ok := p.e.NextEvent(); ok; ev, ok = p.e.NextEvent() {
		p.event(ev)
	}
	if _, resend := p.e.Pending(); resend > p.limit {
		p.t.Fatalf("%s: resend queue of %d, limit %d", p.name, resend, p.limit)
	}
	pinned := 0
	for r := range p.objects {
		if p.objects[r].pinned != p.e.Queued(Ref(r)) {
			p.t.Fatalf("%s: object %d pinned %v, queued %v", p.name, r, p.objects[r].pinned, p.e.Queued(Ref(r)))
		}
		if p.objects[r].pinned {
			pinned++
		}
	}
	if tx, resend := p.e.Pending(); pinned > tx+resend {
		p.t.Fatalf("%s: %d pinned of %d queued", p.name, pinned, tx+resend)
	}
}

// backInTouch ends what leave began, before the bulk that is wanted then.
func (p *goPeer) backInTouch() {
	switch touch := p.e.InTouch(); {
	case !touch:
		p.inStep = p.w.Now()
	case p.away:
		p.w.Logf("%s: the peer is back", p.name)
		p.away = false
	}
}

func (p *goPeer) event(ev Event) {
	p.w.Logf("%s: %s clean=%v", p.name, eventNames[ev.Kind], ev.Clean)
	switch ev.Kind {
	case BulkWanted:
		if p.away && !p.stoic {
			return
		}
		if p.bulkAt < 0 {
			p.bulkFrom = max(p.w.Now(), p.bulkFrom+time.Second)
		}
		p.bulkAt = 0
		p.bulks++
	case PeerRestarted:
		p.e.RequestResync()
	case ResyncStarted:
		p.gen++
		p.resyncIn = 0
	case ResyncComplete:
		if !ev.Clean {
			p.resyncIn = p.w.Now() + 5*time.Second
			return
		}
		for id, e := range p.ext {
			if e.gen < p.gen {
				delete(p.ext, id)
			}
		}
	}
}

func (p *goPeer) wake() {
	if !p.up {
		return
	}
	now := p.w.Now()
	if p.resyncIn != 0 && now >= p.resyncIn {
		p.resyncIn = 0
		p.e.RequestResync()
	}
	p.e.Tick(now)
	if p.group && p.e.Unanswered(now) >= leaveAfter {
		p.leave()
	}
	p.feedBulk()
	sent := false
	for f, ok := p.e.Pop(now); ok; f, ok = p.e.Pop(now) {
		m := message{Header: f.Header}
		if f.Object {
			m.id = p.objects[f.Ref].id
			m.Type = wire.CTUpd
			if p.objects[f.Ref].dead {
				m.Type = wire.CTDel
			} else {
				m.version = p.kernel[m.id]
			}
		}
		p.transmit(p.t, m)
		sent = true
	}
	if sent {
		p.e.Flushed(now)
	}
	p.settle()
	next := p.e.Deadline()
	if p.resyncIn != 0 {
		next = min(next, p.resyncIn)
	}
	if p.bulkAt >= 0 {
		next = min(next, max(p.bulkFrom, now+time.Millisecond))
	}
	p.alarm.Set(next)
}

// feedBulk queues a few objects at a time; bulks begin a second apart.
func (p *goPeer) feedBulk() {
	if p.bulkAt < 0 || p.w.Now() < p.bulkFrom {
		return
	}
	for n := 0; n < 8 && p.bulkAt < len(p.objects); p.bulkAt++ {
		if !p.objects[p.bulkAt].dead {
			p.enqueue(Ref(p.bulkAt))
			n++
		}
	}
	if p.bulkAt == len(p.objects) {
		p.bulkAt = -1
		p.e.BulkDone()
	}
}

func (p *goPeer) external() flows {
	x := flows{}
	for id, e := range p.ext {
		x[id] = e.version
	}
	return x
}

func (s *scene) goPeer(i int, resync, small bool) *goPeer {
	p := &goPeer{t: s.t, resync: resync, limit: 131072, window: 1 + s.w.Rand().IntN(30), bury: func() { s.buryAll(i) }}
	if small && s.w.Chance(0.2) {
		p.limit = 10 + s.w.Rand().IntN(50)
	}
	p.station = station{w: s.w, name: "go" + string(rune('A'+i)), kernel: s.kernels[i]}
	p.alarm = sim.NewAlarm(s.w, p.wake)
	return p
}
