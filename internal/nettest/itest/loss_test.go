package itest_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestLoss drops datagrams of both directions at random while 20,000 flows
// are created, updated, partly ended and partly made again. Afterwards the
// standby must know exactly what the active node knows. The counters of the
// rules, and the receiver's own count of lost messages, prove that there was
// something to repair.
func TestLoss(t *testing.T) {
	const flows, rate = 20000, 20000
	ended := func(i int) bool { return i%2 == 1 }
	again := func(i int) bool { return i%4 == 1 }
	for _, percent := range []int{5, 20} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			forPairings(t, func(t *testing.T, p pairing) {
				r := newRig(t, p, func(a, _ *nettest.Config) { // loses datagrams, not events
					a.GeneralLines = append(a.GeneralLines, "NetlinkBufferSize 134217728", "NetlinkBufferSizeMaxGrowth 134217728")
				}).start()
				r.handshake()
				r.ok(r.two.A.Lose(percent))
				r.ok(r.two.B.Lose(percent))
				w := r.flood(r.two.A)
				r.must(w.Create, load(0, flows, rate, 0, nil))
				r.must(w.Update, load(0, flows, rate, 100000, nil))
				r.must(w.Delete, load(0, flows, rate, 0, ended))
				r.must(w.Create, load(0, flows, rate, 200000, again))
				r.cachesAgree(r.a, r.b, flows*3/4)
				r.cachesAgree(r.b, r.a, 0)

				seen, lost, err := r.two.B.LossCount()
				r.ok(err)
				if lost == 0 || r.lostMessages() == 0 {
					t.Errorf("nothing was lost (rules: %d of %d, daemon: %d messages): the test shows nothing", lost, seen, r.lostMessages())
				}
				t.Logf("%d of %d datagrams lost, %d messages", lost, seen, r.lostMessages())
			})
		})
	}
}

var lostPattern = regexp.MustCompile(`Packets lost:\s+(\d+)`)

// lostMessages is what B counted as missing.
func (r *rig) lostMessages() int {
	r.Helper()
	m := lostPattern.FindStringSubmatch(r.request(r.b, "-s", "network"))
	if m == nil {
		r.Fatal("no lost packets in -s network")
	}
	n, err := strconv.Atoi(m[1])
	r.ok(err)
	return n
}
