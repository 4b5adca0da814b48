package difftest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

const corpusDir = "../../../pkg/confparse/testdata/configs/valid"

// full are the scenes that are played at full length: one of each mode,
// transport and feature.
var full = regexp.MustCompile(`^v(01|04|05|15|22|27|28|29|37|38)-`)

func scenes(t *testing.T) (all []scene) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpusDir, "*.conf"))
	if err != nil || len(files) < 50 {
		t.Fatal("no corpus", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		ok(t, err)
		name := strings.TrimSuffix(filepath.Base(file), ".conf")
		all = append(all, scene{name: name, text: string(text), full: full.MatchString(name)})
	}
	return append(all, scene{name: "alone", text: all[0].text, alone: true, full: true})
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
				ours, supported := s.play(sc, nettest.Go)
				if !supported {
					if !pending.MatchString(sc.name) {
						t.Errorf("refused and not listed as such")
					}
					t.Skip("refused: ", ours[len(ours)-1].text)
				}
				c, _ := s.play(sc, nettest.C)
				for _, f := range compare(sc, c, ours, differences) {
					if pending.MatchString(sc.name) {
						t.Log("pending: ", f)
					} else {
						t.Error(f)
					}
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
