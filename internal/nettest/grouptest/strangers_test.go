package grouptest_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/conntrackgo/conntrackgo/internal/nettest"
)

// TestStrangers has a daemon speak on the multicast group that knows pairs
// only: a C daemon, or one of ours without Group. The group says who that is,
// takes nothing from it, and is in step as if it were not there.
func TestStrangers(t *testing.T) {
	for _, over := range []transport{multicast4, multicast6} {
		for _, kind := range []nettest.Kind{nettest.C, nettest.Go} {
			t.Run(fmt.Sprintf("%s/%s", over, kind), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, setup{over: over, kinds: []nettest.Kind{nettest.Go, nettest.Go, kind}, change: func(i int, cfg *nettest.Config) {
					if i == 2 {
						cfg.Ours = nil
					}
				}})
				group, stranger := r.members[:2], r.members[2]
				r.start(r.members...)
				r.each(r.members, func(m *member) error { return m.life(150) })
				r.exact("the group", group...)
				for _, m := range group {
					r.eventually("a line about the stranger", func() error { return r.complains(m, stranger) })
				}
				r.each(r.members, func(m *member) error { return m.life(150) })
				r.exact("the group", group...)
				external, err := stranger.External(r.Context())
				r.ok(err)
				if len(external) > 0 {
					t.Errorf("the stranger was told of %d flows", len(external))
				}
				if found := badSize.FindStringSubmatch(r.request(stranger, "-s", "network")); found == nil || found[1] == "0" {
					t.Errorf("the stranger has not refused announcements: %v", found)
				}
			})
		}
	}
}

var badSize = regexp.MustCompile(`Bad message size:\s+(\d+)`)

// complains fails unless a member has logged whose datagrams it does not take,
// and counts them.
func (r *rig) complains(m, stranger *member) error {
	log, err := m.Messages()
	if err != nil {
		return err
	}
	h, err := m.health(r.Context())
	if err != nil {
		return err
	}
	if h.group["strangers"] == "0" || h.group["last-stranger"] != stranger.addr.String() {
		return fmt.Errorf("%s says %v", m, h.group)
	}
	for _, line := range log {
		if strings.Contains(line, "from "+stranger.addr.String()) && strings.Contains(line, "Group on") {
			return nil
		}
	}
	return fmt.Errorf("%s says\n%s", m, strings.Join(log, "\n"))
}
