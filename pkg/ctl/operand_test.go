package ctl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// withOperand is conntrackd's command line and one request with an operand.
var withOperand = slices.Concat(rows, []Request{{Code: 1001, Flag: "-c", Operand: "address"}})

func TestParseArgsOperands(t *testing.T) {
	for _, c := range commandLines {
		cmd, err := ParseArgs(split(c.args), withOperand)
		if err != nil || cmd.Code != c.code || cmd.Operand != "" {
			t.Errorf("%q: got %+v %v, want code %d", c.args, cmd, err, c.code)
		}
	}
	xml := slices.Concat(withOperand, []Request{{Code: 8, Flag: "-z", Operand: "name"}, {Code: 9, Flag: "-z -x", Operand: "name"}, {Code: 10, Flag: "-i", Operand: "name"}})
	for _, c := range []struct {
		args    string
		code    int32
		operand string
	}{
		{"-c 192.0.2.1", 1001, "192.0.2.1"},
		{"-c fd00::1", 1001, "fd00::1"},
		{"-c CT", 1001, "CT"}, {"-c ctt", 1001, "ctt"}, {"-c x", 1001, "x"},
		{"-c ", 18, ""}, {"-c c", 18, ""}, {"-c ex", 42, ""}, {"-c", 46, ""},
		{"-c 192.0.2.1 -B", 22, ""}, {"-c 192.0.2.1 -c", 46, ""}, {"-c 192.0.2.1 -c ct", 18, ""},
		{"-c 192.0.2.1 -c 192.0.2.2", 1001, "192.0.2.2"}, {"-B -c 192.0.2.1", 1001, "192.0.2.1"},
		{"-z x", 8, "x"}, {"-z x -x", 9, "x"}, {"-z x -x -B", 22, ""},
	} {
		cmd, err := ParseArgs(split(c.args), xml)
		want := Command{Kind: Client, ConfigFile: DefaultConfigFile, Code: c.code, Operand: c.operand}
		if err != nil || fmt.Sprint(cmd) != fmt.Sprint(want) {
			t.Errorf("%q: got %+v %v, want %+v", c.args, cmd, err, want)
		}
	}
	for args, want := range map[string]string{
		"-c 192.0.2.1 192.0.2.2": "Unknown option: `192.0.2.2'",
		"-c 192.0.2.1 -x":        "Invalid parameters",
		"-i x -x":                "Invalid parameters", // not the XML of -i
		"-d -c 192.0.2.1":        "Invalid parameters",
		"-c 192.0.2.1 -d":        "Invalid parameters",
		"-c -":                   "Unknown option: `-'",
		"-f 192.0.2.1":           "unknown parameter `192.0.2.1' for option `-f'",
		"-z":                     "option `-z' needs a parameter",
		"-z ":                    "unknown parameter `' for option `-z'",
	} {
		cmd, err := ParseArgs(split(args), xml)
		var usage *UsageError
		if !errors.As(err, &usage) || usage.Msg != want {
			t.Errorf("%q: got %+v %v, want %s", args, cmd, err, want)
		}
	}
}

func TestUsageTextNamesOperands(t *testing.T) {
	without, with := UsageText("conntrackd", "1.4.7", rows), UsageText("conntrackd", "1.4.7", withOperand)
	if want := strings.Replace(without, "-c [ct|expect], ", "-c [ct|expect|<address>], ", 1); with != want || with == without {
		t.Errorf("got:\n%s\nwant:\n%s", with, want)
	}
}

func TestWordAndOperandPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	ParseArgs(nil, []Request{{Flag: "-c ct", Operand: "address"}})
}

// echo answers 1001 with its operand, and counts.
func echo(calls *int) Request {
	var mu sync.Mutex
	return Request{Code: 1001, Operand: "address", HandleOperand: func(_ context.Context, w io.Writer, operand string) error {
		mu.Lock()
		*calls++
		mu.Unlock()
		_, err := fmt.Fprintf(w, "it is %q\n", operand)
		return err
	}}
}

