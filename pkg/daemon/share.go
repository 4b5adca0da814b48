package daemon

import "sync"

// shared is long work that many may want at once, such as a dump of the
// kernel's table. Whoever comes while somebody waits to begin shares what that
// one does, so two are at it at most: one works and one waits.
type shared struct {
	turn sync.Mutex // one works at a time
	mu   sync.Mutex // guards next
	next *round     // has not begun
}

// round is the work for everybody who came before it began.
type round struct {
	done chan struct{}
	err  error
}

// do returns when work has been done, by whoever, that began after do was
// called.
func (s *shared) do(work func() error) error {
	r, lead := s.join()
	if lead {
		s.lead(r, work)
	}
	<-r.done
	return r.err
}

func (s *shared) join() (r *round, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		return s.next, false
	}
	s.next = &round{done: make(chan struct{})}
	return s.next, true
}

func (s *shared) lead(r *round, work func() error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	defer close(r.done)
	r.err = work()
}
