package grouptest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// rules is the ruleset of all firewalls: default drop, connections begin in the
// LAN and are translated, to port 8000 of the virtual address with DNAT too.
// Sync traffic is not tracked.
const rules = `
flush ruleset
table inet fw {
	chain raw_in {
		type filter hook prerouting priority raw; policy accept;
		iifname "sy0" notrack
	}
	chain raw_out {
		type filter hook output priority raw; policy accept;
		oifname "sy0" notrack
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "lo", "sy0" } accept
		ct state invalid drop
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" ct state new accept
	}
	chain dstnat {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 10.1.0.1 meta l4proto { tcp, udp } th dport 8000 dnat ip to 10.2.0.2:7000
		ip6 daddr fd01::1 meta l4proto { tcp, udp } th dport 8000 dnat ip6 to [fd02::2]:7000
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" meta nfproto ipv4 snat ip to 10.2.0.1
		oifname "wan" meta nfproto ipv6 snat ip6 to fd02::1
	}
}`

// site is a group of firewalls between a client and a server.
type site struct {
	*rig
	*nettest.Cluster
	conns []*nettest.Conn
}

// newSite makes firewalls with the rules loaded, and the virtual addresses on
// the first. The server echoes.
func newSite(t *testing.T, s setup) *site {
	t.Helper()
	nettest.Need(t, s.kinds...)
	r := &rig{T: t, lab: nettest.Get(t)}
	c, err := r.lab.NewCluster(len(s.kinds))
	r.ok(err)
	r.segment = &c.Segment
	r.addMembers(s, c.Configs(s.over.name, s.over.v6, !s.pairs))
	for _, fw := range c.Nodes {
		r.ok(fw.NFT(rules))
		r.ok(fw.Sysctls([]string{"net.ipv6.conf.all.keep_addr_on_down=1"}))
	}
	r.ok(c.Server.ServeEcho(7000))
	r.ok(c.MoveVIPs(c.Nodes[0]))
	return &site{rig: r, Cluster: c}
}

// connect opens connections and flows of every kind of rules, n of each, and
// tries them.
func (s *site) connect(n int) {
	s.Helper()
	for range n {
		for _, network := range []string{"tcp", "udp"} {
			for _, to := range []struct {
				addr netip.Addr
				port string
			}{{nettest.Server, "7000"}, {nettest.Server6, "7000"}, {nettest.LanVIP, "8000"}, {nettest.LanVIP6, "8000"}} {
				c, err := s.Client.Dial(network, net.JoinHostPort(to.addr.String(), to.port), convergence)
				s.ok(err)
				s.conns = append(s.conns, c)
			}
		}
	}
	s.alive("at first")
}

// alive fails unless every connection carries data.
func (s *site) alive(when string) {
	s.Helper()
	for _, c := range s.conns {
		if err := c.RoundTrip(convergence); err != nil {
			s.Errorf("%s: %v", when, err)
		}
	}
}

// known waits until the other firewalls know every connection from the active
// one.
func (s *site) known(active *member, others ...*member) {
	s.Helper()
	for _, o := range others {
		s.eventually(fmt.Sprintf("%s to know the connections of %s", o, active), func() error {
			internal, err := active.Internal(s.Context())
			if err != nil {
				return err
			}
			if len(internal) < len(s.conns) {
				return fmt.Errorf("%d connections on %s", len(internal), active)
			}
			external, err := o.ExternalByNode(s.Context())
			if err != nil {
				return err
			}
			return nettest.DiffCaches(internal, external[active.addr]).Err()
		})
	}
}

// dies is a power cut: the firewall sends nothing any more, and its daemon and
// its table are gone.
func (s *site) dies(m *member) {
	s.Helper()
	for _, ifname := range []string{nettest.LanIf, nettest.WanIf, nettest.SyncIf} {
		s.ok(m.Node.IP("link set " + ifname + " down"))
	}
	m.Kill9()
	s.ok(m.Node.FlushKernel())
}

