package failover

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func answer(number uint64, from string) (b [answerSize]byte) {
	copy(b[:], appendAnswer(nil, binary.BigEndian.AppendUint64(nil, number), netip.MustParseAddrPort(from)))
	return b
}

const (
	from4     = "10.2.0.1:4000"
	from6     = "[fd02::1]:4000"
	otherPort = "10.2.0.1:4001"
	start     = 1000
	briefly   = 10 * time.Millisecond
)

func at(ms int) time.Time { return time.UnixMilli(start + int64(ms)) }

// TestTake feeds answers to a flow that has asked five questions.
func TestTake(t *testing.T) {
	type step struct {
		number uint64
		from   string
	}
	for name, test := range map[string]struct {
		role  Role
		steps []step
		done  bool
		err   string
	}{
		"in order":            {Busy, []step{{1, from4}, {2, from4}, {3, from4}, {4, from4}, {5, from4}}, true, ""},
		"outstanding":         {Busy, []step{{1, from4}, {2, from4}}, false, ""},
		"IPv6":                {Busy, []step{{1, from6}, {2, from6}}, false, ""},
		"lost":                {Busy, []step{{1, from4}, {3, from4}}, false, "answer 3 after 1: data lost or repeated"},
		"repeated":            {Idle, []step{{1, from4}, {1, from4}}, false, "answer 1 after 1: data lost or repeated"},
		"never asked":         {Busy, []step{{6, from4}}, false, "answer 6 to a question never asked (last 5)"},
		"translated anew":     {Busy, []step{{1, from4}, {2, otherPort}}, false, "translated anew: the server saw 10.2.0.1:4000, now 10.2.0.1:4001"},
		"datagrams lost":      {UDP, []step{{1, from4}, {4, from4}}, false, ""},
		"datagrams late":      {UDP, []step{{5, from4}, {2, from4}}, false, ""},
		"datagrams repeated":  {UDP, []step{{5, from4}, {5, from4}}, false, ""},
		"UDP translated anew": {UDP, []step{{1, from4}, {2, otherPort}}, false, "translated anew: the server saw 10.2.0.1:4000, now 10.2.0.1:4001"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Flow{Role: test.role, asked: 5}
			var done bool
			var err error
			for _, s := range test.steps {
				if err != nil {
					t.Fatalf("early error: %v", err)
				}
				done, err = f.take(answer(s.number, s.from), at(0))
			}
			if done != test.done {
				t.Errorf("done %v, want %v", done, test.done)
			}
			if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

// TestStall measures the longest pause, be it between two answers, before the
// first one, or until now.
func TestStall(t *testing.T) {
	for name, test := range map[string]struct {
		answers []int // milliseconds after watch
		now     int
		want    time.Duration
	}{
		"between": {[]int{10, 500, 510}, 520, 490 * time.Millisecond},
		"first":   {[]int{300, 310}, 320, 300 * time.Millisecond},
		"until":   {[]int{10}, 900, 890 * time.Millisecond},
		"never":   {nil, 4000, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Flow{Role: Busy, asked: 100, last: at(-9000), gap: time.Hour}
			f.watch(at(0))
			for i, ms := range test.answers {
				if _, err := f.take(answer(uint64(i+1), from4), at(ms)); err != nil {
					t.Fatal(err)
				}
			}
			if got := f.stall(at(test.now)); got != test.want {
				t.Errorf("stall %v, want %v", got, test.want)
			}
		})
	}
}

// pipeFlow is a flow whose other end the test holds.
func pipeFlow(t *testing.T, role Role) (*Flow, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	return &Flow{Role: role, Class: "test", conn: near}, far
}

// TestProbe asks a connection whose answer comes, comes late, and never comes.
func TestProbe(t *testing.T) {
	f, far := pipeFlow(t, Idle)
	questions := make(chan uint64)
	go func() {
		var b [questionSize]byte
		for {
			if _, err := io.ReadFull(far, b[:]); err != nil {
				close(questions)
				return
			}
			questions <- binary.BigEndian.Uint64(b[:])
		}
	}()
	reply := func(number uint64) {
		b := answer(number, from4)
		far.Write(b[:])
	}

	go func() { reply(<-questions) }()
	if err := f.Probe(10 * time.Second); err != nil {
		t.Fatalf("an answered probe: %v", err)
	}

	late := make(chan uint64, 1)
	go func() { late <- <-questions }()
	var timeout net.Error
	if err := f.Probe(briefly); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("an unanswered probe: %v", err)
	}
	if _, err := f.state(); err != nil {
		t.Fatalf("a late answer killed the flow: %v", err)
	}

	go func() {
		reply(<-late)
		reply(<-questions)
	}()
	if err := f.Probe(10 * time.Second); err != nil {
		t.Fatalf("a probe after a late answer: %v", err)
	}

	far.Close()
	if err := f.Probe(10 * time.Second); err == nil {
		t.Fatal("a closed connection passed")
	}
	if _, err := f.state(); err == nil {
		t.Fatal("a closed connection lives")
	}
}

// TestProgressed waits for the flows that talk and live, and for no others.
func TestProgressed(t *testing.T) {
	busy, _ := pipeFlow(t, Busy)
	idle, _ := pipeFlow(t, Idle)
	dead, _ := pipeFlow(t, UDP)
	dead.fail(errors.New("reset"))
	traffic := Traffic{Flows: []*Flow{busy, idle, dead}}
	traffic.watch(at(0))
	if err := traffic.progressed(at(1)); err == nil || !strings.HasPrefix(err.Error(), "1 flows without an answer, the first is busy test") {
		t.Errorf("before the answer: %v", err)
	}
	busy.asked = 1
	if _, err := busy.take(answer(1, from4), at(5)); err != nil {
		t.Fatal(err)
	}
	if err := traffic.progressed(at(1)); err != nil {
		t.Errorf("after the answer: %v", err)
	}
	if got := traffic.stalls(Busy, at(20)); len(got) != 1 || got[0] != 15*time.Millisecond {
		t.Errorf("stalls %v", got)
	}
}

// TestServerFindsLoss sends a question twice to a stream.
func TestServerFindsLoss(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{tcp: l, done: func() {}}
	go s.accept()
	defer s.close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	question := binary.BigEndian.AppendUint64(nil, 1)
	if _, err := c.Write(append(question, question...)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	want := answer(1, c.LocalAddr().String())
	if string(got) != string(want[:]) {
		t.Errorf("answers %x, want %x", got, want)
	}
	if err := s.complaints(); err == nil || !strings.Contains(err.Error(), "question 1 from") {
		t.Errorf("complaints: %v", err)
	}
}

// TestResult sums up and renders.
func TestResult(t *testing.T) {
	ms := time.Millisecond
	r := Result{
		Cause: "power cut", From: "a", To: "b", TakeOver: 700 * ms, Script: 50 * ms,
		Stalls: map[Role][]time.Duration{Busy: {1 * ms, 2 * ms, 9 * ms}, UDP: {4 * ms, 5 * ms}},
		Count:  map[Role]Count{Busy: {3, 3}, Idle: {9, 10}, UDP: {2, 2}},
	}
	want := "a > b, power cut         : took over after  700 ms, script   50 ms; TCP stall median    2 max    9 ms, 0 segments sent again; UDP gap median    5 max    5 ms; alive 14 of 15"
	if got := r.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if m := (&Result{}).Max(Busy); m != 0 {
		t.Errorf("max of nothing: %v", m)
	}
}
