package nettest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Kind is whose daemon runs on a node.
type Kind string

// The two kinds.
const (
	C  Kind = "C"  // Debian's /usr/sbin/conntrackd, or CONNTRACKD_BIN
	Go Kind = "Go" // ours, built from this checkout, or CONNTRACKGO_BIN
)

// CBinary is the C daemon.
func CBinary() string {
	if p := os.Getenv("CONNTRACKD_BIN"); p != "" {
		return p
	}
	return "/usr/sbin/conntrackd"
}

// Binary is the program of a kind; ours is built at the first call.
func (k Kind) Binary() (string, error) {
	if k == Go {
		return GoBinary()
	}
	return CBinary(), nil
}

// startTimeout bounds a daemon's start, stopTimeout its orderly end.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 30 * time.Second
)

// Daemon is one connection-tracking daemon on a node. It may be started,
// ended and started again.
type Daemon struct {
	Node   *Node
	Kind   Kind
	Config Config // written to ConfigPath at each Start
	Env    []string
	Wrap   []string // a command that ends by executing its further arguments; before the daemon's
	// ConfigPath is the configuration file the daemon and its clients read.
	ConfigPath string

	binary string
	proc   *Proc
}

// NewDaemon prepares a daemon; nothing runs yet. Paths missing in cfg are
// chosen in the lab's directory.
func (l *Lab) NewDaemon(n *Node, k Kind, cfg Config) (*Daemon, error) {
	binary, err := k.Binary()
	if err != nil {
		return nil, err
	}
	base := filepath.Join(l.dir, n.Name)
	for _, p := range []struct {
		path   *string
		suffix string
	}{{&cfg.Socket, ".ctl"}, {&cfg.Lock, ".lock"}, {&cfg.LogFile, ".log"}} {
		if *p.path == "" {
			*p.path = base + p.suffix
		}
	}
	return &Daemon{Node: n, Kind: k, Config: cfg, ConfigPath: base + ".conf", binary: binary}, nil
}

var errEnded = errors.New("it ended")

// Start starts the daemon in the foreground and returns when it answers "-s".
// If it ends before, or doesn't answer in time, the error holds its output.
func (d *Daemon) Start(ctx context.Context) error {
	if d.Running() {
		return fmt.Errorf("start %s: it already runs", d)
	}
	if err := d.WriteConfig(); err != nil {
		return err
	}
	command := append(slices.Clone(d.Wrap), d.binary, "-C", d.ConfigPath)
	proc, err := d.Node.Start(d.Env, command[0], command[1:]...)
	if err != nil {
		return err
	}
	d.proc = proc
	err = Eventually(ctx, startTimeout, d.String()+" to answer", func() error {
		if !d.Running() {
			return nil // reported below
		}
		_, err := d.Client(ctx, "-s")
		return err
	})
	if !d.Running() {
		return fmt.Errorf("start %s: %w\n%s", d, errors.Join(errEnded, d.proc.Err()), d.proc.Tail(20))
	}
	if err != nil {
		return fmt.Errorf("start %s: %w\n%s", d, err, d.proc.Tail(20))
	}
	return nil
}

// WriteConfig writes the configuration file; Start does it too.
func (d *Daemon) WriteConfig() error {
	if err := os.WriteFile(d.ConfigPath, []byte(d.Config.Text()), 0o600); err != nil {
		return fmt.Errorf("write configuration of %s: %w", d, err)
	}
	return nil
}

// Client runs a request with the daemon's own client program and returns what
// it printed.
func (d *Daemon) Client(ctx context.Context, args ...string) (string, error) {
	return d.clientOf(ctx, d.binary, args)
}

// ForeignClient runs a request with the client program of another kind.
func (d *Daemon) ForeignClient(ctx context.Context, k Kind, args ...string) (string, error) {
	binary, err := k.Binary()
	if err != nil {
		return "", err
	}
	return d.clientOf(ctx, binary, args)
}

func (d *Daemon) clientOf(ctx context.Context, binary string, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return d.Node.RunContext(ctx, "", binary, append([]string{"-C", d.ConfigPath}, args...)...)
}

// Stop ends the daemon with SIGTERM; it must exit with 0.
func (d *Daemon) Stop() error {
	if d.proc == nil {
		return nil
	}
	return d.proc.Stop(stopTimeout)
}

// Kill9 ends the daemon with SIGKILL. Its lock and socket files stay.
func (d *Daemon) Kill9() {
	if d.proc != nil {
		d.proc.Kill9()
	}
}

// RemoveLock removes a stale lock file as the stock primary-backup.sh does. A
// C daemon refuses to start without it after a crash.
func (d *Daemon) RemoveLock() error {
	if err := os.Remove(d.Config.Lock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove lock of %s: %w", d, err)
	}
	return nil
}

// Running reports whether the process exists.
func (d *Daemon) Running() bool {
	if d.proc == nil {
		return false
	}
	select {
	case <-d.proc.Done():
		return false
	default:
		return true
	}
}

// Proc is the present or last process, nil before the first Start.
func (d *Daemon) Proc() *Proc { return d.proc }

// Internal reads the internal cache ("-i").
func (d *Daemon) Internal(ctx context.Context) (Table, error) { return d.dump(ctx, "-i") }

// External reads the external cache ("-e").
func (d *Daemon) External(ctx context.Context) (Table, error) { return d.dump(ctx, "-e") }

// ExternalByNode reads the external caches of a group, by who told of them.
func (d *Daemon) ExternalByNode(ctx context.Context) (map[netip.Addr]Table, error) {
	out, err := d.Client(ctx, "-e")
	if err != nil {
		return nil, err
	}
	all, err := ParseTables(out)
	if err != nil {
		return nil, fmt.Errorf("read -e of %s: %w", d, err)
	}
	return all, nil
}

func (d *Daemon) dump(ctx context.Context, option string) (Table, error) {
	out, err := d.Client(ctx, option)
	if err != nil {
		return nil, err
	}
	t, err := ParseTable(out)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", option, d, err)
	}
	return t, nil
}

// Log returns the last lines of the daemon's log file and output.
func (d *Daemon) Log(lines int) string {
	text, err := os.ReadFile(d.Config.LogFile)
	if err != nil {
		text = []byte(err.Error())
	}
	s := lastLines(string(text), lines)
	if d.proc != nil {
		s += "\n-- output --\n" + d.proc.Tail(lines)
	}
	return s
}

// State describes the daemon for a failure message: statistics, queues, log.
func (d *Daemon) State(ctx context.Context) string {
	s := fmt.Sprintf("== %s, running %v\n", d, d.Running())
	for _, arg := range [][]string{{"-s"}, {"-s", "network"}, {"-s", "queue"}} {
		if !d.Running() {
			break
		}
		out, err := d.Client(ctx, arg...)
		if err != nil {
			out += err.Error() + "\n"
		}
		s += out
	}
	return s + d.Log(15) + "\n"
}

func (d *Daemon) String() string { return fmt.Sprintf("%s daemon on %s", d.Kind, d.Node.Name) }
