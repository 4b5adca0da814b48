package ctl

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config holds the limits of the server. A zero field means its default.
type Config struct {
	RequestTimeout time.Duration // wait for the request number; default 5 s
	StallTimeout   time.Duration // a client that empties no socket buffer for so long is dropped; default 30 s
	DrainTimeout   time.Duration // wait for handlers at shutdown; default 2 s
	MaxClients     int           // served at once, the rest waits in the backlog; default 128
	Counters       *Counters     // what happened, for the statistics; nil: not wanted
}

// Counters are raised by Serve and may be read at any time.
type Counters struct {
	LocalReadFailed     atomic.Uint64 // clients that sent no complete request
	LocalUnknownRequest atomic.Uint64 // request numbers without a row
}

func (c Config) withDefaults() Config {
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 5 * time.Second
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = 30 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 2 * time.Second
	}
	if c.MaxClients == 0 {
		c.MaxClients = 128
	}
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
	return c
}

// acceptPause is how long Serve waits after a failed accept, as when the
// process is out of file descriptors.
const acceptPause = 100 * time.Millisecond

// Serve answers clients of ln until ctx ends, each in its own goroutine, so
// that no client can delay another or the daemon. It then closes ln, gives the
// handlers DrainTimeout to finish, and returns nil; an error tells that ln
// failed or that a handler did not return. Clients of ErrHold stay connected.
func Serve(ctx context.Context, ln net.Listener, reqs []Request, cfg Config) error {
	s := &server{
		cfg:      cfg.withDefaults(),
		handlers: make(map[int32]handler, len(reqs)),
		conns:    make(map[net.Conn]struct{}),
	}
	for _, r := range reqs {
		s.handlers[r.Code] = r.Handle
	}
	s.slots = make(chan struct{}, s.cfg.MaxClients)
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.cancel()

	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := s.accept(ctx, ln)
	ln.Close()
	return errors.Join(err, s.drain())
}

type handler = func(ctx context.Context, w io.Writer) error

type server struct {
	cfg      Config
	handlers map[int32]handler
	slots    chan struct{} // one element per client being served
	ctx      context.Context
	cancel   context.CancelFunc
	clients  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *server) accept(ctx context.Context, ln net.Listener) error {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := ln.Accept()
		if err == nil {
			s.clients.Go(func() { s.serve(conn) })
			continue
		}
		<-s.slots
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept client: %w", err)
		}
		select {
		case <-time.After(acceptPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// serve is the life of one client.
func (s *server) serve(conn net.Conn) {
	defer func() { <-s.slots }()
	s.track(conn)
	defer s.untrack(conn)
	defer conn.Close()

	code, err := s.readRequest(conn)
	if err != nil {
		s.cfg.Counters.LocalReadFailed.Add(1)
		return
	}
	handle, ok := s.handlers[code]
	if !ok {
		s.cfg.Counters.LocalUnknownRequest.Add(1)
	}
	if handle == nil {
		return
	}
	w := bufio.NewWriterSize(&patientWriter{conn, s.cfg.StallTimeout}, replyBuffer)
	err = handle(s.ctx, w)
	w.Flush()
	if errors.Is(err, ErrHold) {
		hold(conn)
	}
}

// replyBuffer gathers the small writes of a handler.
const replyBuffer = 32 << 10

func (s *server) readRequest(conn net.Conn) (int32, error) {
	if err := conn.SetReadDeadline(time.Now().Add(s.cfg.RequestTimeout)); err != nil {
		return 0, err
	}
	var b [4]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return 0, err
	}
	return int32(binary.NativeEndian.Uint32(b[:])), nil
}

func (s *server) track(conn net.Conn) {
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
}

func (s *server) untrack(conn net.Conn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
}

// drain waits for the clients, then cuts them off, then gives up.
func (s *server) drain() error {
	idle := make(chan struct{})
	go func() { s.clients.Wait(); close(idle) }()
	if waitFor(idle, s.cfg.DrainTimeout) {
		return nil
	}
	s.cancel()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	if waitFor(idle, s.cfg.DrainTimeout) {
		return nil
	}
	return errors.New("stop control socket: a request is still running")
}

func waitFor(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// patientWriter writes to a client as long as it reads anything at all.
type patientWriter struct {
	conn  net.Conn
	stall time.Duration
}

// Write fails if the client has taken no byte for the stall time.
func (w *patientWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		if err := w.conn.SetWriteDeadline(time.Now().Add(w.stall)); err != nil {
			return n, err
		}
		m, err := w.conn.Write(b[n:])
		n += m
		if err != nil && (m == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
	}
	return n, nil
}
