// Package daemon is the shell around pkg/node: it opens the edges (ctnetlink,
// the sync link, the control socket), runs the node under one lock, and owns
// life cycle, logging and the table of control requests.
//
// One goroutine waits for kernel events, datagrams and the timer (loop.go).
// Whoever else has work, a client's request or a commit, enters the node under
// the same lock, feeds what it has, sends what comes out and leaves: handing
// each batch to a loop goroutine was measured to cost three times the CPU.
// Nothing inside blocks; commits, dumps and sweeps enter many times with small
// pieces.
package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/ctl"
	"github.com/conntrackgo/conntrackgo/pkg/kernel"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// A Daemon is a running node and its edges. sync is nil in a daemon whose
// configuration has no Sync section: it answers and does nothing.
type Daemon struct {
	cfg     *confparse.Config
	log     *logrus.Logger
	started time.Time
	yielded atomic.Int64 // on the clock of now; see beside
	stop    context.CancelFunc

	lock     *ctl.LockFile
	logFile  *logFile
	counters ctl.Counters
	listener net.Listener

	manager  patient // the service manager
	seldom   seldom
	troubles []trouble
	looked   time.Duration // at the troubles; the loop's
	asked    time.Duration // see askAgain
	handover handover      // from the last life

	sync *syncer
}

// syncer is what only a daemon with a Sync section has.
type syncer struct {
	waiter *waiter
	link   link.Link
	group  speaker // link, if there may be several peers
	events *kernel.Events
	commit *kernel.Writer // commits
	flush  *kernel.Writer // flushes ordered by the operator
	inject *injector      // nil with an external cache
	direct *kernel.Writer // no event comes of it: the node knows already

	mu     sync.Mutex // guards what follows
	node   *node.Group
	alarm  func(time.Duration) // sets the node's timer
	armed  time.Duration
	batch  [][]byte
	used   [][]byte
	size   int
	closed bool

	turns   atomic.Uint64 // of the loop; see watchdog
	overrun chan struct{} // events were lost
	lost    atomic.Uint64 // how often
	mended  atomic.Uint64 // of which made up for
	table   chan struct{} // the node wants the kernel's table sent
	// isReady says that this node could take over; readiness that it changed.
	isReady     atomic.Bool
	readiness   chan struct{}
	refill      chan node.Purpose // an internal cache has room again, or is new
	resync      sync.Mutex        // one dump of the kernel's table at a time
	commitMu    sync.Mutex        // guards the commit writer
	tableWanted atomic.Int32      // who waits for resync
	// What clients order (-R): theirs share a dump.
	refreshes, expectRefreshes shared
	// assuming is held for reading from when the node assumes something of the
	// kernel until it is true: a sweep that began in between would refute it.
	assuming sync.RWMutex
	flushMu  sync.Mutex // guards the flush writer
	purge    purge
	checks   *checks    // of commits
	compared Comparison // guarded by mu
	masters  masters
	kernel   kernelCounters
}

// speaker is a link.Group, or one that waits for its interface.
type speaker interface {
	SendTo(to netip.Addr, batch [][]byte) (sent int, err error)
}

