package abuse_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
	"github.com/conntrackgo/conntrackgo/internal/nettest/garbage"
)

var (
	linkA     = netip.AddrPortFrom(nettest.SyncA, 3780)
	stranger  = netip.MustParseAddr("203.0.113.5")
	neighbour = netip.MustParseAddr("192.168.100.2") // the other node itself
)

const (
	floodRate = 100_000 // datagrams per second
	// heardAgain is how long after a flood the other node may not be heard;
	// slack is for a machine with much else to do.
	heardAgain = 2 * time.Second
	slack      = 8 * time.Second
)

// TestGarbage floods a with every kind of garbage, from a stranger and from the
// other node's address, while flows come and go on both nodes.
func TestGarbage(t *testing.T) {
	cases := []struct {
		name  string
		from  []netip.Addr
		lines []string // each is in the log, once
	}{
		{"stranger", []netip.Addr{stranger}, []string{`refused (\d+ datagrams|a datagram).* 203\.0\.113\.5: `}},
		{"stranger and peer", []netip.Addr{stranger, neighbour}, []string{`refused (\d+ datagrams|a datagram)`, `malformed messages came over the sync link`}},
	}
	for seed, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil).start()
			r.OK(r.Two.B.AddAddr(nettest.SyncIf, stranger.String()+"/32"))
			r.OK(r.Two.A.IP("route add " + stranger.String() + " dev " + nettest.SyncIf))
			before, lines, begun := r.usage(), len(r.lines(0)), time.Now()
			duration := floodTime(t)

			var floods []func() (int, error)
			for i, from := range c.from {
				f := garbage.Flood{Inside: r.Two.B.Do, From: from, To: linkA, Rate: floodRate / len(c.from), Duration: duration}
				s := garbage.New(uint64(10*seed + i))
				s.Seq = uint32(time.Now().Unix()) // as a daemon that has just started
				floods = append(floods, inBackground(func() (int, error) { return f.Run(s) }))
			}
			churns := r.churn(duration)
			sent := 0
			for _, wait := range floods {
				n, err := wait()
				r.OK(err)
				sent += n
			}
			ended := time.Now()
			r.Must(r.Writer(r.Two.B).Create(flood.UDPFlows(9, 0, 1)))
			r.heard(9, ended)
			churns()
			t.Logf("%d datagrams in %v", sent, duration)
			if sent < int(duration.Seconds())*floodRate/20 {
				t.Errorf("only %d datagrams: the test shows little", sent)
			}
			r.recovered()
			r.bounded(before, 48<<10, 0)
			for _, l := range c.lines {
				r.saysOnce(lines, l, begun)
			}
			r.short(lines, 25*(1+int(time.Since(begun)/time.Minute)))
		})
	}
}

// churn makes flows come and go on both nodes for a while; the function
// returned waits for the end.
func (r *rig) churn(d time.Duration) (wait func()) {
	const rate = 500
	var waits []func() (flood.Result, error)
	for i, n := range []*nettest.Node{r.Two.A, r.Two.B} {
		w := r.Writer(n)
		load := flood.UDPFlows(byte(20+i), 0, int(d.Seconds()*rate/3))
		waits = append(waits, inBackground(func() (flood.Result, error) {
			return w.Churn(flood.Churn{From: load.From, To: load.To, Rate: rate, Live: 100, Flow: load.Flow})
		}))
	}
	return func() {
		r.Helper()
		for _, wait := range waits {
			r.Must(wait())
		}
	}
}

// heard fails unless a's external cache has a flow of a network within
// heardAgain of a moment.
func (r *rig) heard(network byte, since time.Time) {
	r.Helper()
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, network}), 16)
	r.Eventually(fmt.Sprintf("a flow of %v to arrive", prefix), func() error {
		t, err := r.A.External(r.Context())
		if err != nil {
			return err
		}
		for k := range t {
			if prefix.Contains(k.Tuple.Src) {
				return nil
			}
		}
		return fmt.Errorf("not among %d", len(t))
	})
	took := time.Since(since)
	r.Logf("the other node was heard %v after the flood", took.Round(time.Millisecond))
	if took > heardAgain+slack {
		r.Errorf("the other node was heard %v after the flood, want %v", took, heardAgain)
	}
}
