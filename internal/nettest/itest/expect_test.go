package itest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/related"
)

// helperRules assign helpers with objects: the kernel does so by itself no
// more. Only control connections may begin, all else must be expected.
const helperRules = `
flush ruleset
table inet fw {
	ct helper ftp { type "ftp" protocol tcp; }
	ct helper tftp { type "tftp" protocol udp; }
	chain raw_in {
		type filter hook prerouting priority raw; policy accept;
		iifname "sy0" notrack
	}
	chain raw_out {
		type filter hook output priority raw; policy accept;
		oifname "sy0" notrack
	}
	chain assign {
		type filter hook prerouting priority filter; policy accept;
		tcp dport 21 ct helper set "ftp"
		udp dport 69 ct helper set "tftp"
	}
	chain input {
		type filter hook input priority filter; policy drop;
		iifname { "lo", "sy0" } accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan" tcp dport 21 ct state new accept
		iifname "lan" udp dport 69 ct state new accept
	}
}`

// helperSNAT translates clients to addresses whose texts have another length, so
// that the helpers have to adjust sequence numbers too. The server finds
// translatedTo by a route.
const translatedTo = "10.2.0.100"

const helperSNAT = `
table inet fw {
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "wan" accept
		meta nfproto ipv4 snat ip to ` + translatedTo + `
		meta nfproto ipv6 snat ip6 to fd02::1
	}
}`

// A session has announced a data connection that is not there yet.
type session struct {
	name       string
	fromServer bool                   // who begins it
	fetch      func() (string, error) // makes it and returns what came
}

// newHelperRig makes a rig with the rules loaded, the addresses on A, both
// daemons running and the servers at their work.
func newHelperRig(t *testing.T, p pairing, snat bool, change func(a, b *nettest.Config)) (*rig, *related.TFTPServer) {
	t.Helper()
	r := newPairRig(t, p, change)
	for _, fw := range []*nettest.Node{r.two.A, r.two.B} {
		r.ok(fw.NFT(helperRules))
		if snat {
			r.ok(fw.NFT(helperSNAT))
		}
	}
	r.ok(r.pair.Server.IP("route add " + translatedTo + " via " + nettest.WanVIP.String()))
	stop, err := related.ServeFTP(r.pair.Server)
	r.ok(err)
	t.Cleanup(func() { _ = stop() })
	tftp, err := related.ServeTFTP(r.pair.Server)
	r.ok(err)
	t.Cleanup(func() { _ = tftp.Close() })
	r.ok(r.pair.MoveVIPs(r.two.A))
	r.start()
	return r, tftp
}

// announce opens a session of every kind that has not got its data yet.
func (r *rig) announce(tftp *related.TFTPServer) (all []session) {
	r.Helper()
	for _, server := range []netip.Addr{nettest.Server, nettest.Server6} {
		for _, mode := range []related.Mode{related.Port, related.Pasv, related.Eprt, related.Epsv} {
			if server.Is6() && (mode == related.Port || mode == related.Pasv) {
				continue
			}
			f, err := related.DialFTP(r.pair.Client, server)
			r.ok(err)
			r.Cleanup(func() { _ = f.Close() })
			r.ok(f.Announce(mode))
			all = append(all, session{fmt.Sprintf("FTP %s %v", mode, server), mode.Active(), f.Fetch})
		}
		c, err := related.RequestTFTP(r.pair.Client, server)
		r.ok(err)
		r.Cleanup(func() { _ = c.Close() })
		back, err := tftp.Request()
		r.ok(err)
		all = append(all, session{fmt.Sprintf("TFTP %v", server), true, func() (string, error) {
			answered := make(chan error, 1)
			go func() { answered <- tftp.Answer(back) }()
			text, err := c.Receive()
			return text, errors.Join(err, <-answered)
		}})
	}
	return all
}

