package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/conntrackgo/conntrackgo/pkg/link"
)

func TestName(t *testing.T) {
	links := func(local string) []link.Config {
		return []link.Config{{Transport: link.UDP, Interface: "lo", Local: netip.MustParseAddr(local), Port: 3780}}
	}
	now := time.Unix(1700000000, 5)
	a := nameOf(links("10.9.0.1"), now)
	if again := nameOf(links("10.9.0.1"), now.Add(time.Minute)); again.Node != a.Node || again.Epoch == a.Epoch {
		t.Errorf("%x, after a restart %x", a, again)
	}
	if other := nameOf(links("10.9.0.2"), now); other.Node == a.Node {
		t.Errorf("another address, and the same name %x", a.Node)
	}
	late := links("10.9.0.1")
	late[0].Interface = "nosuch0"
	if nameOf(late, now).Node == nameOf(late, now.Add(1)).Node {
		t.Error("two copies of a machine whose interface is not there have one name")
	}
	two := append(links("10.9.0.1"), late...)
	if nameOf(two, now).Node != nameOf(two, now.Add(1)).Node {
		t.Error("another name at each start, as one of two interfaces is not there")
	}
	if a.Node == 0 || nameOf(nil, now).Node == 0 {
		t.Error("a name that names nobody")
	}
}
