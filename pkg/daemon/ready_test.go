package daemon

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

func TestReadyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ready")
	log := logrus.New()
	log.SetOutput(io.Discard)
	d := &Daemon{cfg: &confparse.Config{ReadyFile: path}, log: log, started: time.Now()}
	for _, c := range []struct {
		ready bool
		want  string
	}{{false, "1\n"}, {true, "0\n"}, {false, "1\n"}} {
		d.writeReady(c.ready)
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.want {
			t.Errorf("ready %v: %q, %v", c.ready, got, err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("files left: %v", files)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	d.cfg.ReadyFile = filepath.Join(dir, "missing", "ready")
	d.writeReady(true) // says so and goes on
	if d.cfg.ReadyFile = ""; replaceFile(filepath.Join(dir, "missing", "ready"), "0") == nil {
		t.Error("written into a directory that does not exist")
	}
}

// TestHealthIsDocumented: docs/reliability.md says what each line means.
func TestHealthIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	all := []node.PeerHealth{{Peer: netip.MustParseAddr("192.0.2.1")}}
	text := appendGroupHealth(nil, all, &groupFacts{}, appendComparison(nil, &Comparison{}, node.Drift{}, 0))
	names := 0
	for line := range strings.Lines(string(text)) {
		name, _, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		names++
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("nothing about %s", name)
		}
	}
	if names < 40 {
		t.Errorf("%d lines in\n%s", names, text)
	}
}

// TestReadinessIsSaidSeldom has another node that makes this one ready and not
// ready all the time.
func TestReadinessIsSaidSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		d := &Daemon{cfg: &confparse.Config{}, log: NewLogger(&said, &said), started: time.Now()}
		d.sync = &syncer{readiness: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.keepReady(ctx) }()
		const many = 1000
		for i := range 2 * many {
			d.sync.sayReady(i%2 == 0)
			synctest.Wait()
		}
		cancel()
		fatal(t, <-done)
		if n, most := strings.Count(said.String(), "ready to take over"), saidKinds[saidReadiness].lines; n != most {
			t.Errorf("%d lines for %d changes, want %d", n, many, most)
		}
		if lines := d.seldom.leftOut(d.now() + saidPeriod); len(lines) != 1 {
			t.Errorf("in the end it is said: %q", lines)
		}
	})
}

// Programs read these lines, so a name stays what it is.
func TestHealthText(t *testing.T) {
	h := node.Health{
		Mode: node.FTFW, Ready: true, InStep: true, Contact: true, Heard: true, HeardAge: 1400 * time.Millisecond,
		Peer: wire.NodeName{Node: 0xabc, Epoch: 0x123}, Software: "conntrackgo 1", HearsUs: true,
		Complete: true, TableAge: 3 * time.Second, Compared: true, Equal: true, ComparedAge: 3 * time.Second,
		Unacked: 4, Lag: 5 * time.Second, Queued: 6, Gaps: 7, Told: 8, Known: 9,
	}
	st := node.Stats{}
	st.Engine.Lost, st.Engine.ResyncsSent, st.Engine.ResyncsReceived = 10, 11, 12
	st.Engine.PeerRestarts, st.Engine.ResendOverflow = 13, 14
	st.Extensions.Sent, st.Extensions.Received = 20, 21
	st.Extensions.Compared, st.Extensions.Different, st.Extensions.Repairs, st.Extensions.Retold = 15, 16, 17, 18
	want := `mode: FTFW
ready: yes
in-step: yes
handshake: yes
last-message-seconds: 1.4
peer: conntrackgo 1
peer-node: 0000000000000abc
peer-life: 0000000000000123
peer-hears-us: yes
other-nodes: no
settings: alike
table: complete
table-age-seconds: 3.0
resync: no
digest: equal
digest-age-seconds: 3.0
told-flows: 8
heard-flows: 9
queued: 6
unacknowledged: 4
lag-seconds: 5.0
lost: 10
gaps: 7
resyncs-sent: 11
resyncs-received: 12
peer-restarts: 13
resend-overflows: 14
receive-overflows: 19
announcements-sent: 20
announcements-received: 21
digests-compared: 15
digests-different: 16
repairs: 17
retold: 18
`
	if got := string(appendHealth(nil, &h, &st, 19)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got := string(appendHealth(nil, &node.Health{Mode: node.ALARM, SettingsDiffer: true, Others: true}, &st, 0))
	for _, line := range []string{"mode: ALARM", "ready: no", "last-message-seconds: never", "peer: unknown", "table: incomplete",
		"table-age-seconds: never", "digest: none", "digest-age-seconds: never", "settings: different", "other-nodes: yes"} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
}
