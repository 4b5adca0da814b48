package flood

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Packets is real traffic from one namespace to another, through whatever
// tracks it between them. Client and Server run a function in a namespace
// ((*nettest.Node).Do).
type Packets struct {
	Client, Server func(func() error) error
	At             netip.Addr // the server's IPv4 address
	Port           uint16     // first port of the server
	Rate           int        // flows per second
	Flows          int
}

const (
	udpSources = 256 // sockets of the client
	udpPorts   = 128 // of the server
	// MaxUDPFlows is how many flows UDP can tell apart.
	MaxUDPFlows = udpSources * udpPorts
	// tcpWorkers bounds the connections open at a time.
	tcpWorkers = 32
	timeout    = 5 * time.Second
)

// UDP sends one datagram in each of the flows; the server answers it. It
// returns how long it took and how many got their answer.
func (p *Packets) UDP() (took time.Duration, answered int, err error) {
	if p.Flows > MaxUDPFlows {
		return 0, 0, fmt.Errorf("send UDP flows: %d are more than %d", p.Flows, MaxUDPFlows)
	}
	stop, err := p.answerUDP()
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	fds, err := p.sources()
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	if err != nil {
		return 0, 0, err
	}
	pace := newPacer(p.Rate)
	defer pace.stop()
	for i := 0; i < p.Flows; {
		for range min(pace.wait(i), p.Flows-i) {
			to := unix.SockaddrInet4{Port: int(p.Port) + i/udpSources, Addr: p.At.As4()}
			if err := unix.Sendto(fds[i%udpSources], []byte("question"), 0, &to); err != nil {
				return 0, 0, fmt.Errorf("send UDP flow: %w", err)
			}
			i++
		}
	}
	took = time.Since(pace.start)
	answered, err = collect(fds, p.Flows)
	return took, answered, err
}

// sources opens the client's sockets.
func (p *Packets) sources() (fds []int, err error) {
	err = p.Client(func() error {
		for range udpSources {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open UDP source: %w", err)
			}
			fds = append(fds, fd)
		}
		return nil
	})
	return fds, err
}

// collect counts the answers until all are there or none comes for a while.
func collect(fds []int, want int) (n int, err error) {
	const looks, pause = 40, 5 * time.Millisecond // a clock goes on while nobody looks
	buf := make([]byte, 64)
	for idle := 0; n < want && idle < looks; idle++ {
		for _, fd := range fds {
			for {
				_, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if err != nil {
					return n, fmt.Errorf("receive UDP answer: %w", err)
				}
				n++
				idle = 0
			}
		}
		time.Sleep(pause)
	}
	return n, nil
}

// answerUDP answers on all ports until stop.
func (p *Packets) answerUDP() (stop func(), err error) {
	var conns []*net.UDPConn
	stop = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	err = p.Server(func() error {
		for i := range udpPorts {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(p.Port) + i})
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("answer UDP: %w", err)
	}
	for _, c := range conns {
		go func() {
			buf := make([]byte, 64)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
	}
	return stop, nil
}

// TCP connects, asks, is answered and closes, for each of the flows. It
// returns how long it took; a connection that fails is an error.
func (p *Packets) TCP() (took time.Duration, err error) {
	var l net.Listener
	if err := p.Server(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", p.Port))
		return err
	}); err != nil {
		return 0, fmt.Errorf("answer TCP: %w", err)
	}
	defer func() { _ = l.Close() }()
	go answerTCP(l)

	due := make(chan struct{}, p.Flows)
	errs := make([]error, tcpWorkers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = p.Client(func() error {
				for range due {
					if err := p.connect(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	pace := newPacer(p.Rate)
	for i := 0; i < p.Flows; {
		for range min(pace.wait(i), p.Flows-i) {
			due <- struct{}{}
			i++
		}
	}
	pace.stop()
	close(due)
	wg.Wait()
	return time.Since(pace.start), errors.Join(errs...)
}

// connect is the life of one connection, on a thread in the namespace.
func (p *Packets) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(int64(timeout))
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &limit); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(p.Port), Addr: p.At.As4()}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte("question")); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	var buf [64]byte
	if n, err := unix.Read(fd, buf[:]); err != nil || n == 0 {
		return fmt.Errorf("await answer: %d bytes, %w", n, err)
	}
	return nil
}

// answerTCP answers one question of each connection and waits for its end.
func answerTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			buf := make([]byte, 64)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}
