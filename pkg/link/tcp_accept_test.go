package link

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// useUp leaves this process no descriptor until the function returned is called.
func useUp(t *testing.T) (giveBack func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	first, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = uint64(first) + 16
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	all := []int{first}
	giveBack = func() {
		for _, fd := range all {
			_ = unix.Close(fd)
		}
		all = nil
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(giveBack)
	for {
		fd, err := unix.Dup(0)
		if err == unix.EMFILE {
			return giveBack
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fd)
	}
}

// TestTCPWithoutDescriptors: a connection that cannot be accepted does not make
// us spin, is counted with the reason, and is taken once it can be, whether or
// not we are connected ourselves, or are to be.
func TestTCPWithoutDescriptors(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(t *testing.T, port uint16) Link // from 127.0.0.1, in the end connected to 127.0.0.2 if it is to be
	}{
		{"not connected", func(t *testing.T, port uint16) Link {
			a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
			work(t, "the refusal", []Link{a}, func() bool { return a.(*tcp).out.fd < 0 })
			return a
		}},
		{"connected", func(t *testing.T, port uint16) Link {
			b := openLoopbackTCP(t, "127.0.0.2", "127.0.0.3", port) // which accepts it
			b.(*tcp).in.guard.peer = netip.MustParseAddr("127.0.0.1")
			a := openLoopbackTCP(t, "127.0.0.1", "127.0.0.2", port)
			work(t, "the connection", []Link{a, b}, func() bool {
				server, _ := b.(*tcp).Connected()
				_, client := a.(*tcp).Connected()
				return server && client
			})
			return a
		}},
		{"without destination", func(t *testing.T, port uint16) Link {
			cfg := endsTCP("127.0.0.1", "127.0.0.2")
			cfg.Peer = netip.Addr{}
			cfg.AcceptFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
			return openOnLoopback(t, cfg, port)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := freePort(t)
			a := c.open(t, port)
			caller, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(caller)
			if err := unix.Bind(caller, sockaddr(netip.MustParseAddrPort("127.0.0.2:0"), 0)); err != nil {
				t.Fatal(err)
			}
			giveBack := useUp(t)
			if err := unix.Connect(caller, sockaddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), 0)); err != nil {
				t.Fatal(err)
			}
			if n := wakes(t, a, 2200*time.Millisecond); n > 30 {
				t.Errorf("awake %d times", n)
			}
			s := a.Stats()
			if s.Unaccepted == 0 || s.Unaccepted > 15 || s.LastUnaccepted != unix.EMFILE || s.RecvErrors != s.Unaccepted {
				t.Errorf("%+v", s)
			}
			giveBack()
			start := time.Now()
			work(t, "the connection", []Link{a}, func() bool { server, _ := a.(*tcp).Connected(); return server })
			if took := time.Since(start); took > connectTimeout+time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// wakes lets a link do what it waits for, and returns how often that was.
func wakes(t *testing.T, l Link, d time.Duration) (n int) {
	t.Helper()
	b := NewBatch(1, 2048)
	for end := time.Now().Add(d); time.Now().Before(end); {
		p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
		if ready, err := unix.Poll(p, int(time.Until(end).Milliseconds())+1); err != nil || ready == 0 {
			continue
		}
		n++
		if _, err := l.Recv(b); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
