package daemontest_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/duo"
)

// Request numbers that tests send over connections of their own.
const (
	dumpInternal = 16
	commitAll    = 46
	flushCaches  = 45
)

// TestStalledClients has clients that say nothing and clients that ask for all
// of a large cache and do not read: neither replication nor other clients
// notice.
func TestStalledClients(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 50000
	w := r.Writer(r.Two.A)
	r.Must(w.Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)

	for range 20 {
		silent, err := net.Dial("unix", r.A.Config.Socket)
		r.OK(err)
		t.Cleanup(func() { silent.Close() })
	}
	for range 10 {
		r.Dial(r.A, duo.Ask(dumpInternal))
	}
	var late net.Conn // soon enough not to be given up on a slow machine
	for i := range 20 {
		if i == 17 {
			late = r.Dial(r.A, duo.Ask(dumpInternal))
		}
		r.Must(w.Create(flows(2, i, i+1)))
		r.cached(r.B, -1, many+i+1)
		r.Request(r.A, "-s")
		if n := strings.Count(r.Request(r.A, "-i"), "\n"); n != many+i+1 {
			t.Fatalf("round %d: %d lines, want %d", i, n, many+i+1)
		}
	}
	// Who begins to read in the end gets a whole dump.
	if n := strings.Count(r.finish(late), "\n"); n < many {
		t.Errorf("a late reader got %d lines, want at least %d", n, many)
	}
	r.OK(r.A.Stop())
}

// TestConcurrentCommits orders eight commits at once: one is done, the
// others are skipped; afterwards the next one works again.
func TestConcurrentCommits(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many, clients = 20000, 8
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)

	var conns []net.Conn
	for range clients {
		conns = append(conns, r.Dial(r.B, duo.Ask(commitAll)))
	}
	for _, conn := range conns {
		r.finish(conn)
	}
	if n := r.count(r.B); n != many {
		t.Errorf("%d entries in the kernel, want %d", n, many)
	}
	begun, skipped, done := r.logged(r.B, "committing all external caches"),
		r.logged(r.B, "[notice] commit already in progress, skipping"), r.logged(r.B, fmt.Sprintf("Committed %d new entries", many))
	if begun != clients || skipped == 0 || done == 0 || done+skipped != clients {
		t.Errorf("%d begun, %d skipped, %d done of %d", begun, skipped, done, clients)
	}
	for range 2 {
		r.Request(r.B, "-c")
	}
	if n := r.logged(r.B, fmt.Sprintf("Committed %d new entries", many)); n != done+2 {
		t.Errorf("%d commits done, want %d", n, done+2)
	}
	r.toldNothing(r.B, r.A)
}

// TestFlushDuringCommit asks for a flush in the middle of a commit: it is
// refused with an error in the log, and the commit is complete.
func TestFlushDuringCommit(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many = 60000
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)
	commit := r.stopInCommit(many)
	flush := r.Dial(r.B, duo.Ask(flushCaches))
	r.OK(r.B.Proc().Signal(syscall.SIGCONT))
	r.finish(flush)
	r.finish(commit)
	if n := r.logged(r.B, "[ERROR] ignoring flush command, commit still in progress"); n != 1 {
		t.Errorf("the flush was refused %d times, want once", n)
	}
	if n := r.count(r.B); n != many {
		t.Errorf("%d entries in the kernel, want %d", n, many)
	}
	r.Request(r.B, "-f")
	r.cached(r.B, 0, 0)
}

// stopInCommit orders a commit on B, and stops the daemon before half of it is
// done. The client is that of the commit.
func (r *rig) stopInCommit(many int) (client net.Conn) {
	r.Helper()
	for range 20 {
		r.Eventually("an empty table", func() error { return wantCount(r.held(r.B), 0) })
		client = r.Dial(r.B, duo.Ask(commitAll))
		r.Eventually("the commit to begin", func() error {
			if r.held(r.B) == 0 {
				return errors.New("nothing written")
			}
			return nil
		})
		r.OK(r.B.Proc().Signal(syscall.SIGSTOP))
		if r.held(r.B) < many/2 {
			return client
		}
		r.OK(r.B.Proc().Signal(syscall.SIGCONT)) // too late
		r.finish(client)
		r.Request(r.B, "-F")
	}
	r.Fatal("each commit was over too soon: the test shows nothing")
	return nil
}

