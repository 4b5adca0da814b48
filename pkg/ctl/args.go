package ctl

import (
	"fmt"
	"strings"
)

// DefaultConfigFile is read if no -C names another.
const DefaultConfigFile = "/etc/conntrackd/conntrackd.conf"

// Kind is what a command line asks for.
type Kind uint8

// The kinds of command. Foreground is the daemon attached to its terminal,
// Daemon the one in the background, Client a request to a running daemon.
const (
	Foreground Kind = iota
	Daemon
	Client
	Version
	Usage
)

// Command is a command line understood.
type Command struct {
	Kind       Kind
	ConfigFile string
	Code       int32    // the request, if Kind is Client
	Operand    string   // of the request; empty: it has none
	Answered   bool     // of the request: an empty reply is none
	Warnings   []string // to be shown before acting
}

// UsageError is a command line that makes no sense: the usage text goes to
// standard output if ShowUsage is set, the error itself to standard error, and
// the process exits with 1.
type UsageError struct {
	Msg       string
	ShowUsage bool
}

func (e *UsageError) Error() string { return e.Msg }

// ParseArgs reads the arguments after the program's name, from left to right.
// Of several requests the last one wins. -v and -h end the scan at once. An
// error is always a *UsageError.
func ParseArgs(args []string, rows []Request) (Command, error) {
	s := scanner{
		args: args,
		opts: options(rows),
		cmd:  Command{ConfigFile: DefaultConfigFile},
	}
	for s.next < len(s.args) {
		done, err := s.argument()
		if err != nil {
			return Command{}, err
		}
		if done {
			break
		}
	}
	return s.cmd, nil
}

// scanner walks over the arguments.
type scanner struct {
	args []string
	next int
	opts []option
	last *option // that of the request chosen so far
	form *form   // the request chosen so far
	cmd  Command
}

// generalOption is an option that is not a request.
type generalOption struct {
	letter byte
	name   string // GNU spelling, if it has one
	usage  string // as printed after the dash
	help   string
	scan   func(*scanner) (done bool, err error)
}

var generalOptions = []generalOption{
	{'d', "", "d", "start in the background", (*scanner).daemon},
	{'C', "", "C [configfile]", "read this configuration file", (*scanner).configFile},
	{'v', "--version", "v", "print the version", func(s *scanner) (bool, error) { return s.end(Version) }},
	{'h', "--help", "h", "print this help", func(s *scanner) (bool, error) { return s.end(Usage) }},
}

func (s *scanner) argument() (done bool, err error) {
	arg := s.args[s.next]
	s.next++
	for _, g := range generalOptions {
		if g.name != "" && arg == g.name {
			return g.scan(s)
		}
	}
	if len(arg) < 2 || arg[0] != '-' {
		return false, s.stray(arg)
	}
	letter := arg[1]
	if len(arg) > 2 && letter == 'C' {
		return false, &UsageError{fmt.Sprintf("Unknown option: %s (write -C file)", arg), true}
	}
	if letter == 'x' {
		err = s.xml()
	} else if g := findGeneral(letter); g != nil {
		done, err = g.scan(s)
	} else if o := findOption(s.opts, letter); o != nil {
		err = s.request(o)
	} else {
		return false, &UsageError{"Unknown option: " + arg, true}
	}
	if len(arg) > 2 && err == nil && !done {
		s.warnf("option `%s' is taken as `-%c'", arg, letter)
	}
	return done, err
}

func findGeneral(letter byte) *generalOption {
	for i := range generalOptions {
		if generalOptions[i].letter == letter {
			return &generalOptions[i]
		}
	}
	return nil
}

// stray is a word that no option has taken.
func (s *scanner) stray(arg string) error {
	return &UsageError{fmt.Sprintf("Unknown option: `%s'", arg), true}
}

func (s *scanner) daemon() (bool, error) {
	if s.form != nil {
		return false, invalidParameters()
	}
	s.cmd.Kind = Daemon
	return false, nil
}

func (s *scanner) configFile() (bool, error) {
	file, ok := s.operand()
	if !ok || file == "" {
		return false, &UsageError{"option `-C' needs the name of a configuration file", true}
	}
	s.cmd.ConfigFile = file
	return false, nil
}

func (s *scanner) end(k Kind) (bool, error) {
	s.cmd = Command{Kind: k, ConfigFile: s.cmd.ConfigFile}
	return true, nil
}

// request handles an option that sends one, with its sub-argument.
func (s *scanner) request(o *option) error {
	if s.cmd.Kind == Daemon {
		return invalidParameters()
	}
	f := o.bare()
	word := ""
	if len(o.words()) > 0 {
		var ok bool
		if word, ok = s.operand(); ok {
			if f = o.match(word); f == nil {
				return &UsageError{fmt.Sprintf("unknown parameter `%s' for option `-%c'", word, o.letter), false}
			}
		}
	}
	if f == nil {
		return &UsageError{fmt.Sprintf("option `-%c' needs a parameter", o.letter), true}
	}
	if f.use != "" {
		s.warnf("use `%s' instead of `%s' as parameter.", f.use, f.word)
	}
	s.choose(o, f, word)
	return nil
}

// xml turns the request before it into the one that answers in XML.
func (s *scanner) xml() error {
	if s.form == nil {
		return invalidParameters()
	}
	f := s.last.asXML(s.form)
	if f == nil {
		return invalidParameters()
	}
	s.choose(s.last, f, s.cmd.Operand)
	return nil
}

// choose takes a request, and the word after the option if that is an operand.
func (s *scanner) choose(o *option, f *form, word string) {
	if f.operand == "" {
		word = ""
	}
	s.last, s.form = o, f
	s.cmd.Kind, s.cmd.Code, s.cmd.Operand, s.cmd.Answered = Client, f.code, word, f.answered
}

// operand takes the next argument unless it is an option.
func (s *scanner) operand() (string, bool) {
	if s.next == len(s.args) || strings.HasPrefix(s.args[s.next], "-") {
		return "", false
	}
	s.next++
	return s.args[s.next-1], true
}

func (s *scanner) warnf(format string, a ...any) {
	s.cmd.Warnings = append(s.cmd.Warnings, fmt.Sprintf(format, a...))
}

func invalidParameters() error {
	return &UsageError{"Invalid parameters", true}
}
