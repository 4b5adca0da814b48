package related

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

const (
	ftpPort     = "21"
	ftpDataPort = 20
)

// Mode is how an FTP client and its server agree on the data connection.
type Mode string

// The modes, by the client's command.
const (
	Port Mode = "PORT" // active, IPv4
	Eprt Mode = "EPRT" // active
	Pasv Mode = "PASV" // passive, IPv4
	Epsv Mode = "EPSV" // passive
)

// Active reports whether the server opens the data connection.
func (m Mode) Active() bool { return m == Port || m == Eprt }

// ServeFTP answers FTP clients on a node until the returned function is called.
func ServeFTP(n *nettest.Node) (stop func() error, err error) {
	var l net.Listener
	err = n.Do(func() (err error) {
		l, err = net.Listen("tcp", ":"+ftpPort)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve FTP on %s: %w", n.Name, err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s := &ftpSession{node: n, control: c}
			go s.serve()
		}
	}()
	return l.Close, nil
}

// ftpSession is the server's side of one control connection.
type ftpSession struct {
	node    *nettest.Node
	control net.Conn
	target  string           // active: where the client listens
	passive *net.TCPListener // passive: where we do
}

func (s *ftpSession) serve() {
	defer func() { _ = s.control.Close() }()
	s.reply("220 ready")
	lines := bufio.NewScanner(s.control)
	for lines.Scan() {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		if err := s.command(verb, arg); err != nil {
			s.reply("425 " + err.Error())
		}
	}
	if s.passive != nil {
		_ = s.passive.Close()
	}
}

func (s *ftpSession) reply(text string) { _, _ = fmt.Fprintf(s.control, "%s\r\n", text) }

func (s *ftpSession) command(verb, arg string) (err error) {
	switch verb {
	case "USER":
		s.reply("230 logged in")
	case string(Port), string(Eprt):
		if s.target, err = parseTarget(arg); err == nil {
			s.reply("200 done")
		}
	case string(Pasv), string(Epsv):
		err = s.listen(Mode(verb))
	case "RETR":
		err = s.retrieve()
	default:
		s.reply("502 unknown")
	}
	return err
}

func (s *ftpSession) listen(m Mode) error {
	local := s.control.LocalAddr().(*net.TCPAddr)
	l, err := listen(s.node, net.JoinHostPort(local.IP.String(), "0"))
	if err != nil {
		return err
	}
	s.passive = l
	port := l.Addr().(*net.TCPAddr).Port
	if m == Epsv {
		s.reply(fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)", port))
		return nil
	}
	s.reply(fmt.Sprintf("227 Entering Passive Mode (%s).", commas(local.IP, port)))
	return nil
}

func (s *ftpSession) retrieve() (err error) {
	s.reply("150 here it comes")
	var data net.Conn
	if s.passive != nil {
		_ = s.passive.SetDeadline(time.Now().Add(patience))
		data, err = s.passive.Accept()
	} else {
		from := &net.TCPAddr{IP: s.control.LocalAddr().(*net.TCPAddr).IP, Port: ftpDataPort}
		data, err = dial(s.node, from, s.target)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(data, Content)
	if err = errors.Join(err, data.Close()); err == nil {
		s.reply("226 complete")
	}
	return err
}

// An FTP is the client's side of a session.
type FTP struct {
	node    *nettest.Node
	control net.Conn
	lines   *bufio.Reader
	mode    Mode
	active  *net.TCPListener // where we wait for the data connection
	target  string           // where the server does
}

// DialFTP opens a control connection.
func DialFTP(n *nettest.Node, server netip.Addr) (*FTP, error) {
	c, err := dial(n, nil, net.JoinHostPort(server.String(), ftpPort))
	if err != nil {
		return nil, fmt.Errorf("open FTP session: %w", err)
	}
	f := &FTP{node: n, control: c, lines: bufio.NewReader(c)}
	if err := f.expect("220"); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.ask("USER anonymous", "230"); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close ends the session.
func (f *FTP) Close() error {
	if f.active != nil {
		_ = f.active.Close()
	}
	return f.control.Close()
}

func (f *FTP) ask(command, want string) error {
	_, err := f.answer(command, want)
	return err
}

func (f *FTP) expect(want string) error {
	_, err := f.read(want)
	return err
}

func (f *FTP) answer(command, want string) (string, error) {
	if _, err := fmt.Fprintf(f.control, "%s\r\n", command); err != nil {
		return "", fmt.Errorf("FTP %s: %w", command, err)
	}
	line, err := f.read(want)
	if err != nil {
		return "", fmt.Errorf("FTP %s: %w", command, err)
	}
	return line, nil
}

func (f *FTP) read(want string) (string, error) {
	if err := f.control.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
		return "", err
	}
	line, err := f.lines.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, want) {
		err = fmt.Errorf("got %q, want %s", line, want)
	}
	return line, err
}