// primary runs our script on a firewall that has become the active one.
func (s *site) primary(m *member) {
	s.Helper()
	script, err := filepath.Abs("../../../contrib/primary-backup.sh")
	s.ok(err)
	binary, err := m.Kind.Binary()
	s.ok(err)
	_, err = m.Node.Run("env", "CONNTRACKD_BIN="+binary, "CONNTRACKD_CONFIG="+m.ConfigPath, script, "primary")
	s.ok(err)
}

// TestFailover has connections through A of three. A dies and C takes over,
// which was nobody's neighbour more than B was; then C dies, and B takes over
// what C has had from A. Every connection lives on. What ended on C stays
// ended, although A, long dead, has told B of it.
func TestFailover(t *testing.T) {
	needScript(t)
	for _, over := range []transport{multicast4, udp6} {
		t.Run(over.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, setup{over: over, kinds: ours(3)})
			a, b, c := s.members[0], s.members[1], s.members[2]
			s.start(s.members...)
			s.connect(5)
			s.known(a, b, c)

			s.dies(a)
			s.primary(c)
			s.ok(s.MoveVIPs(c.Node))
			s.alive("on C")
			s.known(c, b)
			s.eventually("the end of waiting for A", func() error { return s.isAway([]*member{b, c}, a) })
			ended := s.finish(c, 8)
			s.known(c, b)

			s.dies(c)
			s.primary(b)
			s.ok(s.MoveVIPs(b.Node))
			s.alive("on B, from C")
			kernel, err := b.Node.Kernel()
			s.ok(err)
			for key := range ended {
				if kernel[key] != nil {
					t.Errorf("%v ended on C and lives on B", key)
				}
			}
		})
	}
}

func needScript(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"flock", "logger"} {
		if _, err := exec.LookPath(tool); err != nil {
			nettest.SkipUnlessCI(t, "no script: %v", err)
		}
	}
}

// finish closes the first n connections, whose entries end on the active
// firewall, and returns what they were.
func (s *site) finish(active *member, n int) nettest.Table {
	s.Helper()
	kernel, err := active.Node.Kernel()
	s.ok(err)
	ended := nettest.Table{}
	for _, c := range s.conns[:n] {
		from, err := netip.ParseAddrPort(c.LocalAddr().String())
		s.ok(err)
		to, err := netip.ParseAddrPort(c.RemoteAddr().String())
		s.ok(err)
		s.ok(c.Close())
		// A connection to elsewhere may have the same port.
		tuple := nettest.Tuple{Src: from.Addr(), Dst: to.Addr(), Sport: from.Port(), Dport: to.Port()}
		for key, e := range kernel {
			if key.Tuple == tuple && c.Network == map[uint8]string{6: "tcp", 17: "udp"}[key.Proto] {
				ended[key] = e
			}
		}
	}
	if len(ended) != n {
		s.Fatalf("%d entries of %d connections on %s", len(ended), n, active)
	}
	for key := range ended {
		_, err := active.Node.Run("conntrack", "-D", "-p", fmt.Sprint(key.Proto), "-s", key.Src.String(), "-d", key.Dst.String(),
			"--orig-port-src", fmt.Sprint(key.Sport), "--orig-port-dst", fmt.Sprint(key.Dport))
		s.ok(err)
	}
	s.conns = s.conns[n:]
	return ended
}

// TestFailoverControl is the same without daemons: no TCP connection lives on
// C.
func TestFailoverControl(t *testing.T) {
	t.Parallel()
	s := newSite(t, setup{over: multicast4, kinds: ours(3)})
	s.connect(1)
	s.dies(s.members[0])
	s.ok(s.MoveVIPs(s.Nodes[2]))
	for _, c := range s.conns {
		if c.Network != "tcp" {
			continue
		}
		if err := c.RoundTrip(time.Second); err == nil {
			t.Errorf("%v lives on without a daemon: the test shows nothing", c)
		}
	}
}

