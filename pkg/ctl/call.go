package ctl

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// ConnectError tells that no daemon could be reached. Its text is conntrackd's.
type ConnectError struct {
	Path string
	Err  error
}

func (e *ConnectError) Error() string {
	return "can't connect: is conntrackd running? appropriate permissions?"
}

func (e *ConnectError) Unwrap() error { return e.Err }

// Call sends a request to the daemon at path and copies the reply to w until
// the daemon closes. It waits without limit: a commit takes as long as it
// takes. No daemon is a *ConnectError. With an operand, at most one, the reply
// ends in a status: ErrRefused and ErrUnanswered tell what went wrong, when w
// has had the text.
func Call(path string, code int32, w io.Writer, operand ...string) error {
	request, err := appendRequest(nil, code, operand)
	if err != nil {
		return err
	}
	if err := checkPath(path); err != nil {
		return &ConnectError{path, err}
	}
	conn, err := dial(path)
	if err != nil {
		return &ConnectError{path, err}
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		return fmt.Errorf("send request %d: %w", code, cause(err))
	}
	var status error
	if len(operand) > 0 {
		status, err = copyWithStatus(w, conn)
	} else {
		_, err = io.Copy(w, conn)
	}
	if err != nil {
		return fmt.Errorf("read reply to request %d: %w", code, cause(err))
	}
	return status
}

// Call sends the request of a Client command; see the function of that name.
func (c Command) Call(path string, w io.Writer) error {
	if c.Operand != "" {
		return Call(path, c.Code, w, c.Operand)
	}
	text := counted{w: w}
	err := Call(path, c.Code, &text)
	if err == nil && c.Answered && text.n == 0 {
		return ErrUnanswered
	}
	return err
}

// counted counts what is written to w.
type counted struct {
	w io.Writer
	n int
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// How long a client tries to get into a full backlog, and how often.
const (
	dialPatience = 30 * time.Second
	dialPause    = 20 * time.Millisecond
)

// dial waits where the daemon has so many clients that its backlog is full, as
// a socket that blocks would.
func dial(path string) (net.Conn, error) {
	for start := time.Now(); ; {
		conn, err := net.Dial("unix", address(path))
		if !errors.Is(err, unix.EAGAIN) || time.Since(start) > dialPatience {
			return conn, err
		}
		time.Sleep(dialPause)
	}
}
