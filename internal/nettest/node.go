package nettest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// commandTimeout bounds every command the lab runs by itself.
const commandTimeout = 30 * time.Second

// Node is one network namespace of a lab.
type Node struct {
	Name  string // short name in the lab: "a", "client"
	NetNS string // name for "ip netns exec"
	lab   *Lab
	ns    *os.File
}

// NewNode makes a namespace with loopback up and the conntrack settings named
// in the package comment.
func (l *Lab) NewNode(name string) (*Node, error) {
	n := &Node{Name: name, NetNS: l.base + "-" + name, lab: l}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if _, err := runHost(ctx, "ip", "netns", "add", n.NetNS); err != nil {
		return nil, fmt.Errorf("make node %s: %w", name, err)
	}
	ns, err := os.Open(filepath.Join(netnsDir, n.NetNS))
	if err != nil {
		_ = removeNetNS(n.NetNS)
		return nil, fmt.Errorf("make node %s: %w", name, err)
	}
	n.ns = ns
	l.mu.Lock()
	l.nodes = append(l.nodes, n)
	l.mu.Unlock()
	if err := n.IP("link set lo up"); err != nil {
		return nil, err
	}
	return n, n.Sysctls(nodeSysctls)
}

var nodeSysctls = []string{
	"net.ipv6.conf.all.accept_dad=0",
	"net.ipv6.conf.default.accept_dad=0",
	"net.ipv6.conf.default.accept_ra=0",
	"net.ipv6.conf.default.addr_gen_mode=0",
	"net.ipv4.conf.all.rp_filter=0",
	"net.ipv4.conf.default.rp_filter=0",
	"net.netfilter.nf_conntrack_events=1",
	"net.netfilter.nf_conntrack_tcp_loose=0",
	"net.netfilter.nf_conntrack_acct=0",
	"net.netfilter.nf_conntrack_timestamp=0",
}

// remove closes the handle and deletes the namespace.
func (n *Node) remove() error {
	_ = n.ns.Close()
	return removeNetNS(n.NetNS)
}

// FD is a descriptor of the namespace for libraries that enter it themselves
// (netlink.Config.NetNS). It stays the node's.
func (n *Node) FD() int { return int(n.ns.Fd()) }

// Do runs f on an operating-system thread inside the namespace. Sockets f
// opens and commands it starts belong to the namespace for good; goroutines f
// starts do not run inside it.
func (n *Node) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter node %s: %w", n.Name, err)
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter node %s: %w", n.Name, err)
	}
	defer func() {
		// A thread that can't get home must never run anything else.
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("leave node %s: %v", n.Name, err))
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// IP runs ip(8) commands, one a line or an argument, in one batch.
func (n *Node) IP(commands ...string) error {
	text := strings.Join(commands, "\n") + "\n"
	_, err := n.RunInput(text, "ip", "-batch", "-")
	return err
}

// NFT loads an nft ruleset; it adds to what is there unless the text says
// "flush ruleset".
func (n *Node) NFT(ruleset string) error {
	_, err := n.RunInput(ruleset, "nft", "-f", "-")
	return err
}

// Sysctls sets "name=value" pairs; names use dots.
func (n *Node) Sysctls(settings []string) error {
	return n.Do(func() error {
		for _, s := range settings {
			name, value, ok := strings.Cut(s, "=")
			if !ok {
				return fmt.Errorf("set sysctl on %s: no '=' in %q", n.Name, s)
			}
			path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("set sysctl on %s: %w", n.Name, err)
			}
		}
		return nil
	})
}

// Connect joins two nodes with a veth pair. Both ends are up when it returns.
func (l *Lab) Connect(a *Node, ifA string, b *Node, ifB string) error {
	err := a.IP(fmt.Sprintf("link add %s type veth peer name %s netns %s", ifA, ifB, b.NetNS), "link set "+ifA+" up")
	if err != nil {
		return err
	}
	return b.IP("link set " + ifB + " up")
}

// AddAddr gives an interface addresses in prefix notation, IPv6 ones without
// duplicate address detection so that they work at once.
func (n *Node) AddAddr(ifname string, prefixes ...string) error {
	cmds := make([]string, len(prefixes))
	for i, p := range prefixes {
		cmds[i] = addrCommand("add", p, ifname)
	}
	return n.IP(cmds...)
}

// DelAddr takes addresses from an interface.
func (n *Node) DelAddr(ifname string, prefixes ...string) error {
	cmds := make([]string, len(prefixes))
	for i, p := range prefixes {
		cmds[i] = "addr del " + p + " dev " + ifname
	}
	return n.IP(cmds...)
}

func addrCommand(verb, prefix, ifname string) string {
	cmd := "addr " + verb + " " + prefix + " dev " + ifname
	if strings.Contains(prefix, ":") {
		cmd += " nodad"
	}
	return cmd
}
