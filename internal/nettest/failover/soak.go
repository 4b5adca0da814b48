package failover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// Soak is a long run of a rig whose connections are open: churn all the time,
// and a failover every now and then. The daemons live through all of it.
type Soak struct {
	Rig      *Rig
	Length   time.Duration
	Rate     int              // changes a second
	Shortest time.Duration    // between the begins of two failovers
	Longest  time.Duration    //
	Report   func(SoakReport) // called after each failover
}

// SoakReport is a failover of a soak.
type SoakReport struct {
	After time.Duration // since the soak began
	*Result
}

// SoakResult is what a soak showed.
type SoakResult struct {
	Took      time.Duration
	Failovers []SoakReport
	Changes   int // of the churn
	Refused   int // of them, by the kernel
	Flows     map[Role]int
	Lost      map[*Flow]error // at the end
	Usage     []*Usage
	Tables    []Tables
	// CutSeen is nil if a connection that was cut on purpose after all that was
	// missed, and no other.
	CutSeen error
	errs    []error
}

// soakCauses leave the daemon running, so that its memory is that of the soak.
var soakCauses = []*Cause{Stop, LanDown, Crash, WanDown}

// lastRest is how long before the end no failover begins.
const lastRest = 10 * time.Second

// Run soaks. An error means that it could not go on; what it showed is in the
// result.
func (s *Soak) Run(ctx context.Context) (*SoakResult, error) {
	r := &SoakResult{Flows: map[Role]int{}}
	for _, f := range s.Rig.Traffic.Flows {
		r.Flows[f.Role]++
	}
	if err := r.findDaemons(ctx, s.Rig); err != nil {
		return nil, err
	}
	c, err := newChurner(s.Rig, s.Rate)
	if err != nil {
		return nil, err
	}
	defer c.close()
	begin := time.Now()
	background, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return c.run(background) })
	g.Go(func() error { return r.sample(background) })
	err = s.failovers(ctx, r, c, begin)
	stop()
	if err := errors.Join(err, g.Wait()); err != nil {
		return nil, err
	}
	r.Changes, r.Refused = c.done, c.refused
	r.Took = time.Since(begin)
	return r, r.finish(ctx, s.Rig)
}

// failovers breaks and repairs until the time is over.
func (s *Soak) failovers(ctx context.Context, r *SoakResult, c *churner, begin time.Time) error {
	end := begin.Add(s.Length)
	next := begin
	var causes []*Cause
	for {
		next = next.Add(s.Shortest + rand.N(s.Longest-s.Shortest))
		if next.After(end.Add(-lastRest)) {
			return sleepUntil(ctx, end)
		}
		if err := sleepUntil(ctx, next); err != nil {
			return err
		}
		next = time.Now()
		since := c.next.Load()
		if len(causes) == 0 {
			causes = shuffled()
		}
		result, err := s.Rig.Failover(ctx, causes[0], half)
		causes = causes[1:]
		if err != nil {
			return err
		}
		r.add(result, next.Sub(begin), s.Report)
		if err := c.moved(s.Rig.master, since); err != nil {
			return err
		}
		if err := s.Rig.Recover(ctx); err != nil {
			return err
		}
	}
}

// shuffled are the causes in a random order; each comes before any comes again.
func shuffled() []*Cause {
	causes := slices.Clone(soakCauses)
	rand.Shuffle(len(causes), func(a, b int) { causes[a], causes[b] = causes[b], causes[a] })
	return causes
}

// half of the quiet connections stay silent until the end.
func half(i int) bool { return i%2 == 0 }

func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (r *SoakResult) add(result *Result, after time.Duration, report func(SoakReport)) {
	one := SoakReport{after, result}
	r.Failovers = append(r.Failovers, one)
	for _, err := range result.Dead {
		r.errs = append(r.errs, fmt.Errorf("after failover %d (%s): %w", len(r.Failovers), result.Cause, err))
	}
	if result.Held != result.Before {
		r.errs = append(r.errs, fmt.Errorf("after failover %d (%s): %d connections in the table, %d before", len(r.Failovers), result.Cause, result.Held, result.Before))
	}
	if report != nil {
		report(one)
	}
}

// findDaemons finds the one daemon of each firewall.
func (r *SoakResult) findDaemons(ctx context.Context, rig *Rig) error {
	for _, f := range []*Firewall{rig.A, rig.B} {
		u := &Usage{Firewall: f.Name()}
		err := nettest.Eventually(ctx, patience, "one daemon on "+f.Name(), func() error {
			pids, err := f.DaemonPIDs()
			if err != nil || len(pids) != 1 {
				return errors.Join(err, fmt.Errorf("processes %v", pids))
			}
			u.PID = pids[0]
			return nil
		})
		if err != nil {
			return err
		}
		r.Usage = append(r.Usage, u)
	}
	return nil
}

