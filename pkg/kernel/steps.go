package kernel

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// defaultTimeout is for a flow without a timeout, in seconds: the kernel
// creates none without.
const defaultTimeout = 60

// maxRequest is more than a request can have bytes: three tuples, all other
// attributes and the longest names are about 700.
const maxRequest = 1 << 10

const (
	// statusGrowing are the bits that the kernel lets nobody clear.
	statusGrowing = flow.StatusSeenReply | flow.StatusAssured
	// statusRefused are the bits that the kernel lets nobody set.
	statusRefused = flow.StatusExpected | flow.StatusDying
)

// shape makes w.flow what the kernel shall get of f at this step.
func (w *Writer) shape(s *slot, f *flow.Flow) {
	w.flow = *f
	g := &w.flow
	g.Has &^= s.drop
	if s.drop.Has(flow.HasHelper) {
		g.Status &^= flow.StatusHelper // the kernel clears it nowhere
	}
	switch s.step {
	case stepCreate:
		shapeCreate(g)
	case stepProbe, stepChange:
		shapeChange(g, s, w.kind == kindCommit)
	case stepRemove:
		if w.kind != kindDelete {
			g.Has &^= flow.HasID // whatever is there shall go
		}
	case stepRemoveReply:
		g.ID = s.have.id
		g.Has |= flow.HasID
	}
}

// shapeCreate adds what the kernel demands of a new entry.
func shapeCreate(g *flow.Flow) {
	g.Status = g.Status&^statusRefused | flow.StatusConfirmed
	g.Has |= flow.HasStatus
	if !g.Has.Has(flow.HasTimeout) {
		g.Timeout = defaultTimeout
		g.Has |= flow.HasTimeout
	}
}

// shapeChange makes an update of which the kernel will approve. If whole is
// set the entry shall be as if it were created now: what the flow does not
// have is cleared, as a mark of zero and the absence of labels say nothing on
// the wire.
func shapeChange(g *flow.Flow, s *slot, whole bool) {
	g.Status = g.Status&^statusRefused | flow.StatusConfirmed
	switch {
	case s.looked:
		g.Status |= s.have.status & (statusGrowing | flow.StatusExpected)
	case g.Has.Has(flow.HasMaster):
		g.Status |= flow.StatusExpected
	}
	if s.have.status&flow.StatusFixedTimeout != 0 {
		g.Has &^= flow.HasTimeout
	} else if whole && !g.Has.Has(flow.HasTimeout) {
		g.Timeout = defaultTimeout
		g.Has |= flow.HasTimeout
	}
	if whole {
		g.Has |= flow.HasStatus | (flow.HasMark|s.have.has&flow.HasLabels)&^s.drop
	}
}

// accepted: the request of the step was carried out.
func (w *Writer) accepted(s *slot, r *Result) {
	switch s.step {
	case stepCreate:
		if s.removed {
			s.end(r, Replaced)
		} else {
			s.end(r, Created)
		}
	case stepProbe:
		s.to(r, stepLook) // no echo: the entry is not one that has events
	case stepChange, stepRenew:
		s.end(r, Updated)
	case stepRemove, stepRemoveReply:
		if w.kind == kindDelete {
			s.end(r, Deleted)
			return
		}
		s.removed = true
		s.to(r, stepCreate)
	default:
		s.fail(r, unix.ENODATA) // a look that found nothing and did not fail
	}
}

// refused: the request of the step failed.
func (w *Writer) refused(s *slot, r *Result, f *flow.Flow, errno syscall.Errno) {
	s.errno = errno
	next := stepDone
	switch s.step {
	case stepCreate:
		if next = s.afterCreate(f, errno); next == stepProbe && w.kind == kindCreate {
			next = stepDone
		}
	case stepProbe, stepChange:
		next = s.afterChange(f, errno)
	case stepLook:
		if errno == unix.ENOENT {
			next = s.afterMissing()
		}
	case stepLookReply:
		if errno == unix.ENOENT {
			next = stepCreate
		}
	case stepRemove, stepRemoveReply:
		if errno == unix.ENOENT {
			if w.kind == kindDelete {
				s.end(r, Absent)
				return
			}
			next = stepCreate
		}
	case stepRenew:
		if errno == unix.ENOENT {
			s.end(r, Absent)
			return
		}
	}
	if next == stepDone {
		s.fail(r, errno)
		return
	}
	s.to(r, next)
}

