package confparse

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"
)

// Load reads a conntrackd.conf. See Parse; a file that cannot be read is an
// error of package os.
func Load(path string) (*Config, []Warning, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, src)
}

// Parse reads the text of a conntrackd.conf, fills in the defaults and says
// what is odd about it. It looks at nothing but the text. The error is an
// *Error: what would stop conntrackd's clients too. What stops only the start
// is left to CheckStart. Name is the file in errors and warnings.
//
// Warnings are in the order of the file and are returned with an error too.
func Parse(name string, src []byte) (*Config, []Warning, error) {
	b := newBuilder(name, string(src))
	doc, err := read(name, src)
	if err == nil {
		err = b.document(doc)
	}
	slices.SortStableFunc(b.warnings, func(v, w Warning) int {
		return (v.Line-w.Line)<<20 + v.Column - w.Column
	})
	if err != nil {
		return nil, b.warnings, err
	}
	return b.cfg, b.warnings, nil
}

// builder fills a Config while it walks the tree.
type builder struct {
	cfg      *Config
	warnings []Warning
	text     string         // of the file
	end      lexer.Position // of the file
	open     []scope        // the blocks around the statement, outermost first
	swallow  *lexer.Token   // the first path that holds a brace
	sectionState
}

// scope is a block that is open.
type scope struct {
	where   string // the block that it is in
	key     lexer.Token
	heading string // UDP Default
}

func newBuilder(name, text string) *builder {
	b := &builder{cfg: defaults(), text: text}
	b.end = lexer.Position{Filename: name, Line: 1, Column: 1}
	b.end.Advance(text)
	return b
}

// document reads the sections and settles what they mean together.
func (b *builder) document(doc *document) error {
	if err := b.statements("", &cursor{items: doc.Items, end: b.end}); err != nil {
		return err
	}
	if doc.Stray.Type != 0 {
		return b.errorf(doc.Stray.Pos, "surplus `}': no block is open here")
	}
	b.finish()
	return nil
}

// statements reads the inside of a block.
func (b *builder) statements(where string, c *cursor) error {
	for it := c.next(); it != nil; it = c.next() {
		if it.Group != nil {
			return b.errorf(it.Group.Open.Pos, "`{' without a keyword before it")
		}
		r := rowOf(where, it.Token)
		if r == nil {
			return b.unknown(where, it.Token)
		}
		if err := b.statement(where, r, it.Token, c); err != nil {
			return err
		}
	}
	return nil
}

// statement reads what follows a keyword and applies it.
func (b *builder) statement(where string, r *row, key lexer.Token, c *cursor) error {
	if r.arg == 0 {
		v, _ := evaluate(key, word)
		v.key = key.Value
		return b.apply(r.set, v)
	}
	head, err := b.head(r, key, c)
	if err != nil {
		return err
	}
	it := c.peek()
	if it != nil && it.Group != nil && r.arg&block != 0 {
		return b.block(where, r, value{pos: key.Pos, key: key.Value, head: head, kind: block}, c.next().Group, key)
	}
	v, err := b.argument(r, key, c)
	if err != nil {
		return err
	}
	v.key, v.head = key.Value, head
	return b.apply(r.set, v)
}

// block opens a block, reads its inside and closes it.
func (b *builder) block(where string, r *row, v value, g *group, key lexer.Token) error {
	if r.set != nil {
		if err := b.apply(r.set, v); err != nil {
			return err
		}
	}
	b.open = append(b.open, scope{where, key, strings.TrimSpace(v.key + " " + v.head)})
	c := &cursor{items: g.Items, end: g.Close.Pos}
	if g.Close.Type == 0 {
		c.end = b.end
	}
	read := b.statements
	if r.skip {
		read = b.skip
	}
	if err := read(r.inside(where, v), c); err != nil {
		return err
	}
	if g.Close.Type == 0 {
		return b.unclosed(key)
	}
	if r.done != nil {
		if err := b.apply(r.done, v); err != nil {
			return err
		}
	}
	b.open = b.open[:len(b.open)-1]
	return nil
}

