package failover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// StockScript is where Debian's conntrackd package puts its script.
const StockScript = "/usr/share/doc/conntrackd/examples/sync/primary-backup.sh"

// What the stock script expects. conntrackd's package installs the first two.
const (
	stockBinary = "/usr/sbin/conntrackd"
	stockConfig = "/etc/conntrackd/conntrackd.conf"
	stockLocks  = "/run/lock" // /var/lock is a link to it
	stockLock   = "/var/lock/conntrack.lock"
)

// Setup is what runs on a firewall.
type Setup struct {
	Kind nettest.Kind
	// Script is primary-backup.sh: StockScript runs where it finds what it
	// expects at the usual places; any other is told through the environment.
	Script string
}

// Firewall is one of the two.
type Firewall struct {
	Node   *nettest.Node
	Setup  Setup
	Daemon *nettest.Daemon // nil without a daemon
	dir    string
	binary string

	keepalived *nettest.Proc
}

// Name is "a" or "b".
func (f *Firewall) Name() string { return f.Node.Name }

func (f *Firewall) path(name string) string { return filepath.Join(f.dir, f.Name()+"-"+name) }

func (f *Firewall) stock() bool { return f.Setup.Script == StockScript }

// prepare writes configurations and scripts.
func (f *Firewall) prepare(priority int) error {
	script := "/bin/true"
	if f.Daemon != nil {
		if err := f.Daemon.WriteConfig(); err != nil {
			return err
		}
		var err error
		if script, err = filepath.Abs(f.Setup.Script); err != nil {
			return fmt.Errorf("find script: %w", err)
		}
		if _, err := os.Stat(script); err != nil {
			return fmt.Errorf("find script: %w", err)
		}
	}
	if err := os.MkdirAll(f.path("locks"), 0o700); err != nil {
		return fmt.Errorf("prepare firewall %s: %w", f.Name(), err)
	}
	wrapper := fmt.Sprintf(wrapperText, script, f.path("runs"))
	if err := os.WriteFile(f.path("notify"), []byte(wrapper), 0o700); err != nil {
		return fmt.Errorf("prepare firewall %s: %w", f.Name(), err)
	}
	return f.writeKeepalived(f.path("notify"), priority)
}

// wrapperText runs the script and writes down: argument, exit code, begin and
// end in nanoseconds.
const wrapperText = `#!/bin/sh
begin=$(date +%%s%%N)
"%[1]s" "$@"
echo "$1 $? $begin $(date +%%s%%N)" >>"%[2]s"
`

// surround gives a command what the script needs: for the stock script a mount
// namespace in which the node's files are at the usual places.
func (f *Firewall) surround(args []string) (env, command []string) {
	if f.Daemon == nil {
		return nil, args
	}
	if !f.stock() {
		return []string{"CONNTRACKD_BIN=" + f.binary, "CONNTRACKD_CONFIG=" + f.Daemon.ConfigPath}, args
	}
	const mounts = `set -e
mount --bind "$1" ` + stockBinary + `
mount --bind "$2" ` + stockConfig + `
mount --bind "$3" ` + stockLocks + `
shift 3
exec "$@"`
	return nil, append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh",
		f.binary, f.Daemon.ConfigPath, f.path("locks")}, args...)
}

// Run is one run of the script.
type Run struct {
	State      string // primary, backup, fault
	Exit       int
	Begin, End time.Time
}

