package confparse

import (
	"slices"
	"strings"

	"github.com/alecthomas/participle/v2/lexer"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// row is one keyword. Everything there is to know about it is here: the
// lexer's keywords, the grammar of each block, the suggestions in errors and
// docs/configuration.md come from the rows.
type row struct {
	in    string   // the blocks it is allowed in, with ", " between them
	words string   // the keyword, then its older spellings; * is any name
	arg   argument // zero: the keyword stands alone
	head  head     // between the keyword and the brace or argument
	skip  bool     // the inside is passed over
	set   func(*builder, value) error
	done  func(*builder, value) error // after the block
	// For the reference: the value without the keyword, its meaning.
	absent, help string
}

// head is what may be between a keyword and its brace or argument.
type head uint8

const (
	headDefault head = iota + 1 // [ Default ]
	headFrom                    // [ From Userspace|Kernelspace ]
	headPolicy                  // Accept|Ignore
	headMode                    // a mode
	headPeer                    // [ address ]
)

// headWords are the keywords that are no rows.
var headWords = []string{"Default", "From", "Userspace", "Kernelspace", "Accept", "Ignore"}

// modes are the names of modes, in any letter case.
var modes = []struct {
	name string
	mode node.Mode
}{
	{"FTFW", node.FTFW},
	{"ALARM", node.ALARM},
	{"NOTRACK", node.NOTRACK},
	{"nack", node.FTFW},
	{"persistent", node.ALARM},
}

// inside returns the path of the block that the row opens.
func (r *row) inside(where string, v value) string {
	p := v.key
	if r.head == headMode {
		p += " " + v.head
	}
	if where == "" {
		return p
	}
	return where + "/" + p
}

// table has all rows, in the order of the reference.
var table = slices.Concat(sectionRows, generalRows, filterRows, syncRows, linkRows, statsRows, helperRows, ourRows)

// index is the table by block and word.
var index = func() map[string]map[string]*row {
	byBlock := map[string]map[string]*row{}
	for i := range table {
		for _, in := range strings.Split(table[i].in, ", ") {
			if byBlock[in] == nil {
				byBlock[in] = map[string]*row{}
			}
			for _, w := range strings.Fields(table[i].words) {
				byBlock[in][w] = &table[i]
			}
		}
	}
	return byBlock
}()

// ourWords are the keywords that conntrackd does not have. They can be names,
// as they can in its files.
var ourWords = func() map[string]bool {
	words := map[string]bool{}
	for i, r := range table {
		for _, w := range strings.Fields(r.words) {
			known, again := words[w]
			words[w] = i >= len(table)-len(ourRows) && (known || !again)
		}
	}
	return words
}()

// rowOf returns the row that a token names in a block, or nil.
func rowOf(where string, tok lexer.Token) *row {
	if r := index[where][tok.Value]; r != nil && tok.Type == tokKeyword {
		return r
	}
	if name := index[where]["*"]; name != nil {
		if _, ok := evaluate(tok, word); ok {
			return name
		}
	}
	return nil
}

// keywords returns every word that the lexer must not take for a name.
func keywords() []string {
	words := slices.Clone(headWords)
	for _, r := range table {
		for _, w := range strings.Fields(r.words) {
			if w != "*" && !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
	}
	return words
}

// wordsOf returns the keywords of a block in the order of the table.
func wordsOf(where string) (words []string) {
	for _, r := range table {
		if slices.Contains(strings.Split(r.in, ", "), where) {
			words = append(words, strings.Fields(r.words)...)
		}
	}
	return words
}

// homes returns the blocks that know a word, as General { UNIX {.
func homes(word string) (blocks []string) {
	for _, r := range table {
		if !slices.Contains(strings.Fields(r.words), word) {
			continue
		}
		for _, in := range strings.Split(r.in, ", ") {
			if in != "" {
				blocks = append(blocks, strings.ReplaceAll(in, "/", " { ")+" {")
			}
		}
	}
	return blocks
}

// retired are the words of conntrackd 1.4.2 and before that 1.4.7 refuses,
// and what to write instead.
var retired = map[string]string{
	"IgnoreProtocol":       "use General { Filter { Protocol Ignore { ... } } }",
	"IgnoreTrafficFor":     "use General { Filter { Address Ignore { ... } } }",
	"Replicate":            "use General { Filter { State Accept { ... for TCP } } }",
	"ResendBufferSize":     "use ResendQueueSize, which counts objects",
	"McastSndSocketBuffer": "use SndSocketBuffer in the link",
	"McastRcvSocketBuffer": "use RcvSocketBuffer in the link",
	"CacheWriteThrough":    "use DisableExternalCache in the mode",
	"StripNAT":             "remove it",
	"RelaxTransitions":     "remove it",
	"DelayDestroyMessages": "remove it",
	"ListenTo":             "remove it; the link's addresses say where to listen",
	"Family":               "remove it; both families are tracked",
	"LogFileBufferSize":    "remove it",
	"DestroyTimeout":       "remove it",
}

// sectionRows are the sections.
var sectionRows = []row{
	{
		words: "General", arg: block,
		help: "The daemon itself: logging, control socket, netlink, event filter. The section may be repeated; the parts are merged.",
	},
	{
		words: "Sync", arg: block, set: openSync,
		help: "Synchronisation: one or more modes, one to four links, options. May be repeated; the parts are merged.",
	},
	{
		words: "Stats", arg: block, set: openStats,
		help: "Statistics mode: destroyed flows are logged. Not together with Sync.",
	},
	{
		words: "Helper", arg: block, skip: true, set: openHelper,
		help: "Connection tracking helpers in user space. The section is accepted with a warning and not run.",
	},
}
