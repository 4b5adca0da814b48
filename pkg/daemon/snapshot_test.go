package daemon

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
	"github.com/conntrackgo/conntrackgo/pkg/snapshot"
)

func linkTo(local, peer string, port uint16) link.Config {
	return link.Config{Transport: link.UDP, Interface: "eth2", Local: netip.MustParseAddr(local), Peer: netip.MustParseAddr(peer), Port: port}
}

// TestSnapshotNowhere: a directory that is not there is told of at the start.
func TestSnapshotNowhere(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "state"):         "",
		filepath.Join(dir, "gone", "state"): "state will not be written: " + filepath.Join(dir, "gone") + ": no such file or directory\n",
	} {
		var said strings.Builder
		log := NewLogger(io.Discard, &said)
		d := &Daemon{cfg: &confparse.Config{}, log: log, started: time.Unix(1000, 0)}
		d.cfg.Snapshot.Path = path
		if seq := d.openSnapshot(); seq != 1000 {
			t.Errorf("%s: first sequence number %d", path, seq)
		}
		if got := said.String(); want == "" && got != "" || !strings.HasSuffix(got, want) {
			t.Errorf("%s: said %q, want %q", path, got, want)
		}
	}
}

// TestIdentity: any difference that makes it another relation makes it another
// identity, and nothing else does.
func TestIdentity(t *testing.T) {
	of := func(change func(*confparse.Config)) string {
		cfg := &confparse.Config{Links: []link.Config{linkTo("10.0.0.1", "10.0.0.2", 3780)}}
		cfg.Node.Mode = node.FTFW
		if change != nil {
			change(cfg)
		}
		return (&Daemon{cfg: cfg}).identity()
	}
	same := of(nil)
	if same != "FTFW; UDP 10.0.0.1 to 10.0.0.2 port 3780" {
		t.Errorf("%q", same)
	}
	seen := map[string]string{same: "as it was"}
	for name, change := range map[string]func(*confparse.Config){
		"mode":           func(c *confparse.Config) { c.Node.Mode = node.ALARM },
		"the other node": func(c *confparse.Config) { c.Links[0] = linkTo("10.0.0.2", "10.0.0.1", 3780) },
		"peer":           func(c *confparse.Config) { c.Links[0].Peer = netip.MustParseAddr("10.0.0.3") },
		"port":           func(c *confparse.Config) { c.Links[0].Port++ },
		"transport":      func(c *confparse.Config) { c.Links[0].Transport = link.TCP },
		"a second link":  func(c *confparse.Config) { c.Links = append(c.Links, linkTo("10.1.0.1", "10.1.0.2", 3780)) },
		"multicast": func(c *confparse.Config) {
			c.Links[0] = link.Config{Transport: link.Multicast, Interface: "eth2", Local: netip.MustParseAddr("225.0.0.50"), MulticastInterface: netip.MustParseAddr("10.0.0.1"), Port: 3780}
		},
		"multicast of the other node": func(c *confparse.Config) {
			c.Links[0] = link.Config{Transport: link.Multicast, Interface: "eth2", Local: netip.MustParseAddr("225.0.0.50"), MulticastInterface: netip.MustParseAddr("10.0.0.2"), Port: 3780}
		},
	} {
		got := of(change)
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s: both %q", name, other, got)
		}
		seen[got] = name
	}
	if got := of(func(c *confparse.Config) { c.Node.HashLimit, c.CoalesceTime, c.Links[0].SendBuffer = 5, 7, 9 }); got != same {
		t.Errorf("with other settings: %q", got)
	}
}

// TestFirstSeq: the numbers of a life begin at the clock's seconds, or well above
// those of the last life, however the clock was set.
func TestFirstSeq(t *testing.T) {
	const clock = 1_700_000_000
	for name, tt := range map[string]struct{ last, want uint32 }{
		"few messages":           {clock - 100000, clock},
		"many messages":          {clock + 100000, clock + 100000 + snapshotAhead},
		"as many as seconds":     {clock - 3, clock - 3 + snapshotAhead},
		"beyond the end":         {0xfffffff0, clock}, // half of all numbers ahead is behind
		"the clock was set back": {clock + 3600*24*365, clock + 3600*24*365 + snapshotAhead},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			log := logrus.New()
			var said strings.Builder
			log.SetOutput(&said)
			d := &Daemon{cfg: &confparse.Config{Snapshot: snapshot.Config{Path: path, MaxAge: time.Minute}}, log: log, started: time.Unix(clock, 0)}
			d.cfg.Node.Mode = node.FTFW
			if got := d.openSnapshot(); got != clock || d.handover.file != nil || said.Len() > 0 {
				t.Fatalf("without a file: %d, said %q", got, said.String())
			}
			now, err := snapshot.Now()
			if err != nil {
				t.Fatal(err)
			}
			h := snapshot.Header{Moment: now, Seq: tt.last, Identity: d.identity()}
			if err := snapshot.Write(path, &h, func(b []byte) []byte { return b }); err != nil {
				t.Fatal(err)
			}
			if got := d.openSnapshot(); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
			if !d.handover.left {
				t.Error("it is not left until it is read")
			}
			_ = d.handover.file.Close()
			_ = os.Remove(path)
		})
	}
}

// TestUnreadSnapshotStays: who ends before he has read it does not write another.
func TestUnreadSnapshotStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	log := logrus.New()
	log.SetOutput(io.Discard)
	d := &Daemon{cfg: &confparse.Config{Snapshot: snapshot.Config{Path: path}}, log: log, sync: &syncer{}, handover: handover{left: true}}
	d.handOver()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("written: %v", err)
	}
}
