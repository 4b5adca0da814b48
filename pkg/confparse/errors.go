package confparse

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/alecthomas/participle/v2/lexer"
)

// Error is why a file is refused. Line and Column count from 1; a column is a
// character, a tab being one.
type Error struct {
	File         string
	Line, Column int
	Text         string
}

// Error returns file:line:column: text.
func (e *Error) Error() string { return located(e.File, e.Line, e.Column, e.Text) }

// String returns file:line:column: text.
func (w Warning) String() string { return located(w.File, w.Line, w.Column, w.Text) }

func located(file string, line, column int, text string) string {
	return fmt.Sprintf("%s:%d:%d: %s", file, line, column, text)
}

func errorAt(pos lexer.Position, text string) *Error {
	return &Error{File: pos.Filename, Line: pos.Line, Column: pos.Column, Text: text}
}

// quote marks text of the file: `text', or "te\x00t" if it has characters
// that a terminal does not show.
func quote(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return "`" + text + "'"
}

// suggest adds what may have been meant to a message about an unknown word.
func suggest(word string, known []string) string {
	best, bestDistance := "", 3 // more than two edits is another word
	if len(word) < 6 {
		bestDistance = 2
	}
	lower := strings.ToLower(word)
	for _, k := range known {
		d := bestDistance
		switch n := len(k) - len(word); {
		case len(word) >= 4 && strings.HasPrefix(strings.ToLower(k), lower):
			d = min(n, 1)
		case n < bestDistance && -n < bestDistance:
			d = distance(lower, strings.ToLower(k))
		}
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + quote(best) + "?"
}

// distance counts the letters to insert, delete or replace, and the pairs of
// neighbours to swap, that make a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
