package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// need skips a test that cannot run here; in CI nothing may be skipped.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing", what)
}

// namespace is a network namespace held by one thread. It goes with it.
type namespace struct {
	tid  int
	jobs chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
	_, err := exec.LookPath("ip")
	need(t, err == nil, "the ip command")
	n := &namespace{jobs: make(chan func())}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		n.tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		started <- err
		for job := range n.jobs {
			job()
		}
	}()
	err = <-started
	t.Cleanup(func() { close(n.jobs) })
	need(t, err == nil, fmt.Sprintf("permission to make a network namespace (%v)", err))
	n.ip(t, "link set lo up")
	return n
}

// do runs a function within the namespace and waits for it. It must not end
// the test with Fatal; use Error.
func (n *namespace) do(fn func()) {
	done := make(chan struct{})
	n.jobs <- func() {
		defer close(done)
		fn()
	}
	<-done
}

func (n *namespace) ip(t *testing.T, lines ...string) {
	t.Helper()
	n.do(func() {
		for _, line := range lines {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", line, err, out)
			}
		}
	})
}

// nft loads rules.
func (n *namespace) nft(t *testing.T, rules string) {
	t.Helper()
	_, err := exec.LookPath("nft")
	need(t, err == nil, "the nft command")
	n.do(func() {
		if out, err := exec.Command("nft", rules).CombinedOutput(); err != nil {
			t.Errorf("nft: %v: %s", err, out)
		}
	})
}

// awaitLocal waits until addr takes datagrams: for IPv6 the kernel arranges
// that a while after it has taken the address.
func (n *namespace) awaitLocal(t *testing.T, addr string) {
	t.Helper()
	n.do(func() {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			out, _ := exec.Command("ip", "route", "get", addr).CombinedOutput()
			if strings.HasPrefix(string(out), "local ") {
				return
			}
		}
		t.Errorf("%s is not local", addr)
	})
}

// pair makes two namespaces with a cable in between, sync0 on both sides with
// 10.9.0.1/24 and fd09::1/64 on the first and .2 on the second.
func pair(t *testing.T) (a, b *namespace) {
	t.Helper()
	a, b = newNamespace(t), newNamespace(t)
	plug(t, a, b)
	return a, b
}

// plug lays the cable of pair.
func plug(t *testing.T, a, b *namespace) {
	t.Helper()
	cable(t, a, b, "sync0")
	address(t, a, b)
}

// address gives the ends of the cable their addresses.
func address(t *testing.T, a, b *namespace) {
	t.Helper()
	for i, n := range []*namespace{a, b} {
		n.ip(t, fmt.Sprintf("addr add 10.9.0.%d/24 dev sync0", i+1), fmt.Sprintf("addr add fd09::%d/64 dev sync0 nodad", i+1))
		n.awaitLocal(t, fmt.Sprintf("fd09::%d", i+1))
	}
}

func cable(t *testing.T, a, b *namespace, name string) {
	t.Helper()
	a.ip(t, fmt.Sprintf("link add %s type veth peer name %s netns %d", name, name, b.tid))
	for i, n := range []*namespace{a, b} {
		// Link-local addresses of our own choice, usable at once.
		n.ip(t, "link set "+name+" addrgenmode none", "link set "+name+" up",
			fmt.Sprintf("addr add fe80::%d/64 dev %s nodad", i+1, name))
		n.do(func() {
			for _, dev := range []string{"all", name} {
				os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/rp_filter", []byte("0"), 0)
			}
		})
	}
	for _, n := range []*namespace{a, b} {
		n.awaitRunning(t, name)
	}
}

// awaitRunning waits until the kernel has noticed the carrier: a neighbour that
// is asked before does not answer.
func (n *namespace) awaitRunning(t *testing.T, name string) {
	t.Helper()
	n.do(func() {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if i, err := net.InterfaceByName(name); err == nil && i.Flags&net.FlagRunning != 0 {
				return
			}
		}
		t.Errorf("%s is not running", name)
	})
}

func ends(local, peer string) Config {
	return Config{Transport: UDP, Interface: "sync0", Port: 3780,
		Local: netip.MustParseAddr(local), Peer: netip.MustParseAddr(peer)}
}

