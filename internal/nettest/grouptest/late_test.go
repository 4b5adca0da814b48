package grouptest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestLateMember starts a node of a group before it has its address, told to
// wait for it. It finds the others, and they it, when the address comes.
func TestLateMember(t *testing.T) {
	for _, over := range []transport{multicast4, udp4, udp6} {
		t.Run(over.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{over: over, kinds: ours(3), change: func(i int, cfg *nettest.Config) {
				if i == 2 {
					cfg.Ours = append(cfg.Ours, "WaitForInterface on")
				}
			}})
			late := r.members[2]
			prefix := fmt.Sprintf("%s/%d", late.addr, map[bool]int{false: 24, true: 64}[over.v6])
			r.ok(late.Node.DelAddr(nettest.SyncIf, prefix))
			r.start(r.members...)
			r.each(r.members, func(m *member) error { return m.life(300) })
			r.eventually("the late node to know its own flows", func() error {
				_, err := late.inStep(r.Context())
				return err
			})
			if link := r.request(late, "-s", "link"); !strings.Contains(link, "status=DOWN") {
				t.Errorf("the link is said to be:\n%s", link)
			}
			r.ok(late.Node.AddAddr(nettest.SyncIf, prefix))
			r.exact("all", r.members...)
			r.each(r.members, func(m *member) error { return m.life(300) })
			r.exact("all changes", r.members...)
		})
	}
}
