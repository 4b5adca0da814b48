package confparse

import (
	"io"
	"regexp"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"
)

// The kinds of tokens of conntrackd.conf.
const (
	tokOpen lexer.TokenType = iota + 1
	tokClose
	tokKeyword
	tokSwitch // on, off, yes, no
	tokNumber
	tokSigned
	tokIPv4
	tokIPv6
	tokRelease // 1.4.6
	tokPath
	tokMode
	tokWord
	tokQuoted
	tokOther // a character that starts no token
)

const (
	hex  = `[0-9A-Fa-f]{1,4}`
	quad = `[0-9]+(?:\.[0-9]+){3}`
)

// lexicon are the tokens. The longest match wins; of two equally long ones
// the first. So an interface called on, alarm or Port is no word, and neither
// is fab0 (the parser takes that one for a name all the same).
//
// The IPv6 patterns accept whatever conntrackd takes for an address, and in
// addition zones and embedded dotted quads; the conversion is the judge.
var lexicon = []struct {
	name string
	kind lexer.TokenType
	re   *regexp.Regexp
}{
	{"Open", tokOpen, longest(`\{`)},
	{"Close", tokClose, longest(`\}`)},
	{"Keyword", tokKeyword, longest(anyOf(keywords()))},
	{"Switch", tokSwitch, longest(`(?i:on|yes|off|no)`)},
	{"Number", tokNumber, longest(`[0-9]+`)},
	{"Signed", tokSigned, longest(`[+-][0-9]+`)},
	{"IPv4", tokIPv4, longest(quad + `(?:/[0-9]+)?`)},
	{"IPv6", tokIPv6, longest(
		`(?:` + hex + `(?::` + hex + `){0,7}` +
			`|(?:` + hex + `:?){0,7}::(?:` + hex + `:?){0,7}` +
			`|(?:` + hex + `)?(?::(?:` + hex + `)?){0,7}:` + quad +
			`)(?:%[0-9A-Za-z._-]+)?(?:/[0-9]+)?`)},
	{"Release", tokRelease, longest(`[0-9]+\.[0-9]+\.[0-9]+`)},
	{"Path", tokPath, longest(`/[^ \n"]*`)},
	{"Mode", tokMode, longest(`(?i:FTFW|ALARM|NOTRACK|NACK)`)},
	{"Word", tokWord, longest(`[A-Za-z][0-9A-Za-z._-]*`)},
	{"Quoted", tokQuoted, longest(`"[^"\r\n]*"`)},
	{"Other", tokOther, longest(`(?s:.)`)},
}

// blank is what separates tokens: white space, the invisible characters that
// come along with text copied from web pages and other systems, and comments.
var blank = longest(`(?:[ \t\r\n\x{85}\x{FEFF}\pZ]|#[^\n]*)*`)

func longest(pattern string) *regexp.Regexp {
	re := regexp.MustCompile(`^(?:` + pattern + `)`)
	re.Longest()
	return re
}

func anyOf(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = regexp.QuoteMeta(w)
	}
	return strings.Join(quoted, "|")
}

// scan returns the kind and the length of the first token of text.
func scan(text string) (kind lexer.TokenType, n int) {
	for _, l := range lexicon {
		if m := l.re.FindStringIndex(text); m != nil && m[1] > n {
			kind, n = l.kind, m[1]
		}
	}
	return kind, n
}

// maxDepth bounds nesting, as the parser is recursive.
const maxDepth = 100

// scanner is the lexer.Lexer of one file.
type scanner struct {
	text  string // what is left
	pos   lexer.Position
	depth int
}

func (s *scanner) advance(n int) string {
	span := s.text[:n]
	s.pos.Advance(span)
	s.text = s.text[n:]
	return span
}

// Next returns the next token, or an EOF token for ever.
func (s *scanner) Next() (lexer.Token, error) {
	s.advance(blank.FindStringIndex(s.text)[1])
	if s.text == "" {
		return lexer.EOFToken(s.pos), nil
	}
	kind, n := scan(s.text)
	tok := lexer.Token{Type: kind, Pos: s.pos}
	tok.Value = s.advance(n)
	switch kind {
	case tokOpen:
		s.depth++
	case tokClose:
		s.depth--
	}
	if s.depth > maxDepth {
		return tok, &lexer.Error{Msg: "blocks are nested too deeply", Pos: tok.Pos}
	}
	return tok, nil
}

// language is the lexer.Definition of conntrackd.conf.
type language struct{}

// Symbols names the kinds of tokens for the grammar.
func (language) Symbols() map[string]lexer.TokenType {
	symbols := map[string]lexer.TokenType{"EOF": lexer.EOF}
	for _, l := range lexicon {
		symbols[l.name] = l.kind
	}
	return symbols
}

// Lex reads all of r.
func (d language) Lex(name string, r io.Reader) (lexer.Lexer, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return d.LexBytes(name, text)
}

// LexBytes implements lexer.BytesDefinition.
func (language) LexBytes(name string, text []byte) (lexer.Lexer, error) {
	return &scanner{text: string(text), pos: lexer.Position{Filename: name, Line: 1, Column: 1}}, nil
}
