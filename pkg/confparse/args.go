package confparse

import (
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/alecthomas/participle/v2/lexer"
)

// argument is what may follow a keyword: one of the set bits.
type argument uint16

const (
	number argument = 1 << iota
	signed
	boolean
	path
	word
	address
	block
	literalTCP // the TCP of `for TCP'
	release    // of conntrackd
)

// argumentTexts name the arguments for errors and for the reference.
var argumentTexts = []struct {
	bit          argument
	short, exact string
}{
	{boolean, "on, off", "on or off"},
	{number, "number", "a decimal number without sign or unit"},
	{signed, "signed number", "a number with its sign, as in +10"},
	{path, "path", "a path that starts with /"},
	{word, "word", "a name"},
	{address, "address", "an IP address"},
	{literalTCP, "`TCP`", "the word TCP"},
	{release, "version", "a version as in 1.4.6"},
	{block, "{ ... }", "a block in braces"},
}

func (a argument) exact() string {
	var texts []string
	for _, t := range argumentTexts {
		if a&t.bit != 0 {
			texts = append(texts, t.exact)
		}
	}
	return strings.Join(texts, " or ")
}

// value is a statement's argument.
type value struct {
	pos  lexer.Position // of the argument; of the keyword if that is a block
	key  string         // the keyword as written
	head string         // what is between keyword and brace, or argument
	kind argument
	text string // without quotes
	n    int    // of a number: 0 to 1<<32-1
	on   bool   // of a boolean
}

// tokenArguments says what a token can be.
var tokenArguments = map[lexer.TokenType]argument{
	tokNumber: number,
	tokSigned: signed,
	tokSwitch: boolean,
	tokPath:   path,
	tokWord:   word,
	tokIPv4:   address,
	tokIPv6:   address,

	tokRelease: release,
}

// evaluate reads a token as one of the wanted arguments.
func evaluate(tok lexer.Token, wanted argument) (v value, ok bool) {
	v = value{pos: tok.Pos, text: tok.Value}
	switch {
	case tok.Type == tokQuoted:
		v.text = tok.Value[1 : len(tok.Value)-1]
		v.kind = wanted & quotedArgument(v.text, wanted)
	case tok.Type == tokIPv6 && wanted&word != 0 && !strings.ContainsAny(v.text, ":/%"):
		v.kind = word // fab0 is an interface where a name is due
	case tok.Type == tokKeyword && ourWords[tok.Value]:
		v.kind = wanted & word
	case tok.Type == tokKeyword && tok.Value == "TCP":
		v.kind = wanted & literalTCP
	default:
		v.kind = wanted & tokenArguments[tok.Type]
	}
	switch v.kind {
	case number:
		v.n = integer(v.text)
	case boolean:
		v.on = strings.EqualFold(v.text, "on") || strings.EqualFold(v.text, "yes")
	}
	return v, v.kind != 0
}

// quotedArgument says what the text of a string can be: what it would be
// without quotes, or a path with spaces, or a name that would be a keyword.
func quotedArgument(text string, wanted argument) argument {
	if kind, n := scan(text); n == len(text) && wanted&tokenArguments[kind] != 0 {
		return tokenArguments[kind]
	}
	odd := func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	switch {
	case strings.HasPrefix(text, "/"):
		return path
	case text != "" && !strings.ContainsFunc(text, odd):
		return word
	}
	return 0
}

// integer converts digits as conntrackd does: atoi into 32 bits.
func integer(digits string) int {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		n = math.MaxInt64
	}
	return int(uint32(n))
}

// overflows reports whether integer lost something.
func overflows(digits string) bool {
	_, err := strconv.ParseUint(digits, 10, 32)
	return err != nil
}