// TestCommitOfOne: "-c ADDRESS" commits what one peer has told, and nothing
// else.
func TestCommitOfOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{over: multicast6, kinds: ours(3)})
	a, b, c := r.members[0], r.members[1], r.members[2]
	r.start(r.members...)
	r.ok(a.begin(160))
	r.ok(b.begin(80))
	r.eventually("C to know all", func() error { return r.knows(c, a, b) })

	for _, wrong := range []string{"fd00:100::9", c.addr.String(), "192.168.100.1", "nobody"} {
		if out, err := c.Client(r.Context(), "-c", wrong); err == nil || !strings.Contains(out+err.Error(), wrong) {
			t.Errorf("-c %s says %q, %v", wrong, out, err)
		}
	}
	if n, err := c.Node.Count(); err != nil || n != 0 {
		t.Errorf("nothing was to be committed, and the kernel has %d entries, %v", n, err)
	}
	r.request(c, "-c", b.addr.String())
	r.committed("the flows of B", c, b)
	r.request(c, "-c", a.addr.String())
	r.committed("the flows of A too", c, a, b)

	r.ok(c.Node.FlushKernel())
	r.request(c, "-c")
	r.committed("all flows at once", c, a, b)
}

// knows fails unless a node has the flows of the others' kernels.
func (r *rig) knows(m *member, others ...*member) error {
	external, err := m.ExternalByNode(r.Context())
	if err != nil {
		return err
	}
	for _, o := range others {
		internal, err := o.inStep(r.Context())
		if err != nil {
			return err
		}
		if err := nettest.DiffCaches(internal, external[o.addr]).Err(); err != nil {
			return fmt.Errorf("flows of %s at %s: %w", o, m, err)
		}
	}
	return nil
}

// committed fails unless a node's kernel has exactly the entries of others.
func (r *rig) committed(what string, m *member, others ...*member) {
	r.Helper()
	all := nettest.Table{}
	for _, o := range others {
		table, err := o.Node.Kernel()
		r.ok(err)
		for key, e := range table {
			all[key] = e
		}
	}
	kernel, err := m.Node.Kernel()
	r.ok(err)
	if err := (nettest.KernelDiff{Tolerance: 15, Committer: nettest.Go}).Tables(all, kernel).Err(); err != nil {
		r.Errorf("%s: %v", what, err)
	}
}

// TestCommitTakesTheLatest: of a flow that several peers tell of, what was told
// last is committed, whoever told it.
func TestCommitTakesTheLatest(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{over: udp4, kinds: ours(3)})
	a, b, c := r.members[0], r.members[1], r.members[2]
	a.first, a.next, b.first, b.next = 0, 0, 0, 0 // the same flows
	r.start(r.members...)
	r.ok(a.begin(100))
	r.ok(b.begin(100))
	// What is told at the start is over: it would be the latest news.
	r.eventually("all to be in step", func() error { return errors.Join(r.knows(c, a, b), r.healthy(r.members)) })
	tellApart(r.Context())
	for turn, last := range []*member{a, b, b, a} {
		last.changes = uint32(10 + turn)
		tellApart(r.Context())
		r.ok(last.change(100))
		r.eventually("C to know all", func() error { return r.knows(c, a, b) })
		r.request(c, "-c")
		kernel, err := c.Node.Kernel()
		r.ok(err)
		if len(kernel) != 100 {
			t.Fatalf("%d entries were committed", len(kernel))
		}
		for key, e := range kernel {
			if e.Mark>>20 != last.changes {
				t.Fatalf("%v was committed with mark %#x, the last was %#x by %s", key, e.Mark, last.changes<<20, last)
			}
		}
	}
}

// tellApart waits until what is told now is later than what was told before:
// times are kept in seconds.
func tellApart(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(1100 * time.Millisecond):
	}
}
