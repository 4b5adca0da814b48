package confparse

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/participle/v2/lexer"
)

// TestOracle compares verdicts with the real conntrackd on mutated files of
// the corpus. Every client command of conntrackd reads the whole file first,
// so no daemon is needed.
func TestOracle(t *testing.T) {
	conntrackd, err := exec.LookPath("conntrackd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("conntrackd is not installed: apt-get install conntrackd")
		}
		t.Skip("conntrackd is not installed")
	}
	texts := oracleTexts(t)
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	const rounds = 1000
	for range rounds {
		text := mutate(rng, texts)
		theirs, output := oracle(t, conntrackd, filepath.Join(dir, "c.conf"), text)
		_, _, ours := Parse("c.conf", []byte(text))
		if theirs {
			accepted++
		}
		if theirs != (ours == nil) {
			t.Errorf("conntrackd accepts: %v\n%s\nwe say: %v\n%s", theirs, output, ours, text)
		}
	}
	if accepted < rounds/20 || accepted > rounds*19/20 {
		t.Errorf("%d of %d mutants are accepted: the test is one-sided", accepted, rounds)
	}
}

// oracleTexts are the files that clients can read, but for those with Helper,
// and with sockets that nobody listens on.
func oracleTexts(t *testing.T) (texts []string) {
	for _, v := range corpus(t) {
		text := readCorpus(t, v.file)
		if v.phase == "parse" || strings.Contains(text, "Helper") {
			continue
		}
		texts = append(texts, strings.ReplaceAll(text, "/var/run/", "/nonexistent/"))
	}
	return texts
}

// glue are tokens for mutations; none is one of our liberties.
var glue = strings.Fields("{ } on OFF Yes 0 1 99 100 65536 4294967296 2147483648 -1 +5 /x /a/b#c 1.2.3.4 10.0.0.0/8 300.1.1.1 ::1 fe80::/10 1:2 " +
	"eth2 bond0.100 ftp TCP UDP FTFW alarm NACK RR fifo tcp Default Accept Ignore From Userspace Kernelspace for ESTABLISHED LISTEN CLOSED " +
	"General Sync Stats Filter Scheduler UNIX Options Mode Multicast Protocol Address State " +
	"HashSize PollSecs Nice Priority Type Path LogFile Syslog LockFile Port Group Interface Checksum IPv4_address IPv6_address IPv4_interface " +
	"IPv4_Destination_Address ErrorQueueLength RefreshTime ACKWindowSize StartupResync DisableInternalCache CommitTimeout ExpectationSync " +
	"TCPWindowTracking Backlog Systemd NetlinkOverrunResync bogus sync ; @ 5x")

// mutate changes one or two tokens of a text, mostly to others of their kind,
// and how they are separated.
func mutate(rng *rand.Rand, texts []string) string {
	var tokens []string
	lex, _ := language{}.LexBytes("", []byte(texts[rng.IntN(len(texts))]))
	all, _ := lexer.ConsumeAll(lex)
	for _, tok := range all[:len(all)-1] {
		tokens = append(tokens, tok.Value)
	}
	for range 1 + rng.IntN(2) {
		if len(tokens) == 0 {
			break
		}
		i, j := rng.IntN(len(tokens)), rng.IntN(len(tokens))
		other := glue[rng.IntN(len(glue))]
		switch rng.IntN(12) {
		case 0:
			tokens = slices.Delete(tokens, i, i+1)
		case 1:
			tokens[i], tokens[j] = tokens[j], tokens[i]
		case 2:
			tokens = slices.Insert(tokens, i, tokens[j])
		case 3:
			tokens = slices.Insert(tokens, i, other)
		case 4:
			tokens[i] = other
		default:
			if kindOf(tokens[i]) == kindOf(other) {
				tokens[i] = other
			}
		}
	}
	var b strings.Builder
	for _, tok := range tokens {
		b.WriteString(tok)
		b.WriteString([]string{" ", "\n", "\r\n", "\t", " # x\n", ""}[max(rng.IntN(300)-294, 0)])
	}
	return b.String() + "\n"
}

func kindOf(text string) lexer.TokenType {
	kind, _ := scan(text)
	return kind
}

// oracle asks conntrackd whether it can read a file. A client that can then
// looks in vain for its daemon.
func oracle(t *testing.T, conntrackd, file, text string) (accepts bool, output string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, conntrackd, "-C", file, "-s").CombinedOutput()
	if err == nil {
		t.Fatalf("conntrackd found a daemon: %s", out)
	}
	if strings.Contains(string(out), "can't connect") {
		return true, string(out)
	}
	if len(out) == 0 {
		t.Fatalf("conntrackd says nothing: %v", err)
	}
	return false, string(out)
}
