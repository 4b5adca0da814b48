package difftest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// A record is what one side had to say at one step of a scene.
type record struct {
	step   string // the command line, or what happened
	aspect string // stdout, stderr, exit, kernel, log
	text   string
}

// A scene is a configuration in which both daemons get the same commands.
type scene struct {
	name  string
	text  string // conntrackd.conf, with the addresses of the stage
	alone bool   // without a peer: every counter is compared
	full  bool   // all queries and changes
}

// A stage is two nodes: the daemon under test, and a C daemon as its peer.
// The addresses are those that the configurations of the corpus speak of.
type stage struct {
	*testing.T
	lab        *nettest.Lab
	self, peer *nettest.Node
	other      *process // the daemon on peer, if there is one
	records    []record
}

// patience is how long anything is waited for: machines are busy.
const patience = 60 * time.Second

var stageAddrs = []struct{ ifname, self, peer string }{
	{"eth1", "192.168.0.5/24", "192.168.0.6/24"},
	{"eth2", "192.168.100.100/24", "192.168.100.101/24"},
	{"eth2", "fd00:100::1/64", "fd00:100::2/64"},
	{"eth3", "192.168.101.100/24", "192.168.101.101/24"},
	{"eth3", "fd00:101::1/64", "fd00:101::2/64"},
	{"eth4", "10.10.10.1/24", "10.10.10.2/24"},
	{"eth5", "172.16.5.1/24", "172.16.5.2/24"},
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{T: t, lab: nettest.Get(t)}
	var err error
	s.self, err = s.lab.NewNode("self")
	ok(t, err)
	s.peer, err = s.lab.NewNode("peer")
	ok(t, err)
	for i, a := range stageAddrs {
		if i == 0 || stageAddrs[i-1].ifname != a.ifname {
			ok(t, s.lab.Connect(s.self, a.ifname, s.peer, a.ifname))
		}
		ok(t, s.self.AddAddr(a.ifname, a.self))
		ok(t, s.peer.AddAddr(a.ifname, a.peer))
	}
	for _, n := range []*nettest.Node{s.self, s.peer} {
		ok(t, n.EnableLabels())
	}
	return s
}

// mirrored turns the configuration of one node into the other's.
var mirrored = strings.NewReplacer(
	"192.168.0.5", "192.168.0.6", "192.168.0.6", "192.168.0.5",
	"192.168.100.100", "192.168.100.101", "192.168.100.101", "192.168.100.100",
	"192.168.101.100", "192.168.101.101", "192.168.101.101", "192.168.101.100",
	"10.10.10.1", "10.10.10.2", "10.10.10.2", "10.10.10.1",
	"FD00:0100:0:0:0:0:0:1", "fd00:100::2", "FD00:100:0::2", "fd00:100::1",
	"fd00:100::1", "fd00:100::2", "fd00:100::2", "fd00:100::1",
)

// adapt puts a configuration's files into dir, and says what it leaves to the
// default if that would disturb the machine.
func adapt(text, dir string) string {
	for _, at := range []string{"/var/run/", "/var/lock/", "/var/log/", "/run/"} {
		text = strings.ReplaceAll(text, at, dir+"/")
	}
	text = regexp.MustCompile(`PollSecs \d+`).ReplaceAllString(text, "PollSecs 3600") // not amid a scene, however long it takes
	text = regexp.MustCompile(`(?i)LogFile\s+(on|yes)\b`).ReplaceAllString(text, "LogFile "+dir+"/log ")
	general := "Systemd off\n"
	if !strings.Contains(text, "LockFile") {
		general += "LockFile " + dir + "/lock\n"
	}
	if !strings.Contains(text, "Scheduler") {
		general += "Scheduler {\nType FIFO\nPriority 0\n}\n"
	}
	return text + "\nGeneral {\n" + general + "}\n"
}

// untimely is what would let the clock decide what a peer has said at some
// step: it polls, it refreshes what nobody asked for, it keeps events for up
// to a second.
var untimely = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`PollSecs \d+`), ""},
	{regexp.MustCompile(`RefreshTime \d+`), "RefreshTime 86400"},
	{regexp.MustCompile(`(CommitTimeout \d+ )?Disable(Internal|External)Cache \w+`), ""},
}

