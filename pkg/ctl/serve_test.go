package ctl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testServer is a server on a real socket.
type testServer struct {
	path     string
	counters Counters
	stop     context.CancelFunc
	done     chan error
}

func startServer(t *testing.T, reqs []Request, cfg Config) *testServer {
	t.Helper()
	s := &testServer{path: socketPath(t), done: make(chan error, 1)}
	ln, err := Listen(s.path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Counters = &s.counters
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.done <- Serve(ctx, ln, reqs, cfg); close(s.done) }()
	t.Cleanup(func() { cancel(); <-s.done })
	return s
}

func (s *testServer) call(t *testing.T, code int32) string {
	t.Helper()
	var b bytes.Buffer
	if err := Call(s.path, code, &b); err != nil {
		t.Fatalf("request %d: %v", code, err)
	}
	return b.String()
}

// dial connects without asking anything.
func (s *testServer) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// ask sends raw bytes and returns everything the server says.
func (s *testServer) ask(t *testing.T, request []byte) string {
	t.Helper()
	conn := s.dial(t)
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return string(reply)
}

func native(code int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(code)) }

// endless writes until the client is given up, and reports why.
func endless(ended chan<- error) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				ended <- err
				return err
			}
		}
	}
}

func TestServeAnswers(t *testing.T) {
	long := strings.Repeat("a line of a dump\n", 100000)
	s := startServer(t, []Request{
		{Code: 21, Handle: write("statistics\n")},
		{Code: 16, Handle: write(long)},
		{Code: -7, Handle: write("negative\n")},
		{Code: 0, Handle: write("zero\n")},
		{Code: 22, Handle: write("")},
		{Code: 35}, // known, nothing to say
		{Code: 37, Handle: func(_ context.Context, w io.Writer) error {
			io.WriteString(w, "until the error")
			return errors.New("failed")
		}},
	}, Config{})
	for code, want := range map[int32]string{
		21: "statistics\n", 16: long, -7: "negative\n", 0: "zero\n", 22: "", 35: "", 37: "until the error",
	} {
		if got := s.call(t, code); got != want {
			t.Errorf("%d: got %d bytes, want %d", code, len(got), len(want))
		}
	}
	if n := s.counters.LocalUnknownRequest.Load(); n != 0 {
		t.Errorf("%d unknown requests counted", n)
	}
}

func TestServeUnknownRequests(t *testing.T) {
	s := startServer(t, []Request{{Code: 21, Handle: write("x")}}, Config{})
	swapped := native(21)
	for i, j := 0, 3; i < j; i, j = i+1, j-1 {
		swapped[i], swapped[j] = swapped[j], swapped[i]
	}
	for i, request := range [][]byte{native(2), native(-1), native(1 << 30), swapped} {
		if got := s.ask(t, request); got != "" {
			t.Errorf("% x: reply %q", request, got)
		}
		if n := s.counters.LocalUnknownRequest.Load(); n != uint64(i+1) {
			t.Errorf("% x: counted %d times", request, n)
		}
	}
}