// fetchAll makes all data connections at once and returns those that failed.
func fetchAll(all []session) map[string]error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			text, err := all[i].fetch()
			if err == nil && text != related.Content {
				err = fmt.Errorf("got %q", text)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	failed := map[string]error{}
	for i, err := range errs {
		if err != nil {
			failed[all[i].name] = err
		}
	}
	return failed
}

func expectSync(a, b *nettest.Config) { a.ExpectationSync, b.ExpectationSync = true, true }

// expectationsArrive waits until B's external cache has want expectations and
// shows each as A does.
func (r *rig) expectationsArrive(want int) {
	r.Helper()
	r.eventually("the expectations", func() error {
		internal, external := r.expectDump(r.a, "-i"), r.expectDump(r.b, "-e")
		if len(external) != want || !slices.Equal(internal, external) {
			return fmt.Errorf("A has %d, B knows %d, want %d\n%s\n%s", len(internal), len(external), want,
				strings.Join(internal, "\n"), strings.Join(external, "\n"))
		}
		return nil
	})
}

var agePattern = regexp.MustCompile(` \[active since \d+s\]$`)

// expectDump is a dump of expectations without their ages, sorted.
func (r *rig) expectDump(d *nettest.Daemon, option string) []string {
	r.Helper()
	var lines []string
	for line := range strings.Lines(r.request(d, option, "expect")) {
		line = strings.TrimSuffix(line, "\n")
		if !agePattern.MatchString(line) {
			r.Fatalf("%s expect: no age in %q", option, line)
		}
		lines = append(lines, agePattern.ReplaceAllString(line, ""))
	}
	slices.Sort(lines)
	return lines
}

// TestExpectFailover moves from A to B between the control connection and the
// data connection of every kind of session. Then the data must come, and B's
// kernel must have expected what A's did.
func TestExpectFailover(t *testing.T) {
	for _, snat := range []bool{false, true} {
		t.Run(fmt.Sprintf("SNAT %v", snat), func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) {
				r, tftp := newHelperRig(t, p, snat, expectSync)
				r.handshake()
				sessions := r.announce(tftp)
				if p.a == nettest.C {
					// It drops an expectation that is older than its master, as
					// those of TFTP are, and is told of no adjusted sequence
					// number, but finds both in the kernel's tables.
					r.requests(r.a, "-R", "-B")
				}
				r.expectationsArrive(len(sessions))
				r.settle()
				r.failOver()
				r.sameExpectations(p.b)
				r.checkFetched(sessions, fetchAll(sessions), p.b == nettest.C && snat)
			})
		})
	}
}

// checkFetched fails unless every session got its data. natLost: the committer
// forgot the translation of what is expected, so what the server begins has
// nowhere to go.
func (r *rig) checkFetched(sessions []session, failed map[string]error, natLost bool) {
	r.Helper()
	for _, s := range sessions {
		switch err := failed[s.name]; {
		case natLost && s.fromServer && err == nil:
			r.Errorf("%s works although the translation was not committed", s.name)
		case !(natLost && s.fromServer) && err != nil:
			r.Errorf("%s: %v", s.name, err)
		}
	}
}

// Without ExpectationSync no data connection survives the failover: it is the
// expectations that TestExpectFailover tests.
func TestNoExpectNoFailover(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.Go)
	r, tftp := newHelperRig(t, pairing{nettest.Go, nettest.Go}, false, nil)
	r.handshake()
	sessions := r.announce(tftp)
	r.cachesAgree(r.a, r.b, len(sessions))
	for _, args := range [][]string{{"-i", "expect"}, {"-e", "expect"}, {"-i", "expect", "-x"}, {"-s", "expect"}, {"-c", "expect"}, {"-F", "expect"}, {"-R", "expect"}} {
		if out := r.request(r.a, args...); out != "" {
			t.Errorf("%v without ExpectationSync: %s", args, out)
		}
	}
	if all, err := r.two.A.Expectations(); err != nil || len(all) != len(sessions) {
		t.Errorf("A's kernel expects %d of %d (%v): -F expect must do nothing", len(all), len(sessions), err)
	}
	r.failOver()
	failed := fetchAll(sessions)
	for _, s := range sessions {
		if failed[s.name] == nil {
			t.Errorf("%s works without its expectation", s.name)
		}
	}
}

