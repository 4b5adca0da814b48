package daemon

import (
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/link"
	"github.com/conntrackgo/conntrackgo/pkg/node"
)

// working is a configuration that the daemon does all of.
func working() *confparse.Config {
	return &confparse.Config{
		Sync:  true,
		Node:  node.Config{Mode: node.FTFW},
		Links: []link.Config{{Transport: link.UDP, Interface: "eth2"}},
	}
}

func TestCheckSupported(t *testing.T) {
	tests := []struct {
		name   string
		change func(*confparse.Config)
		want   []string // nil: accepted
	}{
		{"FTFW over UDP", func(*confparse.Config) {}, nil},
		{"no Sync", func(c *confparse.Config) { *c = confparse.Config{} }, nil},
		{"Stats", func(c *confparse.Config) { *c = confparse.Config{Stats: true} }, []string{"Stats mode", "conntrack -E", "ulogd2"}},
		{"ALARM", func(c *confparse.Config) { c.Node.Mode = node.ALARM }, nil},
		{"NOTRACK", func(c *confparse.Config) { c.Node.Mode = node.NOTRACK }, nil},
		{"DisableInternalCache", func(c *confparse.Config) { c.Node.Mode, c.Node.DisableInternalCache = node.NOTRACK, true }, nil},
		{"DisableExternalCache", func(c *confparse.Config) { c.Node.DisableExternalCache = true }, nil},
		{"two links", func(c *confparse.Config) { c.Links = append(c.Links, c.Links[0]) }, nil},
		{"multicast", func(c *confparse.Config) { c.Links[0].Transport = link.Multicast }, nil},
		{"TCP", func(c *confparse.Config) { c.Links[0].Transport = link.TCP }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := working()
			test.change(cfg)
			err := checkSupported(cfg)
			if (err == nil) != (test.want == nil) {
				t.Fatalf("got %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not mention %q", err, want)
				}
			}
			if err != nil && !strings.Contains(err.Error(), "is not supported: ") {
				t.Errorf("%q does not say what to do instead", err)
			}
		})
	}
}
