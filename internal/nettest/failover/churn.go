package failover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// churnLive is a third of the churn's connections that are there at a time, and
// termSeconds how long it stays on a firewall at least. It is a few seconds late
// behind a failover, so that changes meet the old master's daemon too.
const (
	churnLive   = 500
	termSeconds = 2
)

// churner lets connections come, change and go on the master all the time.
type churner struct {
	rate    int // changes a second
	writers map[*Firewall]*flood.Writer
	master  atomic.Pointer[Firewall]
	next    atomic.Int64 // first connection of this term

	done    int // changes
	refused int // by the kernel, which did not have the connection any more
}

func newChurner(r *Rig, rate int) (*churner, error) {
	c := &churner{rate: rate, writers: map[*Firewall]*flood.Writer{}}
	c.master.Store(r.master)
	for _, f := range []*Firewall{r.A, r.B} {
		w, err := flood.Open(f.Node.Do)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.writers[f] = w
	}
	return c, nil
}

func (c *churner) close() error {
	var errs []error
	for _, w := range c.writers {
		errs = append(errs, w.Close())
	}
	return errors.Join(errs...)
}

// run churns until ctx is done and all its connections have ended.
func (c *churner) run(ctx context.Context) error {
	perTerm := c.rate * termSeconds / 3
	for ctx.Err() == nil {
		from := int(c.next.Load())
		w := c.writers[c.master.Load()]
		result, err := w.Churn(flood.Churn{From: from, To: from + perTerm, Rate: c.rate, Live: churnLive, Flow: churned})
		c.done += result.OK
		if err := c.allow(result, err); err != nil {
			return fmt.Errorf("churn: %w", err)
		}
		c.next.Store(int64(from + perTerm))
	}
	return nil
}

// allow takes it that a connection is gone: an old master purges its table.
func (c *churner) allow(r flood.Result, err error) error {
	n := r.Failed[unix.ENOENT]
	c.refused += n
	if len(r.Failed) == 1 && n > 0 {
		return nil
	}
	return err
}

// moved ends on the new master what was open on the old one when it broke,
// which is all since then: their other ends close them.
func (c *churner) moved(to *Firewall, since int64) error {
	// The term that has not ended is the last one on the old master.
	until := int(c.next.Load()) + c.rate*termSeconds/3
	c.master.Store(to)
	w, err := flood.Open(to.Node.Do)
	if err != nil {
		return err
	}
	defer w.Close()
	result, err := w.Delete(flood.Load{From: int(since), To: until, Flow: churned})
	if len(result.Failed) == 1 && result.Failed[unix.ENOENT] > 0 {
		return nil
	}
	return err
}

// churnTimeout is in seconds; it outlives a failover.
const churnTimeout = 120

// churned is connection i: TCP and UDP in turn, translated, from a client in
// 10.128.0.0/9.
func churned(i int, f *flood.Flow) {
	var src [4]byte
	binary.BigEndian.PutUint32(src[:], 10<<24|1<<23|uint32(i)>>8&(1<<23-1))
	*f = flood.Flow{
		Proto: flood.TCP, Src: netip.AddrFrom4(src), Dst: nettest.Server,
		Sport: uint16(1024 + i%60000), Dport: uint16(10000 + i/60000%50000),
		Timeout: churnTimeout, State: established, Status: flood.SeenReply | flood.Assured | flood.Confirmed,
		SNAT: netip.AddrPortFrom(nettest.WanVIP, 0),
	}
	if i%2 == 1 {
		f.Proto, f.State = flood.UDP, 0
	}
}