func TestOperandsArrive(t *testing.T) {
	var calls int
	s := startServer(t, []Request{echo(&calls), {Code: 21, Handle: write("statistics")}}, Config{})
	all := make([]byte, 255)
	for i := range all {
		all[i] = byte(i + 1)
	}
	for _, operand := range []string{"192.0.2.1", "fd00::1", "", "x", "\x00", "\x01", "two words\n", string(all), strings.Repeat("\xff", 255)} {
		var b bytes.Buffer
		err := Call(s.path, 1001, &b, operand)
		if want := fmt.Sprintf("it is %q\n", operand); err != nil || b.String() != want {
			t.Errorf("%q: got %q %v", operand, b.String(), err)
		}
	}
	var b bytes.Buffer
	if err := (Command{Code: 1001, Operand: "a"}).Call(s.path, &b); err != nil || b.String() != "it is \"a\"\n" {
		t.Errorf("of a command: %q %v", b.String(), err)
	}
	b.Reset()
	if err := (Command{Code: 21}).Call(s.path, &b); err != nil || b.String() != "statistics" {
		t.Errorf("of a command without operand: %q %v", b.String(), err)
	}
	if calls != 10 {
		t.Errorf("%d calls", calls)
	}
	if failed, unknown := s.counters.LocalReadFailed.Load(), s.counters.LocalUnknownRequest.Load(); failed+unknown != 0 {
		t.Errorf("%d failed, %d unknown", failed, unknown)
	}
}

