package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages returns the documentation, by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../docs/decisions/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[file] = string(text)
		}
	}
	return all
}

// testNames returns the name of each test there is, one a line.
func testNames(t *testing.T) string {
	t.Helper()
	functions := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	var all []string
	for _, dir := range []string{"../../pkg", "../../internal", "../../cmd", "../../contrib"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			code, err := os.ReadFile(path)
			for _, m := range functions.FindAllSubmatch(code, -1) {
				all = append(all, string(m[1]))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(all, "\n")
}

// TestPromisesAreTested: the documentation names no test that is not there.
func TestPromisesAreTested(t *testing.T) {
	known := testNames(t)
	named := regexp.MustCompile("`(?:[a-z/]+\\.)?(Test\\w+)(\\*?)`")
	seen := 0
	for file, text := range pages(t) {
		for _, n := range named.FindAllStringSubmatch(text, -1) {
			seen++
			end := "$"
			if n[2] == "*" {
				end = ""
			}
			if !regexp.MustCompile("(?m)^" + n[1] + end).MatchString(known) {
				t.Errorf("%s: there is no %s", file, n[1])
			}
		}
	}
	if seen < 60 {
		t.Errorf("%d tests are named", seen)
	}
}

// TestLinksLead: each link within the documentation leads to a file and, if it
// says so, to a heading of it.
func TestLinksLead(t *testing.T) {
	all := pages(t)
	links := regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	seen := 0
	for file, text := range all {
		for _, m := range links.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			to := file
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(file), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", file, err)
			} else if m[2] != "" && !hasHeading(all[to], m[2]) {
				t.Errorf("%s: no heading %s in %s", file, m[2], to)
			}
		}
	}
	if seen < 60 {
		t.Errorf("%d links", seen)
	}
}

// hasHeading reports whether a page has a heading that is called so in links.
func hasHeading(page, name string) bool {
	unnamed := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	for line := range strings.Lines(page) {
		text, found := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !found || !strings.HasPrefix(line, "#") {
			continue
		}
		text = unnamed.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
		if strings.ReplaceAll(text, " ", "-") == name {
			return true
		}
	}
	return false
}
