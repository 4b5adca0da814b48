package link

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// capabilities are those that the shipped unit may name.
var capabilities = map[string]int{
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
	"CAP_NET_RAW":   unix.CAP_NET_RAW,
	"CAP_SYS_NICE":  unix.CAP_SYS_NICE,
}

// likeTheUnit takes from the thread of a namespace all privileges that a daemon
// has not that is started by contrib/conntrackgo.service. What the thread
// executes has them all.
func (n *namespace) likeTheUnit(t *testing.T) {
	t.Helper()
	unit, err := os.ReadFile("../../contrib/conntrackgo.service")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.+)$`).FindSubmatch(unit)
	if line == nil {
		t.Fatal("the unit has no CapabilityBoundingSet")
	}
	var data [2]unix.CapUserData
	for _, name := range strings.Fields(string(line[1])) {
		number, ok := capabilities[name]
		if !ok {
			t.Fatalf("the unit has %s, which this test does not know", name)
		}
		data[number/32].Effective |= 1 << (number % 32)
	}
	for i := range data {
		data[i].Permitted = data[i].Effective
	}
	n.do(func() {
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
			t.Errorf("set capabilities: %v", err)
		}
	})
}

// inside sends from within a namespace, with its privileges.
type inside struct {
	Link
	ns *namespace
}

func (l inside) Send(batch [][]byte) (n int, err error) {
	l.ns.do(func() { n, err = l.Link.Send(batch) })
	return n, err
}

// TestInterfaceComesBackToTheUnit: what the shipped unit leaves of root is enough
// for every link to follow an interface that is made anew. For a socket that is
// bound to one already the kernel asks for CAP_NET_RAW.
func TestInterfaceComesBackToTheUnit(t *testing.T) {
	for _, c := range []struct {
		name           string
		a, b           Config
		localA, localB string
	}{
		{"UDP", ends("10.9.0.1", "10.9.0.2"), ends("10.9.0.2", "10.9.0.1"), "10.9.0.1", "10.9.0.2"},
		{"UDP link-local", ends("fe80::1", "fe80::2"), ends("fe80::2", "fe80::1"), "fe80::1", "fe80::2"},
		{"Multicast", group("225.0.0.50", "10.9.0.1"), group("225.0.0.50", "10.9.0.2"), "10.9.0.1", "10.9.0.2"},
		{"Multicast6", group("ff02::50", ""), group("ff02::50", ""), "fe80::1", "fe80::2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nsA, nsB := pair(t)
			nsA.likeTheUnit(t)
			nsB.likeTheUnit(t)
			a, b := inside{nsA.open(t, c.a), nsA}, inside{nsB.open(t, c.b), nsB}
			comeBack(t, nsA, nsB, a, b, c.localA, c.localB)
		})
	}
	t.Run("TCP", func(t *testing.T) {
		nsA, nsB := pair(t)
		nsA.likeTheUnit(t)
		nsB.likeTheUnit(t)
		a, b := nsA.connected(t, nsB, "10.9.0.1", "10.9.0.2")
		comeBackTCP(t, nsA, nsB, a, b)
	})
}