// Runs lists the finished runs of the script, oldest first.
func (f *Firewall) Runs() ([]Run, error) {
	text, err := os.ReadFile(f.path("runs"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read runs of the script: %w", err)
	}
	var runs []Run
	for _, line := range strings.SplitAfter(string(text), "\n") {
		if !strings.HasSuffix(line, "\n") {
			break // still being written, or the end
		}
		var r Run
		var begin, end int64
		if _, err := fmt.Sscan(line, &r.State, &r.Exit, &begin, &end); err != nil {
			return nil, fmt.Errorf("read runs of the script: line %q: %w", line, err)
		}
		r.Begin, r.End = time.Unix(0, begin), time.Unix(0, end)
		runs = append(runs, r)
	}
	return runs, nil
}

// ranSince finds the last run of the script for a state that began after t.
func (f *Firewall) ranSince(state string, t time.Time) (Run, error) {
	runs, err := f.Runs()
	if err != nil {
		return Run{}, err
	}
	for i := len(runs) - 1; i >= 0; i-- {
		if r := runs[i]; r.State == state && r.Begin.After(t) {
			return r, nil
		}
	}
	return Run{}, fmt.Errorf("firewall %s: the script has not finished %q", f.Name(), state)
}

// Holds counts the virtual addresses the firewall has. The IPv6 ones of an
// interface that is down are on it but do no work; they count.
func (f *Firewall) Holds() (have, of int, err error) {
	err = f.Node.Do(func() error {
		for ifname, prefixes := range virtuals {
			n, err := addressesOn(ifname, prefixes)
			if err != nil {
				return fmt.Errorf("read addresses of %s: %w", f.Name(), err)
			}
			have += n
			of += len(prefixes)
		}
		return nil
	})
	return have, of, err
}

func addressesOn(ifname string, prefixes []netip.Prefix) (int, error) {
	i, err := net.InterfaceByName(ifname)
	if err != nil {
		return 0, err
	}
	addrs, err := i.Addrs()
	if err != nil {
		return 0, err
	}
	present := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			present[p.Addr()] = true
		}
	}
	n := 0
	for _, p := range prefixes {
		if present[p.Addr()] {
			n++
		}
	}
	return n, nil
}

// isMaster is nil if the firewall has all virtual addresses.
func (f *Firewall) isMaster() error {
	have, of, err := f.Holds()
	if err == nil && have != of {
		err = fmt.Errorf("firewall %s has %d of %d virtual addresses", f.Name(), have, of)
	}
	return err
}

// isNotMaster is nil if it has none.
func (f *Firewall) isNotMaster() error {
	have, of, err := f.Holds()
	if err == nil && have != 0 {
		err = fmt.Errorf("firewall %s has %d of %d virtual addresses", f.Name(), have, of)
	}
	return err
}

// Describe tells all about the firewall for a failure message.
func (f *Firewall) Describe() string {
	var b strings.Builder
	have, of, err := f.Holds()
	fmt.Fprintf(&b, "== firewall %s: %d of %d virtual addresses (%v)\n", f.Name(), have, of, err)
	runs, err := f.Runs()
	for _, r := range runs {
		fmt.Fprintf(&b, "script %s: exit %d, %v\n", r.State, r.Exit, r.End.Sub(r.Begin).Round(time.Millisecond))
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	if f.keepalived != nil {
		fmt.Fprintf(&b, "-- keepalived\n%s\n", f.keepalived.Tail(25))
	}
	if f.Daemon != nil {
		fmt.Fprintf(&b, "-- %s\n%s\n", f.Daemon, f.Daemon.Log(25))
	}
	return b.String()
}

// DaemonPIDs are the processes of the firewall that run the daemon's program,
// found by the file they run, wherever it is mounted.
func (f *Firewall) DaemonPIDs() ([]int, error) {
	want, err := os.Stat(f.binary)
	if err != nil {
		return nil, fmt.Errorf("find daemon of %s: %w", f.Name(), err)
	}
	text, err := f.Node.Run("ip", "netns", "pids", f.Node.NetNS)
	if err != nil {
		return nil, fmt.Errorf("find daemon of %s: %w", f.Name(), err)
	}
	var pids []int
	for _, word := range strings.Fields(text) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("find daemon of %s: %w", f.Name(), err)
		}
		// A process may have ended since.
		if is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && os.SameFile(is, want) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// connections counts the rig's TCP connections in the kernel's table.
func (f *Firewall) connections() (int, error) {
	n := 0
	for _, port := range []int{servicePort, publishedPort} {
		text, err := f.Node.Run("conntrack", "-L", "-p", "tcp", "--orig-port-dst", strconv.Itoa(port))
		if err != nil {
			return 0, err
		}
		n += strings.Count(text, "ESTABLISHED")
	}
	return n, nil
}

// cacheSize reads the number of entries of a cache, "internal" or "external",
// from the daemon's statistics.
func (f *Firewall) cacheSize(which string, stats string) (int, error) {
	_, rest, ok := strings.Cut(stats, "cache "+which+":")
	if ok {
		_, rest, ok = strings.Cut(rest, "current active connections:")
	}
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return 0, fmt.Errorf("no %s cache in the statistics of %s", which, f.Daemon)
	}
	return strconv.Atoi(fields[0])
}
