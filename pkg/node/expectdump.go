package node

import (
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/cache"
	"github.com/conntrackgo/conntrackgo/pkg/flow"
)

// An ExpectCursor is a place in a dump of expectations; the zero value is its
// start.
type ExpectCursor struct {
	at   cache.ID
	done bool
}

// Done reports whether the dump is complete.
func (c *ExpectCursor) Done() bool { return c.done }

// DumpExpects is Dump for expectations.
func (n *Node) DumpExpects(dst []byte, now time.Duration, which Which, xml bool, c *ExpectCursor, limit int) []byte {
	s := n.expects.internal
	if which == External {
		s = n.expects.external
	}
	c.at = s.scan(c.at, limit, func(id cache.ID) {
		e := s.at(id)
		if xml {
			dst = e.x.AppendXML(dst, flow.TextOptions{})
		} else {
			dst = e.x.AppendText(dst, flow.TextOptions{Age: seconds(now) - e.born, ShowAge: true})
			if which == External {
				dst = append(dst, n.tail...)
			}
		}
		dst = append(dst, '\n')
	})
	c.done = c.at == 0
	return dst
}
