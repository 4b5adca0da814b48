package confparse

import (
	"strings"
	"testing"

	"github.com/alecthomas/participle/v2/lexer"
)

// tokens renders a text as Kind:value words.
func tokens(t *testing.T, text string) string {
	t.Helper()
	names := lexer.SymbolsByRune(language{})
	lex, err := language{}.Lex("x", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all, err := lexer.ConsumeAll(lex)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, tok := range all[:len(all)-1] {
		if got := text[tok.Pos.Offset:endOf(tok)]; got != tok.Value {
			t.Errorf("token %q is at the place of %q", tok.Value, got)
		}
		words = append(words, names[tok.Type]+":"+tok.Value)
	}
	return strings.Join(words, " ")
}

func TestTokens(t *testing.T) {
	tests := []struct{ text, want string }{
		// Keywords are exact; they beat switches, modes and words of their
		// length, and a longer word beats them.
		{"Sync sync SyncX", "Keyword:Sync Word:sync Word:SyncX"},
		{"for For forTCP", "Keyword:for Word:For Word:forTCP"},
		{"HashSize-5", "Word:HashSize-5"},
		{"IPv4_Destination_Address IPv4_address", "Keyword:IPv4_Destination_Address Keyword:IPv4_address"},
		{"Default From Accept", "Keyword:Default Keyword:From Keyword:Accept"},
		// Switches and modes in any letter case.
		{"on YES oFf nO", "Switch:on Switch:YES Switch:oFf Switch:nO"},
		{"once true onX", "Word:once Word:true Word:onX"},
		{"ftfw ALARM NoTrack nack ftfw2", "Mode:ftfw Mode:ALARM Mode:NoTrack Mode:nack Word:ftfw2"},
		// Numbers.
		{"0 0123 4294967296", "Number:0 Number:0123 Number:4294967296"},
		{"0x1000", "Number:0 Word:x1000"},
		{"32k", "Number:32 Word:k"},
		{"-15 +10 - 5", "Signed:-15 Signed:+10 Other:- Number:5"},
		{"5HashLimit", "Number:5 Keyword:HashLimit"},
		{"5Checksum", "IPv6:5C Word:hecksum"},
		// Paths take everything up to a space, a line feed or a quote.
		{"/a/b }", "Path:/a/b Close:}"},
		{"/a} {/b", "Path:/a} Open:{ Path:/b"},
		{"/a\t#b x", "Path:/a\t#b Word:x"},
		{"/a\r\n/b#c", "Path:/a\r Path:/b#c"},
		{"/a\"b\"", `Path:/a Quoted:"b"`},
		{"/", "Path:/"},
		{"a/b", "IPv6:a Path:/b"},
		// Releases: three numbers, no more and no fewer.
		{"1.4.6 1.4.6.7 1.4 1.4.x", "Release:1.4.6 IPv4:1.4.6.7 Number:1 Other:. Number:4 Number:1 Other:. Number:4 Other:. Word:x"},
		// Addresses.
		{"1.2.3.4 300.1.1.1 010.0.0.1", "IPv4:1.2.3.4 IPv4:300.1.1.1 IPv4:010.0.0.1"},
		{"10.0.0.0/8 1.2.3", "IPv4:10.0.0.0/8 Release:1.2.3"},
		{"1.2.3.4.5", "IPv4:1.2.3.4 Other:. Number:5"},
		{"1.2.3.4/ 5", "IPv4:1.2.3.4 Path:/ Number:5"},
		{"127.0.0.1IPv6_address", "IPv4:127.0.0.1 Keyword:IPv6_address"},
		{":: ::1 fe80::/10 FD00:0:0:0:0:0:0:1", "IPv6::: IPv6:::1 IPv6:fe80::/10 IPv6:FD00:0:0:0:0:0:0:1"},
		{"1:2:3 1::2: 1:::", "IPv6:1:2:3 IPv6:1::2: IPv6:1:::"},
		{"12345::1 1::12345", "IPv6:12345::1 IPv6:1::12345"},
		{"1:2:3:4:5:6:7:8:9", "IPv6:1:2:3:4:5:6:7:8 Other:: Number:9"},
		{"1::2::3", "IPv6:1::2: Other:: Number:3"},
		{"1: :1", "Number:1 Other:: Other:: Number:1"},
		{"fe80::1%eth2", "IPv6:fe80::1%eth2"},
		{"::ffff:1.2.3.4 64:ff9b::192.0.2.1/120", "IPv6:::ffff:1.2.3.4 IPv6:64:ff9b::192.0.2.1/120"},
		// One to four hex digits are an address, digits alone a number.
		{"fab0 dead ace b0 1ab", "IPv6:fab0 IPv6:dead IPv6:ace IPv6:b0 IPv6:1ab"},
		{"fab01 abcde 1234 fab0.1 face-1", "Word:fab01 Word:abcde Number:1234 Word:fab0.1 Word:face-1"},
		// Words.
		{"bond0.100 br-lan netbios_ns q.931", "Word:bond0.100 Word:br-lan Word:netbios_ns Word:q.931"},
		{"eth0:1 x@y _a", "Word:eth0 Other:: Number:1 Word:x Other:@ Word:y Other:_ IPv6:a"},
		// Blanks and comments.
		{"a1x#b\nc1x", "Word:a1x Word:c1x"},
		{"a1x # no line feed", "Word:a1x"},
		{"# { \"\r\n}\r\n", "Close:}"},
		{"\uFEFFon\u00A0off", "Switch:on Switch:off"},
		{"on\fon", "Switch:on Other:\f Switch:on"},
		// Quotes.
		{`"a b" "" "Port`, `Quoted:"a b" Quoted:"" Other:" Keyword:Port`},
		{"\"a\nb\"", "Other:\" IPv6:a IPv6:b Other:\""},
		{"é\x00\xff", "Other:é Other:\x00 Other:\xff"},
		{"Sync{Mode FTFW{}}", "Keyword:Sync Open:{ Keyword:Mode Mode:FTFW Open:{ Close:} Close:}"},
	}
	for _, tt := range tests {
		if got := tokens(t, tt.text); got != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", tt.text, got, tt.want)
		}
	}
}

func TestNesting(t *testing.T) {
	for _, depth := range []int{maxDepth, maxDepth + 1, 1 << 20} {
		src := "Helper " + strings.Repeat("{", depth) + strings.Repeat("}", depth)
		_, _, err := Parse("x", []byte(src))
		if (err != nil) != (depth > maxDepth) {
			t.Errorf("depth %d: %v", depth, err)
		}
		if err != nil && !strings.HasSuffix(err.Error(), ":108: blocks are nested too deeply") {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}
