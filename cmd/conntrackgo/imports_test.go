package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const ours = "github.com/conntrackgo/conntrackgo/pkg/"

// core are the packages that do no I/O and start no goroutine, and ask nobody
// for the time: their callers tell them.
var core = []string{"flow", "wire", "engine", "ftfw", "alarm", "notrack", "cache", "node"}

// mayImport is what each package may import of ours; the rest may import all.
var mayImport = map[string][]string{
	"flow":      {},
	"cache":     {},
	"link":      {},
	"ctl":       {},
	"snapshot":  {},
	"wire":      {"flow"},
	"kernel":    {"flow"},
	"engine":    {"wire"},
	"ftfw":      {"wire", "engine"},
	"alarm":     {"wire", "engine"},
	"notrack":   {"wire", "engine"},
	"node":      {"flow", "wire", "engine", "ftfw", "alarm", "notrack", "cache"},
	"confparse": {"flow", "kernel", "link", "node", "snapshot", "wire"},
}

// notInCore are the beginnings of import paths that mean I/O, chance or locks.
var notInCore = []string{"net", "os", "syscall", "sync", "math/rand", "crypto", "golang.org/x/sys", "github.com/mdlayher", "github.com/ti-mo", "github.com/sirupsen"}

// addresses is what of net does no I/O.
const addresses = "net/netip"

// TestImports holds the rules of .golangci.yml where no linter is installed.
func TestImports(t *testing.T) {
	dirs, err := os.ReadDir("../../pkg")
	if err != nil || len(dirs) < 10 {
		t.Fatalf("%d packages, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		files, err := filepath.Glob("../../pkg/" + dir.Name() + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir.Name(), len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, wrong := range breaches(dir.Name(), file) {
				t.Errorf("%s: %s", name, wrong)
			}
		}
	}
}

// breaches lists what a file of a package must not have.
func breaches(pkg string, file *ast.File) (wrong []string) {
	inCore := slices.Contains(core, pkg)
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name, isOurs := strings.CutPrefix(path, ours)
		allowed, limited := mayImport[pkg]
		begins := func(forbidden string) bool { return path == forbidden || strings.HasPrefix(path, forbidden+"/") }
		switch {
		case isOurs && limited && !slices.Contains(allowed, name),
			inCore && path != addresses && slices.ContainsFunc(notInCore, begins),
			pkg != "kernel" && (begins("github.com/mdlayher/netlink") || begins("github.com/ti-mo")):
			wrong = append(wrong, "imports "+path)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if _, ok := n.(*ast.GoStmt); ok && inCore {
			wrong = append(wrong, "starts a goroutine")
		}
		if s, ok := n.(*ast.SelectorExpr); ok && inCore && isClock(s) {
			wrong = append(wrong, "uses time."+s.Sel.Name)
		}
		return true
	})
	return wrong
}

func isClock(s *ast.SelectorExpr) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "time" && slices.Contains(
		[]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}, s.Sel.Name)
}

func TestBreaches(t *testing.T) {
	for _, c := range []struct {
		pkg, text, want string
	}{
		{"node", `import "net/netip"`, ""},
		{"node", `import "net/url"`, "imports net/url"},
		{"cache", `import "` + ours + `flow"`, "imports " + ours + "flow"},
		{"wire", `import "` + ours + `flow"`, ""},
		{"daemon", `import "github.com/mdlayher/netlink"`, "imports github.com/mdlayher/netlink"},
		{"daemon", "import \"os\"\nfunc f() { go f() }", ""},
		{"ftfw", "func f() { go f() }", "starts a goroutine"},
		{"flow", "import \"time\"\nvar now = time.Now", "uses time.Now"},
		{"flow", "import \"time\"\nvar d time.Duration", ""},
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", "package "+c.pkg+"\n"+c.text, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(breaches(c.pkg, file), "; "); got != c.want {
			t.Errorf("%s: %s: got %q, want %q", c.pkg, c.text, got, c.want)
		}
	}
}
