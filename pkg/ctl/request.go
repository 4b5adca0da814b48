// Package ctl is the daemon's UNIX control socket and the command line that
// speaks to it (docs/protocol.md 8).
//
// The protocol: the client connects, sends one 32-bit signed number in native
// byte order and reads text until the server closes. There is no length, no
// status and no error channel. Requests with an operand, which conntrackd does
// not have, send that too and get a status (operand.go).
//
// The package knows no request by name. The daemon hands it a table of
// Request rows; the command line, the usage text and the server are all
// derived from these rows.
package ctl

import (
	"context"
	"errors"
	"io"
	"strings"
)

// Request is one row of the table of control requests.
type Request struct {
	// Code is the number sent on the socket.
	Code int32

	// Flag is how the request is written on the command line: `-i`,
	// `-s cache`, `-i expect -x`; several spellings are separated by commas.
	// Empty: the request has no option. A sub-argument is matched by prefix
	// in the order of the rows.
	Flag string

	// Operand is what the usage text calls the operand of a request that has
	// one: with `-c` as Flag and `address` as Operand, whatever follows -c
	// and is the beginning of no sub-argument. Empty: there is none.
	Operand string

	// Old is an obsolete spelling of Flag, accepted with a warning.
	Old string

	// Answered is set of a request that conntrackd does not have and whose
	// reply is never empty: an empty one makes the client fail.
	Answered bool

	// Help is the description of the option letter. The first row of a
	// letter that has one supplies it.
	Help string

	// Handle writes the reply; nil answers with nothing. It runs in a goroutine of its own, may block,
	// and must not hold a lock while it writes, because the client may be
	// slow. ctx ends when the server gives up waiting for it at shutdown. An
	// error ends the reply; the client cannot be told. ErrHold keeps the
	// connection open until the process has ended.
	Handle func(ctx context.Context, w io.Writer) error

	// HandleOperand is Handle of a request with Operand. The operand is what
	// a client has sent, up to MaxOperand bytes of anything. An error makes
	// the client fail, once it has shown what was written to w.
	HandleOperand func(ctx context.Context, w io.Writer, operand string) error
}

// ErrHold is returned by a handler whose client must see the end of the reply
// only when this process is gone, as the client of the kill request does.
var ErrHold = errors.New("hold connection until exit")

// form is one spelling of a request on the command line.
type form struct {
	letter byte
	word   string // sub-argument; empty: the option alone
	// operand is the name of what takes the place of a sub-argument.
	operand  string
	answered bool
	xml      bool
	code     int32
	use      string // of an obsolete word: the one to use instead
}

// option is one option letter that sends a request.
type option struct {
	letter byte
	help   string
	forms  []form
}

// options groups the rows by letter, in the order of first appearance.
func options(rows []Request) []option {
	var opts []option
	for _, r := range rows {
		current := parseForms(r.Flag, r)
		old := parseForms(r.Old, r)
		for i := range old {
			old[i].use = current[0].word
		}
		for _, f := range append(old, current...) {
			opts = addForm(opts, f, r.Help)
		}
	}
	return opts
}

func addForm(opts []option, f form, help string) []option {
	o := findOption(opts, f.letter)
	if o == nil {
		opts = append(opts, option{letter: f.letter})
		o = &opts[len(opts)-1]
	}
	if o.help == "" {
		o.help = help
	}
	o.forms = append(o.forms, f)
	return opts
}

// parseForms reads the spellings of one row. A malformed row is a mistake in
// our own table.
func parseForms(flag string, r Request) []form {
	if flag == "" {
		return nil
	}
	var forms []form
	for _, spelling := range strings.Split(flag, ",") {
		words := strings.Fields(spelling)
		if len(words) == 0 || len(words[0]) != 2 || words[0][0] != '-' {
			panic("ctl: malformed flag in request table: " + flag)
		}
		f := form{letter: words[0][1], code: r.Code, operand: r.Operand, answered: r.Answered}
		words = words[1:]
		if n := len(words); n > 0 && words[n-1] == "-x" {
			f.xml = true
			words = words[:n-1]
		}
		if len(words) > 0 {
			f.word = words[0]
		}
		if f.word != "" && f.operand != "" {
			panic("ctl: sub-argument and operand in request table: " + flag)
		}
		forms = append(forms, f)
	}
	return forms
}

func findOption(opts []option, letter byte) *option {
	for i := range opts {
		if opts[i].letter == letter {
			return &opts[i]
		}
	}
	return nil
}

// match finds the first plain form whose word starts with arg, else the one
// that takes an operand.
func (o *option) match(arg string) *form {
	var withOperand *form
	for i := range o.forms {
		f := &o.forms[i]
		switch {
		case f.xml:
		case f.operand != "" && arg != "":
			withOperand = f
		case f.word != "" && strings.HasPrefix(f.word, arg):
			return f
		}
	}
	return withOperand
}

// bare is the form without a sub-argument, nil if there is none.
func (o *option) bare() *form {
	for i := range o.forms {
		if f := &o.forms[i]; !f.xml && f.word == "" && f.operand == "" {
			return f
		}
	}
	return nil
}

// asXML finds the XML sibling of f, nil if there is none.
func (o *option) asXML(f *form) *form {
	for i := range o.forms {
		if g := &o.forms[i]; g.xml && !f.xml && g.word == f.word && g.operand == f.operand {
			return g
		}
	}
	return nil
}

// words lists the sub-arguments for the usage text.
func (o *option) words() []string {
	var list []string
	for _, f := range o.forms {
		switch {
		case f.xml || f.use != "":
		case f.word != "":
			list = append(list, f.word)
		case f.operand != "":
			list = append(list, "<"+f.operand+">")
		}
	}
	return list
}