// Run runs a daemon until ctx ends, SIGTERM, SIGINT or SIGQUIT comes, or a
// client orders it (-k). In a process started by Background it detaches from the
// terminal once everything works.
func Run(ctx context.Context, cfg *confparse.Config, log *logrus.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer stop()
	// stop gives the signals back, and a second one must not end the process
	// before it has handed over and removed its files.
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Stop(again)
	// A log reader that goes away (SIGPIPE) must not end the daemon, nor must
	// signals that mean something to other daemons.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	// The loop must not wait for one: it keeps its own while it rests, and
	// dumps, commits and collections run beside it.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4))
	limitGarbage()
	d := &Daemon{cfg: cfg, log: log, started: time.Now(), stop: stop}
	defer d.close()
	if err := d.open(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	d.serve(ctx, g)
	g.Go(func() error { return d.onHangup(ctx, hangup) })
	err := d.start(ctx)
	if err == nil {
		err = d.serveOthers(ctx, g)
	}
	if err == nil {
		log.Info("initialization completed")
		if cfg.Sync && cfg.Node.StartupResync {
			log.Info("resync requested") // what the node does by itself
		}
		err = d.ready()
	}
	if err == nil {
		g.Go(func() error { return d.watchdog(ctx) })
		<-ctx.Done()
	}
	told := ctx.Err() != nil
	if told {
		log.Info("---- shutdown received ----")
		d.notify(sd.SdNotifyStopping)
		err = nil // of what was interrupted
	}
	stop()
	if d.sync != nil {
		d.sync.stop()
	}
	err = errors.Join(err, g.Wait())
	if told && err == nil {
		d.handOver()
	}
	return err
}

// open takes the lock first: whoever holds it may replace a stale socket.
func (d *Daemon) open() (err error) {
	if err := d.cfg.CheckStart(); err != nil {
		return err
	}
	if err := checkSupported(d.cfg); err != nil {
		return err
	}
	if d.logFile, err = addDestinations(d.log, d.cfg); err != nil {
		return err
	}
	if d.lock, err = ctl.Lock(d.cfg.LockFile); err != nil {
		return err
	}
	if d.cfg.Socket != "" {
		if d.listener, err = ctl.Listen(d.cfg.Socket); err != nil {
			if inUse := new(ctl.InUseError); errors.As(err, &inUse) {
				// The lock file may be that of the running C daemon.
				_ = d.lock.Release()
				d.lock = nil
			}
			return err
		}
	}
	d.writeReady(false)
	setScheduler(d.log, d.cfg.Scheduler)
	if d.cfg.Sync {
		d.sync, err = d.openSync()
	}
	return err
}

// serveOthers answers clients and the other node once the table is read. Who
// connects before waits: an answer means that everything works. A peer that
// asks for everything must get everything, and what it says before waits in
// the socket.
func (d *Daemon) serveOthers(ctx context.Context, g *errgroup.Group) error {
	if d.sync != nil && d.sync.inject != nil {
		g.Go(func() error { d.sync.inject.run(ctx); return nil })
	}
	if d.sync != nil && d.cfg.Node.DisableInternalCache {
		g.Go(func() error { return d.serveTable(ctx) })
	}
	if d.listener != nil {
		g.Go(func() error {
			return ctl.Serve(ctx, d.listener, d.requests(), ctl.Config{Counters: &d.counters})
		})
	}
	if d.sync == nil {
		return nil
	}
	return d.sync.waiter.add(d.sync.link.FD(), sourceLink)
}

// serve starts the goroutines of what is there before the table is read.
func (d *Daemon) serve(ctx context.Context, g *errgroup.Group) {
	if d.sync != nil {
		g.Go(d.run)
		g.Go(func() error { return d.repair(ctx) })
		g.Go(func() error { return d.keepReady(ctx) })
		g.Go(func() error { return d.refill(ctx) })
		g.Go(func() error { return d.compare(ctx) })
		if d.polling() {
			g.Go(func() error { return d.poll(ctx) })
		}
	}
}

// start fills the caches: the external one from what the last life left, the
// internal one from the kernel's table.
func (d *Daemon) start(ctx context.Context) error {
	if d.sync == nil {
		return nil
	}
	restored := make(chan struct{})
	go func() {
		defer close(restored)
		d.restore()
	}()
	err := d.fillInternal(ctx)
	<-restored
	return err
}

// fillInternal fills the internal cache. Events are already being read, so
// nothing that happens meanwhile is missed (see node.BeginSweep).
func (d *Daemon) fillInternal(ctx context.Context) error {
	if d.cfg.Node.DisableInternalCache {
		return nil
	}
	err := d.readTables(ctx, node.Start)
	if errors.Is(err, kernel.ErrTorn) {
		d.log.Warnf("%v: some entries may be missing until -R", err)
		return nil
	}
	return err
}

// onHangup reopens the log file: SIGHUP is what log rotation sends.
func (d *Daemon) onHangup(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if d.logFile == nil {
				continue
			}
			if err := d.logFile.reopen(); err != nil {
				d.log.Errorf("%v", err)
			}
		}
	}
}

// close gives everything back; the lock goes last.
func (d *Daemon) close() {
	if d.sync != nil {
		d.sync.close()
	}
	if d.listener != nil {
		d.listener.Close()
	}
	if d.lock != nil {
		d.writeReady(false)
		if err := d.lock.Unlock(); err != nil {
			d.log.Errorf("%v", err)
		}
	}
}
