package daemontest_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestBackgroundIsReady starts with -d, asks at once and ends with -k, over
// and over: -d returns when everything works, -k when everything is gone.
func TestBackgroundIsReady(t *testing.T) {
	r := newRig(t, nil)
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, 100)))
	r.OK(r.A.WriteConfig())
	for i := range 20 {
		pid := r.background(r.A)
		if internal, _, err := r.A.Sizes(t.Context()); err != nil || internal != 100 {
			t.Fatalf("run %d: right after -d: %d entries, %v", i, internal, err)
		}
		r.Request(r.A, "-k")
		if err := left(r.A, pid); err != nil {
			t.Fatalf("run %d: right after -k: %v", i, err)
		}
		r.Eventually("the end of the process", func() error {
			if !ended(pid) {
				return fmt.Errorf("process %d is there", pid)
			}
			return nil
		})
	}
}

// TestBackgroundProcess looks at the process itself.
func TestBackgroundProcess(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.WriteConfig())
	named := filepath.Join(r.Lab.Dir(), "conntrackd")
	r.OK(os.Symlink(r.binary, named))
	r.binary = named
	pid := r.background(r.A)
	proc := func(name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

	comm, err := os.ReadFile(proc("comm"))
	r.OK(err)
	if string(comm) != "conntrackd\n" {
		t.Errorf("the process is called %q, want that of the link it was started by", comm)
	}
	argv, err := os.ReadFile(proc("cmdline"))
	r.OK(err)
	if want := strings.Join([]string{named, "-C", r.A.ConfigPath, "-d", ""}, "\x00"); string(argv) != want {
		t.Errorf("command line %q, want %q", argv, want)
	}
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("session %d (%v), want its own, %d", session, err, pid)
	}
	for name, want := range map[string]string{"cwd": "/", "fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": "/dev/null"} {
		if got, err := os.Readlink(proc(name)); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	env, err := os.ReadFile(proc("environ"))
	r.OK(err)
	if strings.Contains(string(env), "WATCHDOG_PID=") {
		t.Error("WATCHDOG_PID of the first process is in the environment")
	}
	for path, mode := range map[string]os.FileMode{r.A.Config.Socket: 0o600, r.A.Config.Lock: 0o600, r.A.Config.LogFile: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v (%v), want %v", path, info.Mode(), err, mode)
		}
	}
	r.Request(r.A, "-k")
}

// TestForeignName starts with an argv[0] that is the name of another program:
// the background process must still be ours.
func TestForeignName(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.WriteConfig())
	_, err := r.Two.A.Run("bash", "-c", fmt.Sprintf("exec -a sleep %s -C %s -d", r.binary, r.A.ConfigPath))
	r.OK(err)
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.pid(r.A)))
	r.OK(err)
	if exe != r.binary {
		t.Errorf("the background process runs %s, want %s", exe, r.binary)
	}
	r.Request(r.A, "-k")
}

// TestRefusedStart holds -d and the foreground to exit code 1, a reason and
// nothing left behind.
func TestRefusedStart(t *testing.T) {
	r := newRig(t, nil)
	busy, err := r.Lab.NewNode("busy")
	r.OK(err)
	r.OK(r.Lab.Connect(busy, nettest.SyncIf, r.Two.A, "spare"))
	r.OK(busy.AddAddr(nettest.SyncIf, "192.168.100.1/30"))
	r.OK(busy.Do(func() error {
		conn, err := net.ListenPacket("udp4", "192.168.100.1:3780")
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	}))
	tests := []struct {
		name   string
		node   *nettest.Node
		change func(*nettest.Config)
		reason string
	}{
		{"interface", r.Two.A, func(c *nettest.Config) { c.Interface = "nope0" }, `nope0`},
		{"address", r.Two.A, func(c *nettest.Config) { c.Local = netip.MustParseAddr("192.0.2.77") }, `192\.0\.2\.77.*cannot assign requested address`},
		{"port", busy, func(*nettest.Config) {}, `3780.*address already in use`},
		{"socket directory", r.Two.A, func(c *nettest.Config) { c.Socket = "/nonexistent/x.ctl" }, `listen on /nonexistent/x\.ctl: no such file`},
		{"socket is a file", r.Two.A, func(c *nettest.Config) { c.Socket = "/etc/passwd" }, `/etc/passwd: .*not a socket`},
		{"lock directory", r.Two.A, func(c *nettest.Config) { c.Lock = "/nonexistent/x.lock" }, `lock /nonexistent/x\.lock: no such file`},
		{"lock is a file", r.Two.A, func(c *nettest.Config) { c.Lock = "/etc/passwd" }, `lock /etc/passwd: .*something else`},
		{"log directory", r.Two.A, func(c *nettest.Config) { c.LogFile = "/nonexistent/x.log" }, `open log file: .*/nonexistent/x\.log`},
		{"keyword", r.Two.A, func(c *nettest.Config) { c.GeneralLines = []string{"Nonsense 1"} }, `busy\.conf:\d+:\d+: .*Nonsense`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, _ := nettest.SyncConfigs(false)
			test.change(&cfg)
			d, err := r.Lab.NewDaemon(busy, nettest.Go, cfg)
			r.OK(err)
			r.OK(d.WriteConfig())
			for _, args := range [][]string{{"-C", d.ConfigPath, "-d"}, {"-C", d.ConfigPath}} {
				_, err := test.node.Run(r.binary, args...)
				var exit *nettest.ExitError
				if !errors.As(err, &exit) || exit.Code != 1 {
					t.Fatalf("%v: %v, want exit code 1", args, err)
				}
				if !regexp.MustCompile(test.reason).MatchString(exit.Output) {
					t.Errorf("%v said %q, want %s", args, exit.Output, test.reason)
				}
				if strings.Contains(exit.Output, "goroutine ") {
					t.Errorf("%v panicked", args)
				}
				if test.name == "socket is a file" || test.name == "lock is a file" {
					continue
				}
				if err := left(d, -1); err != nil {
					t.Errorf("%v: %v", args, err)
				}
			}
		})
	}
}
