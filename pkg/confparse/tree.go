package confparse

import (
	"errors"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// document is a file as a tree of tokens and braces. Which tokens make up a
// statement depends on the keyword and on the block it is in, so that is left
// to the table of keywords (docs/decisions/0010-config-parser.md).
type document struct {
	Items []*item     `parser:"@@*"`
	Stray lexer.Token `parser:"@Close?"` // a brace that closes nothing; the rest is not read
}

// item is a token or a block.
type item struct {
	Token lexer.Token `parser:"( @(Keyword | Switch | Number | Signed | IPv4 | IPv6 | Release | Path | Mode | Word | Quoted | Other)"`
	Group *group      `parser:"| @@ )"`
}

// group is what is between braces. Close is zero if the file ends before it.
type group struct {
	Open  lexer.Token `parser:"@Open"`
	Items []*item     `parser:"@@*"`
	Close lexer.Token `parser:"@Close?"`
}

var grammar = participle.MustBuild[document](participle.Lexer(language{}))

// read parses the tree of a file. Braces that do not match are left to the
// caller, who knows what they belong to and what was wrong before them.
func read(name string, src []byte) (*document, error) {
	doc, err := grammar.ParseBytes(name, src, participle.AllowTrailing(true))
	if located := (participle.Error)(nil); errors.As(err, &located) {
		return nil, errorAt(located.Position(), located.Message())
	}
	return doc, err
}

// cursor walks the items of one block.
type cursor struct {
	items []*item
	end   lexer.Position // of the closing brace, or of the end of the file
}

func (c *cursor) peek() *item {
	if len(c.items) == 0 {
		return nil
	}
	return c.items[0]
}

func (c *cursor) next() *item {
	it := c.peek()
	if it != nil {
		c.items = c.items[1:]
	}
	return it
}

// take consumes the next token if it is one of the given keywords.
func (c *cursor) take(words ...string) (tok lexer.Token, ok bool) {
	it := c.peek()
	if it == nil || it.Group != nil || it.Token.Type != tokKeyword {
		return tok, false
	}
	for _, w := range words {
		if it.Token.Value == w {
			return c.next().Token, true
		}
	}
	return tok, false
}

// pos is where the next item is.
func (c *cursor) pos() lexer.Position {
	switch it := c.peek(); {
	case it == nil:
		return c.end
	case it.Group != nil:
		return it.Group.Open.Pos
	default:
		return it.Token.Pos
	}
}

func endOf(tok lexer.Token) int { return tok.Pos.Offset + len(tok.Value) }