// TestBadRequests sends rubbish: it is counted and answered with nothing.
func TestBadRequests(t *testing.T) {
	r := newRig(t, nil)
	r.OK(r.A.Start(t.Context()))
	for _, code := range []int32{2, 15, 27, 49, 99, -1, 1 << 30} {
		if text := r.finish(r.Dial(r.A, duo.Ask(code))); text != "" {
			t.Errorf("request %d: %q", code, text)
		}
	}
	short, err := net.Dial("unix", r.A.Config.Socket)
	r.OK(err)
	_, err = short.Write([]byte{1})
	r.OK(err)
	r.OK(short.Close())
	r.Eventually("the counters", func() error {
		if u, f := r.counter(r.A, "local unknown request"), r.counter(r.A, "local read failed"); u != 7 || f != 1 {
			return fmt.Errorf("%d unknown requests and %d failed reads, want 7 and 1", u, f)
		}
		return nil
	})
}

// TestScriptLog compares the log of what primary-backup.sh does with the C
// daemon's, line for line.
func TestScriptLog(t *testing.T) {
	r := newRig(t, func(_, b *nettest.Config) {
		b.FilterLines = []string{"Protocol Accept { UDP", "}"}
	})
	r.start()
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, 17)))
	r.cached(r.B, -1, 17)
	begin := len(own(r.Messages(r.B)))
	for _, args := range []string{"-c", "-f", "-R", "-B", "-t", "-n", "-F"} {
		r.Request(r.B, args)
	}
	r.Request(r.B, "-f", "internal")
	r.Request(r.B, "-f", "external")
	r.Request(r.B, "-k")
	r.await(r.B.Proc())
	all := own(r.Messages(r.B))
	wantLines(t, all[:begin], []string{
		`\[warning\] can't set scheduler FIFO priority 0: invalid argument`,
		`\[notice\] netlink event socket buffer size has been set to 16777216 bytes`,
		`\[notice\] using user-space event filtering`,
		`\[notice\] initialization completed`,
		`\[notice\] -- starting in console mode --`,
	})
	wantLines(t, all[begin:], []string{
		`\[notice\] committing all external caches`,
		`\[notice\] Committed 17 new entries`,
		`\[notice\] commit has taken \d+\.\d{6} seconds`,
		`\[notice\] flushing caches`,
		`\[notice\] resync with master conntrack table`,
		`\[notice\] commit verified: 17 of 17 entries are in the kernel`,
		`\[notice\] sending bulk update`,
		`\[notice\] flushing conntrack table in 60 secs`,
		`\[notice\] resync requested`,
		`\[notice\] flushing kernel conntrack table`,
		`\[notice\] flushing internal cache`,
		`\[notice\] flushing external cache`,
		`\[notice\] ---- shutdown received ----`,
	})
}

// TestSweepDuringCommit orders a refresh in the middle of a commit: no event
// comes of what a commit creates, so a refresh must not take it for something
// that has gone.
func TestSweepDuringCommit(t *testing.T) {
	r := newRig(t, nil)
	r.start()
	const many, rounds = 30000, 4
	r.Must(r.Writer(r.Two.A).Create(flows(1, 0, many)))
	r.cached(r.B, -1, many)
	for range rounds {
		commit := r.Dial(r.B, duo.Ask(commitAll))
		r.Request(r.B, "-R")
		r.finish(commit)
		r.cached(r.B, many, many)
		r.Request(r.B, "-F")
		r.cached(r.B, 0, many)
	}
	if n := r.counter(r.B, "netlink overrun"); n != 0 {
		t.Errorf("%d overruns: the test shows nothing", n)
	}
}
