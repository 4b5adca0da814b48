package ctl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A request with an operand is its number, a byte that says how long the
// operand is, and the operand. The reply is text as ever, and at its end one
// byte that says how it went: an end without it means that the daemon ended
// before that, or does not know the request, as conntrackd.

// MaxOperand is the size of the longest operand, in bytes.
const MaxOperand = 255

// The statuses. No text ends in one.
const (
	statusDone    = "\x00"
	statusRefused = "\x01"
)

// ErrRefused is returned by Call when the daemon has not done what it was
// asked for; its reply says why.
var ErrRefused = errors.New("the daemon has refused the request")

// ErrUnanswered is returned by Call when nothing says whether the request was
// done.
var ErrUnanswered = errors.New("the daemon does not know this request, or has ended before it was done")

// appendRequest appends what a client sends.
func appendRequest(b []byte, code int32, operand []string) ([]byte, error) {
	b = binary.NativeEndian.AppendUint32(b, uint32(code))
	for _, o := range operand {
		if len(o) > MaxOperand {
			return nil, fmt.Errorf("send request %d: operand of %d bytes is longer than %d", code, len(o), MaxOperand)
		}
		b = append(append(b, byte(len(o))), o...)
	}
	return b, nil
}

// handler answers a request whose operand, if it has one, is known.
type handler = func(ctx context.Context, w io.Writer) error

// errUnknown is the error of a number without a row.
var errUnknown = errors.New("unknown request")

// readRequest reads what a client sends. A request that is answered with
// nothing has no handler.
func readRequest(r io.Reader, rows map[int32]*Request) (handler, error) {
	var number [4]byte
	if _, err := io.ReadFull(r, number[:]); err != nil {
		return nil, err
	}
	row := rows[int32(binary.NativeEndian.Uint32(number[:]))]
	if row == nil {
		return nil, errUnknown
	}
	if row.Operand == "" {
		return row.Handle, nil
	}
	var operand [1 + MaxOperand]byte
	if _, err := io.ReadFull(r, operand[:1]); err != nil {
		return nil, err
	}
	text := operand[1 : 1+int(operand[0])]
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	return row.withOperand(string(text)), nil
}

// withOperand returns the handler for one operand; it ends the reply with the
// status.
func (r *Request) withOperand(operand string) handler {
	if r.HandleOperand == nil {
		return nil
	}
	return func(ctx context.Context, w io.Writer) error {
		status := statusDone
		err := r.HandleOperand(ctx, w, operand)
		if err != nil {
			status = statusRefused
		}
		_, writeErr := io.WriteString(w, status)
		return errors.Join(err, writeErr)
	}
}

// copyWithStatus copies the text of a reply, and returns what its status
// means: nil, ErrRefused or ErrUnanswered.
func copyWithStatus(w io.Writer, r io.Reader) (status, err error) {
	text := heldBack{w: w}
	// A server that has not read the operand closes with a reset.
	if _, err := io.Copy(&text, r); err != nil && !errors.Is(err, unix.ECONNRESET) {
		return nil, err
	}
	switch string(text.last) {
	case statusDone:
		return nil, nil
	case statusRefused:
		return ErrRefused, nil
	}
	_, err = w.Write(text.last)
	return ErrUnanswered, err
}

// heldBack passes on what is written to it but for the last byte.
type heldBack struct {
	w    io.Writer
	last []byte
}

func (h *heldBack) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n := len(b) - 1
	for _, part := range [][]byte{h.last, b[:n]} {
		if _, err := h.w.Write(part); err != nil {
			return 0, err
		}
	}
	h.last = append(h.last[:0], b[n])
	return len(b), nil
}
