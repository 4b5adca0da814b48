package confparse

import (
	"fmt"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"
)

// errorf makes an error that names the block: in Sync { UDP {: text.
func (b *builder) errorf(pos lexer.Position, format string, args ...any) *Error {
	return errorAt(pos, b.context()+fmt.Sprintf(format, args...))
}

// warnf warns of something that conntrackd warns its clients of, too.
func (b *builder) warnf(pos lexer.Position, format string, args ...any) {
	e := b.errorf(pos, format, args...)
	b.warnings = append(b.warnings, Warning{File: e.File, Line: e.Line, Column: e.Column, Text: e.Text})
}

// advisef warns of something that concerns who starts the daemon only.
func (b *builder) advisef(pos lexer.Position, format string, args ...any) {
	b.warnf(pos, format, args...)
	b.warnings[len(b.warnings)-1].AtStart = true
}

// refuseStart keeps what CheckStart is to say.
func (b *builder) refuseStart(pos lexer.Position, format string, args ...any) {
	b.cfg.refusals = append(b.cfg.refusals, b.errorf(pos, format, args...))
}

func (b *builder) context() string {
	if len(b.open) == 0 {
		return ""
	}
	text := "in"
	for _, s := range b.open {
		text += " " + s.heading + " {"
	}
	return text + ": "
}

// unknown says what is wrong with a token that starts no statement here.
func (b *builder) unknown(where string, tok lexer.Token) error {
	text := b.run(tok)
	ours := tok.Type == tokKeyword || tok.Type == tokSwitch || tok.Type == tokMode
	if ours {
		text = tok.Value
	}
	switch {
	case retired[text] != "":
		return b.errorf(tok.Pos, "%s is a word of old versions that no longer exists: %s", quote(text), retired[text])
	case tok.Type == tokKeyword && b.unfinished(where, tok) != nil:
		open := b.unfinished(where, tok)
		return b.errorf(tok.Pos, "section %s cannot be in here; is the `}' of %s missing, which was opened in line %d?%s",
			quote(text), open.Value, open.Pos.Line, b.swallowed())
	case ours && index[where]["*"] != nil:
		return b.errorf(tok.Pos, "%s is no name here%s", quote(text), reserved(text))
	case tok.Type == tokKeyword && len(homes(text)) > 0:
		return b.errorf(tok.Pos, "%s does not belong here; it goes in %s", quote(text), strings.Join(homes(text), " or "))
	case !ours && tok.Type != tokWord:
		return b.errorf(tok.Pos, "%s is not a keyword%s", quote(text), b.whyNot(where, tok))
	case where == "":
		return b.errorf(tok.Pos, "unknown section %s%s", quote(text), suggest(text, wordsOf(where)))
	default:
		return b.errorf(tok.Pos, "unknown keyword %s%s%s", quote(text), suggest(text, wordsOf(where)), b.swallowed())
	}
}

// unfinished returns the keyword of the innermost open block, if tok opens a
// block that would be right after its end or after that of one around it. In
// a list of names only a section is so; other words are meant as names.
func (b *builder) unfinished(where string, tok lexer.Token) *lexer.Token {
	names := index[where]["*"] != nil
	for _, s := range b.open {
		if names && s.where != "" {
			break
		}
		if r := rowOf(s.where, tok); r != nil && r.arg&block != 0 {
			return &b.open[len(b.open)-1].key
		}
	}
	return nil
}

// whyNot explains some tokens where a keyword should be.
func (b *builder) whyNot(where string, tok lexer.Token) string {
	switch {
	case where == "General/Filter/Protocol" && tok.Type == tokNumber:
		if name := protocolName(integer(tok.Value)); name != "" {
			return "; protocols are listed by name: " + name
		}
		return "; protocols are listed by name"
	case tok.Value == `"`:
		return "; the quotes are not closed"
	}
	return b.swallowed()
}

// misfit says what is wrong with a token in the place of an argument.
func (b *builder) misfit(r *row, key, tok lexer.Token) error {
	text, hint := b.run(tok), ""
	switch {
	case tok.Value == `"`:
		hint = "; the quotes are not closed"
	case tok.Type == tokKeyword || tok.Type == tokSwitch || tok.Type == tokMode:
		text = tok.Value
		if r.arg&word != 0 {
			hint = reserved(text)
		}
	case r.arg&address != 0 && tok.Type == tokWord:
		hint = "; host names are not looked up"
	}
	return b.errorf(tok.Pos, "%s needs %s, not %s%s", key.Value, r.arg.exact(), quote(text), hint)
}

// reserved says how to use a word of the language as a name.
func reserved(text string) string {
	return fmt.Sprintf(`; that is a word of the language; put it in quotes if it is a name: "%s"`, text)
}

// unclosed says that the file ends within the block that key opened.
func (b *builder) unclosed(key lexer.Token) error {
	return b.errorf(b.end, "the file ends before the `}' of %s, which was opened in line %d%s",
		key.Value, key.Pos.Line, b.swallowed())
}

// checkPath warns of a path that goes on where a person sees its end.
func (b *builder) checkPath(tok lexer.Token) {
	if tok.Type != tokPath {
		return
	}
	i := strings.IndexAny(tok.Value, "\t\r#{}")
	if i < 0 {
		return
	}
	if b.swallow == nil {
		b.swallow = &tok
	}
	b.advisef(tok.Pos, "the path is %s, with the %s: a path ends at a space, a quote or the end of the line",
		quote(tok.Value), oddNames[tok.Value[i]])
}

var oddNames = map[byte]string{'\t': "tab", '\r': "carriage return", '#': "`#'", '{': "`{'", '}': "`}'"}

// swallowed points at a path that may have taken more than was meant.
func (b *builder) swallowed() string {
	if b.swallow == nil {
		return ""
	}
	return fmt.Sprintf(" (the path in line %d is %s: put a space after what you mean)", b.swallow.Pos.Line, quote(b.swallow.Value))
}
