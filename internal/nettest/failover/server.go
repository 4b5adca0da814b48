package failover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// server answers questions over TCP and UDP. It checks that each connection's
// questions come one after the other.
type server struct {
	tcp net.Listener
	udp *net.UDPConn

	done  context.CancelFunc
	mu    sync.Mutex
	conns []net.Conn
	wrong []error
	calls []netip.AddrPort // who is called
}

// serve listens on the node's service port, IPv4 and IPv6.
func serve(n *nettest.Node) (*server, error) {
	ctx, done := context.WithCancel(context.Background())
	s := &server{done: done}
	err := n.Do(func() (err error) {
		config := net.ListenConfig{KeepAlive: -1} // idle connections are silent
		if s.tcp, err = config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", servicePort)); err != nil {
			return err
		}
		s.udp, err = net.ListenUDP("udp", &net.UDPAddr{Port: servicePort})
		return err
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("serve on %s: %w", n.Name, err)
	}
	go s.accept()
	go s.answerDatagrams()
	go s.callAll(ctx)
	return s, nil
}

func (s *server) close() {
	s.done()
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.udp != nil {
		s.udp.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

func (s *server) accept() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		go s.answerStream(c)
	}
}

// answerStream answers until the connection ends. How it ends is the client's
// to judge.
func (s *server) answerStream(c net.Conn) {
	defer c.Close()
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	var question [questionSize]byte
	for want := uint64(1); ; want++ {
		if _, err := io.ReadFull(c, question[:]); err != nil {
			return
		}
		if got := binary.BigEndian.Uint64(question[:]); got != want {
			s.complain(fmt.Errorf("question %d from %s, want %d: data lost or repeated", got, from, want))
			return
		}
		if _, err := c.Write(appendAnswer(nil, question[:], from)); err != nil {
			return
		}
	}
}

func (s *server) answerDatagrams() {
	var question [questionSize + 1]byte
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(question[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < questionSize {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if n > questionSize {
			s.callBack(from)
			continue
		}
		s.udp.WriteToUDPAddrPort(appendAnswer(nil, question[:questionSize], from), from)
	}
}

// callBack has a client called from now on.
func (s *server) callBack(client netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.calls, client) {
		s.calls = append(s.calls, client)
	}
}

// callAll sends each client that wants to be called an answer that it has not
// asked for, again and again.
func (s *server) callAll(ctx context.Context) {
	pause := time.NewTicker(pace)
	defer pause.Stop()
	for number := uint64(1); ; number++ {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		s.mu.Lock()
		calls := s.calls
		s.mu.Unlock()
		for _, to := range calls {
			s.udp.WriteToUDPAddrPort(appendAnswer(nil, binary.BigEndian.AppendUint64(nil, number), to), to)
		}
	}
}

func (s *server) complain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, err)
}

// complaints are the wrong questions so far.
func (s *server) complaints() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.wrong...)
}