// TestExpectDirect does without both caches: what A's kernel expects is in B's
// kernel before anybody orders a commit.
func TestExpectDirect(t *testing.T) {
	t.Parallel()
	nettest.Need(t, nettest.Go)
	r, tftp := newHelperRig(t, pairing{nettest.Go, nettest.Go}, true, func(a, b *nettest.Config) {
		expectSync(a, b)
		for _, c := range []*nettest.Config{a, b} {
			c.Mode = "NOTRACK"
			c.ExpectHelpers = []string{"ftp", "tftp"}
			c.ModeLines = []string{"DisableInternalCache on", "DisableExternalCache on"}
		}
	})
	r.handshake()
	sessions := r.announce(tftp)
	r.eventually("the expectations in B's kernel", func() error {
		if all, err := r.two.B.Expectations(); err != nil || len(all) != len(sessions) {
			return fmt.Errorf("%d of %d (%v)", len(all), len(sessions), err)
		}
		return nil
	})
	if got := strings.Count(r.request(r.a, "-i", "expect"), "ftp\n"); got != len(sessions) {
		t.Errorf("-i shows %d of %d", got, len(sessions))
	}
	for d, want := range map[*nettest.Daemon]string{r.a: "internal bypass:\nconnections new:\t\t%12d\n", r.b: "external inject:\nconnections created:\t\t%12d\t"} {
		if got := r.request(d, "-s", "expect"); !strings.Contains(got, fmt.Sprintf(want, len(sessions))) {
			t.Errorf("-s expect of %s: %s", d, got)
		}
	}
	r.settle()
	r.ok(r.pair.DropVIPs())
	r.ok(r.pair.MoveVIPs(r.two.B))
	r.checkFetched(sessions, fetchAll(sessions), false)
}

// settle waits until the caches of flows of both nodes stay as they are: there
// is no other sign that a sequence adjustment has arrived.
func (r *rig) settle() {
	r.Helper()
	const quiet, looks = 300 * time.Millisecond, 5 // a busy daemon answers late, too
	var last string
	var since time.Time
	same := 0
	r.eventually("the caches to settle", func() error {
		now := ""
		for _, d := range []*nettest.Daemon{r.a, r.b} {
			caches, _, _ := strings.Cut(r.request(d, "-s"), "traffic processed")
			now += caches
		}
		if same++; now != last {
			last, since, same = now, time.Now(), 0
		}
		if same < looks || time.Since(since) < quiet {
			return errors.New("they change")
		}
		return nil
	})
}

// failOver moves the addresses from A to B.
func (r *rig) failOver() {
	r.Helper()
	r.ok(r.pair.DropVIPs())
	r.request(r.b, "-c")
	r.ok(r.pair.MoveVIPs(r.two.B))
}

// lostByC is what the C daemon's library does not write.
var lostByC = regexp.MustCompile(` NAT .*`)

// sameExpectations fails unless B's kernel expects what A's does, in all
// detail that its daemon cares for.
func (r *rig) sameExpectations(committer nettest.Kind) {
	r.Helper()
	var texts [2]string
	for i, n := range []*nettest.Node{r.two.A, r.two.B} {
		all, err := n.Expectations()
		r.ok(err)
		texts[i] = strings.Join(all, "\n")
		if committer == nettest.C {
			texts[i] = lostByC.ReplaceAllString(texts[i], "")
		}
	}
	if texts[0] != texts[1] {
		r.Errorf("the kernels expect differently:\n%s\n\n%s", texts[0], texts[1])
	}
}
