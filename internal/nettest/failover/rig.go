package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// Options of a rig.
type Options struct {
	A, B     Setup
	NoDaemon bool // keepalived and rules only: what a failover costs without us

	Busy, Idle, UDP int // number of flows, spread over classes and families
	Called          int // from the client's side only
	Entries         int // further entries in the master's table
	FillRate        int // of them, per second; 0: as many as possible

	// Drift is how many entries the tables may differ by when they count as
	// synchronised: they change all the time.
	Drift int

	// Inject runs the daemons without external cache; Hold is the HoldTimeout
	// of ours then, in seconds.
	Inject bool
	Hold   int
	// Liberal has the firewalls' kernels take TCP segments as they come. The two
	// networks learn of a new master one after the other, and what went one way
	// through it comes back through the old one, whose kernel takes the answer to
	// what it has not seen for invalid. Each connection then waits for a
	// retransmission, whatever the daemons do. For the same reason the backup
	// is told its neighbours.
	Liberal bool
	// Late keeps the news of a new master from the server, for IPv4, for so long
	// after a failover begins; keepalived repeats it after five seconds. Else the
	// two networks hear of it within milliseconds of each other.
	Late time.Duration
	// UDPTimeout is what the firewalls' kernels call normal, in seconds.
	UDPTimeout int

	// PurgeTimeout is that of the daemons, in seconds; default 15, which is
	// short enough that a backup's purge comes during a test.
	PurgeTimeout int

	// Settle bounds how long flows may take to work again, default 20 s.
	Settle time.Duration
}

const purgeTimeout = 15

// patience bounds every wait that is not for a flow.
const patience = 30 * time.Second

// Rig is two firewalls between a client and a server.
type Rig struct {
	Pair    *nettest.Pair
	A, B    *Firewall
	Traffic Traffic

	lab            *nettest.Lab
	options        Options
	servers        []*server
	master, backup *Firewall
	broken         *Cause // what Failover did to backup, nil when repaired
	translations   nettest.Table
}

// New builds the rig in the lab, which must be closed by the caller.
func New(lab *nettest.Lab, o Options) (*Rig, error) {
	if o.Settle == 0 {
		o.Settle = 20 * time.Second
	}
	r := &Rig{lab: lab, options: o}
	var err error
	if r.Pair, err = lab.NewPair(); err != nil {
		return nil, err
	}
	cfgA, cfgB := r.Pair.Configs(false)
	if r.A, err = r.newFirewall(r.Pair.A, o.A, cfgA, 150); err != nil {
		return nil, err
	}
	if r.B, err = r.newFirewall(r.Pair.B, o.B, cfgB, 149); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rig) newFirewall(n *nettest.Node, s Setup, cfg nettest.Config, priority int) (*Firewall, error) {
	f := &Firewall{Node: n, Setup: s, dir: r.lab.Dir()}
	// An IPv6 address must survive that its interface is taken down.
	if err := n.Sysctls([]string{"net.ipv6.conf.all.keep_addr_on_down=1"}); err != nil {
		return nil, err
	}
	if r.options.Liberal {
		if err := n.Sysctls([]string{"net.netfilter.nf_conntrack_tcp_be_liberal=1"}); err != nil {
			return nil, err
		}
	}
	if err := n.NFT(rules); err != nil {
		return nil, err
	}
	if o := r.options; o.UDPTimeout != 0 {
		for _, name := range []string{"udp_timeout", "udp_timeout_stream"} {
			if err := n.Sysctls([]string{fmt.Sprintf("net.netfilter.nf_conntrack_%s=%d", name, o.UDPTimeout)}); err != nil {
				return nil, err
			}
		}
	}
	if r.options.NoDaemon {
		return f, f.prepare(priority)
	}
	cfg.PurgeTimeout = cmp.Or(r.options.PurgeTimeout, purgeTimeout)
	cfg.HashLimit = max(65536, 2*r.options.Entries)
	cfg.HashSize = max(32768, r.options.Entries/4)
	if r.options.Inject {
		cfg.ModeLines = append(cfg.ModeLines, "DisableExternalCache on")
	}
	if r.options.Hold != 0 && s.Kind == nettest.Go {
		cfg.Extra = fmt.Sprintf("Conntrackgo {\n\tHoldInjected on\n\tHoldTimeout %d\n}\n", r.options.Hold)
	}
	if f.stock() {
		cfg.Lock = stockLock
	}
	var err error
	if f.Daemon, err = r.lab.NewDaemon(n, s.Kind, cfg); err != nil {
		return nil, err
	}
	if f.binary, err = s.Kind.Binary(); err != nil {
		return nil, err
	}
	return f, f.prepare(priority)
}

// Start starts keepalived on both, which starts the daemons; A becomes master.
func (r *Rig) Start(ctx context.Context) error {
	for _, n := range []*nettest.Node{r.Pair.Server, r.Pair.Client} {
		s, err := serve(n)
		if err != nil {
			return err
		}
		r.servers = append(r.servers, s)
	}
	r.lab.OnClose(r.close)
	if err := r.boot(ctx, r.A, "primary"); err != nil {
		return err
	}
	r.master, r.backup = r.A, r.B
	return r.boot(ctx, r.B, "backup")
}

func (r *Rig) close() error {
	r.Traffic.stop()
	for _, s := range r.servers {
		s.close()
	}
	return nil
}

