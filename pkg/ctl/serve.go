package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config holds the limits of the server. A zero field means its default.
type Config struct {
	RequestTimeout time.Duration // wait for the whole request; default 5 s
	StallTimeout   time.Duration // a client that empties no socket buffer for so long is dropped; default 30 s
	YieldTimeout   time.Duration // the same if others wait for its place; default 1 s
	DrainTimeout   time.Duration // wait for handlers at shutdown; default 2 s
	MaxClients     int           // served at once; default 128
	MaxWaiting     int           // connected and not served yet, the rest waits in the backlog; default 512
	Counters       *Counters     // what happened, for the statistics; nil: not wanted
}

// Counters are raised by Serve and may be read at any time.
type Counters struct {
	LocalReadFailed     atomic.Uint64 // clients that sent no complete request
	LocalUnknownRequest atomic.Uint64 // request numbers without a row
	LocalDropped        atomic.Uint64 // clients that had to make room for others
}

func (c Config) withDefaults() Config {
	orDefault(&c.RequestTimeout, 5*time.Second)
	orDefault(&c.StallTimeout, 30*time.Second)
	orDefault(&c.YieldTimeout, time.Second)
	orDefault(&c.DrainTimeout, 2*time.Second)
	orDefault(&c.MaxClients, 128)
	orDefault(&c.MaxWaiting, 512)
	if c.Counters == nil {
		c.Counters = new(Counters)
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// acceptPause is how long Serve waits after a failed accept, as when the
// process is out of file descriptors.
const acceptPause = 100 * time.Millisecond

// Serve answers clients of ln until ctx ends, each in its own goroutine, so
// that no client can delay another or the daemon; crowd says what it does with
// too many of them. It then closes ln, gives the handlers DrainTimeout to
// finish, and returns nil; an error tells that ln failed or that a handler did
// not return. Clients of ErrHold stay connected.
func Serve(ctx context.Context, ln net.Listener, reqs []Request, cfg Config) error {
	cfg = cfg.withDefaults()
	s := &server{cfg: cfg, rows: rowsByCode(reqs), crowd: newCrowd(&cfg)}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.cancel()

	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := s.accept(ctx, ln)
	ln.Close()
	return errors.Join(err, s.drain())
}

type server struct {
	cfg     Config
	rows    map[int32]*Request
	crowd   *crowd
	ctx     context.Context
	cancel  context.CancelFunc
	clients sync.WaitGroup
}

func (s *server) accept(ctx context.Context, ln net.Listener) error {
	for {
		conn, err := ln.Accept()
		if err == nil {
			c, ok := s.crowd.admit(ctx, conn)
			if !ok {
				conn.Close()
				return nil
			}
			s.clients.Go(func() { s.serve(c) })
			continue
		}
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
func (s *server) serve(c *client) {
	defer s.crowd.leave(c)
	defer c.conn.Close()

	handle, err := s.request(c.conn)
	switch {
	case errors.Is(err, errUnknown):
		s.cfg.Counters.LocalUnknownRequest.Add(1)
	case err != nil:
		s.cfg.Counters.LocalReadFailed.Add(1)
	}
	if handle == nil || !s.crowd.begin(s.ctx, c) {
		return
	}
	w := bufio.NewWriterSize(&patientWriter{c, s.cfg.StallTimeout}, replyBuffer)
	err = handle(s.ctx, w)
	w.Flush()
	if errors.Is(err, ErrHold) {
		hold(c.conn)
	}
}

// replyBuffer gathers the small writes of a handler.
const replyBuffer = 32 << 10

// request reads what a client asks for; nil is answered with nothing.
func (s *server) request(conn net.Conn) (handler, error) {
	if err := conn.SetReadDeadline(time.Now().Add(s.cfg.RequestTimeout)); err != nil {
		return nil, err
	}
	return readRequest(conn, s.rows)
}

func rowsByCode(reqs []Request) map[int32]*Request {
	rows := make(map[int32]*Request, len(reqs))
	for i := range reqs {
		rows[reqs[i].Code] = &reqs[i]
	}
	return rows
}

// drain waits for the clients, then cuts them off, then gives up.
func (s *server) drain() error {
	idle := make(chan struct{})
	go func() { s.clients.Wait(); close(idle) }()
	if waitFor(idle, s.cfg.DrainTimeout) {
		return nil
	}
	s.cancel()
	s.crowd.disperse()
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
	*client
	stall time.Duration
}

// Write fails if the client has taken no byte for the stall time.
func (w *patientWriter) Write(b []byte) (n int, err error) {
	defer w.writing.Store(0)
	for n < len(b) {
		now := time.Now()
		if err := w.conn.SetWriteDeadline(now.Add(w.stall)); err != nil {
			return n, err
		}
		w.writing.Store(int64(now.Sub(w.arrived)))
		m, err := w.conn.Write(b[n:])
		n += m
		if err != nil && (m == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
	}
	return n, nil
}