// peerText is the configuration of the peer.
func peerText(text string) string {
	text = mirrored.Replace(text)
	for _, u := range untimely {
		text = u.from.ReplaceAllString(text, u.to)
	}
	return text
}

// A process is one daemon of a scene.
type process struct {
	*nettest.Proc
	node         *nettest.Node
	binary, conf string
}

// launch starts a daemon and waits until it answers or has ended.
func (s *stage) launch(n *nettest.Node, kind nettest.Kind, text string) *process {
	s.Helper()
	dir, err := os.MkdirTemp(s.lab.Dir(), n.Name)
	ok(s.T, err)
	p := &process{node: n, conf: filepath.Join(dir, "conf")}
	p.binary, err = kind.Binary()
	ok(s.T, err)
	ok(s.T, os.WriteFile(p.conf, []byte(adapt(text, dir)), 0o600))
	p.Proc, err = n.Start(nil, p.binary, "-C", p.conf)
	ok(s.T, err)
	ok(s.T, nettest.Eventually(s.Context(), patience, string(kind)+" daemon to start", func() error {
		select {
		case <-p.Done():
			return nil
		default:
		}
		if !strings.Contains(p.Tail(100), "initialization completed") {
			return errors.New("not yet")
		}
		return nil
	}))
	return p
}

