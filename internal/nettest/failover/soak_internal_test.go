package failover

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest/flood"
)

// loopback is a server without a firewall before it, and flows to it.
func loopback(t *testing.T) (*server, *Traffic) {
	t.Helper()
	ctx, done := context.WithCancel(context.Background())
	s := &server{done: done}
	t.Cleanup(s.close)
	var err error
	if s.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	go s.accept()
	go s.answerDatagrams()
	go s.callAll(ctx)
	traffic := &Traffic{}
	for _, role := range []Role{Busy, Busy, Idle, Idle, UDP, UDP} {
		addr := s.tcp.Addr()
		if role == UDP {
			addr = s.udp.LocalAddr()
		}
		f := &Flow{Role: role, Class: "loopback", last: time.Now()}
		if f.conn, err = net.Dial(addr.Network(), addr.String()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.ask(), f.await(time.Now().Add(5*time.Second))); err != nil {
			t.Fatal(err)
		}
		traffic.Flows = append(traffic.Flows, f)
	}
	traffic.start()
	t.Cleanup(traffic.stop)
	return s, traffic
}

// reset ends the server's end of a connection.
func (s *server) reset(t *testing.T, f *Flow) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c.RemoteAddr().String() == f.conn.LocalAddr().String() {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			return
		}
	}
	t.Fatalf("the server does not know %s", f)
}

// TestLost cuts connections of each kind; exactly these are missed.
func TestLost(t *testing.T) {
	const within = 2 * time.Second
	busy, quiet, udp := []int{0}, []int{3}, []int{4, 5}
	for name, test := range map[string]struct {
		cut  func(t *testing.T, s *server, flows []*Flow)
		want []int
	}{
		"nothing": {func(*testing.T, *server, []*Flow) {}, nil},
		"talking": {func(t *testing.T, s *server, flows []*Flow) { s.reset(t, flows[0]) }, busy},
		"quiet":   {func(t *testing.T, s *server, flows []*Flow) { s.reset(t, flows[3]) }, quiet},
		"UDP":     {func(_ *testing.T, s *server, _ []*Flow) { s.udp.Close() }, udp},
		"one of each": {func(t *testing.T, s *server, flows []*Flow) {
			s.reset(t, flows[0])
			s.reset(t, flows[3])
			s.udp.Close()
		}, []int{0, 3, 4, 5}},
		"translated anew": {func(_ *testing.T, _ *server, flows []*Flow) {
			flows[1].mu.Lock()
			flows[1].seen = otherPort
			flows[1].mu.Unlock()
		}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, traffic := loopback(t)
			test.cut(t, s, traffic.Flows)
			lost := traffic.Lost(t.Context(), within)
			if len(lost) != len(test.want) {
				t.Errorf("missed %v, want flows %v", lost, test.want)
			}
			for _, i := range test.want {
				if lost[traffic.Flows[i]] == nil {
					t.Errorf("%s is not missed", traffic.Flows[i])
				}
			}
		})
	}
}

// good is a result nothing is wrong with.
func good() *SoakResult {
	var samples []Sample
	for range 2 * enoughSamples {
		samples = append(samples, Sample{20 << 10, 20, 9})
	}
	return &SoakResult{
		Took: time.Minute, Changes: 300_000, Flows: map[Role]int{Busy: 20, Idle: 200, UDP: 12}, Lost: map[*Flow]error{},
		Usage:  []*Usage{{"a", 1, samples}, {"b", 2, samples}},
		Tables: []Tables{{"a", true, 232, 232, 232, nil}, {"b", false, 0, 0, 0, nil}},
		Failovers: []SoakReport{{30 * time.Second, &Result{
			Cause: "keepalived stopped", From: "a", To: "b", TakeOver: 300 * time.Millisecond, Script: 100 * time.Millisecond,
			Stalls: map[Role][]time.Duration{Busy: {700 * time.Millisecond}, UDP: {650 * time.Millisecond}},
			Count:  map[Role]Count{Busy: {20, 20}, Idle: {100, 100}, UDP: {12, 12}}, Before: 220, Held: 220,
		}}},
	}
}

// TestVerdict has one thing after the other go wrong in a soak. All of it must
// fail the soak, and be told.
func TestVerdict(t *testing.T) {
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	f := &Flow{Role: Busy, Class: "snat", conn: conn}
	for name, test := range map[string]struct {
		change func(r *SoakResult)
		want   string
	}{
		"nothing":       {func(*SoakResult) {}, "PASSED"},
		"no failover":   {func(r *SoakResult) { r.Failovers = nil }, "no failover"},
		"no churn":      {func(r *SoakResult) { r.Changes = 0 }, "0 changes"},
		"churn refused": {func(r *SoakResult) { r.Refused = r.Changes / 10 }, "30000 were refused"},
		"lost":          {func(r *SoakResult) { r.Lost[f] = errors.New("reset") }, "lost busy snat"},
		"dead once": {func(r *SoakResult) {
			r.add(&Result{Cause: "x", Dead: []error{errors.New("no answer")}}, 0, nil)
		}, "after failover 2 (x): no answer"},
		"not taken over": {func(r *SoakResult) {
			r.add(&Result{Cause: "x", Before: 220, Held: 219}, 0, nil)
		}, "219 connections in the table, 220 before"},
		"leak": {func(r *SoakResult) {
			for i := range r.Usage[1].Samples {
				r.Usage[1].Samples[i].Descriptors += i
			}
		}, "daemon of b: 24 descriptors"},
		"tables":      {func(r *SoakResult) { r.Tables[0].Err = errors.New("12 differences") }, "12 differences"},
		"checks fail": {func(r *SoakResult) { r.CutSeen = errors.New("the cut was not seen") }, "the cut was not seen"},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			test.change(r)
			var text strings.Builder
			p := &SoakPrinter{W: &text}
			for _, one := range r.Failovers {
				p.Failover(one)
			}
			p.Summary(r)
			if passes := r.Err() == nil; passes != (name == "nothing") {
				t.Errorf("verdict: %v", r.Err())
			}
			if !strings.Contains(text.String(), test.want) {
				t.Errorf("%q is not told:\n%s", test.want, text.String())
			}
		})
	}
}

// TestChurnIsTranslated looks at connections far into the second hour: no two
// that live at once may want the same port of the one address.
func TestChurnIsTranslated(t *testing.T) {
	type port struct {
		proto        uint8
		sport, dport uint16
	}
	const perHour = 5000 * 3600 / 3
	seen := map[port]bool{}
	for i := perHour; i < perHour+60_000; i++ {
		var f flood.Flow
		churned(i, &f)
		if p := (port{f.Proto, f.Sport, f.Dport}); seen[p] {
			t.Fatalf("connection %d: %+v is there twice", i, p)
		} else {
			seen[p] = true
		}
		if !f.Src.Is4() || f.Src.As4()[0] != 10 || f.Src.As4()[1] < 128 || !f.SNAT.IsValid() {
			t.Fatalf("connection %d: %+v", i, f)
		}
	}
}