// An operand that does not fit is no reason to look for a daemon.
func TestCallRefusesLongOperands(t *testing.T) {
	err := Call("/nonexistent/socket", 1001, io.Discard, strings.Repeat("x", 256))
	var connect *ConnectError
	if err == nil || errors.As(err, &connect) || !strings.Contains(err.Error(), "operand of 256 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestStatusOfReplies(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 1<<16)
	reply := func(text string, err error) func(context.Context, io.Writer, string) error {
		return func(_ context.Context, w io.Writer, _ string) error {
			io.WriteString(w, text)
			return err
		}
	}
	s := startServer(t, []Request{
		{Code: 1, Operand: "x", HandleOperand: reply("done\n", nil)},
		{Code: 2, Operand: "x", HandleOperand: reply("", nil)},
		{Code: 3, Operand: "x", HandleOperand: reply(long, nil)},
		{Code: 4, Operand: "x", HandleOperand: reply("no such peer\n", errors.New("no such peer"))},
		{Code: 5, Operand: "x", HandleOperand: reply("", errors.New("failed"))},
		{Code: 6, Operand: "x", HandleOperand: reply("without line feed", nil)},
		{Code: 7, Operand: "x"},
		{Code: 8, Handle: write("no status\n")}, // as one who does not know of operands
	}, Config{})
	for _, c := range []struct {
		code int32
		text string
		err  error
	}{
		{1, "done\n", nil}, {2, "", nil}, {3, long, nil},
		{4, "no such peer\n", ErrRefused}, {5, "", ErrRefused},
		{6, "without line feed", nil},
		{7, "", ErrUnanswered}, {8, "no status\n", ErrUnanswered}, {9, "", ErrUnanswered},
	} {
		var b bytes.Buffer
		if err := Call(s.path, c.code, &b, "operand"); !errors.Is(err, c.err) || b.String() != c.text {
			t.Errorf("%d: got %d bytes, %v; want %d, %v", c.code, b.Len(), err, len(c.text), c.err)
		}
	}
	if n := s.counters.LocalUnknownRequest.Load(); n != 1 {
		t.Errorf("%d unknown requests", n)
	}
	if err := Call(s.path, 1, fullDisk{}, "x"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
}

// The status is found however the reply is cut into pieces.
func TestCopyWithStatus(t *testing.T) {
	for reply, want := range map[string]struct {
		text   string
		status error
	}{
		"":              {"", ErrUnanswered},
		"\x00":          {"", nil},
		"\x01":          {"", ErrRefused},
		"a\x00":         {"a", nil},
		"\x00\x01\x00":  {"\x00\x01", nil},
		"several\n\x01": {"several\n", ErrRefused},
		"cut off":       {"cut off", ErrUnanswered},
		"other\x02":     {"other\x02", ErrUnanswered},
	} {
		for _, r := range []io.Reader{
			strings.NewReader(reply), iotest.OneByteReader(strings.NewReader(reply)), iotest.DataErrReader(strings.NewReader(reply)),
			io.MultiReader(strings.NewReader(reply), iotest.ErrReader(syscall.ECONNRESET)),
		} {
			var b bytes.Buffer
			if status, err := copyWithStatus(&b, r); status != want.status || err != nil || b.String() != want.text {
				t.Errorf("%q: got %q %v %v", reply, b.String(), status, err)
			}
		}
	}
	if _, err := copyWithStatus(io.Discard, iotest.ErrReader(syscall.EIO)); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if _, err := copyWithStatus(fullDisk{}, strings.NewReader("cut off")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// half are requests that end before they are complete.
var half = map[string][]byte{
	"number":             native(1001),
	"half a number":      native(1001)[:3],
	"length":             append(native(1001), 5),
	"longest length":     append(native(1001), 255),
	"text cut":           append(native(1001), "\x09192.0.2."...),
	"all but a byte":     append(append(native(1001), 255), bytes.Repeat([]byte("x"), 254)...),
	"another's sequence": append(native(1001), '1', '9', '2'), // 49 bytes are due
}

func TestHalfOperands(t *testing.T) {
	var calls int
	s := startServer(t, []Request{echo(&calls)}, Config{})
	failed := uint64(0)
	for name, request := range half {
		conn := s.dial(t)
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		conn.CloseWrite()
		if got, err := io.ReadAll(conn); len(got) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %q %v", name, got, err)
		}
		if failed++; s.counters.LocalReadFailed.Load() != failed {
			t.Errorf("%s: counted %d times", name, s.counters.LocalReadFailed.Load())
		}
	}
	if calls != 0 || s.counters.LocalUnknownRequest.Load() != 0 {
		t.Errorf("%d calls, %d unknown", calls, s.counters.LocalUnknownRequest.Load())
	}
}

func TestOperandBytes(t *testing.T) {
	var calls int
	s := startServer(t, []Request{echo(&calls)}, Config{})
	const want = "it is \"abc\"\n" + statusDone
	if got := s.ask(t, append(native(1001), "\x03abcdef and more"...)); got != want {
		t.Errorf("extra bytes: got %q", got)
	}
	slow := s.dial(t)
	for _, b := range append(native(1001), "\x03abc"...) {
		if _, err := slow.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(slow); string(got) != want || err != nil {
		t.Errorf("byte by byte: got %q %v", got, err)
	}
	// A client that does not read its answer harms nobody.
	gone := s.dial(t)
	gone.Write(append(native(1001), "\x03abc"...))
	gone.Close()
	if got := s.ask(t, append(native(1001), 0)); got != "it is \"\"\n"+statusDone {
		t.Errorf("got %q", got)
	}
}

// Who sends a part and falls silent, or a byte now and then, is dropped after
// the time for one request, and nobody waits for him.
func TestSilenceWithinAnOperand(t *testing.T) {
	const timeout = 300 * time.Millisecond
	var calls int
	s := startServer(t, []Request{echo(&calls), {Code: 21, Handle: write("reply")}}, Config{RequestTimeout: timeout})
	var silent []net.Conn
	for _, request := range half {
		conn := s.dial(t)
		conn.Write(request)
		silent = append(silent, conn)
	}
	start := time.Now()
	dribbles := s.dial(t)
	dribbles.Write(append(native(1001), 255))
	for range 10 {
		if got := s.call(t, 21); got != "reply" {
			t.Fatalf("got %q", got)
		}
	}
	pause := time.NewTicker(timeout / 10)
	defer pause.Stop()
	var dropped error
	for i := 0; i < 200 && dropped == nil; i++ { // all 255 would take 25 times the timeout
		<-pause.C
		_, dropped = dribbles.Write([]byte("x"))
	}
	if d := time.Since(start); dropped == nil || d < timeout {
		t.Errorf("after %v of a byte now and then: %v", d, dropped)
	}
	for _, conn := range silent {
		if got, err := io.ReadAll(conn); len(got) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %q %v", got, err)
		}
	}
	if n := s.counters.LocalReadFailed.Load(); n != uint64(len(half)+1) || calls != 0 {
		t.Errorf("counted %d times, %d calls", n, calls)
	}
}

// Clients in the middle of an operand have asked for nothing yet: the oldest of
// too many goes.
func TestCrowdWithinOperandsMakesRoom(t *testing.T) {
	const limit, many = 8, 60
	var calls int
	s := startServer(t, []Request{echo(&calls)}, Config{MaxWaiting: limit, RequestTimeout: time.Minute})
	for range many {
		s.dial(t).Write(half["text cut"])
	}
	var b bytes.Buffer
	if err := Call(s.path, 1001, &b, "me"); err != nil || b.String() != "it is \"me\"\n" {
		t.Errorf("got %q %v", b.String(), err)
	}
	if n := s.counters.LocalDropped.Load(); n < many-limit {
		t.Errorf("%d dropped", n)
	}
}

// A daemon that is ended has not done it, whatever it has written.
func TestShutdownWithinAnAnswer(t *testing.T) {
	entered := make(chan struct{})
	s := startServer(t, []Request{{Code: 1001, Operand: "x", HandleOperand: func(ctx context.Context, w io.Writer, _ string) error {
		io.WriteString(w, strings.Repeat("a line\n", replyBuffer))
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}}, Config{DrainTimeout: 50 * time.Millisecond})
	returned := make(chan error, 1)
	var b bytes.Buffer
	go func() { returned <- Call(s.path, 1001, &b, "x") }()
	<-entered
	s.stop()
	if err := <-returned; !errors.Is(err, ErrUnanswered) && !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(b.String(), "a line\n") {
		t.Errorf("the text is gone: %.20q", b.String())
	}
}

// FuzzReadRequest wants the operand that was sent, or an error.
func FuzzReadRequest(f *testing.F) {
	for _, request := range half {
		f.Add(request)
	}
	f.Add(append(native(1001), "\x09192.0.2.1"...))
	f.Add(append(native(21), "\x09192.0.2.1"...))
	f.Add(native(7))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []string
		rows := rowsByCode([]Request{
			{Code: 21, Handle: func(context.Context, io.Writer) error { got = append(got, "plain"); return nil }},
			{Code: 1001, Operand: "x", HandleOperand: func(_ context.Context, _ io.Writer, o string) error { got = append(got, o); return nil }},
		})
		handle, err := readRequest(iotest.OneByteReader(bytes.NewReader(b)), rows)
		var want []string
		var wantErr error
		switch code := codeOf(b); {
		case len(b) < 4:
			wantErr = io.ErrUnexpectedEOF
		case code == 21:
			want = []string{"plain"}
		case code != 1001:
			wantErr = errUnknown
		case len(b) < 5 || len(b) < 5+int(b[4]):
			wantErr = io.ErrUnexpectedEOF
		default:
			want = []string{string(b[5 : 5+int(b[4])])}
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // a part that is missing as a whole
		}
		if !errors.Is(err, wantErr) || (handle != nil) != (wantErr == nil) {
			t.Fatalf("% x: handler %v, error %v, want %v", b, handle != nil, err, wantErr)
		}
		if handle == nil {
			return
		}
		if err := handle(t.Context(), io.Discard); err != nil || !slices.Equal(got, want) {
			t.Fatalf("% x: %q %v, want %q", b, got, err, want)
		}
	})
}

func codeOf(b []byte) int32 {
	if len(b) < 4 {
		return 0
	}
	return int32(binary.NativeEndian.Uint32(b))
}