// sample looks at the daemons until ctx is done. That one has ended is an
// error: a soak is about one life.
func (r *SoakResult) sample(ctx context.Context) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		for _, u := range r.Usage {
			s, err := sampleOf(u.PID)
			if err != nil {
				return fmt.Errorf("daemon of %s: %w", u.Firewall, err)
			}
			u.Samples = append(u.Samples, s)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// finish looks at connections and tables when all is quiet, and at itself.
func (r *SoakResult) finish(ctx context.Context, rig *Rig) error {
	r.Lost = rig.Traffic.Lost(ctx, rig.options.Settle)
	r.errs = append(r.errs, rig.CheckTranslations(), rig.Complaints())
	r.Tables = rig.tables(ctx)
	r.CutSeen = rig.cutOne(ctx)
	return ctx.Err()
}

// Err is nil if nothing was lost, nothing grew and all tables are equal.
func (r *SoakResult) Err() error {
	errs := r.errs
	if len(r.Failovers) == 0 {
		errs = append(errs, errors.New("no failover"))
	}
	if r.Changes == 0 || r.Refused > r.Changes/20 {
		errs = append(errs, fmt.Errorf("%d changes, and %d were refused", r.Changes, r.Refused))
	}
	for f, err := range r.Lost {
		errs = append(errs, fmt.Errorf("lost %s: %w", f, err))
	}
	for _, u := range r.Usage {
		errs = append(errs, u.Flat())
	}
	for _, t := range r.Tables {
		errs = append(errs, t.Err)
	}
	return errors.Join(append(errs, r.CutSeen)...)
}

// Tables are those about the connections of a firewall's kernel. A backup's
// purge is told to nobody (docs/protocol.md 6.3), so of a backup the other's
// external cache is not compared.
type Tables struct {
	Firewall                   string
	Master                     bool
	Kernel, Internal, External int // the last is the other firewall's
	Err                        error
}

// tables compares those of both firewalls entry by entry. It waits until what
// expires has expired and what was ordered is done.
func (r *Rig) tables(ctx context.Context) []Tables {
	var all []Tables
	for _, f := range []*Firewall{r.master, r.backup} {
		other := r.A
		if f == r.A {
			other = r.B
		}
		t := Tables{Firewall: f.Name(), Master: f == r.master}
		t.Err = nettest.Eventually(ctx, churnTimeout*time.Second, "equal tables", func() error { return t.compare(ctx, f, other) })
		all = append(all, t)
	}
	return all
}

func (t *Tables) compare(ctx context.Context, f, other *Firewall) error {
	kernel, err := f.Node.Kernel()
	if err != nil {
		return err
	}
	internal, err := f.Daemon.Internal(ctx)
	if err != nil {
		return err
	}
	external, err := other.Daemon.External(ctx)
	if err != nil {
		return err
	}
	t.Kernel, t.Internal, t.External = len(kernel), len(internal), len(external)
	err = nettest.DiffInternal(kernel, internal).Err()
	if t.Master {
		err = errors.Join(err, nettest.DiffCaches(internal, external).Err())
	}
	if err != nil {
		return fmt.Errorf("tables of firewall %s: %w", f.Name(), err)
	}
	return nil
}

// cutOne cuts a talking connection and makes sure that Lost tells of it, and of
// no other: a check that can't fail shows nothing.
func (r *Rig) cutOne(ctx context.Context) error {
	victim := r.Traffic.Of(Busy)[0]
	from, to := victim.conn.LocalAddr().(*net.TCPAddr), victim.conn.RemoteAddr().(*net.TCPAddr)
	// The port alone is not enough: a connection to elsewhere may have it too.
	if _, err := r.master.Node.Run("conntrack", "-D", "-p", "tcp", "-s", from.IP.String(), "-d", to.IP.String(),
		"--orig-port-src", strconv.Itoa(from.Port), "--orig-port-dst", strconv.Itoa(to.Port)); err != nil {
		return fmt.Errorf("cut a connection: %w", err)
	}
	lost := r.Traffic.Lost(ctx, cutPatience)
	if lost[victim] == nil || len(lost) != 1 {
		return fmt.Errorf("cut %s on purpose: %d connections are missed: %v", victim, len(lost), lost)
	}
	return nil
}

// cutPatience is how long a cut connection may say nothing.
const cutPatience = 10 * time.Second
