// Package capture reads what two C daemons said to each other, decoded: the
// recordings in pkg/wire/testdata that replay tests follow.
package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/wire"
)

// Testdata is where the recordings are, from any package in pkg.
const Testdata = "../wire/testdata"

// Message is one message of a capture.
type Message struct {
	TS       float64 // seconds
	Src      string
	Type     uint8
	Flags    uint8
	Seq      uint32
	From, To uint32
	Attrs    []struct{ Name, Hex string }
	Raw      string // hex
}

// Header returns the header as it was sent.
func (m *Message) Header() wire.Header {
	return wire.Header{Type: m.Type, Flags: m.Flags, Seq: m.Seq, From: m.From, To: m.To}
}

// Object names the flow or the expectation of a data message.
func (m *Message) Object() string {
	var b strings.Builder
	fmt.Fprint(&b, m.Type >= wire.ExpNew)
	for _, a := range m.Attrs {
		switch a.Name {
		case "IPV4", "IPV6", "L4PROTO", "PORT", "ICMP_TYPE", "ICMP_CODE", "ICMP_ID":
			b.WriteString(" " + a.Name + a.Hex)
		}
		if strings.HasPrefix(a.Name, "EXP_") && strings.Contains(a.Name, "PORT") {
			b.WriteString(" " + a.Name + a.Hex)
		}
	}
	return b.String()
}

// Read returns a capture, in the order it was recorded.
func Read(t testing.TB, name string) (ms []Message) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(Testdata, "captures", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var m Message
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		ms = append(ms, m)
	}
	return ms
}
