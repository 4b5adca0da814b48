package sim

import "time"

// Faults is what is wrong with one direction of a link. It may change while
// the world runs.
type Faults struct {
	Loss, Duplicate, Reorder float64 // probabilities for each message

	Delay  time.Duration // of every message
	Jitter time.Duration // up to this much more
	Late   time.Duration // up to this much more for one reordered or duplicated
	Down   bool          // nothing passes
	// Neighbour: what is sent while nothing passes is kept for up to three
	// seconds, as the kernel keeps it for a neighbour that it asks for each
	// second, and lost together.
	Neighbour bool
}

const (
	askEvery = time.Second
	askMost  = 3
)

// Pipe carries messages in one direction. They arrive in the order they were
// sent, but for the faults.
type Pipe[T any] struct {
	w       *World
	faults  *Faults
	deliver func(T)
	latest  time.Duration
	kept    []T

	Sent, Lost, Delivered int
}

// NewPipe makes a pipe that hands what arrives to deliver.
func NewPipe[T any](w *World, f *Faults, deliver func(T)) *Pipe[T] {
	return &Pipe[T]{w: w, faults: f, deliver: deliver}
}

// Send puts m into the pipe. m must not be changed afterwards.
func (p *Pipe[T]) Send(m T) {
	f := p.faults
	p.Sent++
	if f.Neighbour && (f.Down || len(p.kept) > 0) {
		if p.kept = append(p.kept, m); len(p.kept) == 1 {
			p.ask(1)
		}
		return
	}
	p.pass(m)
}

// ask asks for the neighbour again a little later.
func (p *Pipe[T]) ask(times int) {
	p.w.After(askEvery, func() {
		if p.faults.Down && times < askMost {
			p.ask(times + 1)
			return
		}
		kept := p.kept
		p.kept = nil
		for _, m := range kept {
			p.pass(m)
		}
	})
}

func (p *Pipe[T]) pass(m T) {
	f := p.faults
	if f.Down || p.w.Chance(f.Loss) {
		p.Lost++
		return
	}
	at := p.w.now + f.Delay + p.w.Between(0, f.Jitter)
	if p.w.Chance(f.Duplicate) {
		p.arrive(at+p.w.Between(0, f.Late), m)
	}
	if p.w.Chance(f.Reorder) {
		p.arrive(at+p.w.Between(0, f.Late), m)
		return
	}
	p.latest = max(p.latest, at)
	p.arrive(p.latest, m)
}

func (p *Pipe[T]) arrive(at time.Duration, m T) {
	p.w.At(at, func() {
		p.Delivered++
		p.deliver(m)
	})
}
