package confparse

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/configuration.md")

// golden compares got with a file, or rewrites the file with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		g, w := lineOf(gotLines, i), lineOf(wantLines, i)
		if g != w {
			t.Fatalf("%s is stale in line %d (run with -update and read the difference):\n got %s\nwant %s", file, i+1, g, w)
		}
	}
}

func lineOf(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "<end>"
}

// TestReference holds docs/configuration.md to the table of keywords.
func TestReference(t *testing.T) {
	const file = "../../docs/configuration.md"
	const marker = "-update -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, ok := strings.Cut(string(text), marker)
	if !ok {
		t.Fatalf("%s has no line that ends in %q", file, marker)
	}
	golden(t, file, intro+marker+reference())
}

// reference writes the rows as tables, one for each set of blocks.
func reference() string {
	var b strings.Builder
	var done []string
	for _, r := range table {
		if slices.Contains(done, r.in) {
			continue
		}
		done = append(done, r.in)
		fmt.Fprintf(&b, "\n## %s\n\n| Keyword | Argument | Default | Meaning |\n|---|---|---|---|\n", heading(r.in))
		for _, r := range table {
			if r.in == done[len(done)-1] {
				b.WriteString(line(r))
			}
		}
	}
	b.WriteString("\n## Words of old versions\n\nThese are errors, as in conntrackd 1.4.7.\n\n| Word | Instead |\n|---|---|\n")
	for _, w := range slices.Sorted(maps.Keys(retired)) {
		fmt.Fprintf(&b, "| %s | %s |\n", w, retired[w])
	}
	return b.String()
}

func heading(in string) string {
	if in == "" {
		return "Sections"
	}
	var blocks []string
	for _, p := range strings.Split(in, ", ") {
		blocks = append(blocks, strings.ReplaceAll(p, "/", " { "))
	}
	return strings.Join(blocks, ", ")
}

// heads are the words before the brace.
var heads = map[head]string{
	headDefault: "[Default] ",
	headFrom:    "[From Userspace or Kernelspace] ",
	headPolicy:  "Accept or Ignore ",
	headMode:    "FTFW, ALARM or NOTRACK ",
	headPeer:    "[address] ",
}

func line(r row) string {
	words := strings.Fields(r.words)
	keyword, help := "`"+words[0]+"`", r.help
	switch {
	case words[0] == "*":
		keyword = "*name*"
	case len(words) > 1:
		help += " Also spelled " + strings.Join(words[1:], ", ") + "."
	}
	var argument []string
	for _, a := range argumentTexts {
		if r.arg&a.bit != 0 {
			argument = append(argument, heads[r.head]+a.short)
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", keyword, strings.Join(argument, ", "), r.absent, help)
}
