package daemon

import (
	"sync"
	"time"
)

// A patient does what may block for want of a reader, and waits for it only so
// long. What is not done by then goes on alone, and until it is, nothing else
// is begun.
type patient struct {
	mu   sync.Mutex
	busy chan struct{} // closed when what goes on alone is done; nil: nothing does
}

// blockPatience is for a reader who is only slow, and a machine that is busy.
const blockPatience = time.Second

// do reports whether fn was begun, and done.
func (p *patient) do(fn func()) (begun, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy != nil {
		select {
		case <-p.busy:
		default:
			return false, false
		}
	}
	p.busy = make(chan struct{})
	go func(busy chan struct{}) {
		defer close(busy)
		fn()
	}(p.busy)
	limit := time.NewTimer(blockPatience)
	defer limit.Stop()
	select {
	case <-p.busy:
		p.busy = nil
		return true, true
	case <-limit.C:
		return true, false
	}
}