func endsTCP(local, peer string) Config {
	cfg := ends(local, peer)
	cfg.Transport, cfg.ErrorQueue = TCP, 4
	return cfg
}

// connect works on both ends until both connections are made.
func connect(t *testing.T, a, b Link) (got []string) {
	t.Helper()
	return work(t, "both connections", []Link{a, b}, func() bool {
		server, client := a.(*tcp).Connected()
		server2, client2 := b.(*tcp).Connected()
		return server && client && server2 && client2
	})
}

// within is a link that does its work in a namespace, as new sockets belong
// to that of the caller.
type within struct {
	Link
	ns *namespace
}

func (w within) Recv(b *Batch) (n int, err error) {
	w.ns.do(func() { n, err = w.Link.Recv(b) })
	return n, err
}

// work lets links do what they wait for, until done.
func work(t *testing.T, what string, links []Link, done func() bool) (got []string) {
	t.Helper()
	b := NewBatch(32, 2048)
	p := make([]unix.PollFd, len(links))
	for end := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatalf("wait for %s: in vain, %q", what, got)
		}
		for i, l := range links {
			p[i] = unix.PollFd{Fd: int32(l.FD()), Events: unix.POLLIN}
		}
		_, _ = unix.Poll(p, 20)
		for _, l := range links {
			n, err := l.Recv(b)
			if err != nil {
				t.Fatalf("wait for %s: %v", what, err)
			}
			for i := range n {
				got = append(got, textsOf(t, b.Datagram(i))...)
			}
		}
	}
	return got
}

// group is a link to a group on sync0; iface may be empty.
func group(addr, iface string) Config {
	cfg := Config{Transport: Multicast, Interface: "sync0", Port: 3780, Local: netip.MustParseAddr(addr)}
	if iface != "" {
		cfg.MulticastInterface = netip.MustParseAddr(iface)
	}
	return cfg
}

func (n *namespace) open(t *testing.T, cfg Config) Link {
	t.Helper()
	var l Link
	var err error
	n.do(func() { l, err = Open(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// received is the text of datagrams, in order, until want of them are there.
func (n *namespace) receive(t *testing.T, l Link, want int) (got []string, from []netip.Addr) {
	t.Helper()
	n.do(func() { got, from = receive(t, l, want) })
	if len(got) < want {
		t.Fatalf("received only %d of %d: %+v", len(got), want, l.Stats())
	}
	return got, from
}

// receiveUntil passes over what comes before last.
func (n *namespace) receiveUntil(t *testing.T, l Link, last string) {
	t.Helper()
	for got := ""; got != last; {
		texts, _ := n.receive(t, l, 1)
		got = texts[len(texts)-1]
	}
}

// readable waits for something to read.
func readable(t *testing.T, l Link, limit time.Duration) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(limit); ; {
		n, err := unix.Poll(p, int(max(time.Until(deadline), 0).Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

func await(t *testing.T, l Link) {
	t.Helper()
	if !readable(t, l, 10*time.Second) {
		t.Errorf("nothing came in ten seconds: %+v", l.Stats())
	}
}

func receive(t *testing.T, l Link, want int) (got []string, from []netip.Addr) {
	b := NewBatch(32, 2048)
	for len(got) < want && !t.Failed() {
		await(t, l)
		n, err := l.Recv(b)
		if err != nil {
			t.Errorf("after %d of %d: %v", len(got), want, err)
			return got, from
		}
		if n != b.Len() {
			t.Errorf("Recv says %d, the batch %d", n, b.Len())
		}
		for i := range n {
			got, from = append(got, string(b.Datagram(i))), append(from, b.From(i))
		}
	}
	return got, from
}

func send(t *testing.T, l Link, texts ...string) {
	t.Helper()
	batch := make([][]byte, len(texts))
	for i, s := range texts {
		batch[i] = []byte(s)
	}
	if n, err := l.Send(batch); n != len(batch) || err != nil {
		t.Errorf("sent %d of %d: %v", n, len(batch), err)
	}
}
