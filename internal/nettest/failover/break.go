package failover

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// Cause is a way to break a master, and to repair it.
type Cause struct {
	Name   string
	broken func(*Firewall) error
	repair func(*Firewall) error
}

func (c *Cause) String() string { return c.Name }

// The causes.
var (
	Stop     = &Cause{"keepalived stopped", (*Firewall).stopKeepalived, (*Firewall).restartKeepalived}
	Crash    = &Cause{"keepalived killed", (*Firewall).crashKeepalived, (*Firewall).startKeepalived}
	LanDown  = &Cause{"LAN port down", setLink(nettest.LanIf, "down"), setLink(nettest.LanIf, "up")}
	WanDown  = &Cause{"WAN port down", setLink(nettest.WanIf, "down"), setLink(nettest.WanIf, "up")}
	PowerCut = &Cause{"power cut", (*Firewall).cutPower, (*Firewall).restorePower}
)

func setLink(ifname, state string) func(*Firewall) error {
	return func(f *Firewall) error { return f.Node.IP("link set " + ifname + " " + state) }
}

var allLinks = []string{nettest.LanIf, nettest.WanIf, nettest.SyncIf}

func (f *Firewall) setLinks(state string) error {
	var commands []string
	for _, ifname := range allLinks {
		commands = append(commands, "link set "+ifname+" "+state)
	}
	return f.Node.IP(commands...)
}

// cutPower is as near to a power cut as a namespace allows: nothing is sent
// any more, every process is gone and the kernel's table is lost. Lock and
// socket of the daemon stay, which is worse than a reboot.
func (f *Firewall) cutPower() error {
	if err := f.setLinks("down"); err != nil {
		return err
	}
	if err := f.crashKeepalived(); err != nil {
		return err
	}
	if f.Daemon != nil {
		pids, err := f.DaemonPIDs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("kill daemon of %s: %w", f.Name(), err)
			}
		}
	}
	return f.Node.FlushKernel()
}

func (f *Firewall) restorePower() error {
	if err := f.setLinks("up"); err != nil {
		return err
	}
	return f.startKeepalived()
}

// Count is how many of the flows asked work.
type Count struct{ Alive, Asked int }

// Result is what a failover did.
type Result struct {
	Cause    string
	From, To string        // names of the firewalls
	TakeOver time.Duration // until the new master had the addresses
	Script   time.Duration // primary-backup.sh primary on the new master
	// Stalls are sorted, by role; idle flows have none. That of a dead flow
	// lasts until the measurement ended.
	Stalls map[Role][]time.Duration
	Count  map[Role]Count
	Dead   []error // why flows don't work any more
	// Resent are the TCP segments that client and server had to send again.
	Resent int
	// TCP connections of the rig in a kernel's table: the old master's before
	// it broke, the new one's when its script had ended.
	Before, Held int
}

// Median and Max of a role's stalls; 0 without flows.
func (r *Result) Median(role Role) time.Duration {
	if s := r.Stalls[role]; len(s) > 0 {
		return s[len(s)/2]
	}
	return 0
}

// Max is the longest stall of a role.
func (r *Result) Max(role Role) time.Duration {
	if s := r.Stalls[role]; len(s) > 0 {
		return s[len(s)-1]
	}
	return 0
}

// Total sums the counts of all roles.
func (r *Result) Total() Count {
	var t Count
	for _, c := range r.Count {
		t.Alive += c.Alive
		t.Asked += c.Asked
	}
	return t
}

func (r *Result) String() string {
	ms := func(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }
	t := r.Total()
	return fmt.Sprintf("%s > %s, %-18s: took over after %4d ms, script %4d ms; TCP stall median %4d max %4d ms, %d segments sent again; UDP gap median %4d max %4d ms; alive %d of %d",
		r.From, r.To, r.Cause, ms(r.TakeOver), ms(r.Script), ms(r.Median(Busy)), ms(r.Max(Busy)), r.Resent, ms(r.Median(UDP)), ms(r.Max(UDP)), t.Alive, t.Asked)
}

