package confparse

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/alecthomas/participle/v2/lexer"

	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

func readCorpus(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/configs", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzParse wants no panic, a place in every error, and the same result for
// the same text, and for the same tokens with a line for each.
func FuzzParse(f *testing.F) {
	for _, v := range corpus(f) {
		f.Add([]byte(readCorpus(f, v.file)))
	}
	for _, text := range errorSnippets {
		f.Add([]byte(text))
	}
	for _, r := range groupRefusals() {
		f.Add([]byte(r.text))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		cfg, warnings, err := Parse("f", src)
		if err != nil {
			var e *Error
			if cfg != nil || !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Text == "" {
				t.Fatalf("config %v, error %#v", cfg, err)
			}
			return
		}
		checkSane(t, cfg)
		again, warningsAgain, err := Parse("f", src)
		if err != nil || !reflect.DeepEqual(cfg, again) || !reflect.DeepEqual(warnings, warningsAgain) {
			t.Fatalf("second time: %v %s", err, diff(cfg, again))
		}
		again, warningsAgain, err = Parse("f", oneTokenPerLine(t, src))
		if err != nil {
			t.Fatalf("one token per line: %v", err)
		}
		if len(cfg.refusals) != len(again.refusals) || len(warnings) != len(warningsAgain) {
			t.Fatalf("one token per line: %v %v instead of %v %v", again.refusals, warningsAgain, cfg.refusals, warnings)
		}
		cfg.refusals, again.refusals = nil, nil
		if !reflect.DeepEqual(cfg, again) {
			t.Fatalf("one token per line: %s", diff(cfg, again))
		}
	})
}

func oneTokenPerLine(t *testing.T, src []byte) (lines []byte) {
	lex, err := language{}.LexBytes("f", src)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := lexer.ConsumeAll(lex)
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range tokens {
		lines = append(append(lines, tok.Value...), '\n')
	}
	return lines
}

// checkSane checks what a Config promises whatever the file says.
func checkSane(t *testing.T, c *Config) {
	t.Helper()
	switch n := &c.Node; {
	case n.HashSize < 1 || n.HashLimit < 1 || n.ResendQueueSize < 1 || n.ACKWindowSize < 1,
		n.PurgeTimeout <= 0 || n.RefreshTime <= 0 || n.CacheTimeout <= 0 || n.CommitTimeout < 0,
		c.EventIterationLimit < 1 || c.ErrorQueueLength < 1,
		c.Kernel.OverrunResync < 0 || c.Kernel.Poll < 0,
		len(c.Socket) > maxSocketPath || len(c.LockFile) > maxPath || len(c.LogFile) > maxPath,
		c.Scheduler.Priority < 0 || c.Scheduler.Priority > maxPriority,
		len(c.Links) > maxLinks || c.Sync && c.Stats,
		c.Sync != (n.Mode != 0):
		t.Fatalf("impossible config %+v", c)
	}
	for _, l := range c.Links {
		if l.Transport != c.Links[0].Transport {
			t.Fatalf("mixed links %+v", c.Links)
		}
		if l.Local.Zone() != "" || l.Peer.Zone() != "" {
			t.Fatalf("zone in %+v", l)
		}
	}
	if c.Sync && len(c.Links) == 0 && c.CheckStart() == nil {
		t.Fatal("Sync without link would start")
	}
	checkSaneGroup(t, c)
}

// checkSaneGroup checks what the others may take for granted of a group.
func checkSaneGroup(t *testing.T, c *Config) {
	t.Helper()
	for _, l := range c.Links {
		if l.Group != c.Node.Group || len(l.Peers) > 0 && !(l.Group && l.Transport == link.UDP) {
			t.Fatalf("group %v, link %+v", c.Node.Group, l)
		}
		for i, p := range l.Peers {
			if !p.IsValid() || p.Zone() != "" || p == l.Local || p.Is4() != l.Peers[0].Is4() || slices.Contains(l.Peers[:i], p) {
				t.Fatalf("peer %s in %+v", p, l)
			}
		}
	}
	if !c.Node.Group || !c.Sync || c.CheckStart() != nil {
		return
	}
	l, n := &c.Links[0], &c.Node
	switch {
	case len(c.Links) != 1, l.Transport == link.TCP, n.Mode != node.FTFW,
		n.DisableInternalCache, n.DisableExternalCache, n.Hold != 0, c.Snapshot.Path != "",
		l.Transport == link.UDP && (len(l.Peers) < 1 || len(l.Peers) > 15):
		t.Fatalf("a group that cannot be would start: %+v", c)
	}
}
