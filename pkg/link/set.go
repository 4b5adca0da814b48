package link

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// SetConfig is the links of a daemon.
type SetConfig struct {
	// Links are one or more, all of one transport.
	Links []Config
	// ReturnToDefault goes back to the Default link when it is up again.
	ReturnToDefault bool
	// Silence is how long nothing must have come on any link before another
	// is tried. Zero: never. It must be longer than the other node is silent.
	Silence time.Duration
	// Unanswered says how long the other node has not acknowledged anything of
	// what it was sent, zero if nothing waits for that. Recv calls it. Nil if
	// the protocol does not tell.
	Unanswered func() time.Duration
	// Changed is called with the link that is used from now on, or with nil
	// when none is up and running. It must not use the links. May be nil.
	Changed func(Link)
	// Wait makes a link whose interface or address is not there wait for it,
	// instead of an error. It is called with that link and what is missing, then
	// with nil when the link is open, from Recv; and with whatever else hinders
	// that meanwhile, each time it is something else. Nil: nothing is waited for.
	Wait func(l Link, why error)
}

// A Set is several links as one: it sends on one of them, the current one, and
// receives on all (docs/protocol.md 7). See failover for how it chooses.
type Set struct {
	links   []Link
	fd      int // of the epoll instance
	poll    *poller
	watch   watch
	changed func(Link)
	asked   func() time.Duration // SetConfig.Unanswered
	start   time.Time
	current atomic.Int32
	closed  atomic.Bool
	next    int    // the link to look at first; Recv's
	failed  uint64 // failures of the current link so far; Send's

	mu       sync.Mutex // guards what follows
	failover *failover
	ticked   time.Duration // when the timer was seen last
	said     int           // the link that changed was told of
}

const (
	// tick is how often a Set looks at the time.
	tick = 500 * time.Millisecond
	// tagWatch is the tag of the watch; links have their number.
	tagWatch = -2
)

// Of the links a Set needs more than Link says.
type (
	// failing returns how many datagrams were lost in sending.
	failing interface{ failures() uint64 }
	// queueing sends what waits on another link. With abort, what waits in the
	// kernel must not arrive later either.
	queueing interface{ takeBack(to Link, abort bool) }
)

// OpenSet opens links. A single one is returned as it is.
func OpenSet(cfg SetConfig) (Link, error) {
	if len(cfg.Links) == 1 {
		return openOrWait(cfg.Links[0], 1, cfg.Wait)
	}
	s := &Set{watch: watch{-1}, changed: cfg.Changed, asked: cfg.Unanswered, start: time.Now()}
	if s.asked == nil {
		s.asked = func() time.Duration { return 0 }
	}
	if err := s.open(&cfg); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Set) open(cfg *SetConfig) (err error) {
	if s.poll, err = newPoller(); err != nil {
		return err
	}
	s.fd = s.poll.fd
	// First the watch: what changes while the links are opened is seen.
	if s.watch, err = newWatch(0); err != nil {
		return err
	}
	if err = s.poll.watch(s.watch.fd, tagWatch, unix.EPOLLIN); err != nil {
		return err
	}
	running := make([]bool, len(cfg.Links))
	home := 0
	for i, c := range cfg.Links {
		l, err := openOrWait(c, len(cfg.Links), cfg.Wait)
		if err != nil {
			return err
		}
		if w, ok := l.(*late); ok {
			w.open = s.among(w.open)
		}
		s.links = append(s.links, l)
		if err = s.poll.watch(l.FD(), int32(i), unix.EPOLLIN); err != nil {
			return err
		}
		if running[i] = l.Status() == Running; c.Default {
			home = i
		}
	}
	share(false, s.links...)
	s.said = home
	s.failover = newFailover(running, home, cfg.ReturnToDefault, cfg.Silence)
	s.apply(s.failover.current, unchanged)
	s.poll.set(tick, true)
	return nil
}

// among makes an opener of one that opens a link after the others: they have
// their addresses to themselves by then.
func (s *Set) among(open func() (Link, error)) func() (Link, error) {
	return func() (Link, error) {
		l, err := open()
		if errors.Is(err, unix.EADDRINUSE) {
			share(true, s.links...)
			l, err = open()
			share(false, s.links...)
		}
		share(false, l)
		return l, err
	}
}

// share lets UDP links have an address together with others, or no longer.
func share(on bool, links ...Link) {
	for _, l := range links {
		if w, ok := l.(*late); ok {
			l = w.opened()
		}
		if d, ok := l.(*datagrams); ok && d.transport == UDP {
			d.rx.share(on)
		}
	}
}

// Links returns the links in the order of the configuration.
func (s *Set) Links() []Link { return s.links }

// Current returns the link in use. While the other node is silent and all
// links are tried in turn, it is the last one that worked.
func (s *Set) Current() Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[s.failover.announced]
}

func (s *Set) sending() Link { return s.links[s.current.Load()] }

// Name returns the interface of the link in use.
func (s *Set) Name() string { return s.Current().Name() }

// Transport returns the kind that all links are of.
func (s *Set) Transport() Transport { return s.links[0].Transport() }

