package failover_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// readyConf is a keepalived that tracks the ready file: router, file, priority.
const readyConf = `global_defs {
	router_id %[1]s
	vrrp_version 3
	script_user root
}
track_file ready {
	file "%[2]s"
	weight -20
	init_file 1
}
vrrp_instance V {
	state BACKUP
	interface sy0
	virtual_router_id 40
	priority %[3]d
	advert_int 0.2
	track_file {
		ready
	}
	virtual_ipaddress {
		10.99.0.100/24
	}
}
`

// readyNode is a node with a daemon and a keepalived that asks whether it is
// ready.
type readyNode struct {
	t      *testing.T
	node   *nettest.Node
	daemon *nettest.Daemon
	file   string
}

func newReadyNode(t *testing.T, lab *nettest.Lab, n *nettest.Node, cfg nettest.Config, priority int) *readyNode {
	t.Helper()
	path := func(name string) string { return filepath.Join(lab.Dir(), n.Name+"-"+name) }
	r := &readyNode{t: t, node: n, file: path("ready")}
	cfg.Extra = "Conntrackgo {\n\tReadyFile " + r.file + "\n}\n"
	var err error
	if r.daemon, err = lab.NewDaemon(n, nettest.Go, cfg); err != nil {
		t.Fatal(err)
	}
	conf := path("ready.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, readyConf, n.Name, r.file, priority), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := n.Start(nil, "keepalived", "--dont-fork", "--vrrp", "--log-console", "--log-detail",
		"--use-file", conf, "--pid", path("k.pid"), "--vrrp_pid", path("v.pid"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("keepalived of %s:\n%s", n.Name, k.Tail(20))
		}
		_ = k.Stop(10 * time.Second)
	})
	return r
}

// says is what the file says.
func (r *readyNode) says() string {
	text, _ := os.ReadFile(r.file)
	return strings.TrimSpace(string(text))
}

// is waits until the node is master or backup, with a file that says ready or
// not.
func (r *readyNode) is(state, ready string) {
	r.t.Helper()
	err := nettest.Eventually(r.t.Context(), 30*time.Second, r.node.Name+" to be "+state, func() error {
		addresses, err := r.node.Run("ip", "-o", "addr", "show", "dev", nettest.SyncIf)
		if err != nil {
			return err
		}
		is := "backup"
		if strings.Contains(addresses, "10.99.0.100/24") {
			is = "master"
		}
		if got := r.says(); is != state || got != ready {
			return fmt.Errorf("it is %s, and its file says %q, want %s and %q", is, got, state, ready)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *readyNode) start() {
	r.t.Helper()
	if err := r.daemon.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// TestOnlyReadyNodesTakeOver lets a real keepalived track the ready file. The
// first node has the higher priority, but only if it has the other's table.
func TestOnlyReadyNodesTakeOver(t *testing.T) {
	if _, err := exec.LookPath("keepalived"); err != nil {
		nettest.SkipUnlessCI(t, "no keepalived: %v", err)
	}
	nettest.Need(t, nettest.Go)
	lab := nettest.Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	cfgA, cfgB := nettest.SyncConfigs(false)
	a := newReadyNode(t, lab, two.A, cfgA, 150)
	b := newReadyNode(t, lab, two.B, cfgB, 149)
	a.is("master", "1") // of two that are not ready
	b.start()
	err = nettest.Throughout(t.Context(), 2*time.Second, func() error {
		if got := b.says(); got != "1" {
			return fmt.Errorf("alone, the file says %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.start()
	a.is("master", "0")
	b.is("backup", "0")
	if err := a.daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	b.is("master", "0")
	a.is("backup", "1")
	a.start()
	a.is("master", "0")
	b.is("backup", "0")
}
