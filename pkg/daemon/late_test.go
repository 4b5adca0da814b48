package daemon

import (
	"errors"
	"strings"
	"testing"
)

// jumbo is a link that turns out to take more than was assumed.
type jumbo struct{ fakeLink }

func (*jumbo) Name() string { return "sync0" }
func (*jumbo) MTU() int     { return 8972 }

// TestLateLink: what is waited for has a line, and when it is there datagrams
// become as large as they can.
func TestLateLink(t *testing.T) {
	var log strings.Builder
	l := &jumbo{}
	d := newTestDaemon(t, l, &log)
	defer d.end()
	if d.linkConfig().Wait != nil {
		t.Error("it waits, and nobody has told it to")
	}
	d.cfg.WaitForInterface = true
	say := d.linkConfig().Wait
	opened := d.sync
	d.sync = nil // as it is then
	say(l, errors.New("no such thing"))
	d.sync = opened
	if d.sync.size != 1472 || !strings.Contains(log.String(), "[warning] sync link on sync0 is not there yet: waiting for it (no such thing)") {
		t.Errorf("size %d, log %s", d.sync.size, log.String())
	}
	say(l, nil)
	if d.sync.size != 8972 || !strings.Contains(log.String(), "[notice] sync link on sync0 is open now") {
		t.Errorf("size %d, log %s", d.sync.size, log.String())
	}
}