func TestServeRequestBytes(t *testing.T) {
	s := startServer(t, []Request{{Code: 21, Handle: write("reply")}}, Config{})
	if got := s.ask(t, append(native(21), "and more"...)); got != "reply" {
		t.Errorf("extra bytes: got %q", got)
	}
	slow := s.dial(t)
	for _, b := range native(21) {
		if _, err := slow.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(slow); string(got) != "reply" || err != nil {
		t.Errorf("byte by byte: got %q %v", got, err)
	}
	for i, request := range [][]byte{nil, native(21)[:2]} {
		conn := s.dial(t)
		conn.Write(request)
		conn.CloseWrite()
		if got, _ := io.ReadAll(conn); len(got) != 0 {
			t.Errorf("% x: got %q", request, got)
		}
		if n := s.counters.LocalReadFailed.Load(); n != uint64(i+1) {
			t.Errorf("% x: counted %d times", request, n)
		}
	}
}

func TestSilentClientDelaysNobody(t *testing.T) {
	s := startServer(t, []Request{{Code: 21, Handle: write("reply")}}, Config{RequestTimeout: time.Hour})
	s.dial(t)
	for range 10 {
		if got := s.call(t, 21); got != "reply" {
			t.Fatalf("got %q", got)
		}
	}
	if n := s.counters.LocalReadFailed.Load(); n != 0 {
		t.Errorf("%d clients did not ask, want one that still may", n)
	}
}

func TestSilentClientIsDropped(t *testing.T) {
	s := startServer(t, []Request{{Code: 21, Handle: write("reply")}}, Config{RequestTimeout: 50 * time.Millisecond})
	silent := s.dial(t)
	if got, err := io.ReadAll(silent); len(got) != 0 || err != nil {
		t.Errorf("got %q %v", got, err)
	}
	if n := s.counters.LocalReadFailed.Load(); n != 1 {
		t.Errorf("counted %d times", n)
	}
}

// stall asks for a reply without end, and reads no more than its beginning.
func stall(t *testing.T, cfg Config) (s *testServer, ended <-chan error) {
	t.Helper()
	end := make(chan error, 1)
	s = startServer(t, []Request{
		{Code: 16, Handle: endless(end)},
		{Code: 21, Handle: write("reply")},
	}, cfg)
	stalled := s.dial(t)
	if _, err := stalled.Write(native(16)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stalled, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return s, end
}

func TestStalledReaderDelaysNobody(t *testing.T) {
	s, ended := stall(t, Config{StallTimeout: time.Hour})
	for range 10 {
		if got := s.call(t, 21); got != "reply" {
			t.Fatalf("got %q", got)
		}
	}
	select {
	case err := <-ended:
		t.Errorf("dropped: %v", err)
	default:
	}
}

func TestStalledReaderIsDropped(t *testing.T) {
	_, ended := stall(t, Config{StallTimeout: 50 * time.Millisecond})
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
}

// A reader is never dropped for being slow: the whole takes many times the
// stall time.
func TestSlowReaderGetsEverything(t *testing.T) {
	const stall = 2 * time.Second // a busy machine makes pauses of its own
	long := strings.Repeat("0123456789abcdef", 4<<20/16)
	s := startServer(t, []Request{{Code: 16, Handle: write(long)}}, Config{StallTimeout: stall})
	conn := s.dial(t)
	if _, err := conn.Write(native(16)); err != nil {
		t.Fatal(err)
	}
	pause := time.NewTicker(stall / 6)
	defer pause.Stop()
	start := time.Now()
	var got strings.Builder
	for {
		<-pause.C
		n, err := io.CopyN(&got, conn, 256<<10)
		if err == io.EOF || n == 0 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != long {
		t.Errorf("got %d bytes of %d", got.Len(), len(long))
	}
	if d := time.Since(start); d < 2*stall {
		t.Errorf("took only %v: the test shows nothing", d)
	}
}

func TestClientThatLeavesEndsItsHandler(t *testing.T) {
	ended := make(chan error, 1)
	s := startServer(t, []Request{{Code: 16, Handle: endless(ended)}}, Config{})
	conn := s.dial(t)
	conn.Write(native(16))
	if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-ended; !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}

// No more than MaxClients are served; the next waits and is not refused.
func TestServeBoundsClients(t *testing.T) {
	const limit = 3
	var mu sync.Mutex
	inside, most := 0, 0
	entered := make(chan struct{})
	leave := make(chan struct{})
	s := startServer(t, []Request{{Code: 1, Handle: func(context.Context, io.Writer) error {
		mu.Lock()
		inside++
		most = max(most, inside)
		mu.Unlock()
		entered <- struct{}{}
		<-leave
		mu.Lock()
		inside--
		mu.Unlock()
		return nil
	}}}, Config{MaxClients: limit})
	const clients = 3 * limit
	var done sync.WaitGroup
	for range clients {
		done.Go(func() {
			if err := Call(s.path, 1, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	for range limit {
		<-entered
	}
	select {
	case <-entered:
		t.Fatal("one too many")
	case <-time.After(50 * time.Millisecond): // nothing to wait for but nothing
	}
	close(leave)
	for range clients - limit {
		<-entered
	}
	done.Wait()
	if most != limit {
		t.Errorf("%d at once, want %d", most, limit)
	}
}

func TestShutdownWaitsForReplies(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := startServer(t, []Request{{Code: 18, Handle: func(ctx context.Context, w io.Writer) error {
		close(entered)
		<-leave
		io.WriteString(w, "committed")
		return ctx.Err()
	}}}, Config{})
	reply := make(chan string)
	go func() {
		var b bytes.Buffer
		Call(s.path, 18, &b)
		reply <- b.String()
	}()
	<-entered
	s.stop()
	for { // the socket goes at once, the client stays
		if _, err := os.Lstat(s.path); err != nil {
			break
		}
	}
	close(leave)
	if got := <-reply; got != "committed" {
		t.Errorf("got %q", got)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestShutdownCutsOff(t *testing.T) {
	ended := make(chan error, 1)
	entered := make(chan struct{})
	s := startServer(t, []Request{
		{Code: 16, Handle: endless(ended)},
		{Code: 18, Handle: func(ctx context.Context, _ io.Writer) error { close(entered); <-ctx.Done(); return ctx.Err() }},
	}, Config{DrainTimeout: 50 * time.Millisecond})
	stalled, waiting := s.dial(t), s.dial(t)
	stalled.Write(native(16))
	if _, err := io.ReadFull(stalled, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	waiting.Write(native(18))
	<-entered
	s.stop()
	if err := <-s.done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the endless reply ended with %v", err)
	}
}

func TestShutdownGivesUpOnDeafHandlers(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	s := startServer(t, []Request{{Code: 1, Handle: func(context.Context, io.Writer) error { close(entered); <-leave; return nil }}},
		Config{DrainTimeout: 20 * time.Millisecond})
	s.dial(t).Write(native(1))
	<-entered
	s.stop()
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), "still running") {
		t.Errorf("got %v", err)
	}
}

func TestServeTellsWhenTheListenerFails(t *testing.T) {
	ln, err := Listen(socketPath(t))
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(context.Background(), ln, nil, Config{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// flakyListener fails a few times, as accept does without descriptors.
type flakyListener struct {
	net.Listener
	failures int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}

func TestServeSurvivesFailedAccept(t *testing.T) {
	path := socketPath(t)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- Serve(ctx, &flakyListener{ln, 2}, []Request{{Code: 1, Handle: write("here")}}, Config{MaxClients: 1})
	}()
	var b bytes.Buffer
	if err := Call(path, 1, &b); err != nil || b.String() != "here" {
		t.Errorf("got %q %v", b.String(), err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The client of the kill request sees the end when the process has gone, with
// lock and socket, and not before.
func TestKillClientWaitsForTheProcess(t *testing.T) {
	path := socketPath(t)
	p, ready := startRole(t, "node", path+".lock", path, "slow")
	if ready != "ready" {
		t.Fatal(ready)
	}
	returned := make(chan error, 1)
	go func() { returned <- Call(path, 20, io.Discard) }()
	if line := p.line(t); line != "ending" {
		t.Fatal(line)
	}
	select {
	case err := <-returned:
		t.Fatalf("the client returned while the process was running: %v", err)
	case <-time.After(50 * time.Millisecond): // nothing to wait for but nothing
	}
	p.stdin.Close()
	if err := <-returned; err != nil {
		t.Error(err)
	}
	for _, file := range []string{path, path + ".lock"} {
		if _, err := os.Lstat(file); !os.IsNotExist(err) {
			t.Errorf("%s is still there when the client returns", file)
		}
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
