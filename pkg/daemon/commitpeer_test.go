package daemon

import (
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// A commit of one peer's entries that cannot be done says why, and fails.
func TestCommitPeerRefused(t *testing.T) {
	var log strings.Builder
	d := newTestDaemon(t, &fakeLink{room: 100}, &log)
	defer d.end()
	d.cfg.Node.Group = true
	d.sync.node = node.NewGroup(d.cfg.Node, 1, [2]uint64{1, 2})
	for operand, want := range map[string]string{
		"":          `"" is no address`,
		"foo\x1b":   `"foo\x1b" is no address`,
		"192.0.2.2": "192.0.2.2 is no peer",
	} {
		var text strings.Builder
		if err := d.onCommitPeer(t.Context(), &text, operand); err == nil || !strings.Contains(text.String(), want) {
			t.Errorf("%q: %v, the client reads %q, want %q", operand, err, text.String(), want)
		}
	}
	if log.Len() > 0 {
		t.Errorf("a client's mistake is in the log: %s", log.String())
	}
}
