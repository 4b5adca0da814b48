package failover

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// advertInterval is how often a master says that it is alive; three missed
// make a failover. Small, so that the stall is mostly the daemon's.
const advertInterval = 200 * time.Millisecond

// virtuals are the virtual addresses of a firewall's interface. An IPv6
// instance must have a link-local one, and it must come first.
var virtuals = map[string][]netip.Prefix{
	nettest.LanIf: {netip.PrefixFrom(nettest.LanVIP, 24), netip.MustParsePrefix("fe80::1:1/64"), netip.PrefixFrom(nettest.LanVIP6, 64)},
	nettest.WanIf: {netip.PrefixFrom(nettest.WanVIP, 24), netip.MustParsePrefix("fe80::2:1/64"), netip.PrefixFrom(nettest.WanVIP6, 64)},
}

// instance is one VRRP instance of the configuration.
type instance struct {
	Name, Interface string
	ID              int
	V6              bool
	Addresses       []netip.Prefix
}

func instances() []instance {
	var list []instance
	for i, ifname := range []string{nettest.LanIf, nettest.WanIf} {
		v := virtuals[ifname]
		list = append(list,
			instance{strings.ToUpper(ifname) + "4", ifname, 10*i + 14, false, v[:1]},
			instance{strings.ToUpper(ifname) + "6", ifname, 10*i + 16, true, v[1:]})
	}
	return list
}

// Nobody preempts: a repaired firewall stays backup until the other fails.
var keepalivedConf = template.Must(template.New("").Parse(`global_defs {
	router_id {{.Router}}
	vrrp_version 3
	script_user root
}
vrrp_sync_group FIREWALL {
	group {
{{- range .Instances}}
		{{.Name}}
{{- end}}
	}
	track_interface {
		lan
		wan
	}
	notify_master "{{.Script}} primary"
	notify_backup "{{.Script}} backup"
	notify_fault "{{.Script}} fault"
}
{{- range .Instances}}
vrrp_instance {{.Name}} {
	state BACKUP
	nopreempt
	interface {{.Interface}}
	virtual_router_id {{.ID}}
	priority {{$.Priority}}
	advert_int {{$.Interval}}
{{- if .V6}}
	native_ipv6
{{- end}}
	virtual_ipaddress {
{{- range .Addresses}}
		{{.}}
{{- end}}
	}
}
{{- end}}
`))

// writeKeepalived writes the configuration that calls script.
func (f *Firewall) writeKeepalived(script string, priority int) error {
	var b strings.Builder
	err := keepalivedConf.Execute(&b, map[string]any{
		"Router": f.Name(), "Instances": instances(), "Script": script, "Priority": priority,
		"Interval": strconv.FormatFloat(advertInterval.Seconds(), 'g', -1, 64),
	})
	if err != nil {
		return fmt.Errorf("write keepalived configuration: %w", err)
	}
	if err := os.WriteFile(f.path("keepalived.conf"), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write keepalived configuration: %w", err)
	}
	return nil
}

// startKeepalived starts it in the foreground, in the script's surroundings.
func (f *Firewall) startKeepalived() error {
	for _, name := range []string{"keepalived.pid", "vrrp.pid"} {
		os.Remove(f.path(name)) // of a crashed run
	}
	args := []string{"keepalived", "--dont-fork", "--vrrp", "--log-console", "--log-detail",
		"--use-file", f.path("keepalived.conf"), "--pid", f.path("keepalived.pid"), "--vrrp_pid", f.path("vrrp.pid")}
	env, command := f.surround(args)
	p, err := f.Node.Start(env, command[0], command[1:]...)
	if err != nil {
		return err
	}
	f.keepalived = p
	return nil
}

// stopKeepalived ends it as an administrator would: it gives the addresses
// back and tells the peers. It takes a second; restartKeepalived waits for it.
func (f *Firewall) stopKeepalived() error { return f.keepalived.Signal(syscall.SIGTERM) }

func (f *Firewall) restartKeepalived() error {
	if err := f.keepalived.Stop(10 * time.Second); err != nil {
		return err
	}
	return f.startKeepalived()
}

// crashKeepalived ends it without a chance to do anything. Its addresses stay
// on the interfaces. The child is frozen first, because it would end orderly
// when its parent dies.
func (f *Firewall) crashKeepalived() error {
	children, err := ownChildren(f.keepalived.PID())
	if err != nil {
		return fmt.Errorf("crash keepalived: %w", err)
	}
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range children {
			if err := syscall.Kill(pid, s); err != nil {
				return fmt.Errorf("crash keepalived: %w", err)
			}
		}
		if s == syscall.SIGSTOP {
			f.keepalived.Kill9()
		}
	}
	return nil
}

// ownChildren are the processes a process has started that run its own program.
// keepalived is also the reaper of all that its scripts leave behind, which is
// the daemon, and nobody's crash.
func ownChildren(pid int) ([]int, error) {
	own, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return nil, err
	}
	children, err := childrenOf(pid)
	if err != nil {
		return nil, err
	}
	children = slices.DeleteFunc(children, func(child int) bool {
		is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", child))
		return err != nil || !os.SameFile(is, own)
	})
	if len(children) == 0 {
		return nil, fmt.Errorf("process %d has no children of its program", pid)
	}
	return children, nil
}

// childrenOf lists the processes a process has started.
func childrenOf(pid int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			pids = append(pids, n)
		}
	}
	return pids, nil
}
