package node

import (
	"iter"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/engine"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// A DumpCursor is a place in a dump; the zero value is its start.
type DumpCursor struct{ at cursor }

// Done reports whether the dump is complete.
func (c *DumpCursor) Done() bool { return c.at.done }

// ResendQueue yields the unacknowledged messages, oldest first. It is nil in a
// mode that keeps none.
func (n *Node) ResendQueue() iter.Seq[engine.Resendable] { return n.engine.ResendQueue() }

// Dump appends up to limit entries of a cache to dst, one line each, and moves
// the cursor. wall is the time of day, for the kernel's own time stamps.
func (n *Node) Dump(dst []byte, now time.Duration, wall time.Time, which Which, xml bool, c *DumpCursor, limit int) []byte {
	s := n.internal
	if which == External {
		s = n.external
	}
	f := &n.scratch
	s.scan(&c.at, limit, func(r ref) {
		s.load(r, f)
		if xml {
			dst = f.AppendXML(dst, flow.TextOptions{Now: wall})
		} else {
			o := flow.TextOptions{Now: wall, Age: seconds(now) - s.common(r).born, ShowAge: true}
			if n.timers != nil && which == External {
				o.Expires, o.ShowExpires = seconds(n.timers.Left(now, engine.Ref(r))), true
			}
			dst = f.AppendText(dst, o)
			if which == External {
				dst = append(dst, n.tail...)
			}
		}
		dst = append(dst, '\n')
	})
	return dst
}
