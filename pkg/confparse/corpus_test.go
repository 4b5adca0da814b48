package confparse

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// verdict is one line of testdata/configs/index.tsv: what conntrackd 1.4.7
// did with a file. Phase is "-", "parse" (clients fail too) or "start".
type verdict struct {
	file  string
	phase string
}

func corpus(t testing.TB) (verdicts []verdict) {
	t.Helper()
	data, err := os.ReadFile("testdata/configs/index.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			t.Fatalf("index line %q", line)
		}
		verdicts = append(verdicts, verdict{fields[0], fields[2]})
	}
	return verdicts
}

// differences are the files that conntrackd refuses and we accept, and why.
// docs/compatibility.md must name each.
var differences = map[string]string{
	"invalid/i16-quoted-path.conf":                   "quotes around a value are what everybody else has",
	"invalid/i20-final-comment-without-newline.conf": "a comment is a comment with or without a line feed after it",
	"invalid/i41-ipv6-zone.conf":                     "the zone is the link's interface, so it is clear and redundant",
	"invalid/i43-interface-name-looks-hex.conf":      "after Interface, fab0 can only be a name",
	"invalid/i53-helper-unknown.conf":                "Helper sections are skipped: the plug-ins are not ours",
	"invalid/i54-helper-bad-l3.conf":                 "Helper sections are skipped",
	"invalid/i55-helper-bad-l4.conf":                 "Helper sections are skipped",
	"invalid/i56-helper-policy-empty.conf":           "Helper sections are skipped",
	"invalid/i57-helper-policy-unknown.conf":         "Helper sections are skipped",
}

// system are the files whose start fails for what the system is like, which
// the text does not tell.
var system = map[string]string{
	"invalid/i10-unknown-interface.conf":                "the interface does not exist",
	"invalid/i38-multicast-without-ipv4-interface.conf": "there is no route to the group",
	"invalid/i40-address-not-local.conf":                "the address is not the machine's",
	"invalid/i58-logfile-dir-missing.conf":              "the directory does not exist",
	"invalid/i59-lockfile-dir-missing.conf":             "the directory does not exist",
	"invalid/i60-socket-dir-missing.conf":               "the directory does not exist",
	"valid/v55-helper-rpc-tns.conf":                     "the kernel lacks user space helpers",
}

func TestCorpus(t *testing.T) {
	verdicts := corpus(t)
	if len(verdicts) != 118 {
		t.Fatalf("the corpus has %d files", len(verdicts))
	}
	for _, v := range verdicts {
		t.Run(filepath.Base(v.file), func(t *testing.T) {
			cfg, _, err := Load(filepath.Join("testdata/configs", v.file))
			_, differs := differences[v.file]
			wantRefused := v.phase == "parse" && !differs
			if (err != nil) != wantRefused {
				t.Fatalf("parse: %v, conntrackd fails in phase %s, listed as different: %v", err, v.phase, differs)
			}
			if err != nil {
				checkPlace(t, err)
				return
			}
			_, bySystem := system[v.file]
			err = cfg.CheckStart()
			wantRefused = v.phase == "start" && !bySystem
			if (err != nil) != wantRefused {
				t.Fatalf("start: %v, conntrackd fails in phase %s, listed as the system's: %v", err, v.phase, bySystem)
			}
			if err != nil {
				checkPlace(t, err)
			}
		})
	}
}

// checkPlace wants an *Error that says where in the file.
func checkPlace(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is a %T", err)
	}
	if e.File == "" || e.Line < 1 || e.Column < 1 || e.Text == "" {
		t.Errorf("incomplete error %+v", e)
	}
}

func TestDifferencesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, v := range corpus(t) {
		known[v.file] = true
	}
	for _, list := range []map[string]string{differences, system} {
		for file, reason := range list {
			if !known[file] || reason == "" {
				t.Errorf("listed %s: in the corpus %v, reason %q", file, known[file], reason)
			}
		}
	}
	for file := range differences {
		if name := strings.TrimSuffix(filepath.Base(file), ".conf"); !strings.Contains(string(doc), name) {
			t.Errorf("docs/compatibility.md does not name %s", name)
		}
	}
}

func TestNeverTheSystem(t *testing.T) {
	// The same text means the same wherever it is read.
	src := []byte("Sync { UDP { Interface nosuch0 IPv4_address 203.0.113.7 Port 1 IPv4_Destination_Address 203.0.113.8 } }" +
		"General { LockFile /nonexistent/l UNIX { Path /nonexistent/s } LogFile /nonexistent/x }")
	cfg, warnings, err := Parse("x", src)
	if err != nil || cfg.CheckStart() != nil {
		t.Fatal(err, cfg.CheckStart())
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].Text, "no Mode") {
		t.Errorf("warnings %v", warnings)
	}
}

func TestLoadMissing(t *testing.T) {
	_, _, err := Load("testdata/nonexistent.conf")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "testdata/nonexistent.conf") {
		t.Errorf("error %v", err)
	}
}
