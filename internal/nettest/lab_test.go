package nettest

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	code := m.Run()
	RemoveGoBinary()
	os.Exit(code)
}

func TestNodesAreSeparateAndConnected(t *testing.T) {
	lab := Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{SyncB.String(), SyncB6.String()} {
		var l net.Listener
		err := two.B.Do(func() (err error) {
			l, err = net.Listen("tcp", net.JoinHostPort(addr, "9"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		err = two.A.Do(func() error {
			c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("a does not reach b at %s: %v", addr, err)
		}
	}
}

func TestDoComesHomeAfterGoexit(t *testing.T) {
	lab := Get(t)
	n, err := lab.NewNode("x")
	if err != nil {
		t.Fatal(err)
	}
	netns := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := netns()
	func() {
		defer func() { _ = recover() }()
		_ = n.Do(func() error {
			if netns() == before {
				t.Error("Do did not enter the namespace")
			}
			panic("leave in a hurry")
		})
	}()
	if after := netns(); after != before {
		t.Fatalf("thread is in %s, was in %s", after, before)
	}
}

func TestPairCarriesPacketsThroughTheHolder(t *testing.T) {
	lab := Get(t)
	p, err := lab.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	for _, fw := range []*Node{p.A, p.B, p.A} {
		if err := p.MoveVIPs(fw); err != nil {
			t.Fatal(err)
		}
		for _, dst := range []string{Server.String(), Server6.String()} {
			if _, err := p.Client.Run("ping", "-c1", "-W3", dst); err != nil {
				t.Errorf("through %s: %v", fw.Name, err)
			}
		}
	}
	if err := p.DropVIPs(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Client.Run("ping", "-c1", "-W1", Server.String()); err == nil {
		t.Error("packets flow although nobody holds the virtual addresses")
	}
}

func TestLoseDropsAndCounts(t *testing.T) {
	lab := Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	if err := two.B.Lose(50); err != nil {
		t.Fatal(err)
	}
	err = two.A.Do(func() error {
		c, err := net.Dial("udp", net.JoinHostPort(SyncB.String(), "3780"))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		for range 1000 {
			_, _ = c.Write([]byte("x")) // refused ones come back as errors
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen, lost, err := two.B.LossCount()
	if err != nil {
		t.Fatal(err)
	}
	if seen < 400 || lost < seen*35/100 || lost > seen*65/100 {
		t.Errorf("of %d datagrams %d were dropped, want about half", seen, lost)
	}
	if err := two.B.StopLosing(); err != nil {
		t.Fatal(err)
	}
	if out, err := two.B.Run("nft", "list", "ruleset"); err != nil || out != "" {
		t.Errorf("rules are left: %q, %v", out, err)
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	if err := Available(); err != nil {
		SkipUnlessCI(t, "no lab: %v", err)
	}
	lab, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := lab.NewNode("x")
	if err != nil {
		t.Fatal(err)
	}
	p, err := n.Start(nil, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("a process survived")
	}
	for _, path := range []string{filepath.Join(netnsDir, n.NetNS), lab.Dir()} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if err := lab.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestSweepOnlyTakesTheDead makes one namespace in the name of a process that
// has ended, with a process of its own in it, and one in ours.
func TestSweepOnlyTakesTheDead(t *testing.T) {
	lab := Get(t)
	ours, err := lab.NewNode("ours")
	if err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := DefaultPrefix + "-" + strconv.Itoa(dead.ProcessState.Pid()) + "-1-left"
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if _, err := runHost(ctx, "ip", "netns", "add", left); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeNetNS(left) })
	orphan := exec.Command("ip", "netns", "exec", left, "sleep", "1000")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = orphan.Process.Kill() })
	err = Eventually(ctx, 5*time.Second, "the orphan", func() error {
		pids, err := runHost(ctx, "ip", "netns", "pids", left)
		if err == nil && strings.TrimSpace(pids) == "" {
			err = errors.New("not in its namespace yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Sweep(DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(netnsDir, left)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead run's namespace is still there: %v", err)
	}
	if err := orphan.Wait(); err == nil {
		t.Error("the orphan ended by itself")
	}
	if _, err := os.Stat(filepath.Join(netnsDir, ours.NetNS)); err != nil {
		t.Errorf("our own namespace was swept: %v", err)
	}
}

func TestIsLeftover(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for name, want := range map[string]bool{
		"cgo-" + self + "-1-a": false,
		"cgo-999999999-1-a":    true,
		"cgo-999999999":        false,
		"cgo-x-1-a":            false,
		"other-999999999-1-a":  false,
		"cgox-999999999-1-a":   false,
	} {
		if got := isLeftover("cgo", name); got != want {
			t.Errorf("isLeftover(%q) = %v", name, got)
		}
	}
}

func TestRunReportsFailures(t *testing.T) {
	lab := Get(t)
	n, err := lab.NewNode("x")
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.Run("sh", "-c", "echo out; echo err >&2; exit 3")
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 {
		t.Fatalf("error is %v", err)
	}
	if out != "out\n" || !strings.Contains(exit.Output, "err") {
		t.Errorf("output %q, in the error %q", out, exit.Output)
	}
	if _, err := n.Run("/nonexistent"); err == nil {
		t.Error("no error for a missing program")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := n.RunContext(ctx, "", "sleep", "100"); err == nil || time.Since(start) > 10*time.Second {
		t.Errorf("deadline ignored: %v after %v", err, time.Since(start))
	}
}

func TestCDaemonLife(t *testing.T) {
	lab := Get(t)
	two, err := lab.NewTwoNodes()
	if err != nil {
		t.Fatal(err)
	}
	cfg, _ := SyncConfigs(false)
	d, err := lab.NewDaemon(two.A, C, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx); err == nil {
		t.Error("started twice")
	}
	out, err := d.Client(ctx, "-s")
	if err != nil || !strings.Contains(out, "cache internal:") {
		t.Errorf("-s: %q, %v", out, err)
	}
	d.Kill9()
	if d.Running() {
		t.Error("still running after kill -9")
	}
	err = d.Start(ctx)
	if err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("started over a stale lock, or without its message: %v", err)
	}
	if err := d.RemoveLock(); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Config.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after an orderly end: %v", err)
	}
}

// pings fails unless an address on the sync link answers a node.
func pings(n *Node, to string) error {
	_, err := n.Run("ping", "-n", "-c", "1", "-W", "1", "-I", SyncIf, to)
	return err
}

func TestSegment(t *testing.T) {
	lab := Get(t)
	s, err := lab.NewSegment(3)
	if err != nil {
		t.Fatal(err)
	}
	reach := func(i, j int) error {
		return errors.Join(pings(s.Nodes[i], SyncAddr(j, false).String()), pings(s.Nodes[i], SyncAddr(j, true).String()))
	}
	for i := range s.Nodes {
		for j := range s.Nodes {
			// A port forwards as soon as the kernel has noticed its carrier.
			if err := Eventually(t.Context(), 20*time.Second, "the way", func() error { return reach(i, j) }); err != nil {
				t.Errorf("%d does not reach %d: %v", i, j, err)
			}
		}
	}
	for name, cut := range map[string]func(*Node, bool) error{"carrier": s.SetCarrier, "joined": s.SetJoined} {
		if err := cut(s.Nodes[2], false); err != nil {
			t.Fatal(err)
		}
		err := Eventually(t.Context(), 20*time.Second, "the node to notice, or not", func() error {
			state, err := s.Nodes[2].Run("ip", "link", "show", "dev", SyncIf)
			if err == nil && strings.Contains(state, "NO-CARRIER") != (name == "carrier") {
				err = errors.New(state)
			}
			return err
		})
		if pings(s.Nodes[0], SyncAddr(2, true).String()) == nil || pings(s.Nodes[2], SyncAddr(1, false).String()) == nil || err != nil {
			t.Errorf("%s: the third node can be reached, or %v", name, err)
		}
		if err := reach(0, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := cut(s.Nodes[2], true); err != nil {
			t.Fatal(err)
		}
		if err := Eventually(t.Context(), 20*time.Second, "the third node", func() error { return reach(2, 0) }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSegmentConfigs(t *testing.T) {
	s := &Segment{Nodes: make([]*Node, 3)}
	c := s.Configs("UDP", true, true)[1]
	if want := []string{"Group on", "Peers { IPv6_address fd00:100::3 }"}; c.Local.String() != "fd00:100::2" ||
		c.Peer.String() != "fd00:100::1" || !slices.Equal(c.Ours, want) {
		t.Errorf("node b is told %v, %v, %q", c.Local, c.Peer, c.Ours)
	}
	for name, c := range map[string]Config{"multicast": s.Configs("Multicast", false, true)[0], "two": (&Segment{Nodes: s.Nodes[:2]}).Configs("UDP", false, true)[0]} {
		if !slices.Equal(c.Ours, []string{"Group on"}) {
			t.Errorf("%s: node a is told %q", name, c.Ours)
		}
	}
	if c := s.Configs("Multicast", false, false)[0]; c.Ours != nil {
		t.Errorf("a C daemon is told %q", c.Ours)
	}
}

func TestClusterCarriesPacketsThroughTheHolder(t *testing.T) {
	lab := Get(t)
	c, err := lab.NewCluster(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, fw := range c.Nodes {
		if err := c.MoveVIPs(fw); err != nil {
			t.Fatal(err)
		}
		for _, dst := range []string{Server.String(), Server6.String()} {
			if _, err := c.Client.Run("ping", "-c1", "-W3", dst); err != nil {
				t.Errorf("through %s: %v", fw.Name, err)
			}
		}
	}
}
