package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPromisesAreTested: docs/reliability.md names no test that is not there.
func TestPromisesAreTested(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	functions := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	var all []string
	for _, dir := range []string{"../../pkg", "../../internal"} {
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
	known := strings.Join(all, "\n")
	names := regexp.MustCompile("`(?:[a-z/]+\\.)?(Test\\w+)(\\*?)`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 20 {
		t.Fatalf("%d tests are named", len(names))
	}
	for _, n := range names {
		end := "$"
		if n[2] == "*" {
			end = ""
		}
		if !regexp.MustCompile("(?m)^" + n[1] + end).MatchString(known) {
			t.Errorf("there is no %s", n[1])
		}
	}
}
