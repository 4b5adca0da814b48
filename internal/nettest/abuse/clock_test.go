package abuse_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wallClock is all that our code does with the time of day, by file. What is
// counted, waited for or compared comes from a clock that never jumps:
// time.Now has it beside the time of day, and Sub, Since, Until, timers and
// deadlines use it. So a step of the clock changes nothing but what is printed,
// and the first sequence number of the next life, see TestClockBack.
var wallClock = map[string][]string{
	"pkg/daemon/snapshot.go": {"Unix"},                    // the first sequence number
	"pkg/snapshot/moment.go": {"CLOCK_REALTIME", "Round"}, // how old a snapshot is, next to the time since the boot
	"pkg/daemon/log.go":      {"Format"},                  // dates in the log
	"pkg/daemon/name.go":     {"UnixNano"},                // what a life is called
	"pkg/flow/text.go":       {"Unix"},                    // ages in a dump, from the kernel's time stamps
	"pkg/kernel/dump.go":     {"Unix"},                    // a deadline long ago, that ends a read now
}

// wallMethods are the methods of a time.Time that ask for the time of day, or
// lose the clock that never jumps.
var wallMethods = []string{"Unix", "UnixNano", "UnixMilli", "UnixMicro", "Round", "Truncate", "Date", "Clock", "Format", "AppendFormat", "UTC", "Local", "In"}

// TestWallClock fails when another file begins to use the time of day.
func TestWallClock(t *testing.T) {
	const root = "../../.."
	found := map[string][]string{}
	for _, dir := range []string{"pkg", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			uses, err := wallUses(path)
			name, _ := filepath.Rel(root, path)
			if len(uses) > 0 {
				found[name] = uses
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) == 0 {
		t.Fatal("nothing found: the test shows nothing")
	}
	for name, uses := range found {
		if !slices.Equal(uses, wallClock[name]) {
			t.Errorf("%s uses the time of day: %v, known is %v", name, uses, wallClock[name])
		}
	}
	for name, uses := range wallClock {
		if uses != nil && found[name] == nil {
			t.Errorf("%s does not use the time of day any more", name)
		}
	}
}

// wallUses lists what a file that imports time calls by the name of a wall
// method, and the clocks of the system it names.
func wallUses(path string) (uses []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return nil, err
	}
	timed := slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"time"` })
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if n.Sel.Name == "CLOCK_REALTIME" {
				uses = append(uses, n.Sel.Name)
			}
		case *ast.CallExpr:
			s, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || !timed || !slices.Contains(wallMethods, s.Sel.Name) {
				return true
			}
			if _, literal := s.X.(*ast.CompositeLit); !literal { // a type of ours
				uses = append(uses, s.Sel.Name)
			}
		}
		return true
	})
	slices.Sort(uses)
	return slices.Compact(uses), err
}
