package abuse_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// TestStopped stops one of the processes for ten seconds while 5,000 events a
// second go on, with buffers that hold them and with small ones.
func TestStopped(t *testing.T) {
	small := func(a, b *nettest.Config) {
		for _, c := range []*nettest.Config{a, b} {
			c.GeneralLines = []string{"NetlinkBufferSize 65536", "NetlinkBufferSizeMaxGrowth 262144"}
			c.Link = strings.ReplaceAll(nettest.LinkSection("UDP", c.Interface, c.Local, c.Peer, c.Port, false), "8388608", "65536")
		}
	}
	cases := []struct {
		name   string
		change func(a, b *nettest.Config)
		victim int
	}{
		{"active", nil, 0},
		{"active, small buffers", small, 0},
		{"standby", nil, 1},
		{"standby, small buffers", small, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.change).start()
			victim := []*nettest.Daemon{r.A, r.B}[c.victim]
			lines := len(r.lines(0))
			const rate, stopped = 5000, 10 * time.Second
			w := r.Writer(r.Two.A)
			load := flood.UDPFlows(50, 0, int((stopped+2*time.Second).Seconds())*rate/3)
			wait := inBackground(func() (flood.Result, error) {
				return w.Churn(flood.Churn{From: load.From, To: load.To, Rate: rate, Live: 2000, Flow: load.Flow})
			})
			time.Sleep(time.Second) // in the middle of the load
			r.OK(victim.Proc().Signal(syscall.SIGSTOP))
			time.Sleep(stopped)
			r.OK(victim.Proc().Signal(syscall.SIGCONT))
			start := time.Now()
			r.Must(wait())
			r.recovered()
			t.Logf("in step again %v after it went on", time.Since(start).Round(10*time.Millisecond))
			r.short(lines, 15)
		})
	}
}