// Status returns the state of the link in use.
func (s *Set) Status() Status { return s.Current().Status() }

// FD returns an epoll instance over all links.
func (s *Set) FD() int { return s.fd }

// MTU is the smallest of all links, as a datagram may have to change over.
func (s *Set) MTU() int {
	return slices.MinFunc(s.links, func(a, b Link) int { return a.MTU() - b.MTU() }).MTU()
}

// Buffers returns the smallest of all links.
func (s *Set) Buffers() (send, receive int) {
	for i, l := range s.links {
		snd, rcv := l.Buffers()
		if i == 0 {
			send, receive = snd, rcv
		}
		send, receive = min(send, snd), min(receive, rcv)
	}
	return send, receive
}

// WaitWritable waits for the link that is sent on.
func (s *Set) WaitWritable(deadline time.Time) error { return s.sending().WaitWritable(deadline) }

// Send sends on the current link. If that fails because the interface went,
// which the watch has not told yet, all of it goes out again on another link:
// what comes twice does no harm.
func (s *Set) Send(batch [][]byte) (sent int, err error) {
	l := s.sending()
	sent, err = l.Send(batch)
	if n := l.(failing).failures(); n != s.failed {
		s.failed = n
		if err == nil && l.Status() != Running {
			s.look()
			if other := s.sending(); other != l {
				s.failed = other.(failing).failures()
				return other.Send(batch)
			}
		}
	}
	return sent, err
}

// Recv receives from one link that has something, in turn.
func (s *Set) Recv(b *Batch) (int, error) {
	b.reset()
	b.read = 0
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	ready, timer, news := uint(0), false, false
	for _, e := range s.poll.ready() {
		switch e.Fd {
		case tagTimer:
			timer = true
		case tagWatch:
			news = true
		default:
			ready |= 1 << e.Fd
		}
	}
	if news {
		s.watch.drain()
		s.look()
	}
	n, err := s.receive(b, ready)
	if timer { // what has come meanwhile was no silence
		s.poll.fired()
		s.tick()
	}
	return n, err
}

// receive receives from one of the links that are ready.
func (s *Set) receive(b *Batch, ready uint) (int, error) {
	for range s.links {
		i := s.next
		s.next = (i + 1) % len(s.links)
		if ready&(1<<i) == 0 {
			continue
		}
		ready &^= 1 << i
		n, err := s.links[i].Recv(b)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			s.hear(i)
		}
		if n > 0 || b.refused.IsValid() {
			b.more = b.more || ready != 0
			return n, nil
		}
	}
	return 0, nil
}

func (s *Set) now() time.Duration { return time.Since(s.start) }

func (s *Set) hear(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.failover.current
	s.apply(was, s.failover.hear(s.now(), i))
}

func (s *Set) tick() {
	s.look() // should a notification have been lost
	unanswered := s.asked()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now-s.ticked > 4*tick {
		s.failover.listen(now) // nobody did for a while, as at the start
	}
	s.ticked = now
	was := s.failover.current
	s.apply(was, s.failover.tick(now, unanswered))
}

// look asks how the interfaces are.
func (s *Set) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for i, l := range s.links {
		s.failover.state(now, i, l.Status() == Running)
	}
	was := s.failover.current
	s.apply(was, s.failover.choose(now))
}

// apply makes the links do what the failover decided.
func (s *Set) apply(was int, o outcome) {
	f := s.failover
	s.current.Store(int32(f.current))
	if o == moved || o == failed {
		if q, ok := s.links[was].(queueing); ok {
			q.takeBack(s.links[f.current], o == failed)
		}
	}
	switch {
	case s.changed == nil:
	case o == exhausted:
		s.said = -1
		s.changed(nil)
	case f.announced != s.said && !f.none:
		s.said = f.announced
		s.changed(s.links[f.announced])
	}
}

// Stats returns the sums of all links.
func (s *Set) Stats() (sum Stats) {
	for _, l := range s.links {
		x := l.Stats()
		sum.SentBytes += x.SentBytes
		sum.SentPackets += x.SentPackets
		sum.RecvBytes += x.RecvBytes
		sum.RecvPackets += x.RecvPackets
		sum.SendErrors += x.SendErrors
		sum.RecvErrors += x.RecvErrors
		sum.Unsendable += x.Unsendable
		if x.LastUnsendable != 0 {
			sum.LastUnsendable = x.LastUnsendable
		}
		sum.Unaccepted += x.Unaccepted
		if x.LastUnaccepted != 0 {
			sum.LastUnaccepted = x.LastUnaccepted
		}
		sum.RecvDropped += x.RecvDropped
		sum.Queued += x.Queued
		sum.Truncated += x.Truncated
		sum.Refused += x.Refused
		if x.LastRefused != (netip.Addr{}) {
			sum.LastRefused, sum.LastRefusedVia = x.LastRefused, x.LastRefusedVia
		}
	}
	return sum
}

// Close closes all links.
func (s *Set) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	if s.watch.fd >= 0 {
		errs = append(errs, s.watch.close())
	}
	if s.poll != nil {
		errs = append(errs, s.poll.close())
	}
	return errors.Join(errs...)
}
