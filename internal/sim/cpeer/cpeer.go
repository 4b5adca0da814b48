// Package cpeer is a model of the C daemon in mode FTFW, written from
// docs/protocol.md 4 and 5, with everything it does wrong. It knows flows by
// number, each with a version; its owner gives them bytes.
package cpeer

import (
	"slices"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Message is what travels: a header, and for data the flow it is about.
type Message struct {
	wire.Header
	ID, Version int // version 0: destroyed
}

// Config is what conntrackd.conf says.
type Config struct {
	Window        uint32 // ACKWindowSize
	ResendQueue   int
	StartupResync bool
}

// helloState is C's, docs/protocol.md 5.1.
type helloState uint8

const (
	helloInit helloState = iota
	helloSay
	helloDone
)

// Peer is one C daemon. Its clock is an argument; it is not safe for
// concurrent use.
type Peer struct {
	cfg Config

	seq      uint32
	set      bool
	last     uint32
	hello    helloState
	sayBack  bool
	ackSet   bool
	ackFrom  uint32
	window   uint32
	tx       []*item
	resend   []*item
	objects  map[int]*object
	external map[int]int
	timer    time.Duration

	Dropped   int // elements the full resend queue dropped
	Malformed int // messages that it counted as malformed
}

type status uint8

const (
	isNew status = iota
	isAlive
	isDead
)

// object is an entry of the internal cache.
type object struct {
	id, version int
	status      status
	item        *item // in a queue
}

// item is an element of a queue: an object, or a control message.
type item struct {
	o       *object
	h       wire.Header
	resends bool // in the resend queue
}

// New starts a daemon that finds flows in its kernel, by number.
func New(cfg Config, firstSeq uint32, now time.Duration, kernel map[int]int) *Peer {
	p := &Peer{cfg: cfg, seq: firstSeq, window: cfg.Window,
		objects: map[int]*object{}, external: map[int]int{}, timer: now + time.Second}
	for id, version := range kernel {
		p.objects[id] = &object{id: id, version: version}
	}
	if cfg.StartupResync {
		p.control(wire.FlagRESYNC, 0, 0)
	}
	return p
}

// External returns what it has of its peer: versions by number.
func (p *Peer) External() map[int]int { return p.external }

// Internal returns what it has of its kernel.
func (p *Peer) Internal() map[int]int {
	flows := map[int]int{}
	for id, o := range p.objects {
		if o.status != isDead {
			flows[id] = o.version
		}
	}
	return flows
}

// Pending returns the lengths of the two queues.
func (p *Peer) Pending() (tx, resend int) { return len(p.tx), len(p.resend) }

// Changed takes an event of the kernel; version 0 is the end of a flow.
func (p *Peer) Changed(id, version int) {
	o := p.objects[id]
	switch {
	case version == 0:
		if o == nil {
			return
		}
		o.status = isDead
	case o == nil || o.status == isDead:
		if o != nil {
			p.unqueue(o)
		}
		o = &object{id: id, version: version}
		p.objects[id] = o
	default:
		o.status, o.version = isAlive, version
	}
	p.enqueue(o)
}

// Refresh takes the kernel's table after events were lost: everything is sent,
// and the end of what is gone.
func (p *Peer) Refresh(kernel map[int]int) {
	for _, id := range p.ids() {
		if kernel[id] == 0 && p.objects[id].status != isDead {
			p.Changed(id, 0)
		}
	}
	for _, id := range sorted(kernel) {
		p.Changed(id, kernel[id])
	}
}

// RequestResync is -n.
func (p *Peer) RequestResync() { p.control(wire.FlagRESYNC, 0, 0) }

func (p *Peer) ids() []int { return sorted(p.objects) }

func sorted[V any](m map[int]V) []int {
	ids := make([]int, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (p *Peer) enqueue(o *object) {
	switch {
	case o.item == nil:
		o.item = &item{o: o}
		p.tx = append(p.tx, o.item)
	case o.item.resends:
		p.again(o.item)
	}
}

// again moves an element of the resend queue to the end of the other.
func (p *Peer) again(i *item) {
	p.resend = slices.DeleteFunc(p.resend, func(j *item) bool { return i == j })
	i.resends = false
	p.tx = append(p.tx, i)
}

func (p *Peer) unqueue(o *object) {
	is := func(i *item) bool { return i == o.item }
	p.tx, p.resend = slices.DeleteFunc(p.tx, is), slices.DeleteFunc(p.resend, is)
	o.item = nil
}

// left is called for an element that left the resend queue for good.
func (p *Peer) left(i *item) {
	if i.o == nil {
		return
	}
	i.o.item = nil
	if i.o.status == isDead && p.objects[i.o.id] == i.o {
		delete(p.objects, i.o.id)
	}
}

func (p *Peer) control(flag uint8, from, to uint32) {
	p.tx = append(p.tx, &item{h: wire.Header{Type: wire.Control, Flags: flag, From: from, To: to}})
}

// Receive takes a message and applies it. It is dropped, or malformed, or
// heard; heard data is applied.
func (p *Peer) Receive(m Message) {
	if !p.hear(m.Header) || m.Class() != wire.Data {
		return
	}
	if m.Version == 0 {
		delete(p.external, m.ID)
	} else {
		p.external[m.ID] = m.Version
	}
}

// hear reports whether the message is taken (docs/protocol.md 5.2).
func (p *Peer) hear(h wire.Header) bool {
	if h.Flags&wire.FlagHELLO != 0 {
		p.sayBack = true
	}
	if h.Flags&wire.FlagHELLOBack != 0 && p.hello == helloSay {
		p.hello = helloDone
	}
	if h.Flags&wire.FlagHELLO != 0 {
		if p.ackSet && wire.Before(h.Seq, p.ackFrom) {
			p.window, p.ackFrom = p.cfg.Window-1, h.Seq
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
		if !p.digest(h) {
			return false
		}
		if p.ackSet {
			p.control(wire.FlagACK, p.ackFrom, p.last)
		}
		p.control(wire.FlagNACK, p.last+1, h.Seq-1)
		p.window, p.ackFrom, p.ackSet = p.cfg.Window-1, h.Seq, true
		p.set, p.last = true, h.Seq
		return true
	}
	return false
}

func (p *Peer) accept(h wire.Header) bool {
	if !p.digest(h) {
		return false
	}
	if !p.ackSet {
		p.ackSet, p.ackFrom = true, h.Seq
	}
	p.window-- // runs below zero, as in C
	if p.window == 0 {
		p.control(wire.FlagACK, p.ackFrom, h.Seq)
		p.window, p.ackSet = p.cfg.Window, false
	}
	p.set, p.last = true, h.Seq
	return true
}

// digest does what the message orders; it reports false if it is malformed.
func (p *Peer) digest(h wire.Header) bool {
	switch c := h.Class(); c {
	case wire.Bad:
		p.Malformed++
		return false
	case wire.ACK, wire.NACK:
		if wire.Before(h.To, h.From) {
			p.Malformed++
			return false
		}
		p.ranged(c, h.From, h.To)
	case wire.RESYNC:
		for _, id := range p.ids() {
			p.enqueue(p.objects[id])
		}
	}
	return true
}

func (p *Peer) ranged(c wire.Class, from, to uint32) {
	for _, i := range slices.Clone(p.resend) {
		if wire.Before(i.h.Seq, from) {
			continue
		}
		if wire.After(i.h.Seq, to) {
			break
		}
		if c == wire.NACK {
			p.again(i)
			continue
		}
		p.resend = slices.DeleteFunc(p.resend, func(j *item) bool { return i == j })
		p.left(i)
	}
}

// Run does what is due and hands what is to be sent to send. It returns when
// it wants to run again at the latest; after Changed or Receive it wants to at
// once.
func (p *Peer) Run(now time.Duration, send func(Message)) (next time.Duration) {
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
		tx := p.tx
		p.tx = nil
		for _, i := range tx {
			send(p.render(i))
			p.keep(i)
		}
		p.timer = now + time.Second
	}
	return p.timer
}

// render gives an element its number and its flags, and an object its type.
func (p *Peer) render(i *item) Message {
	m := Message{}
	if o := i.o; o != nil {
		i.h = wire.Header{Type: wire.CTNew + uint8(o.status)}
		m.ID = o.id
		if o.status != isDead {
			m.Version = o.version
		}
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
	i.h.Seq = p.seq
	p.seq++
	m.Header = i.h
	return m
}

// keep puts what was sent into the resend queue, but for ALIVE.
func (p *Peer) keep(i *item) {
	if i.o == nil && i.h.Flags&(wire.FlagACK|wire.FlagNACK|wire.FlagRESYNC) == 0 {
		return
	}
	if len(p.resend) >= p.cfg.ResendQueue {
		p.left(p.resend[0])
		p.resend = p.resend[1:]
		p.Dropped++
	}
	i.resends = true
	p.resend = append(p.resend, i)
}