// afterCreate is where a refused create leads; stepDone: nowhere.
func (s *slot) afterCreate(f *flow.Flow, errno syscall.Errno) step {
	switch {
	case errno == unix.EEXIST:
		s.clashed = true
		return stepProbe
	case errno == unix.EOPNOTSUPP && s.canDrop(f, flow.HasHelper):
		return stepCreate
	case errno == unix.ENOENT && s.removed && s.canDrop(f, flow.HasMaster):
		return stepCreate // a connection that was here must not be lost for its master's sake
	}
	return stepDone
}

// afterChange is where a refused update leads. What is deleted is a connection
// that may be alive, so not for a kernel that is only short of something.
func (s *slot) afterChange(f *flow.Flow, errno syscall.Errno) step {
	switch {
	case errno == unix.ENOENT:
		return s.afterMissing()
	case (errno == unix.ENOSPC || errno == unix.EOPNOTSUPP) && s.canDrop(f, flow.HasLabels):
		return s.step // no rule uses labels here or the kernel knows none
	case errno == unix.ENOMEM || errno == unix.ENOBUFS || errno == unix.EAGAIN || errno == unix.EINTR:
		return stepDone
	case !s.looked:
		return stepLook // the status tells what the kernel insists on, and the tuples whose it is
	case s.same:
		return stepDone // it works as it is, and a new one might be refused too
	}
	return stepRemove
}

// afterMissing is where it leads that nothing has the original tuple: if the
// create clashed all the same, it was the reply tuple.
func (s *slot) afterMissing() step {
	if s.clashed {
		return stepLookReply
	}
	return stepCreate
}

// canDrop gives up an attribute that the kernel does not know what to do with.
func (s *slot) canDrop(f *flow.Flow, has flow.Has) bool {
	if !f.Has.Any(has) || s.drop.Any(has) {
		return false
	}
	s.drop |= has
	return true
}

// saw: w.found is the entry that has the tuple asked for.
func (w *Writer) saw(s *slot, r *Result, f *flow.Flow) {
	s.have = existing{has: w.found.Has, status: w.found.Status, id: w.found.ID}
	if s.step == stepLookReply {
		// A stray packet's entry gives way. A connection in use does not: one
		// of the two must lose, and it is not the one that works.
		if w.found.Status&flow.StatusAssured != 0 {
			s.fail(r, unix.EEXIST)
			return
		}
		s.to(r, stepRemoveReply)
		return
	}
	s.looked = true
	s.same = w.kind == kindCommit && sameTuples(&w.found, f)
	switch {
	case !sameTuples(&w.found, f):
		s.to(r, stepRemove)
	case s.step == stepProbe && !s.keepsLabels(f):
		s.end(r, Updated)
	default:
		s.to(r, stepChange)
	}
}

// keepsLabels says that the entry has labels of which the flow knows nothing,
// and which are not to be kept.
func (s *slot) keepsLabels(f *flow.Flow) bool {
	return (s.have.has &^ f.Has &^ s.drop).Has(flow.HasLabels)
}

// hasTuple says that one direction of f is k.
func hasTuple(f *flow.Flow, k *flow.Key) bool {
	if f.Key == *k {
		return true
	}
	r, _ := f.Reply()
	r.Zone = k.Zone
	return r == *k
}

// sameTuples says that both directions look the same on the wire. Zones need
// no comparison: the entry was found in the zone that the flow belongs to.
func sameTuples(a, b *flow.Flow) bool {
	ra, _ := a.Reply()
	rb, _ := b.Reply()
	ka, kb := a.Key, b.Key
	ra.Zone, rb.Zone, ka.Zone, kb.Zone = 0, 0, 0, 0
	return ka == kb && ra == rb
}

func (s *slot) to(r *Result, next step) {
	if s.tries++; s.tries > maxSteps {
		errno := s.errno
		if errno == 0 {
			errno = unix.EAGAIN
		}
		s.fail(r, errno)
		return
	}
	if next == stepCreate {
		s.clashed = false
	}
	s.step = next
}

func (s *slot) end(r *Result, o Outcome) {
	s.step = stepDone
	*r = Result{Outcome: o, Without: s.drop}
}

func (s *slot) fail(r *Result, errno syscall.Errno) {
	s.step = stepDone
	*r = Result{Outcome: Failed, Errno: errno}
}