// boot starts keepalived and waits until the firewall has become state.
func (r *Rig) boot(ctx context.Context, f *Firewall, state string) error {
	begin := time.Now()
	if err := f.startKeepalived(); err != nil {
		return err
	}
	if err := r.await(ctx, f, "backup", begin); err != nil || state == "backup" {
		return err
	}
	if err := r.await(ctx, f, state, begin); err != nil {
		return err
	}
	return nettest.Eventually(ctx, patience, "the virtual addresses", f.isMaster)
}

// await waits for the end of the script's run for a state.
func (r *Rig) await(ctx context.Context, f *Firewall, state string, since time.Time) error {
	_, err := r.awaitRun(ctx, f, state, since)
	return err
}

func (r *Rig) awaitRun(ctx context.Context, f *Firewall, state string, since time.Time) (run Run, err error) {
	err = nettest.Eventually(ctx, patience, "firewall "+f.Name()+" to become "+state, func() error {
		select {
		case <-f.keepalived.Done():
			return fmt.Errorf("keepalived has ended: %v\n%s", f.keepalived.Err(), f.keepalived.Tail(10))
		default:
		}
		run, err = f.ranSince(state, since)
		return err
	})
	if err == nil && run.Exit != 0 {
		err = fmt.Errorf("firewall %s: script %s: exit code %d\n%s", f.Name(), state, run.Exit, f.Describe())
	}
	return run, err
}

// Connect opens all flows and waits until the backup knows them.
func (r *Rig) Connect(ctx context.Context) error {
	if err := r.fill(); err != nil {
		return err
	}
	o := r.options
	for _, want := range []struct {
		role  Role
		count int
	}{{Busy, o.Busy}, {Idle, o.Idle}, {UDP, o.UDP}, {Called, o.Called}} {
		for i := range want.count {
			f, err := r.open(want.role, i)
			if err != nil {
				return err
			}
			r.Traffic.Flows = append(r.Traffic.Flows, f)
		}
	}
	if err := r.wantCalls(); err != nil {
		return err
	}
	r.Traffic.start()
	if err := r.synced(ctx); err != nil {
		return err
	}
	var err error
	r.translations, err = r.translated()
	return err
}

// wantCalls has all flows called that want it.
func (r *Rig) wantCalls() error {
	var g errgroup.Group
	for _, f := range r.Traffic.Of(Called) {
		g.Go(f.wantCalls)
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("ask for calls: %w", err)
	}
	return nil
}

// open opens flow i of a role: classes take turns, and so do families.
func (r *Rig) open(role Role, i int) (*Flow, error) {
	classes := classes
	if role == Called {
		classes = classes[:inside]
	}
	c := classes[i%len(classes)]
	addr := c.to4
	if i/len(classes)%2 == 1 {
		addr = c.to6
	}
	from := r.Pair.Client
	if c.outside {
		from = r.Pair.Server
	}
	return open(from, role, c.name, addr)
}

// synced waits until the backup's external cache is the master's internal one.
func (r *Rig) synced(ctx context.Context) error {
	if r.options.NoDaemon {
		return nil
	}
	want := len(r.Traffic.Flows) + r.options.Entries
	if r.options.Inject {
		return nettest.Eventually(ctx, patience, "the backup's kernel to have all connections", func() error {
			if n, err := r.backup.Node.Held(); err != nil || n < want {
				return errors.Join(err, fmt.Errorf("%s has %d entries, want %d", r.backup.Name(), n, want))
			}
			return nil
		})
	}
	return nettest.Eventually(ctx, patience, "the backup to know all connections", func() error {
		internal, err := r.cacheSize(ctx, r.master, "internal")
		if err != nil {
			return err
		}
		external, err := r.cacheSize(ctx, r.backup, "external")
		if err != nil {
			return err
		}
		if max(internal-external, external-internal) > r.options.Drift || external < want {
			return fmt.Errorf("master %s has %d entries, backup %s knows %d, want %d", r.master.Name(), internal, r.backup.Name(), external, want)
		}
		return nil
	})
}

func (r *Rig) cacheSize(ctx context.Context, f *Firewall, which string) (int, error) {
	stats, err := f.Daemon.Client(ctx, "-s")
	if err != nil {
		return 0, err
	}
	return f.cacheSize(which, stats)
}

// translated reads the flows and their translations from the master's kernel.
func (r *Rig) translated() (nettest.Table, error) {
	if r.options.Entries > 0 {
		return nil, nil // reading takes longer than the failover
	}
	t, err := r.master.Node.Kernel()
	if err != nil {
		return nil, err
	}
	return t.Only(func(e *nettest.Entry) bool { return e.Dport == servicePort || e.Dport == publishedPort }), nil
}

// CheckTranslations compares the flows in the master's kernel with those at
// the end of Connect: the same tuples in both directions, no more and no less.
func (r *Rig) CheckTranslations() error {
	now, err := r.translated()
	if err != nil {
		return err
	}
	var errs []error
	for key, was := range r.translations {
		switch is := now[key]; {
		case is == nil:
			errs = append(errs, fmt.Errorf("%v is gone", key))
		case is.Reply != was.Reply:
			errs = append(errs, fmt.Errorf("%v: the answers came from %v, now %v", key, was.Reply, is.Reply))
		}
	}
	for key := range now {
		if r.translations[key] == nil {
			errs = append(errs, fmt.Errorf("%v is new", key))
		}
	}
	return errors.Join(errs...)
}

// Complaints tells of data that was lost or repeated inside a connection.
func (r *Rig) Complaints() error {
	var errs []error
	for _, s := range r.servers {
		errs = append(errs, s.complaints())
	}
	return errors.Join(errs...)
}

// Describe tells all about the rig for a failure message.
func (r *Rig) Describe() string { return r.A.Describe() + r.B.Describe() }
