package difftest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

const corpusDir = "../../../pkg/confparse/testdata/configs"

// full are the scenes that are played at full length: one of each mode,
// transport and feature.
var full = regexp.MustCompile(`^v(01|04|05|15|22|27|28|29|30|37|38)-`)

// deaf are those in which C does not hear a peer: for an Interface before an
// IPv6_address it joins and sends on the default interface.
var deaf = regexp.MustCompile(`^v26-`)

// scenes are the valid files of the corpus, all of them, and what it has no
// file for.
func scenes(t *testing.T) (all []scene) {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(corpusDir, "index.tsv"))
	ok(t, err)
	for line := range strings.Lines(string(index)) {
		file, verdict, _ := strings.Cut(line, "\t")
		if !strings.HasPrefix(verdict, "valid\t") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(corpusDir, file))
		ok(t, err)
		name := strings.TrimSuffix(filepath.Base(file), ".conf")
		all = append(all, scene{name: name, text: string(text), full: full.MatchString(name), alone: deaf.MatchString(name)})
	}
	if len(all) < 50 {
		t.Fatalf("%d files in the corpus", len(all))
	}
	const off, on = "DisableInternalCache on", "StartupResync off\n  }\n  Options {\n    ExpectationSync on"
	bypass := strings.Replace(find(t, all, "v05-").text, "StartupResync off", on, 1)
	return append(all,
		scene{name: "alone", text: all[0].text, alone: true, full: true},
		scene{name: "expectations alone", text: find(t, all, "v29-").text, alone: true, full: true},
		scene{name: "expectations without caches", text: bypass, full: true},
		scene{name: "expectations without external cache", text: strings.Replace(bypass, off, "", 1), full: true},
		scene{name: "full cache", text: all[0].text + "General { HashLimit 10 }", alone: true, full: true})
}

func find(t *testing.T, all []scene, prefix string) scene {
	t.Helper()
	i := slices.IndexFunc(all, func(sc scene) bool { return strings.HasPrefix(sc.name, prefix) })
	if i < 0 {
		t.Fatal("no scene", prefix)
	}
	return all[i]
}

// TestConfigs plays every configuration of the corpus.
func TestConfigs(t *testing.T) {
	nettest.Need(t, nettest.Go)
	all := scenes(t)
	var played atomic.Int64
	t.Run("of", func(t *testing.T) {
		for _, sc := range all {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				s := newStage(t)
				ours, c := s.play(sc, nettest.Go), s.play(sc, nettest.C)
				for _, f := range compare(sc, c, ours, differences) {
					t.Error(f)
				}
				played.Add(1)
			})
		}
	})
	t.Logf("%d of %d scenes played", played.Load(), len(all))
	if int(played.Load()) < len(all)/2 {
		return // a part was chosen with -run
	}
	for _, d := range differences {
		if d.seen.Load() == 0 && !d.rare {
			t.Errorf("no longer different, remove the row: %q %q %q", d.step, d.aspect, d.text)
		}
	}
}
