package node

import (
	"iter"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/conntrackgo/conntrackgo/pkg/ftfw"
)

// A DumpCursor is a place in a dump; the zero value is its start.
type DumpCursor struct{ at cursor }

// Done reports whether the dump is complete.
func (c *DumpCursor) Done() bool { return c.at.done }

// ResendQueue yields the unacknowledged messages, oldest first.
func (n *Node) ResendQueue() iter.Seq[ftfw.Resendable] { return n.engine.ResendQueue() }

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
			age := seconds(now) - s.common(r).born
			dst = f.AppendText(dst, flow.TextOptions{Now: wall, Age: age, ShowAge: true})
		}
		dst = append(dst, '\n')
	})
	return dst
}
