package ctl

import (
	"fmt"
	"strings"
)

// UsageText is the help of -h, generated from the rows. Scripts find the
// version after the v in its first line.
func UsageText(argv0, version string, rows []Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Connection tracking userspace daemon v%s\n", version)
	fmt.Fprintf(&b, "Usage: %s [commands] [options]\n", argv0)
	b.WriteString("\nGeneral commands:\n")
	for _, g := range generalOptions {
		fmt.Fprintf(&b, "  -%s, %s\n", g.usage, g.help)
	}
	b.WriteString("\nClient mode commands:\n")
	for _, o := range options(rows) {
		fmt.Fprintf(&b, "  -%c%s, %s\n", o.letter, alternatives(o.words()), o.help)
	}
	b.WriteString("  -x, print entries as XML (after -i or -e)\n\n")
	return b.String()
}

func alternatives(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return " [" + strings.Join(words, "|") + "]"
}

// VersionText is the answer to -v, two lines: the conntrackd that this stands
// in for, and which build of ours it is.
func VersionText(version, build string) string {
	return "Connection tracking userspace daemon v" + version + " (conntrackgo " + build + "). Licensed under MIT.\n" +
		"Speaks the synchronisation protocol, configuration and commands of conntrackd 1.4.7.\n"
}