// Everyone and Nobody choose idle connections to probe.
func Everyone(int) bool { return true }

// Failover breaks the master, waits until the backup is master and has run its
// script, and measures the flows until all have had an answer after that or
// Options.Settle is over. The idle connections that probe chooses are asked.
// An error means that the failover itself did not happen; flows that don't
// work are in the result.
func (r *Rig) Failover(ctx context.Context, c *Cause, probe func(i int) bool) (*Result, error) {
	from, to := r.master, r.backup
	if r.broken != nil {
		return nil, fmt.Errorf("fail over: firewall %s is still broken", r.backup.Name())
	}
	result := &Result{Cause: c.Name, From: from.Name(), To: to.Name(), Stalls: map[Role][]time.Duration{}, Count: map[Role]Count{}}
	var err error
	if result.Before, err = from.connections(); err != nil {
		return nil, err
	}
	resent, err := r.resent()
	if err != nil {
		return nil, err
	}
	if r.options.Liberal || r.options.Late != 0 {
		if err := r.tellNeighbours(); err != nil {
			return nil, err
		}
	}
	if r.options.Late != 0 {
		if err := r.keepLate(); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	r.Traffic.watch(begin)
	if err := c.broken(from); err != nil {
		return nil, fmt.Errorf("break firewall %s: %w", from.Name(), err)
	}
	r.broken, r.master, r.backup = c, to, from
	if err := nettest.Eventually(ctx, patience, "the other firewall to take over", to.isMaster); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, r.Describe())
	}
	result.TakeOver = time.Since(begin)
	run, err := r.awaitRun(ctx, to, "primary", begin)
	if err != nil {
		return nil, err
	}
	result.Script = run.End.Sub(run.Begin)
	if result.Held, err = to.connections(); err != nil {
		return nil, err
	}
	r.settle(ctx, result, probe)
	if result.Resent, err = r.resent(); err != nil {
		return nil, err
	}
	result.Resent -= resent
	return result, ctx.Err()
}

// settle waits for the flows and counts them.
func (r *Rig) settle(ctx context.Context, result *Result, probe func(i int) bool) {
	since := time.Now()
	// The flows that fail are found below, one by one.
	_ = nettest.Eventually(ctx, r.options.Settle, "flows to work again", func() error { return r.Traffic.progressed(since) })
	now := time.Now()
	for _, role := range []Role{Busy, UDP, Called} {
		result.Stalls[role] = r.Traffic.stalls(role, now)
		var count Count
		for _, f := range r.Traffic.Of(role) {
			count.Asked++
			if err := f.lost(since); err != nil {
				result.Dead = append(result.Dead, fmt.Errorf("%s: %w", f, err))
				continue
			}
			count.Alive++
		}
		result.Count[role] = count
	}
	asked, failed := r.Traffic.Probe(r.options.Settle, probe)
	for f, err := range failed {
		result.Dead = append(result.Dead, fmt.Errorf("%s: %w", f, err))
	}
	result.Count[Idle] = Count{asked - len(failed), asked}
}

// Recover repairs what Failover broke and waits until that firewall is backup
// and knows all connections.
func (r *Rig) Recover(ctx context.Context) error {
	if r.broken == nil {
		return nil
	}
	begin := time.Now()
	if err := r.broken.repair(r.backup); err != nil {
		return fmt.Errorf("repair firewall %s: %w", r.backup.Name(), err)
	}
	r.broken = nil
	if err := r.await(ctx, r.backup, "backup", begin); err != nil {
		return err
	}
	if err := nettest.Eventually(ctx, patience, "the repaired firewall to be backup", r.backup.isNotMaster); err != nil {
		return fmt.Errorf("%w\n%s", err, r.Describe())
	}
	if err := r.synced(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, r.Describe())
	}
	return nil
}