// skip passes over a block that is not for us.
func (b *builder) skip(where string, c *cursor) error {
	for it := c.next(); it != nil; it = c.next() {
		switch {
		case it.Group == nil && it.Token.Type == tokOther:
			return b.errorf(it.Token.Pos, "%s cannot be here", quote(it.Token.Value))
		case it.Group == nil && it.Token.Type == tokKeyword && rowOf("", it.Token) != nil:
			return b.unknown(where, it.Token)
		case it.Group == nil:
			continue
		}
		if err := b.skip(where, &cursor{items: it.Group.Items}); err != nil {
			return err
		}
	}
	return nil
}

// apply calls a row's function; its error gets the block, and the place
// unless it has one.
func (b *builder) apply(set func(*builder, value) error, v value) error {
	err := set(b, v)
	if err == nil {
		return nil
	}
	if placed := (*Error)(nil); errors.As(err, &placed) {
		return placed
	}
	return b.errorf(v.pos, "%s", err)
}

// head reads what is between the keyword and the brace or the argument.
func (b *builder) head(r *row, key lexer.Token, c *cursor) (string, error) {
	switch r.head {
	case headDefault:
		tok, _ := c.take("Default")
		return tok.Value, nil
	case headFrom:
		if _, ok := c.take("From"); !ok {
			return "", nil
		}
		if tok, ok := c.take("Userspace", "Kernelspace"); ok {
			return "From " + tok.Value, nil
		}
		return "", b.errorf(c.pos(), "Filter From needs Userspace or Kernelspace, not %s", b.found(c))
	case headPolicy:
		if tok, ok := c.take("Accept", "Ignore"); ok {
			return tok.Value, nil
		}
		return "", b.errorf(c.pos(), "%s needs Accept or Ignore, not %s", key.Value, b.found(c))
	case headMode:
		return b.mode(c)
	case headPeer:
		if it := c.peek(); it != nil && it.Group == nil {
			if v, ok := evaluate(it.Token, address); ok {
				c.next()
				return v.text, nil
			}
		}
	}
	return "", nil
}

// mode reads the name of a mode and returns today's.
func (b *builder) mode(c *cursor) (string, error) {
	it := c.peek()
	if it != nil && it.Group == nil && (it.Token.Type == tokMode || it.Token.Type == tokWord) {
		for _, m := range modes {
			if !strings.EqualFold(m.name, it.Token.Value) {
				continue
			}
			if m.name != m.mode.String() {
				b.warnf(it.Token.Pos, "mode %s is called %s today", quote(it.Token.Value), m.mode)
			}
			c.next()
			return m.mode.String(), nil
		}
	}
	return "", b.errorf(c.pos(), "Mode needs FTFW, ALARM or NOTRACK, not %s", b.found(c))
}

// argument reads the one token after a keyword.
func (b *builder) argument(r *row, key lexer.Token, c *cursor) (v value, err error) {
	it := c.peek()
	if it == nil || it.Group != nil {
		return v, b.errorf(c.pos(), "%s needs %s, not %s", key.Value, r.arg.exact(), b.found(c))
	}
	tok := it.Token
	v, ok := evaluate(tok, r.arg)
	if !ok {
		return v, b.misfit(r, key, tok)
	}
	c.next()
	switch {
	case v.kind == path:
		b.checkPath(tok)
	case v.kind == number && overflows(v.text):
		b.warnf(tok.Pos, "%s does not fit in 32 bits and is read as %d", v.text, v.n)
	}
	// A stranger right after the value belongs to it: 0x1000, 32k, 1.2.3.4.5.
	if next := c.peek(); next != nil && next.Group == nil && next.Token.Type != tokKeyword &&
		tok.Type != tokQuoted && next.Token.Pos.Offset == endOf(tok) {
		return v, b.misfit(r, key, tok)
	}
	return v, nil
}

// found describes what comes instead of what should.
func (b *builder) found(c *cursor) string {
	switch it := c.peek(); {
	case it != nil && it.Group != nil:
		return "`{'"
	case it != nil:
		return quote(b.run(it.Token))
	case c.end == b.end:
		return "the end of the file"
	default:
		return "`}'"
	}
}

// run returns the token with all that is glued to it.
func (b *builder) run(tok lexer.Token) string {
	rest := b.text[tok.Pos.Offset:]
	if n := strings.IndexAny(rest[len(tok.Value):], " \t\r\n{}\""); n >= 0 {
		return rest[:len(tok.Value)+n]
	}
	return rest
}