// Announce agrees with the server on the next data connection: from here on
// the firewall expects it.
func (f *FTP) Announce(m Mode) error {
	f.mode = m
	if !m.Active() {
		return f.announcePassive(m)
	}
	local := f.control.LocalAddr().(*net.TCPAddr)
	l, err := listen(f.node, net.JoinHostPort(local.IP.String(), "0"))
	if err != nil {
		return fmt.Errorf("FTP %s: %w", m, err)
	}
	f.active = l
	port := l.Addr().(*net.TCPAddr).Port
	if m == Port {
		return f.ask("PORT "+commas(local.IP, port), "200")
	}
	family := 1
	if local.IP.To4() == nil {
		family = 2
	}
	return f.ask(fmt.Sprintf("EPRT |%d|%s|%d|", family, local.IP, port), "200")
}

func (f *FTP) announcePassive(m Mode) error {
	line, err := f.answer(string(m), "22")
	if err != nil {
		return err
	}
	_, inner, _ := strings.Cut(line, "(")
	inner, _, _ = strings.Cut(inner, ")")
	if m == Epsv {
		host, _, _ := net.SplitHostPort(f.control.RemoteAddr().String())
		f.target = net.JoinHostPort(host, strings.Trim(inner, "|"))
		return nil
	}
	f.target, err = parseTarget(inner)
	return err
}

// Fetch makes the announced data connection, reads what comes and closes it.
func (f *FTP) Fetch() (string, error) {
	if _, err := fmt.Fprint(f.control, "RETR file\r\n"); err != nil {
		return "", fmt.Errorf("FTP RETR: %w", err)
	}
	data, err := f.connect()
	if err != nil {
		return "", fmt.Errorf("FTP data connection (%s): %w; the server said: %s", f.mode, err, f.said())
	}
	defer func() { _ = data.Close() }()
	if err := data.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	text, err := io.ReadAll(data)
	if err != nil {
		return "", fmt.Errorf("FTP data connection (%s): %w", f.mode, err)
	}
	if err := f.expect("150"); err != nil {
		return "", err
	}
	return string(text), f.expect("226")
}

// said is what the server has to say about a transfer that failed.
func (f *FTP) said() string {
	var lines [2]string
	for i := range lines {
		if err := f.control.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err.Error()
		}
		lines[i], _ = f.lines.ReadString('\n')
	}
	return fmt.Sprintf("%q", lines)
}

func (f *FTP) connect() (net.Conn, error) {
	if !f.mode.Active() {
		return dial(f.node, nil, f.target)
	}
	defer func() { _ = f.active.Close() }()
	if err := f.active.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return f.active.Accept()
}

// commas is an IPv4 address and a port as PORT and PASV write them.
func commas(ip net.IP, port int) string {
	return fmt.Sprintf("%s,%d,%d", strings.ReplaceAll(ip.String(), ".", ","), port>>8, port&0xff)
}

// parseTarget reads the argument of PORT or EPRT.
func parseTarget(s string) (string, error) {
	if strings.HasPrefix(s, "|") {
		if parts := strings.Split(s, "|"); len(parts) == 5 {
			return net.JoinHostPort(parts[2], parts[3]), nil
		}
		return "", fmt.Errorf("parse %q: not an extended address", s)
	}
	var a, b, c, d, high, low int
	if _, err := fmt.Sscanf(s, "%d,%d,%d,%d,%d,%d", &a, &b, &c, &d, &high, &low); err != nil {
		return "", fmt.Errorf("parse %q: %w", s, err)
	}
	return fmt.Sprintf("%d.%d.%d.%d:%d", a, b, c, d, high<<8|low), nil
}
