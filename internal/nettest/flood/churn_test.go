package flood_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

func tcp(i int, f *flood.Flow) {
	*f = flood.Flow{
		Proto: flood.TCP, Src: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Dst: netip.AddrFrom4([4]byte{10, 9, 0, 1}),
		Sport: 1000, Dport: 80, Timeout: 500, State: 3, Status: flood.SeenReply | flood.Assured | flood.Confirmed,
	}
}

// TestChurnMakesItsEvents listens to the kernel: each flow comes as SYN_SENT,
// becomes ESTABLISHED and goes.
func TestChurnMakesItsEvents(t *testing.T) {
	n, w := open(t)
	const flows = 300
	listener, err := n.Start(nil, "stdbuf", "-oL", "conntrack", "-E", "-b", "4000000")
	if err != nil {
		t.Fatal(err)
	}
	// It listens once it sees an event.
	probe := flood.Load{To: 1, Flow: func(_ int, f *flood.Flow) { tcp(60_000, f) }}
	err = nettest.Eventually(t.Context(), 30*time.Second, "conntrack -E to listen", func() error {
		if _, err := w.Create(probe); err != nil {
			return err
		}
		if _, err := w.Delete(probe); err != nil {
			return err
		}
		_, err := seen(listener.Log, "[DESTROY]")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	between := 0
	churn := flood.Churn{To: flows, Rate: 3000, Live: 20, Flow: tcp, Between: func() { between++ }}
	r, err := w.Churn(churn)
	if err != nil || r.OK != churn.Events() || churn.Events() != 3*flows {
		t.Fatalf("%d of %d events, %v", r.OK, churn.Events(), err)
	}
	// At least once for each batch, and those are small unless the machine is busy.
	if between < 3*flows/128 || between > r.OK {
		t.Errorf("Between was called %d times in %d requests", between, r.OK)
	}
	if left, err := n.Count(); left != 0 || err != nil {
		t.Errorf("%d entries left, %v", left, err)
	}
	// The tool looks for the writer's name in all of /proc at each event.
	var text string
	err = nettest.Eventually(t.Context(), time.Minute, "the last event", func() error {
		text, err = seen(listener.Log, "NEW")
		if n := strings.Count(text, "src=10.0.1.43 dst=10.9.0.1"); err == nil && n < 3 {
			err = fmt.Errorf("%d events of the last flow", n)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%.1500s", err, text[max(0, len(text)-1500):])
	}
	for i := range flows {
		var f flood.Flow
		tcp(i, &f)
		from := "src=" + f.Src.String() + " "
		var life []string
		for line := range strings.Lines(text) {
			if strings.Contains(line, from) && strings.Contains(line, "dst=10.9.0.1") {
				life = append(life, strings.Fields(line)[0])
			}
		}
		if got := strings.Join(life, " "); got != "[NEW] [UPDATE] [DESTROY]" {
			t.Fatalf("flow %d: %s", i, got)
		}
		if i == 0 && (!strings.Contains(text, "SYN_SENT "+from) || !strings.Contains(text, "ESTABLISHED "+from)) {
			t.Errorf("states of flow 0:\n%.500s", text)
		}
	}
}

// seen reads a log that must hold something.
func seen(path, what string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(b), what) {
		err = os.ErrNotExist
	}
	return string(b), err
}

// TestPackets sends real traffic through a firewall that tracks it.
func TestPackets(t *testing.T) {
	lab := nettest.Get(t)
	pair, err := lab.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.A.NFT("table inet t {\nchain f {\ntype filter hook forward priority 0; policy accept;\nct state new accept\n}\n}"); err != nil {
		t.Fatal(err)
	}
	if err := pair.MoveVIPs(pair.A); err != nil {
		t.Fatal(err)
	}
	p := flood.Packets{Client: pair.Client.Do, Server: pair.Server.Do, At: nettest.Server, Port: 10_000, Rate: 1000, Flows: 300}
	took, answered, err := p.UDP()
	if err != nil || answered < p.Flows*9/10 || answered > p.Flows || took < 250*time.Millisecond {
		t.Errorf("UDP: %d of %d answered in %v, %v", answered, p.Flows, took, err)
	}
	p.Flows = 100
	if took, err := p.TCP(); err != nil || took < 80*time.Millisecond {
		t.Errorf("TCP: %v, %v", took, err)
	}
	// The server has yet to close its ends of the last connections.
	err = nettest.Eventually(t.Context(), 20*time.Second, "the firewall to track them", func() error {
		text, err := pair.A.Run("conntrack", "-L")
		if err != nil {
			return err
		}
		for word, want := range map[string]int{"udp ": 300, "TIME_WAIT ": 100} {
			if got := strings.Count(text, word); got != want {
				return fmt.Errorf("%d %s, want %d", got, word, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTooManyUDPFlows(t *testing.T) {
	p := flood.Packets{Rate: 1, Flows: flood.MaxUDPFlows + 1}
	if _, _, err := p.UDP(); err == nil {
		t.Error("more flows than there are pairs of ports")
	}
}