func (p *process) running() bool {
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

// client runs the daemon's own program as a client.
func (p *process) client(args ...string) (stdout, stderr string, code int, err error) {
	return command(p.node, p.binary, append([]string{"-C", p.conf}, args...)...)
}

func command(n *nettest.Node, name string, args ...string) (stdout, stderr string, code int, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.Do(cmd.Start); err != nil {
		return "", "", 0, err
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}

func (s *stage) note(step, aspect, text string) {
	s.records = append(s.records, record{step, aspect, text})
}

// ask runs a client command and notes what it did.
func (s *stage) ask(p *process, step string, args ...string) string {
	s.Helper()
	stdout, stderr, code, err := p.client(args...)
	ok(s.T, err)
	s.note(step, "stdout", stdout)
	s.note(step, "stderr", stderr)
	s.note(step, "exit", fmt.Sprintln(code))
	return stdout
}

// quiet waits until nothing changes any more: neither the kernel's table nor
// the caches of the daemons. It looks several times, at each in turn: on a busy
// machine, where the answers take longer, so does this.
func (s *stage) quiet(p *process) {
	s.Helper()
	const still, look = 4, 40 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	daemons, before := []*process{p}, []string{"", ""}
	if s.other != nil {
		daemons = append(daemons, s.other)
	}
	for i, same, limit := 0, 0, time.Now().Add(patience); same < still; i++ {
		which := i % len(daemons)
		held, err := s.self.Held()
		ok(s.T, err)
		text, _, _, err := daemons[which].client("-s", "cache")
		ok(s.T, err)
		now := fmt.Sprint(held, text)
		if same++; now != before[which] {
			before[which], same = now, 0
		}
		if time.Now().After(limit) {
			s.Fatalf("no end of changes:\n%s", now)
		}
		<-tick.C
	}
}

// connected waits until the connections of a TCP link are there, in both
// directions. The C daemon tries to connect when it has something to say.
func (s *stage) connected(p *process) {
	s.Helper()
	ok(s.T, nettest.Eventually(s.Context(), patience, "link to be connected", func() error {
		text, _, _, err := p.client("-s", "network")
		if strings.Contains(text, "=disconnected") {
			err = errors.Join(err, errors.New(text))
		}
		return err
	}))
}

// snapshot notes the kernel's table.
func (s *stage) snapshot(step string) {
	s.Helper()
	table, err := s.self.RawKernel()
	ok(s.T, err)
	var lines []string
	for _, e := range table {
		r := e.Raw
		line := fmt.Sprintf("%v state %q reply %v timeout %d mark %d helper %q", e.Key, e.State, e.Reply, (e.Timeout+1000)/2000*2000, e.Mark, r.HelperName)
		line += fmt.Sprintf(" status %#x labels %x master %q flags %x scale %v vtag %v seqadj %v", r.Status, r.Labels, r.Master, r.TCPFlags, r.WScale, r.SCTPVtag, r.SeqAdj)
		lines = append(lines, line)
	}
	slices.Sort(lines)
	expected, err := s.self.Expectations()
	ok(s.T, err)
	s.note(step, "kernel", strings.Join(append(lines, expected...), "\n")+"\n")
}

// queries are asked one after the other and change nothing.
var queries = []string{
	"-s", "-s ct", "-s network", "-s cache", "-s runtime", "-s link", "-s multicast", "-s rsqueue", "-s process", "-s queue", "-s expect", "-s exp", "-s n", "-s rs",
	"-i", "-i ct", "-i -x", "-i ct -x", "-i expect", "-i expect -x", "-e", "-e ct", "-e -x", "-e ct -x", "-e expect", "-e expect -x",
}

// changes are requests that do something; after each the caches are looked at.
var changes = []string{
	"-B", "-n", "-R ct", "-R expect", "-R", "-c ct", "-c expect", "-c", "-f external", "-n", "-f internal", "-R", "-f", "-B",
	"-F expect", "-F ct", "-F", "-t", "-t", "-f",
}

// fewQueries and fewChanges are for configurations that say little new.
var (
	fewQueries = []string{"-s", "-s network", "-s cache", "-s runtime", "-s link", "-s queue", "-s expect", "-i", "-i -x", "-e", "-e -x"}
	fewChanges = []string{"-c", "-f", "-R", "-B", "-F", "-t"}
)

// play runs a scene with one daemon and returns what was noted.
func (s *stage) play(sc scene, kind nettest.Kind) []record {
	s.Helper()
	s.records = nil
	fill(s.T, s.self, 1)
	ok(s.T, s.peer.FlushKernel())
	if !sc.alone {
		s.other = s.launch(s.peer, nettest.C, peerText(sc.text))
		defer func() {
			s.other.Kill9()
			s.other = nil
		}()
	}
	p := s.launch(s.self, kind, sc.text)
	defer p.Kill9()
	if !p.running() {
		s.note("start", "exit", fmt.Sprintln(p.Err()))
		s.note("start", "log", p.Tail(100))
		return s.records
	}
	if _, _, code, err := p.client("-s", "runtime"); err == nil && code == 0 {
		s.commands(sc, p)
	} else {
		s.ask(p, "-s", "-s")
	}
	s.end(p)
	return s.records
}

func (s *stage) commands(sc scene, p *process) {
	s.Helper()
	for _, d := range []*process{p, s.other} {
		if d != nil && !sc.alone {
			s.connected(d)
		}
	}
	s.quiet(p)
	change(s.T, s.self, 1)
	if !sc.alone {
		fill(s.T, s.peer, 2)
		change(s.T, s.peer, 2)
	}
	s.quiet(p)
	ask, do := queries, changes
	if !sc.full {
		ask, do = fewQueries, fewChanges
	}
	for _, q := range ask {
		s.ask(p, q, strings.Fields(q)...)
	}
	for i, c := range do {
		step := fmt.Sprintf("%d: %s", i+1, c)
		s.ask(p, step, strings.Fields(c)...)
		s.quiet(p)
		s.ask(p, step+"; -s cache", "-s", "cache")
		s.snapshot(step)
	}
}

// end kills the daemon and notes how it went and what it logged.
func (s *stage) end(p *process) {
	s.Helper()
	if _, _, code, err := p.client("-k"); err != nil || code != 0 {
		ok(s.T, p.Signal(syscall.SIGTERM))
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		s.Fatalf("%s does not end", p.binary)
	}
	s.note("end", "exit", fmt.Sprintln(p.Err()))
	text, err := os.ReadFile(p.Log)
	ok(s.T, err)
	s.note("end", "log", string(text))
	var left []string
	dir := filepath.Dir(p.conf)
	ok(s.T, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			left = append(left, strings.TrimPrefix(path, dir))
		}
		return err
	}))
	s.note("end", "files", strings.Join(left, "\n")+"\n")
}
